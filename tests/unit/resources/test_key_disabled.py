# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys are disabled, deleted and recovered, and accounts must not lose their key."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from azure_table import Table, task_of
from documents import DAY, KEY, MIDDLE, NEW, NOW, OLD, account, account_id, deleted_key, key
from goals import key_goal, unused_goal
from key_table import IDENTIFIER, VERSIONS, KeyTable, confirmed, decided, sent, solved, three_versions, update

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    Denied,
    NotFound,
    Refused,
    TimedOut,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.summary import version_text
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import VALUE_LAG_SECONDS, Change, Removal
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.decide import by_state
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.goal import NamedKey

ALL = (OLD, MIDDLE, NEW)
DELETE = ("DELETE", "/keys/batch", None)
RECOVER = ("POST", "/deletedkeys/batch/recover", None)


def disable(table: KeyTable, version: str | None = None, *, force: bool = False) -> Change:
    return decided(table, key_goal(state="disabled", version=version, force=force))


def delete(table: KeyTable, *, force: bool = False) -> Change:
    return decided(table, key_goal(state="absent", force=force))


def off(*names: str) -> list[Any]:
    return [update(name, attributes={"enabled": False}) for name in names]


def accounts_of(refused: pytest.ExceptionInfo[Refused]) -> list[str]:
    assert refused.value.code == "in_use"
    return [name.rsplit("/", 1)[-1] for name in refused.value.facts["accounts"]]


# Disabled


def test_all_versions_are_disabled() -> None:
    change = disable(three_versions(disabled=(MIDDLE,)))

    assert sent(change) == off(NEW, OLD)
    assert change.after["enabled"] is False
    assert change.after["enabled_versions"] == []


@pytest.mark.parametrize(
    ("version", "disabled"),
    [
        pytest.param(OLD, (OLD,), id="the version"),
        pytest.param(None, ALL, id="all"),
    ],
)
def test_a_disabled_version_is_not_changed_although_it_is_in_use(
    version: str | None, disabled: tuple[str, ...]
) -> None:
    change = disable(three_versions(account(key=f"{KEY}/{OLD}"), disabled=disabled), version)

    assert not change.requests
    assert change.before == change.after


def assert_refused_if(in_use: bool, table: KeyTable, version: str | None) -> str:
    """The message of the refusal, which names the account; empty if nothing is refused."""
    if not in_use:
        assert disable(table, version).requests
        return ""
    with pytest.raises(Refused) as refused:
        disable(table, version)
    assert accounts_of(refused) == ["mybatch"]
    return str(refused.value)


@pytest.mark.parametrize(
    ("key_of_account", "version", "in_use"),
    [
        pytest.param(f"{KEY}/{OLD.upper()}", OLD, True, id="pinned to it, in another letter case"),
        pytest.param(KEY, NEW, True, id="follows, the newest"),
        pytest.param(KEY, None, True, id="all versions, follows"),
    ],
)
def test_version_in_use_is_not_disabled(key_of_account: str | None, version: str | None, in_use: bool) -> None:
    message = assert_refused_if(in_use, three_versions(account(key=key_of_account)), version)

    assert not in_use or (f"{version_text(version)} of" in message) is (version is not None)


def test_a_previous_version_of_a_follower_is_in_use_while_batch_cannot_use_the_newest() -> None:
    """`versions_possibly_in_use` has the other cases."""
    bundles = [key(OLD, created=NOW - 200 * DAY), key(NEW, key_ops=["sign", "verify"])]

    with pytest.raises(Refused) as refused:
        disable(KeyTable(*bundles, accounts=[account(key=KEY)]), OLD)
    assert accounts_of(refused) == ["mybatch"]


def test_missing_version_cannot_be_disabled() -> None:
    with pytest.raises(NotFound) as refused:
        disable(three_versions(), "d" * 32)

    assert (refused.value.code, refused.value.facts["option"]) == ("version_not_found", "version")


def test_versions_that_may_not_be_listed() -> None:
    with pytest.raises(Denied) as denied:
        disable(three_versions().having(VERSIONS, Denied("403")), OLD)

    assert denied.value.code == "permission_denied"
    assert "list" in str(denied.value)


def test_a_deleted_key_cannot_be_disabled() -> None:
    with pytest.raises(Refused) as failed:
        disable(KeyTable(deleted=deleted_key()))

    assert failed.value.code == "key_soft_deleted"
    assert plain(failed.value.facts["remedy"]) == "Set state: recovered to recover it, or use another name."


# Deleted


def test_key_is_deleted() -> None:
    change = delete(three_versions())

    assert sent(change) == [DELETE]
    assert change.after == {"exists": False, "soft_deleted": True}
    assert isinstance(change, Removal)


# Both


KEEP: list[Any] = [
    pytest.param({"state": "disabled", "version": OLD}, f"{KEY}/{OLD}", id="version disabled"),
    pytest.param({"state": "disabled"}, KEY, id="key disabled"),
    pytest.param({"state": "absent"}, f"{KEY}/{NEW}", id="key deleted"),
]


@pytest.mark.parametrize(("options", "used"), KEEP)
def test_a_version_in_use_is_kept_on_request(options: dict[str, Any], used: str) -> None:
    in_use = three_versions(account("one", key=used), account("two"), account("three", key=used))
    users = [account_id("one"), account_id("three")]

    kept = decided(in_use, key_goal(**options, in_use="keep"))

    assert (kept.requests, kept.warnings) == ((), ())
    assert kept.before == kept.after == recover(in_use).before
    assert (kept.report["in_use_by"], kept.report["kept_until"]) == (users, None)
    # By default the task is refused, and force removes the version.
    with pytest.raises(Refused) as refused:
        decided(in_use, key_goal(**options))
    assert refused.value.facts["accounts"] == users
    forced = decided(in_use, key_goal(**options, force=True))
    # The users may lose the key, so they are not asked for again.
    assert (bool(forced.requests), forced.report["in_use_by"], isinstance(forced, Removal)) == (True, [], False)
    assert forced.warnings[0].endswith(": one, three.")


def after(options: dict[str, Any], *accounts: dict[str, Any], **others: Any) -> KeyTable:
    """The key after it was disabled or deleted."""
    if options["state"] == "absent":
        return KeyTable(deleted=deleted_key(), accounts=accounts, **others)
    return three_versions(*accounts, disabled=ALL, **others)


@pytest.mark.parametrize(("options", "used"), KEEP)
def test_a_key_that_an_account_starts_to_use_is_restored_also_with_keep(options: dict[str, Any], used: str) -> None:
    """In the confirmation, the version is already disabled or deleted, and `in_use: keep` has no effect."""
    change = decided(three_versions(), key_goal(**options, in_use="keep"))

    with pytest.raises(Refused) as refused:
        confirmed(after(options, account("newcomer", key=used)), change)

    assert accounts_of(refused) == ["newcomer"]
    done = "deleted" if options["state"] == "absent" else "disabled"
    assert f"the key batch {done}: 1 Batch account uses it" in refused.value.msg


@pytest.mark.parametrize(
    ("options", "delay", "restores"),
    [
        pytest.param({"state": "disabled", "version": OLD}, 2 * VALUE_LAG_SECONDS, ["update"], id="version"),
        pytest.param({"state": "disabled"}, 2 * VALUE_LAG_SECONDS, ["update"] * 3, id="key disabled"),
        pytest.param({"state": "absent"}, 2 * VALUE_LAG_SECONDS, ["recover"], id="key deleted"),
    ],
)
def test_when_users_are_asked_for_again_and_what_restores_the_key(
    options: dict[str, Any], delay: float, restores: list[str]
) -> None:
    """All that may have taken effect is restored, although reads may not show it yet."""
    task = task_of(three_versions())
    change = task.driver.solve(by_state(key_goal(**options), Facts(task.session)).decide)
    for one in change.requests:
        with task.session.journal.writing(one.method, one.ref, one.body, undoes=False):
            pass

    assert change.delay == delay
    back = change.back()[0].decide
    restoring = solved(after(options), back) if options["state"] == "absent" else task.driver.solve(back)
    assert [one.name for one in restoring.requests] == restores


# Inside the margin


IN_FOUR_DAYS = "2026-06-01T20:26:40Z"
# Options, and the key of an account that may have used the resource before it was moved to this key.
WITHIN: list[Any] = [
    pytest.param({"state": "disabled", "version": OLD}, f"{KEY}/{NEW}", id="version disabled"),
    pytest.param({"state": "disabled"}, f"{KEY}2", id="key disabled"),
    pytest.param({"state": "absent"}, f"{KEY}2", id="key deleted"),
]


def moved(used: str, age: float | None, *others: dict[str, Any]) -> KeyTable:
    """The account `moved`, which was moved to a key `age` seconds ago."""
    return three_versions(account("moved", key=used), *others, moved=age, left=["moved"])


@pytest.mark.parametrize(("options", "used"), WITHIN)
@pytest.mark.parametrize(
    ("unused_for", "age", "until"),
    [
        pytest.param("P7D", 3 * DAY, IN_FOUR_DAYS, id="changed inside the margin"),
        pytest.param("P7D", 7 * DAY, None, id="changed outside the margin"),
    ],
)
def test_a_version_stays_enabled_until_the_margin_of_its_users_ends(
    options: dict[str, Any], used: str, unused_for: str, age: float | None, until: str | None
) -> None:
    given, table = {**options, "unused_for": unused_for}, moved(used, age)

    kept = decided(table, key_goal(**given, in_use="keep"))

    assert (bool(kept.requests), kept.report["kept_until"]) == (until is None, until)
    assert kept.report["in_use_by"] == ([account_id("moved")] if until else [])
    if until is None:
        assert sent(decided(table, key_goal(**given))) == sent(kept)
        return
    with pytest.raises(Refused) as refused:
        decided(table, key_goal(**given))
    assert (refused.value.code, refused.value.facts["kept_until"]) == ("recently_used", until)
    assert refused.value.facts["accounts"] == [account_id("moved")]
    assert decided(table, key_goal(**given, force=True)).requests


@pytest.mark.parametrize(("options", "used"), WITHIN)
def test_a_change_inside_the_margin_has_one_warning(options: dict[str, Any], used: str) -> None:
    wanted = key_goal(**options, unused_for="P2D")

    (warning,) = decided(moved(used, 3 * DAY), wanted).warnings

    assert ("Batch may need" in warning, "lose their key: moved" in warning) == (True, True)
    assert decided(moved(used, 7 * DAY), wanted).warnings == ()


@pytest.mark.parametrize(("options", "used"), WITHIN)
@pytest.mark.parametrize(
    ("unused_for", "age", "is_undone"),
    [
        pytest.param("P7D", 7 * DAY, False, id="changed before the margin"),
        pytest.param("P7D", None, True, id="changed at an unknown time"),
        pytest.param("P0D", 0, False, id="no margin"),
    ],
)
def test_the_confirmation_asks_the_same_question(
    options: dict[str, Any], used: str, unused_for: str, age: float | None, is_undone: bool
) -> None:
    """An account that was moved away meanwhile may have used the key until then."""
    change = decided(moved(used, 7 * DAY), key_goal(**options, unused_for=unused_for))
    gone = after(options, account("moved", key=used), moved=age, left=["moved"])

    if not is_undone:
        assert not confirmed(gone, change).requests
        return
    with pytest.raises(Refused) as refused:
        confirmed(gone, change)
    assert accounts_of(refused) == ["moved"]


# What was disabled or deleted shortly before


HOUR = 3600
PINNED, FOLLOWS = account(key=f"{KEY}/{OLD}"), account(key=KEY)


def gone(user: dict[str, Any], *disabled: str, age: float = HOUR) -> KeyTable:
    """A key whose versions were disabled so many seconds ago."""
    table = three_versions(user, disabled=disabled)
    for one in table[VERSIONS]:
        if not one["attributes"]["enabled"]:
            one["attributes"]["updated"] = int(NOW - age)
    return table


def deleted_ago(seconds: float) -> KeyTable:
    return KeyTable(deleted={**deleted_key(), "deletedDate": int(NOW - seconds)}, accounts=[FOLLOWS])


def off_of(**options: Any) -> NamedKey:
    return key_goal(state="disabled", **options)


@pytest.mark.parametrize(
    ("wanted", "table", "is_lost"),
    [
        pytest.param(off_of(version=OLD), gone(PINNED, OLD), True, id="version"),
        pytest.param(off_of(version=NEW), gone(FOLLOWS, NEW), True, id="newest version, follows"),
        pytest.param(off_of(), gone(FOLLOWS, *ALL), True, id="key"),
        pytest.param(off_of(in_use="keep"), gone(FOLLOWS, OLD), False, id="a version of a key that is kept"),
        pytest.param(unused_goal(), gone(account(), OLD), False, id="unused version"),
        pytest.param(key_goal(state="absent"), deleted_ago(HOUR), True, id="deleted"),
        pytest.param(key_goal(state="absent"), deleted_ago(DAY + 1), False, id="deleted a day ago"),
    ],
)
def test_what_was_disabled_or_deleted_within_a_day_fails_if_it_is_in_use(
    wanted: NamedKey, table: KeyTable, is_lost: bool
) -> None:
    """A run may have ended before it has asked again. Nothing is enabled."""
    if not is_lost:
        decided(table, wanted)
        return
    with pytest.raises(Refused) as refused:
        decided(table, wanted)
    assert accounts_of(refused) == ["mybatch"]
    assert refused.value.facts["remedy"] == "Run azbatch.cmk.recover for these accounts."


# Operations of Key Vault that take some time


@pytest.mark.parametrize(
    ("found", "error"),
    [
        pytest.param({"deleted": deleted_key(), "recovered": key()}, None, id="finished"),
        pytest.param({"deleted": None, "recovered": None}, TimedOut, id="not finished"),
        pytest.param({"deleted": Unavailable("503"), "recovered": Unavailable("503")}, Unavailable, id="no response"),
    ],
)
@pytest.mark.parametrize("is_deletion", [True, False], ids=["deletion", "recovery"])
def test_a_deletion_or_recovery_is_waited_for(found: dict[str, Any], error: Any, is_deletion: bool) -> None:
    change = delete(three_versions()) if is_deletion else recover(KeyTable(deleted=deleted_key()))
    table = Table({refs.deleted_key(IDENTIFIER): found["deleted"], refs.key(IDENTIFIER): found["recovered"]})

    def shown() -> Any:
        question = partial(change.shown, request=change.requests[0])
        return task_of(table).driver.since(question, time.monotonic(), waits=False)

    if error is None:
        shown()
        return
    with pytest.raises(error):
        shown()


# Recovered


def recover(table: KeyTable) -> Change:
    return decided(table, key_goal(state="recovered"))


@pytest.mark.parametrize("enabled", [True, False])
def test_deleted_key_is_recovered(enabled: bool) -> None:
    """The update changes nothing, but dates the recovery."""
    change = recover(KeyTable(deleted={**deleted_key(), **key(enabled=enabled)}))

    assert sent(change) == [RECOVER, update(NEW, attributes={"enabled": enabled})]
    assert change.before == {"exists": False, "soft_deleted": True}
    assert change.after == {"exists": True, "soft_deleted": False}
    assert not confirmed(three_versions(), change).requests


def test_a_key_that_never_existed_cannot_be_recovered() -> None:
    with pytest.raises(NotFound) as failed:
        recover(KeyTable())

    assert failed.value.code == "key_not_found"
