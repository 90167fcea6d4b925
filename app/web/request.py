"""A request as both doors hand it over, its parameters and values, and what is known of it by the time it is logged.

The event loop (app/serving.py) makes a `Request` from an ASGI scope, Flask's side from a WSGI environment. Views and
errors note on it what the access log will say. Each type of value has one reader, for queries, forms and JSON bodies
alike.
"""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from typing import Any, cast
from urllib.parse import parse_qsl

from flask import current_app
from flask import request as flask_request
from werkzeug.exceptions import RequestEntityTooLarge

from app.core.errors import BadRequestError, ForbiddenError
from app.core.log import Author, HistoryFilter
from app.service.context import Service
from app.service.machines import Machines
from app.service.put import Answer
from app.service.reading import has_rows
from app.service.tokens import GRANTS, Holder, Role

# Values

# The largest number that both databases hold, and its digits.
MAX_INT = 2**63 - 1
MAX_DIGITS = 19
# Bytes of a body that are kept as a note: the last ones, because output says at its end how it went.
NOTE_BYTES = 8192
# Characters of a note in the query.
NOTE_LENGTH = 1000


def read_note(text: str | None, body: bytes) -> str | None:
    """What a machine says with its report: the text that the query gives, else the body; None if there is neither.

    A control character that is not a newline or a tab becomes U+FFFD, and so does whatever in the body is not UTF-8.
    Raises BadRequestError if the query's text is empty or too long.
    """
    if text is not None:
        if not 1 <= len(text) <= NOTE_LENGTH:
            raise BadRequestError(f"note is not 1 to {NOTE_LENGTH} characters: send a longer one as the body")
        return _printable(text)
    # The first character may have been cut.
    while len(body) > NOTE_BYTES - 3 and body[0] & 0xC0 == 0x80:
        body = body[1:]
    return _printable(body.decode(errors="replace")) or None


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        "\ufffd" if unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\n\t" else sign for sign in text
    )


def read_whole(name: str, text: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`, written in digits alone. Raises BadRequestError."""
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS or not low <= int(text) <= high:
        raise BadRequestError(f"{name}={text[:40]} is not a whole number from {low} to {high}")
    return int(text)


def read_instant(name: str, text: str) -> datetime:
    """An ISO 8601 instant, in UTC; one that is written without an offset is UTC already. Raises BadRequestError."""
    try:
        # A plus that was not percent-encoded arrives as a space.
        instant = datetime.fromisoformat(text.replace(" +", "+").replace(" ", "+") if "T" in text else text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequestError(f"{name}={text} is not an ISO 8601 instant") from None


def read_choice(name: str, text: str, choices: Sequence[str]) -> str:
    """One of `choices`. Raises BadRequestError."""
    if text not in choices:
        raise BadRequestError(f"{name}={text} is not one of {', '.join(choices)}")
    return text


# Requests

# A WSGI environment.
Environ = dict[str, Any]
# Where a WSGI environment has its Request.
REQUEST = "stateservice.request"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
NAME_LENGTH = 128
MACHINE_LENGTH = 255
MAX_PARAMETERS = 100
# Seconds that a request may wait; below the minute after which many proxies give up on a silent server.
MAX_WAIT = 55
# The largest number of a run that the database holds.
MAX_RUN = 2**31 - 1
# Headers of ours that say something once. WSGI joins repeated headers with a comma, and so two machines would become
# a third.
ONCE = ("x-machine", "idempotency-key")
# The largest body of a request of a machine. nginx lets 2 MiB through.
MAX_SENT = 2 * 1024 * 1024 + 65536
# The largest body that is read for a view: a chart file is at most 1 MiB; whatever is larger cannot be meant.
MAX_BODY = 1024 * 1024 + 1024
# The largest roster: a million machines with a few labels each.
MAX_ROSTER_BODY = 256 * 1024 * 1024
TOO_LARGE = "the body is larger than {} bytes, or did not come whole and in time"


@dataclass(slots=True, kw_only=True)
class Request:
    """One request. `headers` have lower-case names; `path` and `query_string` are Latin-1, as WSGI has them.

    `started` is when it came (perf_counter). `is_secure` says that the client uses TLS, `certified` which machine its
    certificate names, and `needs_certificate` that it must have one to name a machine; app/web/auth.py finds these out
    from what the proxy says. The fields from `chart` on are filled in on the way to the answer;
    `rule` is that of the route which the path and the method have.
    `body_end` is the last NOTE_BYTES of the body of a machine's request; None if the body was larger than MAX_SENT, or
    did not come.
    """

    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    remote_addr: str | None
    repeated: tuple[str, ...] = ()
    started: float = field(default_factory=time.perf_counter)
    request_id: str = ""
    is_secure: bool = False
    certified: str | None = None
    needs_certificate: bool = False
    chart: str | None = None
    parameters: dict[str, list[str]] = field(default_factory=dict)
    holder: Holder | None = None
    answer: Answer | None = None
    problem: str | None = None
    rule: str | None = None
    body_end: bytes | None = b""

    def __post_init__(self) -> None:
        sent = self.headers.get("x-request-id")
        self.request_id = sent if sent is not None and _SANE_ID.fullmatch(sent) else secrets.token_hex(8)

    @property
    def token(self) -> int | None:
        """The number of the token that the request carries; None if tokens are not required."""
        assert self.holder is not None  # app/web/auth.py let the request in
        return self.holder.id

    @property
    def author(self) -> Author:
        """Who sends the request, as the log has it: the token's name, and the address."""
        return self.author_with(None)

    def author_with(self, idempotency_key: str | None) -> Author:
        """As `author`, with the Idempotency-Key of a PUT."""
        assert self.holder is not None  # app/web/auth.py let the request in
        granted = GRANTS[self.holder.role]
        return Author(
            self.holder.name,
            self.remote_addr,
            idempotency_key,
            may_report=Role.MACHINE in granted,
            may_approve=Role.APPROVER in granted,
        )


def request_from_environ(environ: Environ) -> Request:
    """Return the request that a WSGI environment describes."""
    headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
    return Request(
        method=environ["REQUEST_METHOD"],
        path=environ["PATH_INFO"],
        query_string=environ.get("QUERY_STRING", ""),
        headers=headers,
        remote_addr=environ.get("REMOTE_ADDR"),
        is_secure=environ.get("wsgi.url_scheme") == "https",
    )


def read_body_end(environ: Environ) -> bytes | None:
    """Return the last NOTE_BYTES of a WSGI request's body; None if it is larger than MAX_SENT, or does not come."""
    declared, stream = environ.get("CONTENT_LENGTH") or "", environ["wsgi.input"]
    is_declared = declared.isascii() and declared.isdigit()
    if is_declared and int(declared) > MAX_SENT:
        return None
    # A chunked body has no declared length; only a server that says so ends its stream where the body ends.
    limit = int(declared) if is_declared else (MAX_SENT + 1) * bool(environ.get("wsgi.input_terminated"))
    size, end = 0, bytearray()
    while size < limit and (piece := stream.read(min(limit - size, 65536))):
        size += len(piece)
        end += piece
        del end[:-NOTE_BYTES]
    is_whole = size == limit if is_declared else size <= MAX_SENT
    return bytes(end) if is_whole else None


def request_of(environ: Environ) -> Request:
    """The request that belongs to a WSGI environment: the event loop's, else made the first time it is asked for."""
    found: Request | None = environ.get(REQUEST)
    if found is None:
        found = environ[REQUEST] = request_from_environ(environ)
    return found


def request_from_scope(scope: Mapping[str, Any], proxy_hops: int) -> Request:
    """Return the request that an ASGI scope describes, with the client's address behind `proxy_hops` proxies."""
    headers, repeated = read_headers(scope["headers"])
    client = scope.get("client")
    return Request(
        method=scope["method"],
        path=scope["path"].encode().decode("latin-1"),
        query_string=scope["query_string"].decode("latin-1"),
        headers=headers,
        remote_addr=_find_address(client[0] if client else "", headers.get("x-forwarded-for"), proxy_hops),
        repeated=repeated,
        is_secure=scope.get("scheme") == "https",
    )


def read_headers(sent: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return headers by lower-case name, repeated ones joined by commas, and which of ours were repeated.

    A name with an underscore is left out. WSGI writes `X_Machine` and `X-Machine` alike, so a client could slip such a
    header past a proxy that sets, or removes, the one with a hyphen. nginx drops these names, too.
    """
    headers: dict[str, str] = {}
    repeated: list[str] = []
    for raw_name, raw_value in sent:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if "_" in name:
            continue
        if name == "host":
            value = normalize_host(value)
        if name in headers:
            value = f"{headers[name]},{value}"
            if name in ONCE:
                repeated.append(name)
        headers[name] = value
    return headers, tuple(repeated)


def normalize_host(host: str) -> str:
    """Return a Host header as names are compared: lower case, without the final dot of a fully qualified name."""
    name, colon, port = host.lower().partition(":") if not host.startswith("[") else (host.lower(), "", "")
    return name.removesuffix(".") + colon + port


def _find_address(peer: str, forwarded: str | None, proxy_hops: int) -> str:
    """The address that the outermost trusted proxy saw, as Werkzeug's ProxyFix finds it."""
    if not proxy_hops or forwarded is None:
        return peer
    addresses = [part.strip() for part in forwarded.split(",") if part.strip()]
    return addresses[-proxy_hops] if len(addresses) >= proxy_hops else peer


class Query:
    """The parameters of a request: those of its query, and the headers that may stand in for them."""

    def __init__(self, request: Request, known: Collection[str] | None = None) -> None:
        """Raise BadRequestError for a query that is not UTF-8, has too many parameters, or one that is not `known`.

        A misspelt parameter that is ignored would make the request mean something else.
        """
        self._request = request
        self._values = request.parameters = _parse(request.query_string)
        if known is not None:
            check_known(self._values, known)

    @property
    def names(self) -> Collection[str]:
        """The names of the parameters that were sent."""
        return self._values.keys()

    def all(self, name: str) -> list[str]:
        """Every value that a parameter was given."""
        return self._values.get(name, [])

    def find(self, name: str, limit: int, header: str | None = None) -> str | None:
        """The one value of a parameter, else of the header beside it; None if neither is sent.

        Raises BadRequestError if it is repeated, empty, longer than `limit` characters or not printable.
        """
        values = self._values.get(name)
        if values is None:
            return None if header is None else self.find_header(header, limit)
        if len(values) != 1:
            raise BadRequestError(f"{name} is given {len(values)} times")
        return check_text(name, values[0], limit)

    def get(self, name: str, limit: int) -> str:
        """As `find`, for a parameter that must be there."""
        value = self.find(name, limit)
        if value is None:
            raise BadRequestError(f"{name} is missing")
        return value

    def get_machine(self) -> str:
        """The machine that the request is about. Raises BadRequestError if there is none, and as `find_machine`."""
        machine = self.find_machine()
        if machine is None:
            raise BadRequestError("machine is missing")
        return machine

    def find_machine(self) -> str | None:
        """The machine that the query, else X-Machine, names; else the one that the token or certificate is for.

        Raises BadRequestError if its id is not valid, ForbiddenError if the sender may not speak for it.
        """
        machine = self.find("machine", MACHINE_LENGTH, "X-Machine")
        return settle_machine(self._request, None if machine is None else check_machine(machine))

    def find_wait(self) -> int:
        """How many seconds the request may wait; 0 if it does not say."""
        return self.find_number("wait", 0, MAX_WAIT) or 0

    def find_note(self) -> str | None:
        """What the query, else the body, says with a report. Raises BadRequestError."""
        return self.find_note_in_query() or read_note(None, self._request.body_end or b"")

    def find_note_in_query(self) -> str | None:
        """What the query says with a report. Raises BadRequestError."""
        sent = self._values.get("note")
        if sent is None:
            return None
        if len(sent) != 1:
            raise BadRequestError(f"note is given {len(sent)} times")
        return read_note(sent[0], b"")

    def find_run(self) -> int | None:
        """The run that the client means; None if it does not say."""
        return self.find_number("run", 1, MAX_RUN)

    def find_flag(self, name: str) -> bool:
        """Whether a parameter is 1; it may be 0, and it is if it is not sent. Raises BadRequestError."""
        return bool(self.find_number(name, 0, 1))

    def find_number(self, name: str, low: int, high: int) -> int | None:
        """A parameter that is a whole number from `low` to `high`. Raises BadRequestError."""
        text = self.find(name, 20)
        if text is None:
            return None
        return read_whole(name, text, low, high)

    def find_header(self, name: str, limit: int) -> str | None:
        """A header of our own, 1 to `limit` printable characters. Raises BadRequestError."""
        if name.lower() in self._request.repeated:
            raise BadRequestError(f"{name} is given more than once")
        sent = self._request.headers.get(name.lower())
        return None if sent is None else check_text(name, decode_header(name, sent), limit)


def settle_machine(request: Request, named: str | None) -> str | None:
    """The machine for which the sender speaks, who has named `named`.

    Raises ForbiddenError if the token or the certificate is for another one, BadRequestError if a change names none and
    the token is for several.
    """
    holder = request.holder
    assert holder is not None  # app/web/auth.py let the request in
    if request.certified is not None:
        if named not in (None, request.certified):
            raise ForbiddenError(f"the certificate is for machine {request.certified!r}, not for {named!r}")
        named = request.certified
    elif request.needs_certificate and named is not None and holder.machine is None and not is_person(holder):
        raise ForbiddenError(f"without a client certificate no client speaks for machine {named!r}")
    if holder.machine is None:
        return named
    if named is None:
        if holder.own_machine is None and request.method not in ("GET", "HEAD"):
            raise BadRequestError(f"machine is missing: token {holder.name!r} is for machines {holder.machine!r}")
        return holder.own_machine
    if not holder.may_name(named):
        raise ForbiddenError(f"token {holder.name!r} is for machine {holder.machine!r}, not for {named!r}")
    return named


def is_person(holder: Holder) -> bool:
    """True for a token that may do what operators do, rather than what machines do."""
    return holder.name is not None and holder.may(Role.OPERATOR)


def check_known(names: Collection[str], known: Collection[str], kind: str = "parameter") -> None:
    """Raise BadRequestError for the first of `names` that is not `known`, with the name that was probably meant."""
    for name in names:
        if name not in known:
            near = get_close_matches(name.lower(), known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise BadRequestError(f"unknown {kind} {name[:NAME_LENGTH]!r}{hint}")


def read_query() -> Query:
    """The parameters of the request that Flask has in hand. Raises BadRequestError."""
    return Query(current_request())


# Set in a WSGI environment: the server can wait on its event loop and call the view again; and it has waited.
CAN_WAIT = "stateservice.can_wait"
HAS_WAITED = "stateservice.has_waited"
# Set in a WSGI environment if the event loop met an error on the way to the view: Flask answers it as one of its own.
ERROR = "stateservice.error"


class MustWait(BaseException):
    """A view asks the event loop to `wait`, and to call it again after that: a waiting request holds no thread.

    Not an Exception, so that no error handler takes it for the answer.
    """

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        super().__init__()
        self.wait = wait


def wait_for_rows(chart: str, wanted: HistoryFilter, seconds: float) -> None:
    """Return once the chart's log has a row that `wanted` lets through, at the latest after `seconds`.

    Raises ChartNotFoundError, TooManyWaitersError.
    """
    environ, machines = flask_request.environ, current_machines()
    find = partial(has_rows, machines.service, chart, wanted)
    if seconds == 0 or HAS_WAITED in environ or find():
        return
    wait = partial(machines.wait_for_rows, chart, find, seconds, current_holder().id)
    if CAN_WAIT in environ:
        raise MustWait(wait)
    machines.call(wait())


def check_machine(machine: str) -> str:
    """Return a machine's id. Raises BadRequestError if it is not valid."""
    if check_text("machine", machine, MACHINE_LENGTH) != machine.strip():
        raise BadRequestError("machine has a space at one of its ends")
    return machine


def read_body(what: str, limit: int, advice: str) -> bytes:
    """The body that Flask has in hand: `what`, of at most `limit` bytes. An empty one is refused with `advice`.

    Raises RequestEntityTooLarge, BadRequestError.
    """
    too_large = RequestEntityTooLarge(f"{what} is at most {limit} bytes")
    try:
        body = flask_request.get_data()
    except RequestEntityTooLarge:
        raise too_large from None
    if len(body) > limit:
        raise too_large
    if not body:
        raise BadRequestError(f"the body is empty: {advice}")
    return body


def check_text(name: str, value: str, limit: int) -> str:
    """Return `value`, a text of 1 to `limit` printable characters. Raises BadRequestError."""
    if not value:
        raise BadRequestError(f"{name} is empty")
    if len(value) > limit:
        raise BadRequestError(f"{name} is longer than {limit} characters")
    if not value.isprintable():
        raise BadRequestError(f"{name} has characters that cannot be printed")
    return value


def _parse(text: str) -> dict[str, list[str]]:
    # Werkzeug's own parser replaces bytes that are not UTF-8, so that two different names could become one.
    if not text:
        return {}
    try:
        # Both doors hand the query over as Latin-1, whatever its bytes meant.
        decoded = text.encode("latin-1").decode()
        pairs = parse_qsl(decoded, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeError:
        raise BadRequestError("the query is not UTF-8") from None
    except ValueError:
        raise BadRequestError(f"the query has more than {MAX_PARAMETERS} parameters") from None
    query: dict[str, list[str]] = {}
    for name, value in pairs:
        query.setdefault(name, []).append(value)
    return query


def decode_header(name: str, value: str) -> str:
    """Return a header of our own as text. Raises BadRequestError."""
    # Headers are handed over as Latin-1, whatever the sender meant; ours are UTF-8.
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        raise BadRequestError(f"{name} is not UTF-8") from None


def current_request() -> Request:
    """The request that Flask has in hand."""
    return request_of(flask_request.environ)


def current_service() -> Service:
    """The service of this app."""
    return cast(Service, current_app.extensions["stateservice"])


def current_machines() -> Machines:
    """The requests of machines to this app's service."""
    return cast(Machines, current_app.extensions["stateservice.machines"])


def current_author() -> Author:
    """Who sends the request that Flask has in hand."""
    return current_request().author


def current_holder() -> Holder:
    """Whose token the request that Flask has in hand carries."""
    holder = current_request().holder
    assert holder is not None  # app/web/auth.py let the request in
    return holder
