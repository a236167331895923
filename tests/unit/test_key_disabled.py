# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans to disable, delete and recover keys, and accounts that must not lose their key."""

from __future__ import annotations

from typing import Any

import pytest
from documents import (
    DAY,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    account,
    account_id,
    deleted_key,
    key,
    observed_key,
    three_versions,
    visible,
)
from goals import key_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._core.duration import instant
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, NotFound, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Plan, Step, step
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import key as key_document
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import disabled
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import plan as key_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.goal import KeyWrites

UNLISTED = ("/subscriptions/hidden",)


def disable(observed: dict[str, Any], version: str | None = None, *, force: bool = False) -> Plan:
    return key_plan.plan(key_goal(state="disabled", version=version, force=force), observed)


def delete(observed: dict[str, Any], *, force: bool = False) -> Plan:
    return key_plan.plan(key_goal(state="absent", force=force), observed)


def update(enabled: bool, *names: str, **more: Any) -> tuple[Step, ...]:
    body = {"attributes": {"enabled": enabled}, **more}
    return tuple(step(KeyWrites.update, vault="myvault", name="batch", version=name, body=body) for name in names)


def off(*names: str) -> tuple[Step, ...]:
    """Each version is disabled and gets the tag with the time."""
    return update(False, *names, tags={key_document.DISABLED_TAG: "2026-05-28T20:26:40Z"})


def accounts_of(refused: pytest.ExceptionInfo[Refused]) -> list[str]:
    assert refused.value.code == "in_use"
    return [name.rsplit("/", 1)[-1] for name in refused.value.facts["accounts"]]


# Disabled


def test_one_version_is_disabled() -> None:
    plan = disable(three_versions(), OLD)

    assert plan.steps == off(OLD)
    assert plan.after == {**plan.before, "enabled_versions": sorted([MIDDLE, NEW])}
    assert plan.warnings == ()


def test_newest_version_is_disabled() -> None:
    plan = disable(three_versions(), NEW)

    assert plan.steps == off(NEW)
    assert plan.after["enabled"] is False
    assert plan.after["enabled_versions"] == sorted([OLD, MIDDLE])


def test_all_versions_are_disabled() -> None:
    plan = disable(three_versions(disabled=(MIDDLE,)))

    assert {step.arguments["version"] for step in plan.steps} == {OLD, NEW}
    assert plan.after["enabled"] is False
    assert plan.after["enabled_versions"] == []


@pytest.mark.parametrize(
    ("version", "disabled"),
    [
        pytest.param(OLD, (OLD,), id="the version"),
        pytest.param(None, (OLD, MIDDLE, NEW), id="all"),
    ],
)
def test_a_disabled_version_is_not_changed_although_it_is_in_use(
    version: str | None, disabled: tuple[str, ...]
) -> None:
    plan = disable(three_versions(account(key=f"{KEY}/{OLD}"), disabled=disabled), version)

    assert not plan.changed
    assert plan.before == plan.after


def assert_refused_if(in_use: bool, observed: dict[str, Any], version: str | None) -> str:
    """The message of the refusal, which names the account; empty if nothing is refused."""
    if not in_use:
        assert disable(observed, version).changed
        return ""
    with pytest.raises(Refused) as refused:
        disable(observed, version)
    assert accounts_of(refused) == ["mybatch"]
    return str(refused.value)


@pytest.mark.parametrize(
    ("key_of_account", "version", "in_use"),
    [
        pytest.param(f"{KEY}/{OLD}", OLD, True, id="pinned to it"),
        pytest.param(f"{KEY}/{OLD.upper()}", OLD, True, id="pinned to it, in another letter case"),
        pytest.param(f"{KEY}/{NEW}", OLD, False, id="pinned to another"),
        pytest.param(KEY, NEW, True, id="follows, the newest"),
        pytest.param(KEY, OLD, False, id="follows, not the newest"),
        pytest.param(f"{KEY}/{OLD}", None, True, id="all versions, pinned to one"),
        pytest.param(KEY, None, True, id="all versions, follows"),
        pytest.param(f"{KEY}2", None, False, id="on another key"),
        pytest.param(None, None, False, id="on a Microsoft-managed key"),
    ],
)
def test_version_in_use_is_not_disabled(key_of_account: str | None, version: str | None, in_use: bool) -> None:
    observed = three_versions(account(key=key_of_account))

    message = assert_refused_if(in_use, observed, version)
    assert not in_use or (f"version {version}" in message) is (version is not None)


def test_a_previous_version_of_a_follower_is_in_use_while_batch_cannot_use_the_newest() -> None:
    """`versions_possibly_in_use` has the other cases."""
    bundles = [key(OLD, created=NOW - 200 * DAY), key(NEW, key_ops=["sign", "verify"])]
    observed = observed_key(*bundles, visible=visible(account(key=KEY)))

    with pytest.raises(Refused) as refused:
        disable(observed, OLD)
    assert accounts_of(refused) == ["mybatch"]


def test_missing_version_cannot_be_disabled() -> None:
    with pytest.raises(NotFound) as refused:
        disable(three_versions(), "d" * 32)

    assert (refused.value.code, refused.value.facts["option"]) == ("version_not_found", "version")


def test_versions_that_may_not_be_listed() -> None:
    with pytest.raises(Denied) as denied:
        disable({**three_versions(), "versions": None}, OLD)

    assert denied.value.code == "permission_denied"
    assert "list" in str(denied.value)


def test_missing_key_cannot_be_disabled() -> None:
    with pytest.raises(NotFound) as failed:
        disable(observed_key())

    assert failed.value.code == "key_not_found"


def test_a_deleted_key_cannot_be_disabled() -> None:
    with pytest.raises(Refused) as failed:
        disable(observed_key(deleted=deleted_key()))

    assert failed.value.code == "key_soft_deleted"
    assert plain(failed.value.facts["remedy"]) == "Set state: recovered to recover it, or use another name."


# Deleted


def test_key_is_deleted() -> None:
    plan = delete(three_versions())

    assert plan.steps == (Step(KeyWrites.delete, {"vault": "myvault", "name": "batch"}),)
    assert plan.after == {"exists": False, "soft_deleted": True}


@pytest.mark.parametrize("deleted", [None, deleted_key()])
def test_missing_key_is_not_deleted(deleted: dict[str, Any] | None) -> None:
    assert not delete(observed_key(deleted=deleted)).changed


@pytest.mark.parametrize("used", [KEY, f"{KEY}/{OLD}", f"{KEY}/{NEW}", f"{KEY}/{'d' * 32}"])
def test_key_in_use_is_not_deleted(used: str) -> None:
    with pytest.raises(Refused) as refused:
        delete(three_versions(account("one", key=used), account("two"), account("three", key=used)))

    assert accounts_of(refused) == ["one", "three"]


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

    kept = key_plan.plan(key_goal(**options, in_use="keep"), in_use)

    assert (kept.changed, kept.warnings) == (False, ())
    assert kept.before == kept.after == key_document.describe(in_use)
    assert (kept.report["in_use_by"], kept.report["kept_until"]) == (users, None)
    # By default the task is refused, and force removes the version.
    with pytest.raises(Refused) as refused:
        key_plan.plan(key_goal(**options), in_use)
    assert refused.value.facts["accounts"] == users
    forced = key_plan.plan(key_goal(**options, force=True), in_use)
    assert (forced.changed, forced.report["in_use_by"]) == (True, [])
    assert all(user in forced.warnings[0] for user in users)


@pytest.mark.parametrize(("options", "used"), KEEP)
def test_an_unused_version_is_removed_also_with_keep(options: dict[str, Any], used: str) -> None:
    plan = key_plan.plan(key_goal(**options, in_use="keep"), three_versions(account("two")))

    assert plan.changed
    assert (plan.report["in_use_by"], plan.report["kept_until"]) == ([], None)


@pytest.mark.parametrize(("options", "used"), KEEP)
def test_a_version_that_may_be_in_use_is_an_error_also_with_keep(options: dict[str, Any], used: str) -> None:
    with pytest.raises(Refused) as refused:
        key_plan.plan(key_goal(**options, in_use="keep"), three_versions(unlisted=UNLISTED))

    assert refused.value.code == "users_unknown"


@pytest.mark.parametrize(("options", "used"), KEEP)
def test_a_key_that_an_account_starts_to_use_is_restored_also_with_keep(options: dict[str, Any], used: str) -> None:
    """In the second check, the version is already disabled or deleted, and `in_use: keep` has no effect."""
    plan = key_plan.plan(key_goal(**options, in_use="keep"), three_versions())
    gone = three_versions(account("newcomer", key=used), disabled=(OLD, MIDDLE, NEW))
    if options["state"] == "absent":
        gone = observed_key(deleted=deleted_key(), visible=visible(account("newcomer", key=used)))

    with pytest.raises(Refused) as refused:
        key_plan.plan(plan.goal, gone)

    assert accounts_of(refused) == ["newcomer"]


@pytest.mark.parametrize("act", [disable, delete])
def test_a_forced_change_names_the_accounts_that_lose_the_key_and_the_unlisted_scopes(act: Any) -> None:
    plan = act(three_versions(account(key=KEY), unlisted=UNLISTED), force=True)

    assert plan.changed
    assert account_id() in plan.warnings[0]
    assert UNLISTED[0] in plan.warnings[1]


def test_second_plan_is_empty() -> None:
    for first, after in (
        (disable(three_versions(), OLD), three_versions(disabled=(OLD,))),
        (disable(three_versions()), three_versions(disabled=(OLD, MIDDLE, NEW))),
        (delete(three_versions()), observed_key(deleted=deleted_key())),
    ):
        second = key_plan.plan(first.goal, after)

        assert not second.changed
        assert second.before == first.after


# Inside the margin


IN_FOUR_DAYS = "2026-06-01T20:26:40Z"
# Options, and the key of an account that may have used the resource before it was moved to this key.
WITHIN: list[Any] = [
    pytest.param({"state": "disabled", "version": OLD}, f"{KEY}/{NEW}", id="version disabled"),
    pytest.param({"state": "disabled"}, f"{KEY}2", id="key disabled"),
    pytest.param({"state": "absent"}, f"{KEY}2", id="key deleted"),
]


def moved(used: str, age: float | None) -> dict[str, Any]:
    """The account `moved`, which was moved to a key `age` seconds ago."""
    return three_versions(account("moved", key=used), moved=age, left=("moved",) if used == f"{KEY}2" else ())


@pytest.mark.parametrize(("options", "used"), WITHIN)
@pytest.mark.parametrize(
    ("unused_for", "age", "until"),
    [
        pytest.param("P7D", 3 * DAY, IN_FOUR_DAYS, id="changed inside the margin"),
        pytest.param("P7D", 7 * DAY, None, id="changed outside the margin"),
        pytest.param("P3D", 3 * DAY, None, id="changed outside a shorter margin"),
        pytest.param("P0D", None, None, id="at once"),
    ],
)
def test_a_version_stays_enabled_until_the_margin_of_its_users_ends(
    options: dict[str, Any], used: str, unused_for: str, age: float | None, until: str | None
) -> None:
    given, observed = {**options, "unused_for": unused_for}, moved(used, age)

    kept = key_plan.plan(key_goal(**given, in_use="keep"), observed)

    assert (kept.changed, kept.report["kept_until"]) == (until is None, until)
    assert kept.report["in_use_by"] == ([account_id("moved")] if until else [])
    if until is None:
        assert key_plan.plan(key_goal(**given), observed).steps == kept.steps
        return
    with pytest.raises(Refused) as refused:
        key_plan.plan(key_goal(**given), observed)
    assert (refused.value.code, refused.value.facts["kept_until"]) == ("recently_used", until)
    assert refused.value.facts["accounts"] == [account_id("moved")]
    assert key_plan.plan(key_goal(**given, force=True), observed).changed


@pytest.mark.parametrize(("options", "used"), WITHIN)
def test_a_change_inside_the_margin_has_one_warning(options: dict[str, Any], used: str) -> None:
    wanted = key_goal(**options, unused_for="P2D")

    (warning,) = key_plan.plan(wanted, moved(used, 3 * DAY)).warnings

    assert ("Batch may need" in warning, account_id("moved") in warning) == (True, True)
    assert key_plan.plan(wanted, moved(used, 7 * DAY)).warnings == ()


@pytest.mark.parametrize(("options", "used"), WITHIN)
def test_an_account_that_uses_the_key_now_has_no_end(options: dict[str, Any], used: str) -> None:
    observed = moved(used, 3 * DAY)
    observed["visible"]["accounts"].append(account("user", key=f"{KEY}/{OLD}"))

    with pytest.raises(Refused) as refused:
        key_plan.plan(key_goal(**options), observed)

    assert set(accounts_of(refused)) == {"user", "moved"}


@pytest.mark.parametrize(("options", "used"), WITHIN)
@pytest.mark.parametrize(
    ("unused_for", "age", "is_undone"),
    [
        pytest.param("P7D", 7 * DAY, False, id="changed before the margin"),
        pytest.param("P7D", 0, True, id="changed meanwhile"),
        pytest.param("P7D", None, True, id="changed at an unknown time"),
        pytest.param("P0D", 0, False, id="no margin"),
    ],
)
def test_the_second_check_asks_the_same_question(
    options: dict[str, Any], used: str, unused_for: str, age: float | None, is_undone: bool
) -> None:
    """An account that was moved away meanwhile may have used the key until then."""
    plan = key_plan.plan(key_goal(**options, unused_for=unused_for), moved(used, 7 * DAY))
    gone = {**moved(used, age), "versions": three_versions(disabled=(OLD, MIDDLE, NEW))["versions"]}
    if options["state"] == "absent":
        gone |= {"key": None, "deleted": deleted_key()}

    if not is_undone:
        assert not key_plan.plan(plan.goal, gone).changed
        return
    with pytest.raises(Refused) as refused:
        key_plan.plan(plan.goal, gone)
    assert accounts_of(refused) == ["moved"]


# What was disabled or deleted shortly before

TAGGED = {key_document.DISABLED_TAG: "2026-05-28T20:26:40Z"}


def with_ages(**ages: float) -> dict[str, Any]:
    """A key whose versions `old` and `middle` were disabled as unused so many seconds ago."""
    names = {"old": OLD, "middle": MIDDLE}
    bundles = [
        key(
            names[name],
            enabled=False,
            created=NOW - 300 * DAY,
            updated=int(NOW - age),
            tags={key_document.DISABLED_TAG: str(instant(NOW - age))},
        )
        for name, age in ages.items()
    ]
    return observed_key(*bundles, key(NEW))


def deleted_ago(seconds: float) -> dict[str, Any]:
    return observed_key(deleted={**deleted_key(), "deletedDate": int(NOW - seconds)})


@pytest.mark.parametrize(
    ("options", "observed", "found"),
    [
        pytest.param({}, with_ages(old=10, middle=20), ([MIDDLE, OLD], 10), id="two versions, the last one counts"),
        pytest.param({}, with_ages(old=10, middle=99 * DAY), ([MIDDLE, OLD], 10), id="versions of two runs"),
        pytest.param({}, with_ages(old=99 * DAY), ([OLD], 99 * DAY), id="long ago"),
        pytest.param({}, with_ages(), None, id="nothing is disabled"),
        pytest.param({"version": MIDDLE}, with_ages(old=10, middle=20), ([MIDDLE], 20), id="of the named version"),
        pytest.param({"version": NEW}, with_ages(old=10), None, id="another version is named"),
        pytest.param({}, {**with_ages(old=10), "versions": None}, None, id="versions cannot be listed"),
        pytest.param(
            {}, observed_key(key(OLD, enabled=False, updated=NOW - 10), key(NEW)), None, id="disabled by another tool"
        ),
        pytest.param({}, observed_key(key(OLD, updated=NOW, tags=TAGGED), key(NEW)), None, id="enabled again"),
        pytest.param({}, observed_key(), None, id="no key"),
        pytest.param({"state": "absent"}, deleted_ago(179), ([], 179), id="deleted"),
        pytest.param({"state": "absent"}, deleted_ago(180), None, id="deleted, too old"),
        pytest.param({"state": "absent"}, observed_key(), None, id="no deleted key"),
        pytest.param(
            {"state": "absent"}, {**deleted_ago(10), "key": key()}, None, id="deleted, and recovered or created again"
        ),
    ],
)
def test_what_was_disabled_or_deleted_and_not_confirmed(
    options: dict[str, Any], observed: dict[str, Any], found: tuple[list[str], float] | None
) -> None:
    wanted = key_goal(**{"state": "disabled", **options})

    assert disabled.unconfirmed(wanted, observed) == found


@pytest.mark.parametrize(
    ("options", "versions", "restores"),
    [
        pytest.param({"state": "disabled"}, [OLD, MIDDLE], "enabled_again", id="versions"),
        pytest.param({"state": "absent"}, [], "recovered", id="key"),
    ],
)
def test_the_goals_after_a_removal(options: dict[str, Any], versions: list[str], restores: str) -> None:
    """The first requires that nothing uses it, the second restores it."""
    removed = disabled.removed(key_goal(**options), versions, 5.0)
    after = three_versions(disabled=(OLD, MIDDLE))
    if options["state"] == "absent":
        after = observed_key(deleted=deleted_key(), visible=visible())

    assert removed.at == 5.0
    assert not key_plan.plan(removed.goal, after).changed
    assert removed.back.state == restores
    assert [step.name for step in key_plan.plan(removed.back, after).steps] == (
        ["update"] * len(versions) or ["recover"]
    )
    used = account("newcomer", key=f"{KEY}/{OLD}")
    after["visible"]["accounts"].append(used)
    with pytest.raises(Refused) as refused:
        key_plan.plan(removed.goal, after)
    assert accounts_of(refused) == ["newcomer"]


@pytest.mark.parametrize("tags", [None, {"team": "a"}], ids=["no tags", "other tags"])
def test_the_tag_of_a_version_that_is_enabled_again(tags: dict[str, str] | None) -> None:
    observed = observed_key(key(OLD, enabled=False, tags={**(tags or {}), **TAGGED}), key(NEW))
    back = disabled.removed(key_goal(state="disabled"), [OLD], 0.0).back

    assert key_plan.plan(back, observed).steps == update(
        True, OLD, tags={**(tags or {}), key_document.DISABLED_TAG: "enabled again"}
    )


# Recovered


RECOVER = Step(KeyWrites.recover, {"vault": "myvault", "name": "batch"})


def recover(observed: dict[str, Any]) -> Plan:
    return key_plan.plan(key_goal(state="recovered"), observed)


@pytest.mark.parametrize("enabled", [True, False])
def test_deleted_key_is_recovered(enabled: bool) -> None:
    """The update changes nothing, but dates the recovery."""
    plan = recover(observed_key(deleted={**deleted_key(), **key(enabled=enabled)}))

    assert plan.steps == (RECOVER, *update(enabled, NEW))
    assert plan.before == {"exists": False, "soft_deleted": True}
    assert plan.after == {"exists": True, "soft_deleted": False}
    assert not key_plan.plan(plan.goal, three_versions()).changed


def test_a_key_that_is_restored_a_moment_after_its_deletion_is_only_recovered() -> None:
    plan = delete(three_versions())
    restored = key_plan.plan(plan.if_refused, observed_key(deleted=deleted_key()))

    assert restored.steps == (RECOVER,)


def test_an_existing_key_is_not_changed() -> None:
    plan = recover(three_versions(disabled=(NEW,)))

    assert not plan.changed
    assert plan.before == plan.after


def test_a_key_that_never_existed_cannot_be_recovered() -> None:
    with pytest.raises(NotFound) as failed:
        recover(observed_key())

    assert failed.value.code == "key_not_found"
