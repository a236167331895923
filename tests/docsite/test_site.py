# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The docs site in a browser. `make docs` builds the site in site/, and then runs these tests."""

from __future__ import annotations

import functools
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import browser
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"
MODULE, ROLE = "docs/reference/batch_encryption_info_module.html", "docs/reference/rotate_role.html"
LOOKS = pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 390)], ids=["light", "dark, on a phone"])


def written() -> list[str]:
    """The pages of the site, without those of the theme."""
    pages = sorted(file.relative_to(SITE).as_posix() for file in SITE.rglob("*.html"))
    return [page for page in pages if page not in ("genindex.html", "search.html")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the folder of all versions, which contains the site as `latest` or as the version of its tag."""
    if not SITE.is_dir():
        pytest.skip("make docs builds the site")
    pages = tmp_path_factory.mktemp("pages")
    subprocess.run([ROOT / "scripts" / "pages", SITE, pages], stdout=subprocess.PIPE, check=True)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(pages))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(server: str, chromium: Browser) -> str:
    """The address of the site, to which the address of all versions leads."""
    with browser.viewing(chromium) as view:
        view.page.goto(server)
        view.page.wait_for_url(re.compile("/index.html$"))
        return view.page.url.removesuffix("/index.html")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.started() as started:
        yield started


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    with browser.viewing(chromium) as view:
        yield view.page
        assert view.complaints == []


def violations(page: Page, **options: object) -> list[tuple[str, str]]:
    """The rules of axe that the page violates, each with an element."""
    found = Axe().run(page, options=options).response
    assert found["passes"]
    return [(rule["id"], node["html"]) for rule in found["violations"] for node in rule["nodes"]]


def assert_accessible(view: browser.View, address: str, width: int) -> None:
    view.page.goto(address)
    assert violations(view.page) == []
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    assert view.complaints == []
    assert len(view.hosts) == 1


@LOOKS
@pytest.mark.parametrize("name", ["index.html", ROLE])
def test_a_page_is_accessible(chromium: Browser, site: str, name: str, dark: bool, width: int) -> None:
    with browser.viewing(chromium, dark=dark, width=width) as view:
        assert_accessible(view, f"{site}/{name}", width)


@LOOKS
@pytest.mark.slow
def test_every_page_is_accessible(chromium: Browser, site: str, dark: bool, width: int) -> None:
    with browser.viewing(chromium, dark=dark, width=width) as view:
        for name in written():
            assert_accessible(view, f"{site}/{name}", width)


def test_first_page_shows_the_recording_and_leads_to_five_pages(site: str, page: Page) -> None:
    page.goto(f"{site}/index.html")

    assert page.title() == "azbatch.cmk: Customer-managed keys of Azure Batch accounts"
    assert "No run against real Azure has been recorded yet" in page.locator("article").inner_text()
    picture = page.locator("article img")
    expect(picture).to_have_attribute("alt", re.compile("^A terminal"))
    assert page.request.get(picture.evaluate("it => it.src")).headers["content-type"] == "image/svg+xml"
    cards = page.locator(".cards a")
    titles = ["Quick start", "Audit your accounts", "Rotate each night", "Repair an account", "Many accounts"]
    assert cards.all_text_contents() == titles
    icon = page.locator("link[rel~=icon]").evaluate("it => it.href")
    assert page.request.get(icon).headers["content-type"] == "image/svg+xml"
    # The whole card is a link.
    page.locator(".cards li").nth(2).click(position={"x": 5, "y": 5})
    expect(page.locator("h1")).to_have_text(re.compile("^Rotate"))


def test_menu_scrolls_to_the_entry_of_the_page(site: str, page: Page) -> None:
    page.goto(f"{site}/docs/sandbox-fidelity.html")

    expect(page.locator(".sidebar-tree .current-page > .reference")).to_be_in_viewport()


@pytest.mark.usefixtures("server")
def test_edit_links_lead_to_the_source() -> None:
    """The reference of a plugin or a role is written in the plugin or the role. Generated lists have no source."""
    link = re.compile(r'href="https://github\.com/azbatch/azbatch\.cmk/edit/main/([^"]*)" rel="edit"')
    sources = {name: link.findall((SITE / name).read_text(encoding="utf-8")) for name in written()}

    assert sources["index.html"] == ["docs/docsite/index.md"]
    assert sources["docs/rotate.html"] == ["docs/rotate.md"]
    assert sources[MODULE] == ["plugins/modules/batch_encryption_info.py"]
    assert sources[ROLE] == ["roles/rotate/meta/argument_specs.yml"]
    assert [name for name, found in sources.items() if not found] == [
        *("docs/names.html", "docs/reference/docsite/guides.html", "docs/reference/environment_variables.html"),
        *("docs/reference/index.html", "docs/sandbox-fidelity-list.html"),
    ]
    assert [path for found in sources.values() for path in found if not (ROOT / path).is_file()] == []
