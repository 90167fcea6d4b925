"""A stand-in for a browser on our pages: it keeps cookies, sends forms and follows no redirects."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from io import BytesIO

from flask import Flask
from werkzeug.test import TestResponse

from app.core.log import Author
from app.service.tokens import Role, create_token
from app.wiring import service_of

ORIGIN = "http://localhost"
FORM = "multipart/form-data"
_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


def make_token(app: Flask, role: str, name: str | None = None, pattern: str = "*") -> str:
    """Create a token, named after its role by default; returns its secret."""
    return create_token(service_of(app), name or role, Role[role.upper()], pattern, Author(actor="test"))


class Browser:
    """A client that keeps cookies and sends forms as one of our pages would."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()

    def get(self, path: str, **headers: str) -> TestResponse:
        """Get a page."""
        return self.client.get(path, headers=headers)

    def text(self, path: str) -> str:
        """A page's text, without its markup. Fails if the answer is not 200."""
        response = self.get(path)
        assert response.status_code == 200, response.text
        return words_of(response.text)

    def post(
        self,
        path: str,
        fields: dict[str, object],
        *,
        page: str | None = None,
        origin: str | None = ORIGIN,
        form_token: str | None = None,
    ) -> TestResponse:
        """Send a form of the page `page`, by default the page at the path that receives it."""
        found = self.find_form_token(page or path) if form_token is None else form_token
        headers = {"Origin": origin} if origin is not None else {}
        data = {"form_token": found, **fields}
        response = self.client.post(path, data=data, headers=headers, content_type=FORM)
        # The client keeps a large form in a temporary file, and leaves that file open.
        response.request.environ["wsgi.input"].close()
        return response

    def act(self, chart: str, act: str, **fields: object) -> TestResponse:
        """Send the form of an act on a chart's page."""
        return self.post(f"/ui/charts/{chart}/{act}", fields, page=f"/ui/charts/{chart}")

    def find_form_token(self, page: str) -> str:
        """The form token of a page; empty if the page has no form."""
        found = _TOKEN.search(self.get(page).text)
        return found.group(1) if found is not None else ""

    def sign_in(self, secret: str, **fields: object) -> TestResponse:
        """Send the form of the login page."""
        return self.post("/ui/login", {"token": secret, **fields})

    def signed_in(self, secret: str) -> Browser:
        """Sign in and return this browser."""
        assert self.sign_in(secret).status_code == 303
        return self


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def words_of(html: str) -> str:
    """The text of a page, its white space folded."""
    parser = _Words()
    parser.feed(html)
    return " ".join(" ".join(parser.found).split())


def file_of(text: str, name: str) -> tuple[BytesIO, str]:
    """A file as a form sends it."""
    return BytesIO(text.encode()), name
