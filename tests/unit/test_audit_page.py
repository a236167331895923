# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of an audit, as a browser shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import fleets
import pytest
from axe_playwright_python.sync_playwright import Axe
from documents import account
from playwright.sync_api import Browser, Locator, Page, expect

from ansible_collections.azbatch.cmk.plugins.module_utils._audit.comparison import compared
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.page import as_page

MARKUP = "</script><script>window.struck=1</script><img src=x onerror=window.struck=1>"
PAGE = 100


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


def shown(view: browser.View, report: dict[str, Any], tmp_path: Path) -> Page:
    file = tmp_path / "audit.html"
    file.write_text(as_page(report), encoding="utf-8")
    view.page.goto(file.as_uri())
    return view.page


def names(page: Page) -> list[str]:
    return page.locator("#rows th").all_text_contents()


def told(page: Page) -> Locator:
    return page.get_by_role("status")


def sort(page: Page, column: str) -> None:
    page.locator("#accounts").get_by_role("button", name=column, exact=True).click()


@pytest.fixture
def some() -> dict[str, Any]:
    return fleets.many(250)


def test_those_at_risk_come_first(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path)

    assert names(page)[0] == "lost"
    expect(page.get_by_role("region", name="Accounts at risk").get_by_role("rowheader")).to_have_text(["lost"])
    expect(told(page)).to_have_text("1 to 100 of 251 accounts")
    expect(page.locator(".cards .at_risk")).to_contain_text("1at risk")


def test_it_is_sorted(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path)

    sort(page, "Account")
    assert names(page)[:2] == ["batch00000", "batch00001"]
    expect(page.locator("#accounts th").first).to_have_attribute("aria-sort", "ascending")
    sort(page, "Account")
    assert names(page)[0] == "lost"
    expect(page.locator("#accounts th").first).to_have_attribute("aria-sort", "descending")
    sort(page, "Age, days")
    ages = page.locator("#rows tr td:nth-child(7)").all_text_contents()
    assert ages == sorted(ages, key=lambda age: int(age) if age.isdigit() else 10**6)
    # What is not known comes last, whichever way it is sorted.
    sort(page, "Age, days")
    assert page.locator("#rows tr td:nth-child(7)").first.text_content() == "100"


def test_it_is_filtered(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path)

    page.get_by_label("Name, group, key").fill("BATCH0000")
    expect(told(page)).to_have_text("1 to 10 of 10 accounts")
    page.get_by_label("State").select_option("ok")
    assert all(name.startswith("batch0000") for name in names(page))
    assert set(page.locator("#rows .mark").all_text_contents()) == {"ok"}
    page.get_by_label("Name, group, key").fill("nobody")
    expect(told(page)).to_have_text("No account fits.")


def test_from_a_finding_to_its_accounts(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path)
    section = page.locator("section.finding", has=page.locator("#version_too_old"))

    section.get_by_role("button", name="Show them in the table").click()

    affected = [one["name"] for one in some["accounts"] if "version_too_old" in str(one["findings"])]
    assert sorted(names(page)) == sorted(affected)
    expect(page.locator("#rows").get_by_text("version_too_old (accepted)")).to_have_count(1)
    inventory, playbook = section.locator("pre").all_text_contents()
    assert "azbatch.cmk.batch_accounts" in inventory
    assert "azbatch.cmk.rotate" in playbook


def test_by_keyboard_alone(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path)

    page.keyboard.press("Tab")
    expect(page.get_by_text("To the table of accounts")).to_be_focused()
    page.get_by_role("button", name="Next").focus()
    page.keyboard.press("Enter")
    expect(told(page)).to_have_text("101 to 200 of 251 accounts")
    page.keyboard.press("Enter")
    expect(told(page)).to_have_text("201 to 251 of 251 accounts")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()


def test_what_has_changed(view: browser.View, tmp_path: Path) -> None:
    before, after = fleets.report(fleets.on(fleets.OLD)), fleets.report(fleets.on(), account("another"))
    after["comparison"] = compared(before, after)

    page = shown(view, after, tmp_path)

    changes = page.locator("section", has=page.get_by_role("heading", name="What has changed since"))
    expect(changes).to_contain_text("Findings that are gone (1)")
    expect(changes).to_contain_text("mybatch: newer_version_unused (low)")
    expect(changes).to_contain_text("Accounts that are new (1)another")


def test_what_accounts_are_called_is_not_run(view: browser.View, tmp_path: Path) -> None:
    report = fleets.report(account("plain"), fleets.on(fleets.OLD), by={"max_version_age": "P1D"})
    for one in report["accounts"]:
        one.update(name=MARKUP, resource_group=MARKUP, vault_name=MARKUP, key_name=MARKUP)
        for finding in one["findings"]:
            finding["evidence"] = MARKUP

    page = shown(view, report, tmp_path)

    assert names(page) == [MARKUP, MARKUP]
    assert page.evaluate("window.struck") is None
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1360, 420])
def test_everyone_can_read_it(chromium: Browser, some: dict[str, Any], tmp_path: Path, dark: bool, width: int) -> None:
    with browser.viewing(chromium, dark=dark, width=width) as view:
        page = shown(view, some, tmp_path)

        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert view.complaints == []


def test_on_paper(view: browser.View, some: dict[str, Any], tmp_path: Path) -> None:
    page = shown(view, some, tmp_path)
    page.emulate_media(media="print")

    expect(page.get_by_role("search")).to_be_hidden()
    expect(page.locator("#rows tr").first).to_be_visible()


def test_ten_thousand_accounts_do_not_freeze_it(view: browser.View, tmp_path: Path) -> None:
    """Processor time of the page's own thread, against what an empty page takes: other processes do not count."""
    devtools = view.page.context.new_cdp_session(view.page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds(act: Callable[[], object]) -> float:
        """A page that was loaded anew begins at 0."""
        act()
        measured = devtools.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in measured if one["name"] == "TaskDuration"))

    (tmp_path / "empty.html").write_text("<!doctype html><title>Empty</title>")
    view.page.goto((tmp_path / "empty.html").as_uri())
    empty = seconds(view.page.reload)
    page = shown(view, fleets.many(10_000), tmp_path)

    def work() -> None:
        page.get_by_label("Name, group, key").fill("")
        sort(page, "Key")
        page.get_by_label("Name, group, key").fill("batch09999")
        expect(told(page)).to_have_text("1 to 1 of 1 accounts")

    loaded = seconds(page.reload)
    worked = seconds(work) - loaded

    print(f"empty {empty:.3f} s, loaded {loaded:.3f} s, sorted and filtered {worked:.3f} s")
    assert page.locator("#rows tr").count() == 1
    assert loaded < 2 + 40 * empty
    assert worked < 2 + 40 * empty
