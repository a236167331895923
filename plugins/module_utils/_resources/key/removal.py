# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides which keys and versions that no account or pool may use are disabled or deleted. Pure: asks
for documents.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..._azure.facts import Facts
from ..._checks import usage
from ..._checks.usage import Users
from ..._checks.versions import MARGIN_SECONDS, versions_of
from ..._core.changes import MAX_READ_DELAY, Change, Decide, Removal, Request
from ..._core.docs import Docs
from ..._core.documents import KeyItem
from ..._core.duration import instant
from ..._core.errors import Denied
from ..._core.ids import key_in_vault
from ..._documents.key import (
    CONFIRMED,
    ENABLED_AGAIN,
    identifier_of,
    tags_of_change,
    updated_at,
    version_of,
    was_disabled_as_unused,
)
from ..._questions import services
from . import requests
from .goal import Goal, key_not_found, key_soft_deleted, version_not_found
from .present import decide_recovered
from .seen import Seen, look, with_latest_versions, with_users

_PIN = "Pin accounts that follow the latest version first (in the role rotate, set cmk_key_version_mode: pin)."
_KEEP = "leave out this task (in the role rotate, set cmk_unused_versions: keep)"


def candidates(goal: Goal, seen: Seen) -> list[str]:
    """The enabled versions that the goal disables if they are unused. An unused version of the state `retired` is older
    than the newest version that Batch can use, and was replaced at least `unused_for` ago."""
    if goal.taken_away:
        return list(goal.taken_away)
    if seen.key is None or seen.versions is None or goal.state not in ("disabled", "retired"):
        return []
    versions = versions_of(seen.key, seen.versions, seen.now)
    if goal.state == "retired":
        found = [item for item, since in versions.replaced if since <= seen.now - goal.unused_for]
    else:
        found = [item for item in versions.newest_first if goal.version in (None, version_of(item))]
    return [version_of(item) for item in found if item["attributes"]["enabled"]]


def users(goal: Goal, seen: Seen, margin: float) -> dict[str, Users]:
    """The users of each candidate. If the whole key is disabled, the users of the key are users of each version."""
    found = candidates(goal, seen)
    if seen.key is None or not found:
        return {}
    identifier = identifier_of(seen.key).versionless
    if goal.state == "disabled" and goal.version is None:
        return dict.fromkeys(found, usage.users_of_key(seen.visible, identifier, seen.times, seen.now, margin))
    items = [_as_before(item, goal.taken_away or ()) for item in seen.versions or ()]
    versions = versions_of(seen.key, items, seen.now)
    return {
        version: usage.users_of_version(
            seen.visible, replace(identifier, version=version), versions, seen.times, margin
        )
        for version in found
    }


def _replaced_lately(goal: Goal, seen: Seen) -> dict[str, Users]:
    """In the state `retired`, the enabled versions that were replaced less than `unused_for` ago. It is not known yet
    who uses them then."""
    if goal.state != "retired" or seen.key is None:
        return {}
    return {
        version_of(item): Users([], max(since, updated_at(item)) + goal.unused_for)
        for item, since in versions_of(seen.key, seen.versions or (), seen.now).replaced
        if since > seen.now - goal.unused_for and item["attributes"]["enabled"]
    }


def _as_before(item: KeyItem, disabled: Sequence[str]) -> KeyItem:
    """The version as it was before the task has disabled it, because the confirmation asks the same question."""
    if version_of(item) not in disabled:
        return item
    attributes = item["attributes"]
    return {**item, "attributes": {**attributes, "enabled": True, "updated": attributes["created"]}}


def has_unused(goal: Goal, seen: Seen) -> bool:
    """Whether something would be disabled or deleted, as far as the visible accounts and pools show."""
    if goal.state == "absent":
        return not usage.users_of_key(seen.visible, seen.identifier, seen.times, seen.now, goal.unused_for).ids
    return any(not found.exist for found in users(goal, seen, goal.unused_for).values())


def _with_services(docs: Docs, goal: Goal, seen: Seen, facts: Facts, *, is_unused: bool) -> Seen:
    """Add the resources of other services that use the vault. They are asked for before something is disabled or
    deleted. They confirm nothing, so not after that. `is_unused` is whether Batch uses something no more
    (`has_unused`)."""
    if goal.vault_used_by == usage.BATCH or goal.taken_away is not None:
        return seen
    # A refusal names all users.
    is_named = not goal.keeps_used and (goal.state == "absent" or bool(candidates(goal, seen)))
    visible, _ids = services.beside(docs.fresh(), facts, goal.vault, seen.visible, is_due=is_named or is_unused)
    return replace(seen, visible=visible)


def decide_disabled(docs: Docs, goal: Goal, facts: Facts, known: Collection[str] = ()) -> Change:
    """Disable the key or the named version or, in the state `retired`, all unused versions. `known` are the ids of
    accounts that were listed before (users.everywhere)."""
    seen = look(docs, goal, facts)
    before = seen.described
    if seen.key is None:
        if goal.state == "retired":
            return _unchanged(before, {})
        raise key_soft_deleted(goal) if seen.deleted else key_not_found(goal)
    if seen.versions is None:
        raise Denied(
            f"The versions of the key {goal.name} could not be listed, because the caller lacks the permission to "
            "list keys. Grant the permission (Key Vault Crypto Officer, or `list` in the access policy).",
        )
    if goal.version and goal.version not in map(version_of, seen.versions):
        raise version_not_found(goal)
    # Also if there is nothing to disable, so that a missing right shows before there is.
    seen = with_users(docs, goal, seen, facts, has_unused, known)
    is_unused = has_unused(goal, seen)
    seen = _with_services(docs, goal, seen, facts, is_unused=is_unused)
    if is_unused and not goal.force:
        # Last, so that as little time as possible passes until a version is disabled.
        seen = with_latest_versions(docs, seen, facts)
    visible, items = seen.visible, seen.versions or ()
    if goal.state == "retired" and not goal.force:
        usage.require_whole(visible, f"disable {_subject(goal)}", _KEEP)
    of_each = users(goal, seen, goal.unused_for)
    kept: dict[str, Users] = {}
    if goal.taken_away is None and goal.keeps_used:
        kept = _replaced_lately(goal, seen)
        kept |= {version: found for version, found in of_each.items() if found.exist}
    versions = [version for version in of_each if version not in kept]
    if not versions and goal.taken_away is None:
        return _unchanged(before, kept, usage.pools_unknown(usage.together(kept.values()).ids, visible))
    warnings = _guard(goal, visible, {version: of_each[version] for version in versions})
    enabled = {version_of(item): item for item in items if item["attributes"]["enabled"]}
    writes = (_set_enabled(seen, one, enabled[one], to=False) for one in versions if one in enabled)
    left = [version for version in before["enabled_versions"] if version not in versions]
    after = {**before, "enabled": before["version"] in left, "enabled_versions": left}
    warnings += _cut_short(goal, seen, versions)
    return Change(
        before,
        after,
        tuple(writes),
        warnings,
        report(kept, versions),
        confirm=_again(decide_disabled, replace(goal, taken_away=tuple(versions)), facts, visible),
        removed=None if goal.force else tuple(versions),
    )


def _again(decide: Any, goal: Goal, facts: Facts, visible: usage.Listed) -> Decide | None:
    """The decision after the removal, which knows the accounts that were listed before. With `force`, users do not
    matter."""
    if goal.force:
        return None
    listed = [one["id"].lower() for one in visible["accounts"]]
    return partial(decide, goal=goal, facts=facts, known=listed)


def _unchanged(before: Mapping[str, Any], kept: Mapping[str, Users], warnings: tuple[str, ...] = ()) -> Change:
    return Change(before, before, (), warnings, report(kept))


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
    warnings = usage.guard(used.ids, visible, what, force=goal.force, until=used.until)
    return warnings if goal.taken_away is not None else (*warnings, *usage.not_shown(goal.vault_used_by))


def _subject(goal: Goal) -> str:
    if goal.state == "retired":
        return f"unused versions of the key {goal.name}"
    return f"version {goal.version} of the key {goal.name}" if goal.version else f"the key {goal.name}"


def _cut_short(goal: Goal, seen: Seen, versions: Sequence[str]) -> tuple[str, ...]:
    """The warning that versions are disabled earlier than Batch may allow, because `unused_for` is shorter than the
    margin."""
    if goal.taken_away or goal.force or goal.unused_for >= MARGIN_SECONDS:
        return ()
    of_each = users(goal, seen, MARGIN_SECONDS)
    within = usage.together(found for version, found in of_each.items() if version in versions)
    has_left = within.exist and not within.ids
    warnings = usage.cut_short(f"{_subject(goal)} ({', '.join(versions)})", within.ids, others=has_left)
    # Batch may not move them to the newest version any more. A pinned account has been moved.
    is_followed = not set(within.ids).isdisjoint(usage.following(seen.visible, seen.identifier))
    return tuple(f"{one} {_PIN}" for one in warnings) if is_followed else warnings


def decide_enabled_again(docs: Docs, goal: Goal, facts: Facts) -> Change:
    seen = look(docs, goal, facts)
    before, by_version = seen.described, {version_of(item): item for item in seen.versions or ()}
    missing = [version for version in goal.again if version not in before["enabled_versions"]]
    return Change(before, before, tuple(_set_enabled(seen, one, by_version.get(one), to=True) for one in missing))


def _set_enabled(seen: Seen, version: str, item: KeyItem | None, *, to: bool) -> Request:
    body: dict[str, Any] = {"attributes": {"enabled": to}}
    disabled = ENABLED_AGAIN if to else str(instant(seen.now))
    if item is not None and (tags := tags_of_change(item.get("tags", {}), disabled)) is not None:
        body["tags"] = tags
    return requests.update(seen.identifier, version, body)


def decide_absent(docs: Docs, goal: Goal, facts: Facts, known: Collection[str] = ()) -> Change:
    """Delete the key. For `known` see `decide_disabled`."""
    seen = look(docs, goal, facts)
    before = seen.described
    if seen.key is None and goal.taken_away is None:
        return _unchanged(before, {})
    seen = with_users(docs, goal, seen, facts, has_unused, known)
    seen = _with_services(docs, goal, seen, facts, is_unused=has_unused(goal, seen))
    visible, now = seen.visible, seen.now
    found = usage.users_of_key(visible, seen.identifier, seen.times, now, goal.unused_for)
    if found.ids and goal.keeps_used and goal.taken_away is None:
        return _unchanged(before, {"": found}, usage.pools_unknown(found.ids, visible))
    warnings = _guard(goal, visible, {"": found})
    if goal.taken_away is None and not goal.force and goal.unused_for < MARGIN_SECONDS:
        within = usage.users_of_key(visible, seen.identifier, seen.times, now, MARGIN_SECONDS)
        warnings += usage.cut_short(f"the key {goal.name}", within.ids)
    return Change(
        before,
        {"exists": False, "soft_deleted": True},
        (requests.delete(seen.identifier, facts),) if seen.key else (),
        warnings,
        report({}),
        confirm=_again(decide_absent, replace(goal, taken_away=()), facts, visible),
        removed=None if goal.force else (),
    )


# The confirmation


def removal(goal: Goal, facts: Facts) -> Removal:
    """The versions that are disabled, or the key that is deleted."""
    is_deletion = goal.state == "absent"
    decide = decide_absent if is_deletion else decide_disabled

    def unused(versions: Sequence[str]) -> Decide:
        return partial(decide, goal=replace(goal, taken_away=tuple(versions)), facts=facts)

    def back(versions: Sequence[str]) -> Decide:
        if is_deletion:
            return partial(decide_recovered, goal=replace(goal, state="recovered", taken_away=()), facts=facts)
        again = replace(goal, state="enabled_again", again=tuple(versions))
        return partial(decide_enabled_again, goal=again, facts=facts)

    done = "recovered" if is_deletion else "enabled again"
    return Removal(
        ("key", key_in_vault(goal.vault, goal.name), goal.state, goal.version or ""),
        goal.vault,
        unused,
        back,
        restored=f"Therefore the key was {done}. Batch may need ten minutes until these accounts are available.",
        keeps_used=goal.keeps_used,
        confirmed=None
        if is_deletion
        else lambda versions: partial(_confirmed, goal=goal, facts=facts, versions=versions),
        earlier=None if goal.force else partial(unconfirmed, goal=goal, facts=facts),
    )


def _confirmed(docs: Docs, goal: Goal, facts: Facts, versions: Sequence[str]) -> Change:
    """Set the tag of the disabled versions, so that no later run asks again."""
    seen, writes = look(docs, goal, facts), list[Request]()
    for item in seen.versions or ():
        if version_of(item) in versions and was_disabled_as_unused(item):
            tags = tags_of_change(item["tags"], CONFIRMED)
            writes.append(requests.update(seen.identifier, version_of(item), {"tags": tags}))
    return Change({}, {}, tuple(writes))


def unconfirmed(docs: Docs, goal: Goal, facts: Facts) -> tuple[Sequence[str], float] | None:
    """The versions that this collection has disabled and not confirmed, or none if the key was deleted so lately that
    lists may not have shown its users; with the time of that (time.monotonic()) at the latest. An earlier run may have
    ended before it has asked again for their users. A deleted key does not show who has deleted it."""
    seen = look(docs, goal, facts)
    if goal.state == "absent":
        deleted_at = seen.deleted.get("deletedDate", 0) if seen.deleted else 0
        age = seen.now - deleted_at
        return ((), time.monotonic() - age) if age < MAX_READ_DELAY else None
    ages = {
        version_of(item): seen.now - item["attributes"]["updated"]
        for item in seen.versions or ()
        if goal.version in (None, version_of(item)) and was_disabled_as_unused(item)
    }
    return (list(ages), time.monotonic() - min(ages.values())) if ages else None
