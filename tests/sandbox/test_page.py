# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page at the control URL in a browser, and the protection of the control API from other sites."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import browser
import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from batch_calls import batch, create, user_assigned_identity
from key_vault_calls import (
    ENCRYPTION_USER,
    assign,
    data,
    make_key,
    make_vault,
    vault_path,
    version_of,
)
from playwright.sync_api import Browser, Locator, Page, expect
from sandbox_client import Control, Sandbox

HTML = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
MARKUP = "<script>window.executed=1</script>"


def get(url: str, query: str = "", **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"{url}/{query}", headers={**HTML, **headers}, timeout=30)


def encryption(key: str) -> dict[str, Any]:
    return {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": key}}}


def following(identity: dict[str, Any], key: str) -> dict[str, Any]:
    """The body of an account that uses the key with this identity."""
    assigned = {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}
    return {"identity": assigned, "properties": encryption(key)}


@pytest.fixture
def scene(sandbox: Sandbox) -> dict[str, str]:
    """Three accounts: on a Microsoft-managed key, pinned to the first version, and following the key. Returns the
    versions."""
    identity = user_assigned_identity(sandbox, "reader")
    reader = identity["properties"]["principalId"]
    make_vault(sandbox, enablePurgeProtection=True, tags={"team": MARKUP})
    assert assign(sandbox, vault_path(sandbox), ENCRYPTION_USER, reader).ok
    versions = [version_of(make_key(sandbox)) for _ in range(2)]
    key = "https://vault-one.vault.azure.net/keys/key1"
    create(sandbox, "plain", tags={"note": MARKUP})
    create(sandbox, "pinned", **following(identity, f"{key}/{versions[0]}"))
    create(sandbox, "follows", **following(identity, key))
    return {"first": versions[0], "second": versions[1], "reader": reader}


def disable(sandbox: Sandbox, version: str) -> None:
    assert data(sandbox, "PATCH", f"/keys/key1/{version}", {"attributes": {"enabled": False}}).ok


# Over HTTP


def test_browsers_get_a_page_that_runs_nothing_but_its_own(sandbox: Sandbox) -> None:
    response = get(sandbox.url)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/=]+'", policy["script-src"])
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert "unsafe" not in response.headers["content-security-policy"]
    assert not re.search(r"(src|href)=.?(https?:)?//", response.text)


def test_the_page_shows_no_secret(sandbox: Sandbox, control: Control, scene: dict[str, str]) -> None:
    account_keys = batch(sandbox, "POST", "plain", below="/listKeys").json()
    sandbox.bearer().get(f"https://management.azure.com/x?client_secret={sandbox.secret}&Sig=sig-sig", timeout=30)
    control.fault(answer={"status": 500, "headers": {"x-header": "header-value"}, "body": {"a": "body-value"}}, times=0)
    text = get(sandbox.url, "?requests=1000").text
    assert "x-header" in text
    assert "client_secret=(hidden)&amp;Sig=(hidden)" in text
    secrets = (sandbox.secret, sandbox.token(), account_keys["primary"], "sig-sig", "header-value", "body-value")
    assert [one for one in secrets if one in text] == []


# Other sites


WRITES = [("POST", "/reset"), ("POST", "/faults")]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize(("method", "path"), WRITES)
def test_another_site_is_refused(sandbox: Sandbox, headers: dict[str, str], method: str, path: str) -> None:
    before = control_state(sandbox.control)
    body = {"delay": 1} if path == "/faults" else {}
    response = requests.request(method, sandbox.url + path, json=body, headers=headers, timeout=30)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "OtherSite")
    assert control_state(sandbox.control) == before


def test_a_name_that_was_made_to_resolve_to_this_machine_is_refused(sandbox: Sandbox) -> None:
    port = sandbox.url.rpartition(":")[2]
    for method, path in [*WRITES, ("GET", "/environment"), ("GET", "/")]:
        host = f"elsewhere.example:{port}"
        response = requests.request(
            method, sandbox.url + path, headers={"host": host, "origin": f"http://{host}"}, timeout=30
        )
        assert (response.status_code, response.json()["error"]["code"]) == (502, "UnknownHost")


def control_state(control: Control) -> list[Any]:
    return [control.call("GET", path) for path in ("/faults", "/timing", "/requests")]


# In a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.started() as chromium:
        yield chromium


@pytest.fixture
def page(sandbox: Sandbox, chromium: Browser) -> Iterator[Page]:
    """A page. At the end of the test, it must have no errors and no requests to other hosts."""
    with browser.viewing(chromium) as view:
        yield view.page
        assert view.complaints == []
        assert view.hosts <= {sandbox.url.removeprefix("http://")}


def row(page: Page, caption: str, name: str) -> Locator:
    """The row with this name, of the table whose caption begins with this text."""
    table = page.locator("table").filter(has=page.locator("caption", has_text=re.compile(rf"^\s*{re.escape(caption)}")))
    expect(table).to_have_count(1)
    head = page.locator("th", has_text=re.compile(rf"^\s*{re.escape(name)}"))
    found = table.locator("tbody tr").filter(has=head)
    expect(found).to_have_count(1)
    return found


def cell(row: Locator, label: str) -> Locator:
    return row.locator(f'td[data-label="{label}"]')


def test_markup_in_names_stays_text(sandbox: Sandbox, scene: dict[str, str], control: Control, page: Page) -> None:
    control.principal(MARKUP)
    sandbox.arm("GET", f"{sandbox.group}/{MARKUP}", "2022-09-01")
    control.fault(match={"path": MARKUP}, answer={"status": 500})
    page.goto(f"{sandbox.url}/?filter={MARKUP}")
    expect(page.locator(".tag").first).to_contain_text(MARKUP)
    page.goto(sandbox.url)
    expect(cell(row(page, "Accounts", "plain"), "Tags")).to_have_text(f"note={MARKUP}")
    expect(row(page, "Principals: ", MARKUP)).to_have_count(1)
    expect(page.locator("#faults-table")).to_contain_text(f"path {MARKUP}")
    assert page.locator("script").count() == 1
    assert page.evaluate("window.executed") is None


@pytest.mark.parametrize(("dark", "width"), [(False, 1360), (True, 390)])
def test_the_page_is_accessible(
    sandbox: Sandbox, control: Control, scene: dict[str, str], chromium: Browser, dark: bool, width: int
) -> None:
    disable(sandbox, scene["first"])
    make_key(sandbox, "AnotherKey" * 12)
    create(sandbox, "a" * 24, tags={"t" * 200: "v" * 256})
    control.principal("Principal" * 20)
    sandbox.arm("GET", f"{sandbox.group}/nowhere", "2022-09-01")
    control.fault(match={"path": "nowhere"}, answer={"status": 500})
    with browser.viewing(chromium, dark=dark, width=width) as view:
        view.page.goto(sandbox.url)
        found = Axe().run(view.page).response
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]] == []
        assert len(found["passes"]) > 20
        assert view.page.evaluate("document.documentElement.scrollWidth") == width
        for table in view.page.locator("table").all():
            box = table.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= width
        assert view.complaints == []
