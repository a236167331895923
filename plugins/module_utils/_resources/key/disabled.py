# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans to disable or delete keys that no account uses (invariant I2).

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..._checks import usage
from ..._core.documents import KeyBundle, KeyItem
from ..._core.duration import instant
from ..._core.errors import Denied, InvalidOption
from ..._core.ids import KeyIdentifier
from ..._core.placeholders import is_placeholder
from ..._core.plan import Plan, Step, step
from . import grace
from .document import followers_on, identifier_of, version_of
from .goal import Goal, key_not_found, key_soft_deleted
from .writes import KeyWrites


def plan_disabled(goal: Goal, observed: Mapping[str, Any], before: Mapping[str, Any]) -> Plan[KeyWrites]:
    if observed["key"] is None:
        raise key_soft_deleted(goal) if observed["deleted"] else key_not_found(goal)
    versions: list[KeyItem] | None = observed["versions"]
    if versions is None:
        raise Denied(
            f"The versions of the key {goal.name} could not be listed, because the caller lacks the permission to "
            "list keys. Grant the permission (Key Vault Crypto Officer, or `list` in the access policy).",
        )
    if goal.version and goal.version not in map(version_of, versions):
        raise InvalidOption("version", goal.version, f"the key {goal.name} has no such version.", "Correct it.")
    enabled = _enabled(goal, versions)
    if not enabled and goal.taken_away is None:
        return _left(goal, before)
    newer = _newer_than_used(goal, observed)
    if newer is not None:
        return _left(goal, before, warnings=(newer,))
    is_checked = goal.taken_away is None and not grace.is_forced(goal)
    until = grace.kept_until(goal, observed, observed["ages"]) if is_checked else None
    if until is not None:
        if goal.keeps_used:
            return _left(goal, before, until=until)
        raise grace.refused(goal, until)
    target = _target(goal, observed["key"])
    visible = observed["visible"]
    users = _users(observed, target)
    unknown = _not_known(observed)
    if users and goal.keeps_used and goal.taken_away is None:
        return _left(goal, before, users=users, warnings=(*usage.pools_unknown(users, visible), *unknown))
    if goal.taken_away is None and goal.version is None and target.same_key(goal.moved_to):
        # An account that followed the key had no version in its identifier, so the previous version is not known.
        # The account may have been moved to a later version meanwhile.
        return _left(goal, before, warnings=(_moved_within(goal),))
    warnings = unknown + usage.guard(users, visible, f"disable {grace.subject(goal)}", force=goal.force)
    warnings += grace.cut_short(goal, observed)
    steps = tuple(_set_enabled(goal, version, to=False) for version in enabled)
    left = [v for v in before["enabled_versions"] if v not in enabled]
    after = {**before, "enabled": before["version"] in left, "enabled_versions": left}
    back = replace(goal, state="enabled_again", again=tuple(enabled))
    plan = Plan(goal, before, after, steps, warnings, report=report(users))
    return usage.removal(plan, back, target)


def _left(
    goal: Goal,
    before: Mapping[str, Any],
    *,
    users: Sequence[str] = (),
    until: float | None = None,
    warnings: tuple[str, ...] = (),
) -> Plan[KeyWrites]:
    """A plan without changes: the key has the requested state, accounts use it, or the grace period has not ended."""
    return Plan(goal, before, before, warnings=warnings, report=report(users, until))


def report(users: Sequence[str], until: float | None = None) -> dict[str, Any]:
    """The values that are returned beside the key: its users, and the end of the grace period."""
    return {"in_use_by": list(users), "kept_until": instant(until)}


def _newer_than_used(goal: Goal, observed: Mapping[str, Any]) -> str | None:
    """The warning that the version is not older than the version that accounts were moved to."""
    newest = identifier_of(observed["key"])
    if goal.version is None or goal.moved_to is None or goal.taken_away or not newest.same_key(goal.moved_to):
        return None
    used = goal.moved_to.version or newest.version or ""
    if not _is_newer(observed["versions"], goal.version, used):
        return None
    return f"Version {goal.version} of the key {goal.name} is not older than version {used}, so it was not disabled."


def _moved_within(goal: Goal) -> str:
    return (
        f"The key {goal.name} was not disabled, because accounts were moved to a version of the key. To disable "
        "another version, name that version."
    )


def would_disable(goal: Goal, observed: Mapping[str, Any]) -> bool:
    """Whether there is an enabled version to disable, and no account uses it."""
    key: KeyBundle | None = observed["key"]
    versions: list[KeyItem] | None = observed["versions"]
    if not key or not versions or not _enabled(goal, versions):
        return False
    return not _users(observed, _target(goal, key))


def followers(goal: Goal, observed: Mapping[str, Any]) -> dict[str, Sequence[str] | None]:
    """The followers of the key that may use the version if they could not use the key for some time, with their
    principals. Empty if nothing would be disabled anyway."""
    key, visible = observed["key"], observed["visible"]
    if key is None or visible is None or goal.state != "disabled":
        return {}
    is_left = goal.taken_away is None and not would_disable(goal, observed)
    return {} if is_left else usage.principals_following(visible, _target(goal, key))


def _target(goal: Goal, key: KeyBundle) -> KeyIdentifier:
    """The key or version that no account may use."""
    return goal.taken_away or replace(identifier_of(key), version=goal.version)


def _users(observed: Mapping[str, Any], target: KeyIdentifier) -> list[str]:
    """The ids of the accounts and pools that may use the key or version. An account that follows the key may still use
    an older version if it could not use the key, or that version, when the newest version was created."""
    key, versions, now = observed["key"], observed["versions"], observed["now"]
    # An enabled version may have been enabled again when it was last changed.
    attributes = next((item["attributes"] for item in versions or () if version_of(item) == target.version), None)
    enabled_since = attributes.get("updated") or 0 if attributes and attributes["enabled"] else 0
    users = usage.on_key(observed["visible"], target, followers_on(key, versions, now, enabled_since))
    # A change of the account may have moved it to the latest version.
    changed = {account: now - (age or 0) for account, age in (observed["ages"] or {}).items()}
    late = [
        follower
        for follower, since in observed["usable_since"].items()
        if target.version in followers_on(key, versions, now, max(since, changed.get(follower, 0)))
    ]
    return list(dict.fromkeys([*users, *late]))


def _not_known(observed: Mapping[str, Any]) -> tuple[str, ...]:
    reason = observed["usable_since_unknown"]
    said = "It is not known since when accounts that follow the key can use it, so they count as users of all versions."
    return (f"{said} {reason}",) if reason else ()


def _enabled(goal: Goal, versions: Sequence[KeyItem]) -> list[str]:
    return [version_of(v) for v in versions if v["attributes"]["enabled"] and goal.version in (None, version_of(v))]


def _is_newer(versions: Sequence[KeyItem], one: str, other: str) -> bool:
    """Whether `one` is `other` or was created later. A version that is not listed counts as older, except a version
    that an earlier task would create in check mode. Times are in whole seconds."""
    created = {version_of(v): v["attributes"]["created"] for v in versions}
    if other not in created and is_placeholder(other):
        return False
    return one == other or created.get(one, 0) > created.get(other, 0)


def plan_enabled_again(goal: Goal, observed: Mapping[str, Any], before: Mapping[str, Any]) -> Plan[KeyWrites]:
    missing = [version for version in goal.again if version not in before["enabled_versions"]]
    return Plan(goal, before, before, tuple(_set_enabled(goal, version, to=True) for version in missing))


def _set_enabled(goal: Goal, version: str, *, to: bool) -> Step[KeyWrites]:
    body = {"attributes": {"enabled": to}}
    return step(KeyWrites.update, vault=goal.vault, name=goal.name, version=version, body=body)


def plan_absent(goal: Goal, observed: Mapping[str, Any], before: Mapping[str, Any]) -> Plan[KeyWrites]:
    key: KeyBundle | None = observed["key"]
    target = goal.taken_away
    if target is None:
        if key is None:
            return _left(goal, before)
        target = identifier_of(key).versionless
    visible = observed["visible"]
    users = usage.on_key(visible, target)
    if users and goal.keeps_used and goal.taken_away is None:
        return _left(goal, before, users=users, warnings=usage.pools_unknown(users, visible))
    warnings = usage.guard(users, visible, f"delete the key {goal.name}", force=goal.force)
    after = {"exists": False, "soft_deleted": True}
    steps = (step(KeyWrites.delete, vault=goal.vault, name=goal.name),) if key else ()
    plan = Plan(goal, before, after, steps, warnings, report=report(users))
    return usage.removal(plan, replace(goal, state="recovered", taken_away=target), target)
