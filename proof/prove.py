"""`make prove`: the whole proof, with a line of progress all along and a report in build/.

`make prove ARGS=--short` runs the short form with pytest, in about eight minutes on two idle cores; what follows is
passed to pytest. With `STATE_SERVICE_EXAMPLES=all` nothing in it is shorter: 300 charts are proved and tried, and 5,000
windows walked.

Exit 0 only where every run was valid, nothing was violated and every seeded defect was caught.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from proof.backups import prove_backups
from proof.campaign import Plan, Report, run, run_defect
from proof.crashes import POINTS
from proof.defects import DEFECTS
from proof.failover import prove_failover, prove_patroni
from proof.files import prove_files
from proof.fleets import prove_fleets
from proof.groups_load import prove_groups
from proof.migrations_load import prove_migrations
from proof.mutants import mutate
from proof.names import prove_names
from proof.power import cut_power
from proof.proof import Opener, Proof, new_folder, opened, opener
from proof.raw_http import prove_raw_http
from proof.slow_clients import prove_slow_clients
from proof.tokens_attack import prove_tokens
from tests.support.databases import DATABASES
from tests.support.servers import ROOT

BUILD = ROOT / "build"
CRASHES = dict.fromkeys(POINTS, 25)
PROCESSES = {"kill_worker": 6, "kill_all": 4, "kill_gunicorn": 3, "stop_continue": 6, "move_clock": 6}
SERVER = {"pg_kill": 5, "pg_restart": 5, "pg_terminate": 5}
ACKNOWLEDGED = 20_000
DEFECT_SECONDS = (3, 10, 30)
CUTS = 50
MUTANTS = 300_000


def prove_faults(proof: Proof, which: str) -> None:
    """Break everything that can be broken under `which`, under load."""
    faults = CRASHES | PROCESSES | (SERVER if which == "postgresql" else {})
    with new_folder() as folder, opened(which, folder) as database:
        plan = Plan(faults, min_acknowledged=ACKNOWLEDGED, threads=10)
        report = run(database, folder, plan, proof.say)
    proof.add(f"faults on {which}", report.as_json(), report.as_line())


def prove_defects(proof: Proof, which: str) -> None:
    """Seed every defect on `which`, and see it caught."""
    with new_folder() as folder, opener(which, folder) as open_database:
        with new_folder() as folder, open_database(folder) as database:
            sound = run_defect(database, folder, "", DEFECT_SECONDS[-1])
        proof.add(f"no defect on {which}", sound.as_json(), sound.as_line())
        for name, defect in DEFECTS.items():
            if which not in defect.databases:
                continue
            found = _find_defect(open_database, name)
            violation = defect.find(found.violations)
            line = f"caught in {found.seconds:.0f} s: {violation}" if violation else "NOT CAUGHT"
            part = {**found.as_json(), "is_proof": bool(violation), "violations": found.violations[:5]}
            proof.add(f"{name} on {which}", part, line)


def _find_defect(open_database: Opener, defect: str) -> Report:
    for seconds in DEFECT_SECONDS:
        with new_folder() as folder, open_database(folder) as database:
            report = run_defect(database, folder, defect, seconds)
        if DEFECTS[defect].find(report.violations):
            break
    return report


def prove_power(proof: Proof) -> None:
    """Cut SQLite's power again and again; and see that it is noticed where nothing is synced."""
    with new_folder() as folder:
        found = cut_power(folder, CUTS, proof.say)
    proof.add("power cuts on sqlite", found.as_json(), found.as_line())
    with new_folder() as folder:
        unsynced = cut_power(folder, CUTS // 5, synchronous="OFF")
    line = f"caught: {unsynced.as_line()}" if unsynced.lost else "NOT CAUGHT"
    proof.add("no fsync on sqlite", {**unsynced.as_json(), "is_proof": bool(unsynced.lost)}, line)


def prove_mutants(proof: Proof) -> None:
    """Read chart files that were spoilt in every way."""
    found = mutate(MUTANTS, proof.say)
    proof.add("chart file mutants", found.as_json(), found.as_line())


PARTS: dict[str, Callable[[Proof], None]] = {
    **{f"faults-{which}": lambda proof, which=which: prove_faults(proof, which) for which in DATABASES},  # type: ignore[misc]
    **{f"defects-{which}": lambda proof, which=which: prove_defects(proof, which) for which in DATABASES},  # type: ignore[misc]
    **{f"groups-{which}": lambda proof, which=which: prove_groups(proof, which) for which in DATABASES},  # type: ignore[misc]
    "files": prove_files,
    "power": prove_power,
    "mutants": prove_mutants,
    "failover": prove_failover,
    "patroni": prove_patroni,
    "backups": prove_backups,
    "migrations": prove_migrations,
    "raw-http": prove_raw_http,
    "names": prove_names,
    "slow-clients": prove_slow_clients,
    "tokens": prove_tokens,
    "fleets": prove_fleets,
}


def prove_short(options: Sequence[str]) -> int:
    """Run the short form: the slow tests of `proof` and `tests`, and each property with all its examples."""
    # Half of the time these tests wait: for a lease, a time limit, a server that starts.
    command = [sys.executable, "-m", "pytest", "-q", "-n", "4", "--dist", "worksteal"]
    selected = ["-m", "slow or hypothesis", "proof", "tests"]
    variables = {"STATE_SERVICE_EXAMPLES": "many"} | os.environ
    return subprocess.run([*command, *selected, *options], cwd=ROOT, env=variables, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """Prove the parts that are named, or all; with `--short` first, run the short form instead."""
    if arguments[:1] == ["--short"]:
        return prove_short(arguments[1:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them where none is named")
    parser.add_argument("--report", type=Path, default=BUILD / "reliability.json")
    given = parser.parse_args(arguments)
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    proof = Proof()
    for name in given.parts or PARTS:
        try:
            PARTS[name](proof)
        except Exception as error:
            # What could not be tried is not proven; the other parts may be.
            traceback.print_exc()
            proof.add(name, {"is_proof": False, "error": repr(error)}, f"FAILED: {error!r}")
        proof.write(given.report)
    shown = os.path.relpath(given.report)
    proof.say(f"{'All is proven' if proof.is_whole else 'NOT PROVEN'}; the report is {shown}")
    return 0 if proof.is_whole else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
