"""What an operator does on a chart's page; each form asks for its reason."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response

from app.core.errors import BadRequestError
from app.service import acts
from app.service.tokens import Role
from app.web.auth import check
from app.web.current import current_author, current_holder, current_service
from app.web.parameters import MACHINE_LENGTH, NAME_LENGTH
from app.web.ui.base import blueprint, go_to
from app.web.ui.forms import get_field, get_reason

# Each act with the role it needs.
ROLES = {
    "pause": Role.OPERATOR,
    "resume": Role.OPERATOR,
    "reset": Role.OPERATOR,
    "goto": Role.OPERATOR,
    "evict": Role.OPERATOR,
    "archive": Role.ADMIN,
}
_PLAIN: dict[str, Callable[..., object]] = {
    "pause": acts.pause,
    "resume": acts.resume,
    "reset": acts.reset,
    "archive": acts.archive,
}


@blueprint.post("/ui/charts/<chart:name>/<act>", provide_automatic_options=False)
def post_act(name: str, act: str) -> Response:
    """Do it, and show the chart as it is then."""
    if act not in ROLES:
        raise BadRequestError(f"{act} is none of {', '.join(ROLES)}")
    check(current_holder(), ROLES[act], name)
    service, author, reason = current_service(), current_author(), get_reason()
    if act == "goto":
        acts.goto(service, name, get_field("state", NAME_LENGTH), reason, author)
    elif act == "evict":
        acts.evict(service, name, get_field("machine", MACHINE_LENGTH), reason, author)
    else:
        _PLAIN[act](service, name, reason, author)
    return go_to("ui.get_index") if act == "archive" else go_to("ui.get_chart", name=name, done=act)
