# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of an audit in a browser."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import browser
import fleets
import pytest
from axe_playwright_python.sync_playwright import Axe
from documents import (
    ENCRYPTION_USER,
    KEY,
    NEW,
    PRINCIPAL,
    SUBSCRIPTION,
    VAULT_ID,
    account,
    assignment,
    system_assigned,
)
from playwright.sync_api import Browser, Locator, Page, expect

from ansible_collections.azbatch.cmk.plugins.module_utils._audit.comparison import compared
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.page import as_page
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.report import open_findings
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Rejected, Unavailable

MARKUP = "</script><script>window.executed=1</script><img src=x onerror=window.executed=1>"
QUOTED = f'" onfocus="window.executed=1" autofocus x="{MARKUP}'
SECOND = "99999999-1111-2222-3333-444444444444"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.started() as started:
        yield started


@pytest.fixture
def view(chromium: Browser) -> Iterator[browser.View]:
    with browser.viewing(chromium) as view:
        yield view
        assert view.complaints == []
        assert view.hosts <= {""}


def shown(view: browser.View, report: dict[str, Any], tmp_path: Path, fragment: str = "") -> Page:
    file = tmp_path / "audit.html"
    file.write_text(as_page(report), encoding="utf-8")
    view.page.goto(file.as_uri() + fragment)
    return view.page


def names(page: Page) -> list[str]:
    return page.locator("#rows th > b").all_text_contents()


def status(page: Page) -> Locator:
    return page.get_by_role("status")


def sort(page: Page, column: str) -> None:
    page.locator("#accounts").get_by_role("button", name=column, exact=True).click()


def fragment(page: Page) -> str:
    return page.url.partition("#")[2]


def counts(page: Page) -> list[str]:
    return page.locator(".tiles b").all_text_contents()


@pytest.fixture
def some() -> dict[str, Any]:
    return fleets.many(250)


@pytest.fixture
def places() -> dict[str, Any]:
    """Accounts in two subscriptions, regions and vaults, one of them with a critical finding."""
    other, away = "https://other.vault.azure.net/keys/batch", fleets.on(fleets.OLD, "away", tags={"team": "risk"})
    away["id"] = away["id"].replace(SUBSCRIPTION, SECOND)
    away["location"] = "eastus2"
    read = fleets.seen()
    return fleets.report(
        fleets.on(fleets.OLD, "here", tags={"team": "risk", "stage": "test"}),
        fleets.on(name="fine", tags={"team": "risks"}),
        away,
        account("lost", key=other, identity=system_assigned()),
        vaults={**read["vaults"], "other": None},
        deleted_vaults={"other": {"properties": {"vaultId": VAULT_ID, "scheduledPurgeDate": "2026-08-20T06:24:25Z"}}},
        keys={**read["keys"], other: {"newest": None, "versions": None, "policy": None, "deleted": None}},
    )


def test_the_most_severe_cause_is_first(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path)

    first = page.locator(".finding").first
    expect(first.get_by_role("heading")).to_have_text("critical The key's vault was deleted")
    expect(first.get_by_role("listitem")).to_contain_text("can be recovered until 20 August 2026, 06:24 UTC")
    expect(first.locator(".names")).to_have_text("lost")
    assert names(page)[0] == "lost"
    expect(status(page)).to_have_text("All 251 accounts.")
    assert counts(page)[:2] == ["251", "1"]
    # The finding is visible without scrolling.
    box = first.bounding_box()
    assert box
    assert box["y"] + box["height"] < 900


@pytest.fixture
def lost() -> dict[str, Any]:
    """Two accounts whose key was purged, and one account that does not use the newest version."""
    purged, read = "https://myvault.vault.azure.net/keys/purged", fleets.seen()["keys"]
    nothing = {"newest": None, "versions": None, "policy": None, "deleted": None}
    gone = [account(name, key=purged, identity=system_assigned()) for name in ("gone1", "gone2")]
    granted = {"by_principal": {PRINCIPAL: [assignment(ENCRYPTION_USER, VAULT_ID)]}, "of_groups": []}
    return fleets.report(
        *gone,
        fleets.on(fleets.OLD, "old"),
        keys={**read, purged: nothing},
        grants={KEY: granted, purged: granted},
    )


@pytest.mark.parametrize("scripts", [True, False])
def test_lost_keys_are_last_and_have_their_own_heading(
    chromium: Browser, lost: dict[str, Any], tmp_path: Path, scripts: bool
) -> None:
    file = tmp_path / "audit.html"
    file.write_text(as_page(lost), encoding="utf-8")
    with contextlib.closing(chromium.new_context(java_script_enabled=scripts)) as context:
        page = context.new_page()
        page.goto(file.as_uri())

        expect(page.locator("h2").filter(visible=True)).to_have_text(
            [
                *("What to do first", "Lost keys and accounts", "Accounts"),
                *("Other services that use the vaults", "Statistics of all accounts"),
            ]
        )
        first, last = (page.locator(f"#{one}").get_by_role("heading", level=3) for one in ("findings", "lost"))
        expect(first).to_have_text(["low A newer version of the key exists and the account does not use it"])
        expect(last).to_have_text(["critical The key was purged"])


def test_columns_are_sorted(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path)

    sort(page, "Account")
    assert names(page)[:2] == ["batch00000", "batch00001"]
    expect(page.locator("#accounts th").first).to_have_attribute("aria-sort", "ascending")
    sort(page, "Account")
    assert names(page)[0] == "lost"
    expect(page.locator("#accounts th").first).to_have_attribute("aria-sort", "descending")
    sort(page, "Age")
    ages = page.locator("#rows tr td:nth-child(6)").all_text_contents()
    assert ages == sorted(ages, key=lambda age: int(age.removesuffix(" days")) if age.endswith("days") else 10**6)
    # Unknown values are last, in both directions.
    sort(page, "Age")
    assert page.locator("#rows tr td:nth-child(6)").first.text_content() == "100 days"


UNREAD = {"grants": {fleets.KEY: Unavailable("Busy.")}}
ACCEPTED = {"finding": "not_read", "accounts": ["*"], "reason": "So.", "expires_on": "2099-12-31"}


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (fleets.report(fleets.on()), "No open findings."),
        (fleets.report(), "The findings are not known, because no account could be read."),
        (fleets.report(fleets.on(), by={"exceptions": [ACCEPTED]}, **UNREAD), "The data that could be read has no"),
    ],
    ids=["all", "nothing", "part of an account"],
)
def test_nothing_is_open_only_if_everything_was_read(
    view: browser.View, tmp_path: Path, report: dict[str, Any], said: str
) -> None:
    page = shown(view, report, tmp_path)

    expect(page.get_by_text(said)).to_be_visible()
    assert page.get_by_text("No open findings.", exact=True).count() == (said == "No open findings.")


def test_unavailable_accounts_have_a_tile(view: browser.View, tmp_path: Path) -> None:
    """The state "at risk" also has accounts that will lose their key. Only pools show whether an account is
    available."""
    accounts = [fleets.on(name="lost"), fleets.on(name="fine")]
    pools = {one["id"].lower(): [] for one in accounts}
    pools[accounts[0]["id"].lower()] = Rejected("Its key is gone.")
    page = shown(view, fleets.report(*accounts, pools=pools), tmp_path)

    assert counts(page) == ["2", "1", "1", "0", "0", "1"]
    page.get_by_role("link", name="unavailable now").click()
    assert (fragment(page), names(page)) == ("available=no", ["lost"])
    expect(page.get_by_role("link", name="available: unavailable now")).to_be_visible()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (f"subscription={SECOND}", ["away"]),
        ("vault=other", ["lost"]),
        ("severity=critical", ["lost"]),
        ("tag=team%3Drisk", ["away", "here"]),
        ("state=non_compliant&region=eastus2", ["away"]),
        ("cause=vault_deleted%3Aother", ["lost"]),
        ("region=mars", []),
        ("nonsense=1", ["lost", "away", "here", "fine"]),
    ],
)
def test_filters_are_in_the_address(
    view: browser.View, places: dict[str, Any], tmp_path: Path, filters: str, expected: list[str]
) -> None:
    page = shown(view, places, tmp_path, f"#{filters}")

    assert names(page) == expected
    causes = page.locator(".finding:not([hidden]) li:not([hidden]) .names").all_text_contents()
    affected = {name for names in causes for name in names.split(", ")}
    assert affected <= set(expected)
    assert len(expected) == 4 or status(page).text_content() == (
        f"Filters match {len(expected)} of 4 accounts. The other accounts are not shown."
    )


def test_a_filter_changes_the_address(view: browser.View, places: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, places, tmp_path)

    page.get_by_label("Subscription").select_option(SECOND)
    assert fragment(page) == f"subscription={SECOND}"
    page.get_by_label("Tag").fill("team=risk")
    page.get_by_label("Tag").press("Enter")
    assert (fragment(page), names(page)) == (f"subscription={SECOND}&tag=team%3Drisk", ["away"])
    page.get_by_role("list", name="Filters in use").get_by_role("link", name="subscription").click()
    assert (fragment(page), names(page)) == ("tag=team%3Drisk", ["away", "here"])
    page.go_back()
    assert names(page) == ["away"]
    expect(page.get_by_label("Subscription")).to_have_value(SECOND)
    page.get_by_role("link", name="Clear all filters").click()
    assert (fragment(page), len(names(page))) == ("all", 4)


def test_from_a_cause_to_its_accounts(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path)
    section = page.locator("#version_too_old")

    section.locator("summary").first.click()
    section.locator(".count").click()

    affected = [one["name"] for one in some["accounts"] if "version_too_old" in str(open_findings(one))]
    assert names(page) == affected
    expect(page.get_by_role("heading", name="Accounts", exact=True)).to_be_focused()
    page.locator("#rows").get_by_role("link", name="newer_version_unused").first.click()
    expect(page.locator("#newer_version_unused > summary")).to_be_focused()
    expect(page.locator("#newer_version_unused .names")).to_be_visible()


def test_a_finding_has_files_that_repair_it(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path, "#finding=version_too_old")

    page.get_by_text("Repair with Ansible").locator("visible=true").click()

    inventory, playbook, command = page.locator("#version_too_old pre").all_text_contents()
    assert "azbatch.cmk.batch_accounts" in inventory
    assert "azbatch.cmk.rotate" in playbook
    assert command.endswith("--check")
    page.locator("#version_too_old [data-copy]").first.click()
    expect(page.locator("#version_too_old [data-copy]").first).to_have_text(re.compile("Copied|Selected"))


def test_the_page_is_usable_by_keyboard(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path)

    page.keyboard.press("Tab")
    expect(page.get_by_text("To the table of accounts")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Accounts", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Next")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#part")).to_have_text("101 to 200 of 251")
    page.keyboard.press("Enter")
    expect(page.locator("#part")).to_have_text("201 to 251 of 251")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()


def test_changes_since_an_earlier_report(view: browser.View, tmp_path: Path) -> None:
    before = fleets.report(fleets.on(fleets.OLD), fleets.on(fleets.OLD, "two"))
    after = fleets.report(fleets.on(), fleets.on(name="two"), account("another"))
    after["comparison"] = compared(before, after)

    page = shown(view, after, tmp_path)

    changes = page.locator("section", has=page.get_by_role("heading", name="Changes since 28 May 2026, 20:26 UTC"))
    expect(changes).to_contain_text("Closed findingsnewer_version_unused (low): 2 accounts (mybatch, two)")
    expect(changes).to_contain_text("Added accounts1 account (another)")
    expect(changes).to_contain_text("state was non-compliant and is ok: 2 accounts (mybatch, two)")


def others() -> dict[str, Any]:
    """Vaults with a user, without one, and with users that are not known."""
    keys = [
        {"name": "batch", "version": NEW, "follows_latest": True},
        {"name": "batch", "version": None, "follows_latest": True},
        {"name": None, "version": None, "follows_latest": False},
    ]
    name = f"storage account <i>{MARKUP}"
    resource = {"id": "/subscriptions/1/storage", "name": name, "type": "x/y", "used_keys": keys}
    secret = {**resource, "name": "app", "used_keys": []}
    found: dict[str, Any] = {
        "myvault": {"resources": [resource, secret], "unknown": None},
        "free": {"resources": [], "unknown": None},
        **{name: {"resources": None, "unknown": "The caller may lack <u>*/read</u>."} for name in ("hid1", "hid2")},
    }
    return found


def test_other_services_that_use_the_vaults(chromium: Browser, tmp_path: Path) -> None:
    width = 390
    with browser.viewing(chromium, width=width) as view:
        page = shown(view, fleets.report(fleets.on(), other_users=others()), tmp_path)
        section = page.locator("section").filter(has_text="Other services that use the vaults")

        expect(section).to_contain_text("Not known for 2 vaults (hid1, hid2): The caller may lack <u>*/read</u>.")
        expect(section).to_contain_text("No resource of another service uses 1 vault (free).")
        expect(section).to_contain_text("encryption protectors of SQL")
        rows = section.locator("tbody tr")
        assert [one.locator("td").all_text_contents() for one in rows.all()] == [
            ["myvault", "batch", f"{NEW}, follows the latest"],
            ["myvault", "batch", "the latest"],
            ["myvault", "not known", "not known"],
            ["myvault", "none", "none"],
        ]
        expect(rows.first).to_contain_text(f"<i>{MARKUP}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert view.complaints == []


@pytest.mark.parametrize("text", [MARKUP, QUOTED], ids=["markup", "quoted"])
def test_text_of_azure_is_not_run(view: browser.View, tmp_path: Path, text: str) -> None:
    report = fleets.report(account("plain"), fleets.on(fleets.OLD), by={"max_version_age": "P1D"})
    fields = (
        "name",
        "resource_group",
        "subscription_id",
        "subscription_name",
        "location",
        "vault_name",
        "key_name",
        "key_version",
    )
    for one in report["accounts"]:
        one.update(dict.fromkeys(fields, text), tags={text: text})
        for finding in one["findings"]:
            finding.update(evidence=text, remedy=text, cause=f"{finding['id']}:{text}")
    for cause in report["causes"]:
        resource = {"type": "key", "name": text}
        cause.update(id=f"{cause['finding']}:{text}", evidence=text, remedy=text, resource=resource)
    exception = {"reason": text, "expires_on": "2027-01-01"}
    accepted = {**report["accounts"][0]["findings"][0], "accepted": True, "exception": exception}
    report["accounts"][0]["findings"].append(accepted)
    report["comparison"] = compared(fleets.report(), report)
    report["unlisted"] = [{"scope": text, "reason": text, "action": None}]

    page = shown(view, report, tmp_path)
    page.get_by_label("Vault").select_option(text)
    page.get_by_label("Tag").fill(f"{text}={text}")
    page.get_by_label("Tag").press("Enter")
    page.locator(".finding .count").first.click()

    assert names(page) == [text]
    assert parse_qs(fragment(page))["vault"] == [text.strip()]
    assert page.evaluate("window.executed") is None
    assert page.locator("img, [onfocus]").count() == 0


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 390)])
def test_the_page_is_accessible(
    chromium: Browser, some: dict[str, Any], tmp_path: Path, dark: bool, width: int
) -> None:
    with browser.viewing(chromium, dark=dark, width=width) as view:
        page = shown(view, some, tmp_path, "#severity=medium&tag=team")
        page.get_by_text("Repair with Ansible").locator("visible=true").first.click()

        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert view.complaints == []


def test_the_page_is_readable_without_scripts(chromium: Browser, some: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "audit.html"
    file.write_text(as_page(some), encoding="utf-8")
    with contextlib.closing(chromium.new_context(java_script_enabled=False)) as context:
        page = context.new_page()
        page.goto(file.as_uri())

        expect(page.locator("#rows tr")).to_have_count(251)
        expect(page.get_by_role("search")).to_be_hidden()
        expect(page.get_by_role("button", name="Copy")).to_have_count(0)
        page.locator("#rows").get_by_role("link", name="newer_version_unused").first.click()
        page.locator("#newer_version_unused > summary").click()
        expect(page.locator("#newer_version_unused .names")).to_contain_text("more")
