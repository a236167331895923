# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Versions of a key that are disabled because nothing uses them any more (keyvault_cmk_unused_versions)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from azure_table import executor_of, task_of
from documents import DAY, KEY, MIDDLE, NEW, NOW, OLD, account, account_id, key, listed
from goals import unused_goal
from key_table import ACCOUNTS, IDENTIFIER, VERSIONS, KeyTable, confirmed, decided, pool, sent, three_versions, update

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change, Removal
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.key import kept_summary
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.removal import UnusedDisabled

HIDDEN = {"hidden": ["hidden"]}


def retire(table: KeyTable, unused_for: str = "P7D", **options: Any) -> Change:
    return decided(table, unused_goal(unused_for=unused_for, **options))


def pinned(version: str | None = NEW, name: str = "mybatch") -> dict[str, Any]:
    return account(name, key=f"{KEY}/{version}" if version else KEY)


def updated(version: str, ago: int, **more: Any) -> KeyTable:
    """Three versions. An account that has left the key has updated this version some seconds ago."""
    table = three_versions(**more)
    for one in table[VERSIONS]:
        if one["kid"].endswith(version):
            one["attributes"]["updated"] = NOW - ago
    return table


def staged(valid_from: int) -> KeyTable:
    """Three versions. The newest was created ten days ago, and is valid from this time on."""
    older = [key(OLD, created=NOW - 90 * DAY), key(MIDDLE, created=NOW - 60 * DAY)]
    return KeyTable(*older, key(NEW, nbf=valid_from))


@pytest.mark.parametrize(
    ("table", "unused_for", "disabled", "kept"),
    [
        pytest.param(three_versions(pinned(None)), "P7D", [MIDDLE, OLD], [], id="follows"),
        pytest.param(three_versions(pinned(OLD)), "P7D", [MIDDLE], [OLD], id="pinned to a previous version"),
        pytest.param(three_versions(pinned(), mybatch=DAY), "P7D", [], [MIDDLE, OLD], id="moved a day ago"),
        pytest.param(three_versions(pinned(), mybatch=None), "P7D", [], [MIDDLE, OLD], id="moved at an unknown time"),
        pytest.param(three_versions(pinned(), mybatch=None), "P0D", [MIDDLE, OLD], [], id="no margin"),
        pytest.param(three_versions(newest_is=7 * DAY), "P7D", [MIDDLE, OLD], [], id="replaced before the margin"),
        pytest.param(three_versions(newest_is=6 * DAY), "P7D", [OLD], [MIDDLE], id="replaced inside the margin"),
        pytest.param(
            three_versions(pinned(None), newest_is=6 * DAY), "P7D", [], [MIDDLE, OLD], id="follows a recent version"
        ),
        pytest.param(three_versions(disabled=(NEW,)), "P7D", [OLD], [], id="newest disabled"),
        pytest.param(three_versions(pinned(None), disabled=(NEW,)), "P7D", [], [OLD], id="follows, newest disabled"),
        pytest.param(
            three_versions(newest_is=DAY, disabled=(MIDDLE,)), "P7D", [], [OLD], id="next disabled, newest recent"
        ),
        pytest.param(
            KeyTable(
                key(OLD, created=NOW - 90 * DAY), key(MIDDLE, created=NOW - 60 * DAY, nbf=NOW + 900 * DAY), key(NEW)
            ),
            "P7D",
            [OLD],
            [],
            id="next valid much later, newest usable",
        ),
        pytest.param(staged(NOW + DAY), "P7D", [OLD], [], id="newest valid later"),
        pytest.param(staged(NOW - DAY), "P7D", [OLD], [MIDDLE], id="newest valid since a day"),
        pytest.param(
            three_versions(account("gone", key=f"{KEY}2"), left=["gone"], gone=None),
            "P7D",
            [MIDDLE, OLD],
            [],
            id="an account on another key",
        ),
        pytest.param(updated(OLD, 6 * DAY), "P7D", [MIDDLE], [OLD], id="updated inside the margin"),
        pytest.param(updated(OLD, 7 * DAY), "P7D", [MIDDLE, OLD], [], id="updated before the margin"),
        pytest.param(three_versions(pools=[pool(f"{KEY}/{OLD}")]), "P7D", [MIDDLE], [OLD], id="pool on a version"),
        pytest.param(
            three_versions(pools=[pool(f"{KEY}/{NEW}", changed_at="2026-05-27T20:26:40Z")]),
            "P7D",
            [],
            [MIDDLE, OLD],
            id="pool that was changed a day ago",
        ),
        pytest.param(three_versions(account("lost"), lost=["lost"]), "P0D", [], [MIDDLE, OLD], id="unknown pools"),
        pytest.param(
            KeyTable(
                key(OLD, created=NOW - 90 * DAY), key(MIDDLE, kty="EC", created=NOW - 60 * DAY), key(enabled=False)
            ),
            "P7D",
            [],
            [],
            id="newest disabled, and Batch cannot use the version before it",
        ),
        pytest.param(KeyTable(key()), "P0D", [], [], id="the only version"),
        pytest.param(KeyTable(), "P7D", [], [], id="no key"),
    ],
)
def test_versions_that_are_disabled_and_kept(
    table: KeyTable, unused_for: str, disabled: list[str], kept: list[str]
) -> None:
    change = retire(table, unused_for)

    assert sent(change) == [update(version, attributes={"enabled": False}) for version in disabled]
    assert (change.report["disabled_versions"], change.report["kept_versions"]) == (disabled, kept)
    assert bool(change.report["in_use_by"] or change.report["kept_until"]) is bool(kept)
    assert isinstance(change, Removal) is bool(disabled)
    if disabled:
        assert set(change.before["enabled_versions"]) - set(change.after["enabled_versions"]) == set(disabled)


def test_a_version_that_was_replaced_and_updated_is_reported_with_the_later_end() -> None:
    kept = retire(updated(MIDDLE, DAY, newest_is=3 * DAY, disabled=(OLD,)))

    assert (kept.report["kept_versions"], kept.report["kept_until"]) == ([MIDDLE], "2026-06-03T20:26:40Z")


def test_kept_versions_are_reported_with_their_users_and_the_end_of_the_margin() -> None:
    moved = retire(three_versions(pinned(), pinned(name="two"), mybatch=3 * DAY, two=5 * DAY))
    used = retire(three_versions(pinned(), pinned(OLD, "two"), mybatch=3 * DAY))

    assert (moved.report["in_use_by"], moved.report["kept_until"]) == (
        [account_id("mybatch"), account_id("two")],
        "2026-06-01T20:26:40Z",
    )
    # The account `two` uses a version now, so that there is no end.
    assert (used.report["in_use_by"], used.report["kept_until"]) == (
        [account_id("mybatch"), account_id("two")],
        None,
    )


def test_a_version_that_accounts_have_left_is_reported_with_the_end_of_the_margin() -> None:
    kept = retire(updated(OLD, 3 * DAY))

    assert (kept.report["in_use_by"], kept.report["kept_until"]) == ([], "2026-06-01T20:26:40Z")
    assert kept_summary("myvault", "batch", kept.report) == (
        f"Version {OLD[:8]}… of key batch in vault myvault stays enabled until 2026-06-01T20:26:40Z, because Batch "
        "may need it."
    )
    (warning,) = retire(updated(OLD, 3 * DAY), "P0D").warnings
    assert "accounts that have left it" in warning


def test_versions_of_the_same_second() -> None:
    """Key Vault returns the newest version."""
    bundles = [key(OLD, created=NOW - 9 * DAY), key(MIDDLE, created=NOW - 9 * DAY)]

    for newest, other in (bundles, bundles[::-1]):
        table = KeyTable(*bundles).having(refs.key(IDENTIFIER), newest)
        assert retire(table).report["disabled_versions"] == [other["key"]["kid"].rpartition("/")[2]]


def test_accounts_that_cannot_be_listed() -> None:
    with pytest.raises(Refused) as refused:
        retire(three_versions(**HIDDEN))
    assert refused.value.code == "users_unknown"
    assert "cmk_unused_versions: keep" in refused.value.facts["remedy"]

    forced = retire(three_versions(**HIDDEN), force=True)
    assert forced.report["disabled_versions"] == [MIDDLE, OLD]
    assert any("/subscriptions/hidden" in warning for warning in forced.warnings)


def test_a_version_in_use_stays_enabled_also_with_force() -> None:
    assert retire(three_versions(pinned(OLD)), force=True).report["kept_versions"] == [OLD]


def test_a_shorter_margin_has_a_warning_only_if_it_matters() -> None:
    recent = three_versions(pinned(), mybatch=2 * DAY)

    (warning,) = retire(recent, "P1D").warnings
    assert all(part in warning for part in ("Batch may need", MIDDLE, OLD, "may lose their key: mybatch."))
    assert retire(three_versions(pinned()), "P1D").warnings == ()
    assert retire(recent, "P7D").warnings == ()


class Changing(KeyTable):
    """A key with three versions. The account `newcomer` begins to use the version OLD after the first write."""

    def write(self, method: str, ref: str, body: Any) -> Any:
        super().write(method, ref, body)
        bundle = self[ref]
        bundle["attributes"]["enabled"] = body["attributes"]["enabled"]
        self[VERSIONS] = [listed(self[one["kid"]]) for one in self[VERSIONS]]
        self[ACCOUNTS] = [pinned(OLD, "newcomer")]
        return bundle


def test_versions_are_enabled_again_if_an_account_begins_to_use_one_of_them() -> None:
    bundles = [key(one, created=NOW - age * DAY) for one, age in ((OLD, 90), (MIDDLE, 60), (NEW, 30))]
    table, goal = Changing(*bundles), replace(unused_goal(), keeps_used=False)

    def ensure() -> Outcome:
        task = task_of(table)
        return executor_of(task).ensure(UnusedDisabled(goal, Facts(task.session)))

    with pytest.raises(Refused) as refused:
        ensure()

    assert (refused.value.code, refused.value.facts["accounts"]) == ("in_use", [account_id("newcomer")])
    assert refused.value.facts["restored"] is True
    assert [(ref.removeprefix(f"{KEY}/"), body["attributes"]["enabled"]) for _method, ref, body in table.written] == [
        (MIDDLE, False),
        (OLD, False),
        (MIDDLE, True),
        (OLD, True),
    ]
    # The next task keeps the version of the account, and the version that the account may have used before.
    goal = replace(goal, keeps_used=True)
    assert ensure().report["kept_versions"] == [MIDDLE, OLD]


@pytest.mark.parametrize(
    ("after", "users"),
    [
        pytest.param(KeyTable(), [], id="somebody has deleted the key"),
        pytest.param(three_versions(pinned(), disabled=(OLD, MIDDLE)), [], id="moved before the margin"),
        pytest.param(three_versions(pinned(), disabled=(OLD, MIDDLE), mybatch=DAY), ["mybatch"], id="moved meanwhile"),
        pytest.param(
            three_versions(pinned(), disabled=(OLD, MIDDLE), mybatch=None), ["mybatch"], id="moved at an unknown time"
        ),
        pytest.param(three_versions(pinned(None), disabled=(OLD, MIDDLE)), [], id="follows"),
    ],
)
def test_the_confirmation_asks_the_same_question(after: KeyTable, users: list[str]) -> None:
    """Also about accounts that may have used a version inside the margin."""
    first = retire(three_versions(pinned()))

    if not users:
        assert not confirmed(after, first).requests
        return
    with pytest.raises(Refused) as refused:
        confirmed(after, first)
    assert refused.value.code == "in_use"
    assert refused.value.msg.startswith("Refused to keep versions of the key batch disabled: 1 Batch account")
    assert refused.value.facts["accounts"] == [account_id(name) for name in users]
