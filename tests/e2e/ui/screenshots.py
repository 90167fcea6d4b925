"""Make the pictures in docs/img/: `python tests/e2e/ui/screenshots.py`.

They show the two main pages with the sample fleet, light and dark, wide and narrow.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, sync_playwright  # noqa: E402  the path is set before

from app import schema  # noqa: E402
from app.config import Config  # noqa: E402
from app.core.log import Author  # noqa: E402
from app.db.engine import open_engine  # noqa: E402
from app.service.tokens import Role, create_token  # noqa: E402
from app.wiring import create_app, service_of  # noqa: E402
from tests.e2e.ui.chromium import launch  # noqa: E402
from tests.e2e.ui.fleet import build_fleet  # noqa: E402
from tests.support.servers import Server, running  # noqa: E402

PAGES = {"charts": "/", "chart": "/ui/charts/kernel-rollout"}
SIZES = {1280: 1000, 390: 844}
SCHEMES = ("light", "dark")
FOLDER = ROOT / "docs" / "img"


def main() -> None:
    """Fill a database, serve it, and take the pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/fleet.db"
        secret = _fill(url)
        settings = {"auth": "tokens", "secret_key": "not-a-secret-but-thirty-two-long"}
        with running(url, Path(folder), **settings) as server, sync_playwright() as playwright:
            browser = launch(playwright)
            for scheme in SCHEMES:
                for width in SIZES:
                    _take(browser, server, secret, scheme, width)
            browser.close()


def _fill(url: str) -> str:
    engine = open_engine(url, create=True)
    schema.upgrade(engine)
    engine.dispose()
    build_fleet(url)
    service = service_of(create_app(Config(database_url=url)))
    secret = create_token(service, "anna", Role.ADMIN, "*", Author(actor="setup"))
    service.database.engine.dispose()
    return secret


def _take(browser: Browser, server: Server, secret: str, scheme: str, width: int) -> None:
    context = browser.new_context(
        base_url=server.url,
        viewport={"width": width, "height": SIZES[width]},
        color_scheme=scheme,  # type: ignore[arg-type]  # one of SCHEMES
        device_scale_factor=2 if width < 1000 else 1,
    )
    page = context.new_page()
    page.goto("/ui/login")
    page.get_by_label("Token").fill(secret)
    page.keyboard.press("Enter")
    page.wait_for_url(server.url + "/")
    for name, path in PAGES.items():
        page.goto(path)
        page.wait_for_timeout(300)
        file = FOLDER / f"{name}-{scheme}-{width}.png"
        page.screenshot(path=file)
        sys.stdout.write(f"{file.relative_to(ROOT)}\n")
    context.close()


if __name__ == "__main__":
    main()
