# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans to disable or delete keys and versions that no account or pool may use (invariant I2).

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..._checks import usage
from ..._checks.rights import to_use_key
from ..._checks.usage import Users
from ..._checks.versions import MARGIN_SECONDS, versions_of
from ..._core.documents import KeyBundle, KeyItem
from ..._core.duration import instant
from ..._core.errors import Denied
from ..._core.ids import KeyIdentifier
from ..._core.plan import MAX_READ_DELAY, Plan, Removed, Step, step
from ..._documents.key import ENABLED_AGAIN, identifier_of, tags_of_change, version_of, was_disabled_as_unused
from .goal import Goal, KeyWrites, Observed, key_not_found, key_soft_deleted, version_not_found

_KEEP = "leave out this task (in the role rotate, set cmk_unused_versions: keep)"


def candidates(goal: Goal, key: KeyBundle | None, items: Sequence[KeyItem] | None, now: float) -> list[str]:
    """The enabled versions that the goal disables if they are unused. An unused version of the state `retired` is older
    than the newest version that Batch can use, and was replaced at least `unused_for` ago."""
    if goal.taken_away:
        return list(goal.taken_away)
    if key is None or items is None or goal.state not in ("disabled", "retired"):
        return []
    versions = versions_of(key, items, now)
    if goal.state == "retired":
        found = [item for item, since in versions.replaced if since <= now - goal.unused_for]
    else:
        found = [item for item in versions.newest_first if goal.version in (None, version_of(item))]
    return [version_of(item) for item in found if item["attributes"]["enabled"]]


def users(goal: Goal, observed: Observed, margin: float) -> dict[str, Users]:
    """The users of each candidate. If the whole key is disabled, the users of the key are users of each version."""
    key, visible, times = observed["key"], observed["visible"], observed["times"]
    found = candidates(goal, key, observed["versions"], observed["now"])
    if key is None or not found:
        return {}
    identifier = identifier_of(key).versionless
    if goal.state == "disabled" and goal.version is None:
        return dict.fromkeys(found, usage.users_of_key(visible, identifier, times, observed["now"], margin))
    items = [_as_before(item, goal.taken_away or ()) for item in observed["versions"] or ()]
    versions = versions_of(key, items, observed["now"])
    return {
        version: usage.users_of_version(visible, replace(identifier, version=version), versions, times, margin)
        for version in found
    }


def _replaced_lately(goal: Goal, key: KeyBundle, items: Sequence[KeyItem], now: float) -> dict[str, Users]:
    """In the state `retired`, the enabled versions that were replaced less than `unused_for` ago. It is not known yet
    who uses them then."""
    if goal.state != "retired":
        return {}
    return {
        version_of(item): Users([], since + goal.unused_for)
        for item, since in versions_of(key, items, now).replaced
        if since > now - goal.unused_for and item["attributes"]["enabled"]
    }


def _as_before(item: KeyItem, disabled: Sequence[str]) -> KeyItem:
    """The version as it was before the task has disabled it, because the second check asks the same question."""
    if version_of(item) not in disabled:
        return item
    attributes = item["attributes"]
    return {**item, "attributes": {**attributes, "enabled": True, "updated": attributes["created"]}}


def has_unused(goal: Goal, observed: Observed) -> bool:
    """Whether something would be disabled or deleted, as far as the accounts and pools in `observed` show."""
    if goal.state == "absent":
        users_of_all = usage.users_of_key(
            observed["visible"], observed["identifier"], observed["times"], observed["now"], goal.unused_for
        )
        return not users_of_all.ids
    return any(not found.exist for found in users(goal, observed, goal.unused_for).values())


def plan_disabled(goal: Goal, observed: Observed, before: Mapping[str, Any]) -> Plan[KeyWrites]:
    """Disable the key or the named version or, in the state `retired`, all unused versions."""
    if observed["key"] is None:
        if goal.state == "retired":
            return _unchanged(goal, before, {})
        raise key_soft_deleted(goal) if observed["deleted"] else key_not_found(goal)
    items = observed["versions"]
    if items is None:
        raise Denied(
            f"The versions of the key {goal.name} could not be listed, because the caller lacks the permission to "
            "list keys. Grant the permission (Key Vault Crypto Officer, or `list` in the access policy).",
        )
    if goal.version and goal.version not in map(version_of, items):
        raise version_not_found(goal)
    visible = observed["visible"]
    if goal.state == "retired" and not goal.force:
        usage.require_whole(visible, "disable unused versions", _KEEP)
    of_each = users(goal, observed, goal.unused_for)
    kept: dict[str, Users] = {}
    if goal.taken_away is None and goal.keeps_used:
        kept = _replaced_lately(goal, observed["key"], items, observed["now"])
        kept |= {version: found for version, found in of_each.items() if found.exist}
    versions = [version for version in of_each if version not in kept]
    if not versions and goal.taken_away is None:
        return _unchanged(goal, before, kept, usage.pools_unknown(usage.together(kept.values()).ids, visible))
    warnings = _guard(goal, visible, {version: of_each[version] for version in versions})
    enabled = [version_of(item) for item in items if item["attributes"]["enabled"]]
    by_version = {version_of(item): item for item in items}
    steps = tuple(
        _set_enabled(goal, version, by_version[version], observed["now"], to=False)
        for version in versions
        if version in enabled
    )
    left = [version for version in before["enabled_versions"] if version not in versions]
    after = {**before, "enabled": before["version"] in left, "enabled_versions": left}
    back = replace(goal, state="enabled_again", again=tuple(versions))
    warnings += _cut_short(goal, observed, versions)
    plan = Plan(goal, before, after, steps, warnings, report=report(kept, versions))
    return usage.removal(plan, back, tuple(versions))


def _unchanged(
    goal: Goal, before: Mapping[str, Any], kept: Mapping[str, Users], warnings: tuple[str, ...] = ()
) -> Plan[KeyWrites]:
    return Plan(goal, before, before, warnings=warnings, report=report(kept))


def report(kept: Mapping[str, Users], disabled: Sequence[str] = ()) -> dict[str, Any]:
    """The values that are returned beside the key: the versions that stay enabled with their users, and when the margin
    ends after which no user may need them."""
    used = usage.together(kept.values())
    return {
        "in_use_by": used.ids,
        "kept_until": None if used.until is None else instant(used.until),
        "kept_versions": list(kept),
        "disabled_versions": list(disabled),
    }


def _guard(goal: Goal, visible: usage.Visible, of_each: Mapping[str, Users]) -> tuple[str, ...]:
    """Refuse to disable versions that may be in use. With `force`, return warnings."""
    verb = "delete" if goal.state == "absent" else "disable"
    what, used = f"{verb} {_subject(goal)}", usage.together(of_each.values())
    if used.until is not None and not goal.force and goal.taken_away is None:
        raise usage.recently_used(what, used.ids, used.until)
    return usage.guard(used.ids, visible, what, force=goal.force)


def _subject(goal: Goal) -> str:
    if goal.state == "retired":
        return f"unused versions of the key {goal.name}"
    return f"version {goal.version} of the key {goal.name}" if goal.version else f"the key {goal.name}"


def _cut_short(goal: Goal, observed: Observed, versions: Sequence[str]) -> tuple[str, ...]:
    """The warning that versions are disabled earlier than Batch may allow, because `unused_for` is shorter than the
    margin."""
    if goal.taken_away or goal.force or goal.unused_for >= MARGIN_SECONDS:
        return ()
    of_each = users(goal, observed, MARGIN_SECONDS)
    within = usage.together(found for version, found in of_each.items() if version in versions)
    has_left = within.exist and not within.ids
    return usage.cut_short(f"{_subject(goal)} ({', '.join(versions)})", within.ids, others=has_left)


def plan_enabled_again(goal: Goal, observed: Observed, before: Mapping[str, Any]) -> Plan[KeyWrites]:
    missing = [version for version in goal.again if version not in before["enabled_versions"]]
    by_version = {version_of(item): item for item in observed["versions"] or ()}
    steps = (_set_enabled(goal, one, by_version.get(one), observed["now"], to=True) for one in missing)
    return Plan(goal, before, before, tuple(steps))


def _set_enabled(goal: Goal, version: str, item: KeyItem | None, now: float, *, to: bool) -> Step[KeyWrites]:
    body: dict[str, Any] = {"attributes": {"enabled": to}}
    disabled = ENABLED_AGAIN if to else str(instant(now))
    if item is not None and (tags := tags_of_change(item.get("tags", {}), disabled)) is not None:
        body["tags"] = tags
    update = step(KeyWrites.update, vault=goal.vault, name=goal.name, version=version, body=body)
    return update.needing(to_use_key("update", goal.vault))


def removed(goal: Goal, versions: Sequence[str], at: float) -> Removed:
    """What was disabled (`versions`) or deleted (no versions) at the time `at` (time.monotonic())."""
    back = replace(goal, state="enabled_again", again=tuple(versions))
    if goal.state == "absent":
        back = replace(goal, state="recovered", taken_away=())
    return Removed(replace(goal, taken_away=tuple(versions)), back, at)


def unconfirmed(goal: Goal, observed: Observed) -> tuple[list[str], float] | None:
    """The versions that this collection has disabled and not confirmed, or an empty list if the key was deleted so
    lately that lists may not have shown its users; and for how many seconds at most. An earlier run may have ended
    before it has asked again for their users. A deleted key does not show who has deleted it."""
    now, key, deleted = observed["now"], observed["key"], observed["deleted"]
    if goal.state == "absent":
        deleted_at = deleted.get("deletedDate", 0) if deleted and key is None else 0
        return ([], now - deleted_at) if now - deleted_at < MAX_READ_DELAY else None
    ages = {
        version_of(item): now - item["attributes"]["updated"]
        for item in observed["versions"] or ()
        if goal.version in (None, version_of(item)) and was_disabled_as_unused(item)
    }
    return (list(ages), min(ages.values())) if ages else None


def plan_absent(goal: Goal, observed: Observed, before: Mapping[str, Any]) -> Plan[KeyWrites]:
    key: KeyBundle | None = observed["key"]
    if key is None and goal.taken_away is None:
        return _unchanged(goal, before, {})
    identifier: KeyIdentifier = observed["identifier"]
    visible, now = observed["visible"], observed["now"]
    found = usage.users_of_key(visible, identifier, observed["times"], now, goal.unused_for)
    if found.ids and goal.keeps_used and goal.taken_away is None:
        return _unchanged(goal, before, {"": found}, usage.pools_unknown(found.ids, visible))
    warnings = _guard(goal, visible, {"": found})
    after = {"exists": False, "soft_deleted": True}
    delete = step(KeyWrites.delete, vault=goal.vault, name=goal.name).needing(to_use_key("delete", goal.vault))
    steps = (delete,) if key else ()
    if goal.taken_away is None and not goal.force and goal.unused_for < MARGIN_SECONDS:
        within = usage.users_of_key(visible, identifier, observed["times"], now, MARGIN_SECONDS)
        warnings += usage.cut_short(f"the key {goal.name}", within.ids)
    plan = Plan(goal, before, after, steps, warnings, report=report({}))
    return usage.removal(plan, replace(goal, state="recovered", taken_away=()), ())
