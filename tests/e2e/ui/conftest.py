"""Real Chromium on a real server. A message on a page's console, or a breach of its policy, fails the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from app import schema
from app.config import Config
from app.core.log import Author
from app.db.engine import open_engine
from app.service.tokens import Role, create_token
from app.wiring import create_app, service_of
from tests.e2e.ui.chromium import launch
from tests.support.servers import Server, running

KEY = "0123456789abcdef0123456789abcdef"

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def ui_database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated SQLite database for all tests here; each test imports its own charts."""
    url = f"sqlite:///{tmp_path_factory.mktemp('ui') / 'ui.db'}"
    engine = open_engine(url, create=True)
    schema.upgrade(engine)
    engine.dispose()
    return url


@pytest.fixture(scope="session")
def tokens(ui_database_url: str) -> dict[str, str]:
    """The secret of a token for each role; the token has the role's name."""
    app = create_app(Config(database_url=ui_database_url))
    service = service_of(app)
    found = {str(role): create_token(service, str(role), role, "*", Author(actor="test")) for role in Role}
    service.database.engine.dispose()
    return found


@pytest.fixture(scope="session")
def server(ui_database_url: str, tokens: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as production runs it, with tokens."""
    with running(ui_database_url, tmp_path_factory.mktemp("server"), auth="tokens", secret_key=KEY) as found:
        yield found


class Client:
    """Another client of the HTTP interface, such as a machine or an operator's script."""

    def __init__(self, server: Server, secret: str) -> None:
        self._server = server
        self._header = f"Bearer {secret}"

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> int:
        """Send a request and return its status. Fails for any status but a success or a 406."""
        reply = self._server.ask(method, path, body, Authorization=self._header, **headers)
        assert reply.status not in (400, 401, 403, 404, 409, 422, 500, 503), (method, path, reply.body)
        return reply.status


@pytest.fixture(scope="session")
def client(server: Server, tokens: dict[str, str]) -> Client:
    """Another client, with an administrator's token."""
    return Client(server, tokens["admin"])


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """Errors and warnings of the pages; the test fails if there are any in the end."""
    found: list[str] = []
    yield found
    assert found == []


def listen(page: Page, complaints: list[str]) -> None:
    """Note every error and warning on the console, every uncaught error and every dialog."""
    page.on("console", lambda message: _note(complaints, message.type, message.text))
    page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))


def _note(complaints: list[str], kind: str, text: str) -> None:
    # A breach of the page's policy is an error on the console, too.
    if kind in ("error", "warning"):
        complaints.append(f"{kind}: {text}")


@contextmanager
def context_of(chromium: Browser, **options: object) -> Iterator[BrowserContext]:
    """A browser context of its own: no cookies, a window of 1,280 by 900 px by default."""
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
    context.set_default_timeout(20_000)
    yield context
    context.close()


def sign_in(page: Page, url: str, secret: str) -> None:
    """Sign in by the form."""
    page.goto(f"{url}/ui/login")
    page.get_by_label("Token").fill(secret)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Charts", exact=True).wait_for()


@pytest.fixture
def open_page(chromium: Browser, server: Server, tokens: dict[str, str], complaints: list[str]) -> Iterator[Open]:
    """A function that opens a page of the service, signed in with a role's token."""
    with ExitStack() as contexts:

        def open_as(role: str, path: str = "/", **options: object) -> Page:
            context = contexts.enter_context(context_of(chromium, base_url=server.url, **options))
            page = context.new_page()
            listen(page, complaints)
            sign_in(page, server.url, tokens[role])
            if path != "/":
                page.goto(path)
            return page

        yield open_as
