# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The frame of the pages of an audit, of the users of a vault and of a drill, in a browser; and the last two pages."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import fleets
import pytest
from axe_playwright_python.sync_playwright import Axe
from documents import DAY, KEY, NEW, NOW, OLD, account_id, key, listed
from playwright.sync_api import Browser, Page, expect

from ansible_collections.azbatch.cmk.plugins.module_utils._audit import (
    drill_page,
    evidence_page,
    page,
    users_page,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import drill as drill_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.drill import Drill

# The longest names that Azure allows.
LONG_KEY, LONG_GROUP = "k" * 127, "g" * 90
MARKUP = "<script>window.executed=1</script><img src=x onerror=window.executed=1>"
DRILL = Drill(
    "disable_key",
    account_id(),
    KEY,
    "2026-02-01T12:00:00Z",
    "abcdef04-7777-8888-9999-000000000000",
    "2026-02-01T12:20:05Z",
    "409 KeyVaultKeyNotAccessible",
    "2026-02-01T12:20:27Z",
)


def drill(one: Drill = DRILL, **awx: Any) -> dict[str, Any]:
    """The report that the playbook writes."""
    described = drill_document.describe(one)
    assert described is not None
    return {**described, "job": None, "user": None, "summary": drill_document.summary("mybatch", described), **awx}


def user(name: str, version: str | None = None, kind: str = "Microsoft.Batch/batchAccounts", **more: Any) -> Any:
    resource = account_id(name).replace("Microsoft.Batch/batchAccounts", kind)
    return {
        "id": resource,
        "name": name,
        "type": kind.lower(),
        "version": version,
        "follows_latest": version is None,
        "changed_on": "2026-02-01T12:00:00Z",
        **more,
    }


def users(*given: Any, **more: Any) -> dict[str, Any]:
    """A report on a key with the versions NEW and OLD."""
    state = {"may_be_disabled": False, "may_be_disabled_from": None, "reason": "It is in use."}
    versions = [
        {
            "version": version,
            "enabled": True,
            "created_on": "2026-01-01T12:00:00Z",
            "in_use_by": [one["id"] for one in given if one["version"] in (version, None)],
            **state,
        }
        for version in (NEW, OLD)
    ]
    key = {"name": "batch", "key_identifier": KEY, "exists": True, "unknown": None, "users": [*given], **state}
    return {
        "vault_name": "myvault",
        "vault_used_by": "any",
        "generated_on": "2026-02-01T12:00:00Z",
        "in_use_by": [one["id"] for one in given],
        "may_be_deleted": False,
        "reason": f"{len(given)} Batch accounts use it.",
        "vault_keys": [{**key, "versions": versions, "in_use_by": []}],
        "unlisted": [],
        "subscriptions_left_out": [],
        "not_listed": None,
        **more,
    }


SOME = (user("follower"), user("pinned1", OLD), user("pinned2", OLD), user("disks", None, follows_latest=False))


def audit_page() -> str:
    report = fleets.many(250)
    first = report["accounts"][0]
    first.update(key_name=LONG_KEY, resource_group=LONG_GROUP, tags={"t" * 512: "v" * 256})
    report["unlisted"] = [{"scope": f"/subscriptions/{'x' * 200}", "reason": "y" * 200, "action": None}]
    return page.as_page(report)


def page_of_users() -> str:
    report = users(*SOME, user("u" * 90, OLD), not_listed="n" * 200)
    report["vault_keys"].append({**report["vault_keys"][0], "name": LONG_KEY})
    return users_page.as_page(report)


def page_of_drill() -> str:
    lost = replace(DRILL, refused_at=None, refusal=None, recovered_at=None)
    return drill_page.as_page(drill(replace(DRILL, key=KEY.replace("batch", LONG_KEY)), job=4711), [drill(lost)])


def page_of_evidence() -> str:
    report = fleets.many(250)
    report["keys"][0].update(key_name=LONG_KEY, owner="o" * 256)
    report["unlisted"] = [{"scope": f"/subscriptions/{'x' * 200}", "reason": "y" * 200, "action": None}]
    return evidence_page.as_evidence({**report, "drills": [drill()]})


PAGES = pytest.mark.parametrize(
    "html",
    [audit_page, page_of_users, page_of_drill, page_of_evidence],
    ids=["audit", "users", "drill", "evidence"],
)


def opened(view: browser.View, html: str, tmp_path: Path) -> Page:
    file = tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")
    view.page.goto(file.as_uri())
    return view.page


# The frame


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 1280), (False, 390), (True, 390)])
@PAGES
def test_a_page_is_accessible_and_fits_the_screen(
    chromium: Browser, tmp_path: Path, html: Callable[[], str], dark: bool, width: int
) -> None:
    with browser.viewing(chromium, dark=dark, width=width) as view:
        shown = opened(view, html(), tmp_path)

        results = Axe().run(shown)
        assert results.violations_count == 0, results.generate_report()
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        if width == 390:
            # Only the chart of an audit with a column for each month scrolls by itself, and only short ids are cut.
            wide = "[...document.querySelectorAll('body *')].filter((one) => one.scrollWidth > one.clientWidth + 1"
            wide += " && getComputedStyle(one).overflowX !== 'visible' && !one.matches('.id, .wide:has(svg)'))"
            assert shown.evaluate(f"{wide}.map((one) => one.outerHTML.slice(0, 100))") == []
        assert view.complaints == []


@PAGES
def test_the_first_link_skips_the_beginning(view: browser.View, tmp_path: Path, html: Callable[[], str]) -> None:
    shown = opened(view, html(), tmp_path)

    shown.keyboard.press("Tab")
    link = shown.locator(".skip")
    expect(link).to_be_focused()
    expect(link).to_be_in_viewport()
    target = link.get_attribute("href") or ""
    shown.keyboard.press("Enter")
    expect(shown.locator(target)).to_be_focused()


@PAGES
def test_a_page_on_paper_is_light_and_whole(chromium: Browser, tmp_path: Path, html: Callable[[], str]) -> None:
    with browser.viewing(chromium, dark=True) as view:
        shown = opened(view, html(), tmp_path)
        shown.emulate_media(media="print", color_scheme="dark")

        # The background of paper.
        assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert shown.locator("input, select, .skip").filter(visible=True).count() == 0
        assert shown.locator("tbody tr").filter(visible=True).count() > 0


@PAGES
def test_a_page_without_scripts_is_whole(chromium: Browser, tmp_path: Path, html: Callable[[], str]) -> None:
    file = tmp_path / "page.html"
    file.write_text(html(), encoding="utf-8")
    with contextlib.closing(chromium.new_context(java_script_enabled=False)) as context:
        shown = context.new_page()
        shown.goto(file.as_uri())

        rows = shown.locator("tbody tr")
        assert rows.filter(visible=True).count() == rows.count() > 0
        assert shown.locator("input, select, button").filter(visible=True).count() == 0


@pytest.mark.parametrize("name", ["audit", "users"])
def test_the_text_of_azure_is_folded(view: browser.View, tmp_path: Path, name: str) -> None:
    azure = {"code": "Forbidden", "message": "The client is not authorized."}
    refused = CmkError("The caller lacks a right.", azure=azure).reported
    unlisted = [{"scope": "/subscriptions/a", "reason": refused, "action": None}]
    html = users_page.as_page(users(unlisted=unlisted))
    if name == "audit":
        html = page.as_page({**fleets.report(fleets.on()), "unlisted": unlisted})
    shown = opened(view, html, tmp_path)

    expect(shown.get_by_text("The caller lacks a right.")).to_be_visible()
    expect(shown.get_by_text(azure["message"])).to_be_hidden()
    shown.get_by_text("Azure reports").click()
    expect(shown.get_by_text(azure["message"])).to_be_visible()


# The users of a vault


def groups(page: Page) -> list[tuple[str, list[str]]]:
    """The first characters of each shown group, and its shown users."""
    return [
        (group.locator(".group").inner_text()[:12], group.locator(".user:not([hidden]) b").all_text_contents())
        for group in page.locator("tbody:not([hidden])").all()
    ]


def test_users_are_grouped_by_version(view: browser.View, tmp_path: Path) -> None:
    shown = opened(view, users_page.as_page(users(*SOME)), tmp_path)

    assert groups(shown) == [
        ("The latest v", ["follower"]),
        ("Version not ", ["disks"]),
        ("Version bbbb", []),
        ("Version cccc", ["pinned1", "pinned2"]),
    ]
    version = shown.locator(".group", has_text="Version ccc")
    assert "2 users; 2 others may use it" in version.inner_text()
    # The copied id is whole.
    ids = shown.locator(".id")
    assert {len(one) for one in ids.all_text_contents()} == {32, 36}
    assert all((box := one.bounding_box()) and box["width"] < 100 for one in ids.all())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PINNED2 ", [("Version cccc", ["pinned2"])]),
        ("cccccccc", [("Version cccc", ["pinned1", "pinned2"])]),
        ("mars", []),
    ],
)
def test_a_filter_of_users(
    view: browser.View, tmp_path: Path, text: str, expected: list[tuple[str, list[str]]]
) -> None:
    shown = opened(view, users_page.as_page(users(*SOME)), tmp_path)

    shown.get_by_label("Filter").fill(text)

    assert groups(shown) == expected
    found = sum(len(names) for _group, names in expected)
    expect(shown.get_by_role("status")).to_have_text(f"The filter matches {found} of 4 users.")
    shown.get_by_label("Filter").fill("")
    assert len(groups(shown)) == 4
    expect(shown.get_by_role("status")).to_have_text("")


def test_a_key_that_could_not_be_read_has_users(view: browser.View, tmp_path: Path) -> None:
    report = users(user("follower"), user("pinned1", OLD))
    report["vault_keys"][0].update(exists=None, unknown="No access.", versions=[])
    shown = opened(view, users_page.as_page(report), tmp_path)

    expect(shown.get_by_text("No access.")).to_be_visible()
    assert [names for _group, names in groups(shown)] == [["follower"], ["pinned1"]]


# A drill


def test_a_drill_has_a_timeline(view: browser.View, tmp_path: Path) -> None:
    shown = opened(view, drill_page.as_page(drill()), tmp_path)

    assert shown.locator(".state").inner_text() == "passed"
    assert [one.inner_text().splitlines() for one in shown.locator("#course li").all()] == [
        ["The key was disabled", "1 February 2026, 12:00 UTC"],
        ["Batch refused the account (409 KeyVaultKeyNotAccessible)", "1 February 2026, 12:20 UTC, 20 min 5 s later"],
        ["Batch accepted changes of the account again", "1 February 2026, 12:20 UTC, 22 s later"],
    ]
    assert shown.get_by_text("AWX").count() == 0
    assert shown.get_by_text("Drills of this account").count() == 0


def test_a_drill_that_has_not_passed(view: browser.View, tmp_path: Path) -> None:
    report = drill(replace(DRILL, recovered_at=None), job=4711, user="operator")
    shown = opened(view, drill_page.as_page(report), tmp_path)

    assert shown.locator(".state").inner_text() == "not passed"
    assert shown.locator("#course li").last.inner_text().endswith("not seen")
    assert shown.get_by_role("definition").last.inner_text() == "4711 operator"


def test_the_trend_has_the_earlier_drills_of_the_account(view: browser.View, tmp_path: Path) -> None:
    def write(name: str, one: Drill) -> None:
        (tmp_path / f"{name}.json").write_text(json.dumps(drill(one)), encoding="utf-8")

    first = replace(DRILL, started_at="2025-11-01T12:00:00Z", refused_at=None, recovered_at=None)
    second = replace(DRILL, started_at="2026-01-01T12:00:00Z", refused_at="2026-01-01T12:00:30Z", kind="revoke_access")
    write("z-first", first)
    write("a-second", replace(second, recovered_at="2026-01-01T12:00:30Z"))
    write("own", DRILL)
    write("later", replace(DRILL, started_at="2026-03-01T12:00:00Z"))
    write("other", replace(first, account=account_id("other")))
    (tmp_path / "audit.json").write_text('{"accounts": []}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")

    shown = opened(view, drill_page.as_page(drill(), drill_page.earlier(drill(), tmp_path)), tmp_path)

    rows = shown.get_by_role("region", name="Drills of this account").locator("tbody tr")
    assert [one.locator("th, td").all_inner_texts() for one in rows.all()] == [
        ["1 February 2026, 12:00 UTC", "disable_key", "20 min 5 s", "22 s", "passed"],
        ["1 January 2026, 12:00 UTC", "revoke_access", "30 s", "0 s", "passed"],
        ["1 November 2025, 12:00 UTC", "disable_key", "not seen", "not seen", "not passed"],
    ]
    refused = shown.get_by_role("img").first.get_attribute("aria-label")
    assert refused == "2026-01-01 12:00: 30, 2026-02-01 12:00: 1,205"


@pytest.mark.parametrize("html", [users_page.as_page, drill_page.as_page], ids=["users", "drill"])
def test_text_of_azure_is_not_run(view: browser.View, tmp_path: Path, html: Callable[[dict[str, Any]], str]) -> None:
    """The tags of a drill, and names of resources."""
    if html is drill_page.as_page:
        changed = replace(DRILL, account=MARKUP, key=MARKUP, started_by=MARKUP, started_at=MARKUP, refusal=MARKUP)
        report = drill(changed, user=MARKUP)
    else:
        report = users(user(MARKUP, MARKUP), user("b"), vault_name=MARKUP, reason=MARKUP, not_listed=MARKUP)
        report["vault_keys"][0].update(name=MARKUP, reason=MARKUP)
    shown = opened(view, html(report), tmp_path)

    assert shown.evaluate("window.executed") is None
    assert shown.locator("img").count() == 0
    assert MARKUP in shown.locator("body").inner_text()


# The evidence


def test_what_the_data_of_a_key_prove(view: browser.View, tmp_path: Path) -> None:
    versions = [listed(key(NEW, tags={"Owner": "team-a"})), listed(key(OLD, created=NOW - 100 * DAY, enabled=False))]
    newest = key(NEW, tags={"Owner": f"team{MARKUP}"})
    of_key = {"newest": newest, "versions": versions, "policy": Denied("You may not."), "deleted": None}
    report = fleets.report(fleets.on(), by={"max_version_age": "P365D"}, keys={KEY: of_key})

    shown = opened(view, evidence_page.as_evidence({**report, "drills": [drill()]}), tmp_path)

    expect(shown.get_by_role("definition").filter(has_text="team")).to_have_text(f"team{MARKUP}")
    expect(shown.locator("dd").filter(has_text="P365D")).to_have_count(1)
    expect(shown.locator(".warning")).to_contain_text("rotation_policy: You may not.")
    rows = shown.get_by_role("table").filter(has_text="Pinned to it").locator("tbody tr")
    expect(rows.locator(".mark")).to_have_text(["active", "suspended"])
    for name, text in (
        ("PCI DSS 4.0.1, 3.7.4", "Accounts beyond it: 0. Keys that Key Vault rotates: 0; not known of 1 key."),
        ("PCI DSS 4.0.1, 3.7.5", "Replaced versions: 1; disabled: 1."),
        ("NIST SP 800-57 Part 1", "pre-activation 0, active 1, suspended 1, deactivated 0."),
    ):
        expect(shown.get_by_role("row", name=name)).to_contain_text(text)
    expect(shown.get_by_text("Last drill: mybatch")).to_contain_text("passed, recovered after")
    assert view.complaints == []
