"""Reading stories: every problem has its line, its column and, if a word is misspelt, the nearest one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.chart_file.windows import parse_calendar
from app.core.errors import ChartFileError
from app.lab.play import play
from app.lab.story import BEGINNING, Passing, Saying, Story, read_story

CHART = b"""chart: web
current_state: reboot
states:
  - name: reboot
    func: increment
    slots: 2
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: halted, when: {key: failed, value: 1}}, {name: done, when: {key: count, value: 3}}]
  - name: halted
  - name: done
"""


def load(file: str) -> bytes:
    if file != "web.yaml":
        raise FileNotFoundError(2, "No such file or directory")
    return CHART


def read(text: str) -> Story:
    return read_story(f"chart: web.yaml\n{text}", load)


def problems(text: str) -> list[str]:
    with pytest.raises(ChartFileError) as caught:
        read_story(text, load)
    return [str(problem) for problem in caught.value.problems]


def in_steps(*steps: str) -> str:
    lines = "".join(f"      - {step}\n" for step in steps)
    return f"chart: web.yaml\nmachines: [m1, m2]\nstory:\n  - name: x\n    steps:\n{lines}"


def test_story_is_read_with_its_defaults() -> None:
    story = read("story: [{name: first, steps: [{put: {machine: m1}}, {pass: 30m}]}]\nnever: halted\n")
    (tale,) = story.tales
    assert (story.chart.name, tale.name, tale.start, tale.never) == ("web", "first", BEGINNING, {"halted"})
    assert [step.doing for step in tale.steps] == [
        Saying(verb="put", machines=("m1",)),
        Passing(span=tale.steps[1].doing.span),  # type: ignore[union-attr]
    ]


def test_range_names_its_machines() -> None:
    (tale,) = read("story: [{name: x, steps: [{claim: {machine: [a, web-08..web-11]}}]}]").tales
    doing = tale.steps[0].doing
    assert isinstance(doing, Saying)
    assert doing.machines == ("a", "web-08", "web-09", "web-10", "web-11")


def test_tale_may_begin_at_its_own_time() -> None:
    text = 'start: 2030-01-01\nstory: [{name: x, steps: []}, {name: y, start: "2031-01-01T01:00:00+01:00", steps: []}]'
    starts = [tale.start for tale in read(text).tales]
    assert starts == [datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("ptu: {machine: m1}", "6:9: unknown key 'ptu' (did you mean 'put'?)"),
        ("put: {machne: m1}", "6:15: unknown key 'machne' (did you mean 'machine'?)"),
        ("put: {machine: m3}", "6:24: unknown machine 'm3' (known: m1, m2)"),
        ("put: {machine: m1, state: rebot}", "6:35: unknown state 'rebot' (did you mean 'reboot'?)"),
        ("{put: {machine: m1}, answer: updatd}", "6:38: unknown answer 'updatd' (did you mean 'updated'?)"),
        ("{pass: 1h, answer: updated}", "6:9: there is no answer to the step 'pass'"),
        ("pass: soon", "6:15: pass: 'soon' is not a length of time such as 90s, 30m, 6h, 2d or PT30M"),
        ("at: noon", "6:13: at: 'noon' is not an ISO 8601 instant such as 2030-01-31T22:00:00+01:00"),
        ("claim: {}", "6:16: claim lacks the key 'machine'"),
        ("claim: {machine: m1, key: failed}", "6:30: unknown key 'key' (known: machine, state, again)"),
        ("goto: {state: don, reason: x}", "6:23: unknown state 'don' (did you mean 'done'?)"),
        ("evict: {machine: m1}", "6:16: evict lacks the key 'reason'"),
        ("expect: {state: halte}", "6:25: unknown state 'halte' (did you mean 'halted'?)"),
        ("expect: {values: {cuont: 1}}", "6:27: unknown key 'cuont' (did you mean 'count'?)"),
        ("expect: {values: {count: many}}", "6:34: count: 'many' is not an integer"),
        ("expect: {vist: 2}", "6:18: unknown key 'vist' (did you mean 'visit'?)"),
        ("upgrade: wbe.yaml", "6:18: upgrade: cannot read 'wbe.yaml': No such file or directory"),
    ],
)
def test_misspelt_step_is_a_problem_at_its_place(step: str, problem: str) -> None:
    assert problem in problems(in_steps(step))


def test_step_does_one_thing() -> None:
    (problem,) = problems(in_steps("{put: {machine: m1}, pass: 1h}"))
    assert problem.startswith("6:9: a step says what happens: put and pass: a step has one of put, claim,")
    (problem,) = problems(in_steps("{answer: updated}"))
    assert problem.startswith("6:9: a step says what happens: none of put, claim,")


def test_every_problem_is_told() -> None:
    assert [line.split(": ")[0] for line in problems(in_steps("ptu: {}", "pass: x", "put: {machine: m9}"))] == [
        "6:9",
        "7:15",
        "8:24",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("story: []", "1:1: a story file lacks the key 'chart'"),
        ("chart: web.yaml", "1:1: a story file lacks the key 'story'"),
        ("chart: web.yaml\nstory: []", "2:8: story is an empty list"),
        ("chart: web.yaml\nstory: {name: x}", "2:8: story must be a list, not a mapping"),
        ("chart: no.yaml\nstory: []", "1:8: chart: cannot read 'no.yaml': No such file or directory"),
        ("chart: web.yaml\nstory: [{steps: []}]", "2:9: an entry of story lacks the key 'name'"),
        ("chart: web.yaml\nstory: [{name: x, steps: []}]\nnever: [halt]", "3:9: unknown never 'halt' (did you mean"),
        ("- x", "1:1: a story file must be a mapping, not a list"),
        ("chart: [", "1:9: not YAML: did not find expected node content"),
        ("chart: &a web.yaml\nstory: [{name: x, steps: []}]", "1:8: an anchor ('&a') is not allowed"),
    ],
)
def test_problem_of_the_file_is_told_at_its_place(text: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in problems(text))


def test_problem_of_the_chart_is_told_where_the_story_names_it() -> None:
    with pytest.raises(ChartFileError) as caught:
        read_story("chart: bad.yaml\nstory: [{name: x, steps: []}]", lambda file: CHART.replace(b"increm", b"incerm"))
    (problem,) = caught.value.problems
    assert str(problem).startswith("1:8: chart: bad.yaml:5:11: unknown func")


ROSTERED = CHART.replace(b"states:\n", b"expect: {roster: web}\nstates:\n", 1).replace(b"value: 3}", b'value: "100%"}')
LINES = b"a rack=r1\nb rack=r1\nc rack=r2\n"


def load_rostered(file: str) -> bytes:
    return {"web.yaml": ROSTERED, "web.txt": LINES, "bad.txt": b"a rack\n"}[file]


def read_rostered(rosters: str, *steps: str) -> Story:
    lines = "".join(f"      - {step}\n" for step in steps)
    return read_story(f"chart: web.yaml\n{rosters}story:\n  - name: x\n    steps:\n{lines}", load_rostered)


@pytest.mark.parametrize("rosters", ["rosters: {web: web.txt}\n", "rosters:\n  web: |\n    a\n    b\n    c\n"])
def test_story_goes_by_the_roster_that_it_names(rosters: str) -> None:
    story = read_rostered(rosters, "expect: {machines: 3}", "work: {machine: [a, b, c]}", "expect: {state: done}")
    assert play(story).first_difference is None


def test_roster_changes_in_the_course_of_a_story() -> None:
    story = read_rostered(
        "rosters: {web: web.txt}\n",
        "work: {machine: [a, b]}",
        "roster:\n          web: |\n            a\n            d\n            e\n",
        "expect: {machines: 3, values: {count: 1}}",
        "put: {machine: c}\n        answer: not_on_roster",
    )
    assert play(story).first_difference is None


@pytest.mark.parametrize(
    ("rosters", "problem"),
    [
        ("", "chart 'web' goes by the roster 'web', which is not given here"),
        ("rosters: {web: bad.txt}\n", "web: bad.txt:1:1: 'rack' is not label=value"),
        ("rosters: [web]\n", "rosters must be a mapping from a roster's name to its file or its lines, not a list"),
    ],
)
def test_roster_that_cannot_be_read_is_a_problem(rosters: str, problem: str) -> None:
    with pytest.raises(ChartFileError) as caught:
        read_rostered(rosters, "pass: 1s")
    assert problem in " ".join(map(str, caught.value.problems))


CLOSED = CHART.replace(b"states:\n", b"except: freeze\nstates:\n", 1)
# From noon on the story's first Tuesday to noon on Wednesday.
FREEZE = b"""BEGIN:VCALENDAR
BEGIN:VEVENT
DTSTART:20300108T120000Z
DTEND:20300109T120000Z
END:VEVENT
END:VCALENDAR
"""


def load_closed(file: str) -> bytes:
    bad = FREEZE.replace(b"DTEND", b"RDATE:20300110T120000Z\nDTEND")
    return {"web.yaml": CLOSED, "open.yaml": CHART, "freeze.ics": FREEZE, "bad.ics": bad}[file]


def read_closed(calendars: str, *steps: str) -> Story:
    lines = "".join(f"      - {step}\n" for step in steps)
    return read_story(f"chart: web.yaml\n{calendars}story:\n  - name: x\n    steps:\n{lines}", load_closed)


IN_THE_TEXT = "calendars:\n  freeze: |\n" + "".join(f"    {line}\n" for line in FREEZE.decode().splitlines())


@pytest.mark.parametrize("calendars", ["calendars: {freeze: freeze.ics}\n", IN_THE_TEXT], ids=["file", "text"])
def test_story_goes_by_the_calendar_that_it_names(calendars: str) -> None:
    story = read_closed(
        calendars,
        "claim: {machine: m1}",
        "at: 2030-01-08T12:00:00Z",
        "claim: {machine: m2}\n        answer: window",
        "put: {machine: m1}",
        "upgrade: web.yaml",
        "claim: {machine: m2}\n        answer: window",
        "at: 2030-01-09T12:00:00Z",
        "claim: {machine: m2}",
    )
    assert play(story).first_difference is None


def test_calendars_events_are_known_however_long_a_story_is() -> None:
    yearly = FREEZE.replace(b"DTEND", b"RRULE:FREQ=YEARLY\nDTEND")
    text = "chart: web.yaml\ncalendars: {freeze: y.ics}\nstory:\n- name: x\n  steps:\n"
    steps = "  - at: 2036-01-08T13:00:00Z\n  - claim: {machine: m1}\n    answer: window\n"

    story = read_story(text + steps, {"web.yaml": CLOSED, "y.ics": yearly}.__getitem__)

    assert play(story).first_difference is None


def test_calendar_that_is_given_is_in_the_place_of_the_storys_own() -> None:
    text = "chart: web.yaml\ncalendars: {freeze: bad.ics}\nstory: [{name: x, steps: [{claim: {machine: m1}}]}]"
    given = {"freeze": parse_calendar(FREEZE.replace(b"20300108", b"20300101"))}

    story = read_story(text.replace("bad", "freeze"), load_closed, calendars=given)

    assert [tale.difference is not None for tale in play(story).tales] == [True]


@pytest.mark.parametrize(
    ("calendars", "problem"),
    [
        ("calendars: {frost: freeze.ics}\n", "2:12: chart 'web' names the calendar 'freeze', which is not given here"),
        ("calendars: {freeze: bad.ics}\n", "2:21: freeze: bad.ics:4:1: RDATE"),
        ("calendars: [freeze]\n", "2:12: calendars must be a mapping from a calendar's name to its file or its text"),
    ],
)
def test_calendar_that_cannot_be_read_is_a_problem(calendars: str, problem: str) -> None:
    with pytest.raises(ChartFileError) as caught:
        read_closed(calendars, "pass: 1s")
    assert any(str(found).startswith(problem) for found in caught.value.problems), caught.value.problems
