# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of an audit in a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import browser
import fleets
import pytest
from documents import (
    SUBSCRIPTION,
    VAULT_ID,
    account,
    system_assigned,
)
from playwright.sync_api import Locator, Page, expect

from ansible_collections.azbatch.cmk.plugins.module_utils._audit.comparison import compared
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.page import as_page
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Unavailable

MARKUP = "</script><script>window.executed=1</script><img src=x onerror=window.executed=1>"
QUOTED = f'" onfocus="window.executed=1" autofocus x="{MARKUP}'
SECOND = "99999999-1111-2222-3333-444444444444"


def shown(view: browser.View, report: dict[str, Any], tmp_path: Path, fragment: str = "") -> Page:
    file = tmp_path / "audit.html"
    file.write_text(as_page(report), encoding="utf-8")
    view.page.goto(file.as_uri() + fragment)
    return view.page


def names(page: Page) -> list[str]:
    return page.locator("#rows th > b").all_text_contents()


def status(page: Page) -> Locator:
    return page.get_by_role("status")


def fragment(page: Page) -> str:
    return page.url.partition("#")[2]


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


def test_a_finding_has_files_that_repair_it(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path, "#finding=version_too_old")

    page.get_by_text("Repair with Ansible").locator("visible=true").click()

    inventory, playbook, command = page.locator("#version_too_old pre").all_text_contents()
    assert "azbatch.cmk.batch_accounts" in inventory
    assert "azbatch.cmk.rotate" in playbook
    assert command.endswith("--check")
    page.locator("#version_too_old [data-copy]").first.click()
    expect(page.locator("#version_too_old [data-copy]").first).to_have_text(re.compile("Copied|Selected"))


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


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (fleets.report(fleets.on(), fleets.on(name="two")), "No account is at risk or non-compliant."),
        (fleets.report(fleets.on(), **UNREAD), "1 of 1 account is unknown. Not everything could be read."),
        (fleets.report(), "No Batch account could be read."),
    ],
    ids=["all", "part of an account", "nothing"],
)
def test_the_page_begins_with_the_state(view: browser.View, tmp_path: Path, report: dict[str, Any], said: str) -> None:
    page = shown(view, report, tmp_path)

    assert page.locator("h1 + *").inner_text() == said
    if not said.startswith("No account"):
        page.locator(".state a").click()
        expect(page.locator("#unread")).to_be_focused()


def test_the_unavailable_accounts_are_within_those_at_risk(view: browser.View, tmp_path: Path) -> None:
    report = fleets.many(3)
    for one, available in zip(report["accounts"], (False, True, None, True), strict=True):
        one["available"] = available

    page = shown(view, report, tmp_path)

    tile = page.locator(".tiles .at_risk")
    assert tile.inner_text().split() == ["1", "at", "risk", "1", "unavailable", "now"]
    tile.get_by_role("link", name="unavailable now").click()
    assert names(page) == ["lost"]
    assert fragment(page) == "available=no"
