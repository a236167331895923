# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides which keys and versions that no account or pool may use are disabled or deleted. Pure: asks
for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..._azure.facts import Facts
from ..._checks import usage
from ..._checks.rights import to_use_key
from ..._checks.usage import Users
from ..._checks.versions import MARGIN_SECONDS, versions_of
from ..._core.docs import Docs, Ref
from ..._core.documents import KeyItem
from ..._core.duration import instant
from ..._core.errors import Denied
from ..._core.ids import key_of
from ..._core.rights import Needed
from ..._core.summary import version_text
from ..._core.tasks import VALUE_LAG_SECONDS, Change, Decided, Removal, Request, Task
from ..._documents import refs
from ..._documents.key import updated_at, version_of
from ..._questions import services, users
from . import requests
from .goal import KeyGoal, key_not_found, key_soft_deleted, version_not_found
from .present import KeyRecovered, KeyTask
from .seen import Seen, identifier, is_subject, look, with_latest_versions, with_users

_PIN = "Pin accounts that follow the latest version first (in the role rotate, set cmk_key_version_mode: pin)."
_DAY_SECONDS = 24 * 3600
_KEEP = "cmk_unused_versions: keep"


# Before the removal


class _Removing(KeyTask):
    def glance(self, docs: Docs) -> None:
        """What another host has read may be restored by its task a moment later."""

    def decide(self, docs: Docs) -> Change:
        return users.with_left_out(docs, self.facts, self._decided(docs))

    def _decided(self, docs: Docs) -> Change:
        raise NotImplementedError


class KeyDisabled(_Removing):
    """The key or the named version is disabled or, in the state `retired`, each unused version."""

    def _decided(self, docs: Docs) -> Change:
        goal, facts = self.goal, self.facts
        seen = _with_versions(docs, goal, facts)
        if seen.key is None:
            return _unchanged(seen, {})
        found = _candidates(goal, seen)
        # Also if nothing can be disabled, so that a missing right shows before something can.
        seen = with_users(docs, goal, seen, facts, lambda seen: _has_unused(_users(goal, seen, found, goal.unused_for)))
        is_unused = _has_unused(_users(goal, seen, found, goal.unused_for))
        seen = _with_services(docs, goal, seen, facts, is_due=is_unused or (bool(found) and not goal.keeps_used))
        if is_unused and not goal.force:
            # Last, so that as little time as possible passes until a version is disabled.
            seen = with_latest_versions(docs, seen, facts)
            found = _candidates(goal, seen)
        if goal.state == "retired" and not goal.force:
            usage.require_whole(seen.visible, f"disable {_subject(goal)}", _KEEP)
        of_each, kept = _users(goal, seen, found, goal.unused_for), dict[str, Users]()
        if goal.keeps_used:
            kept = _replaced_lately(goal, seen) | {version: one for version, one in of_each.items() if one.exist}
        _require_unused_lately(docs, goal, seen, facts)
        versions = [version for version in found if version not in kept]
        if not versions:
            return _unchanged(seen, kept)
        warnings = _guard(goal, seen, usage.together(of_each[version] for version in versions))
        warnings += _cut_short(goal, seen, versions)
        return _removed(_removing(goal, seen, facts, versions, warnings, kept), self, seen, versions)


class KeyDeleted(_Removing):
    def _decided(self, docs: Docs) -> Change:
        goal, facts = self.goal, self.facts
        seen = look(docs, goal, facts)
        if seen.key is None:
            _require_unused_lately(docs, goal, seen, facts)
            return _unchanged(seen, {})
        seen = with_users(docs, goal, seen, facts, lambda seen: not _users_of_key(seen, goal.unused_for).exist)
        is_due = not goal.keeps_used or not _users_of_key(seen, goal.unused_for).exist
        seen = _with_services(docs, goal, seen, facts, is_due=is_due)
        used = _users_of_key(seen, goal.unused_for)
        if used.exist and goal.keeps_used:
            return _unchanged(seen, {"": used})
        warnings = _guard(goal, seen, used)
        if not goal.force and goal.unused_for < MARGIN_SECONDS:
            warnings += usage.cut_short(f"the key {goal.name}", _users_of_key(seen, MARGIN_SECONDS).ids)
        return _removed(_removing(goal, seen, facts, (), warnings), self, seen, ())


def _with_versions(docs: Docs, goal: KeyGoal, facts: Facts) -> Seen:
    """The key with its versions. A key that was deleted is an error, except in the state `retired`."""
    seen = look(docs, goal, facts)
    if seen.key is None and goal.state != "retired":
        raise key_soft_deleted(goal) if seen.deleted else key_not_found(goal)
    if seen.versions is None:
        raise Denied(
            f"The versions of the key {goal.name} could not be listed, because the caller lacks the permission to "
            "list keys. Grant the permission (Key Vault Crypto Officer, or `list` in the access policy).",
        )
    if goal.version and goal.version not in map(version_of, seen.versions):
        raise version_not_found(goal)
    return seen


def _candidates(goal: KeyGoal, seen: Seen) -> list[str]:
    """The enabled versions that the goal disables if they are unused. An unused version of the state `retired` is older
    than the newest version that Batch can use, and was replaced at least `unused_for` ago."""
    if seen.key is None:
        return []
    versions = versions_of(seen.key, seen.versions or (), seen.now)
    if goal.state == "retired":
        found = [item for item, since in versions.replaced if since <= seen.now - goal.unused_for]
    else:
        found = [item for item in versions.newest_first if goal.version in (None, version_of(item))]
    return [version_of(item) for item in found if item["attributes"]["enabled"]]


def _users(goal: KeyGoal, seen: Seen, versions: Collection[str], margin: float) -> dict[str, Users]:
    """The users of each of these versions. If the whole key is disabled or deleted, the users of the key are users of
    each version."""
    if seen.key is None or goal.takes_whole_key:
        return dict.fromkeys(versions, _users_of_key(seen, margin))
    known = versions_of(seen.key, seen.versions or (), seen.now)
    return {
        one: usage.users_of_version(seen.visible, replace(seen.identifier, version=one), known, seen.times, margin)
        for one in versions
    }


def _users_of_key(seen: Seen, margin: float) -> Users:
    return usage.users_of_key(seen.visible, seen.identifier, seen.times, seen.now, margin)


def _has_unused(of_each: Mapping[str, Users]) -> bool:
    return any(not found.exist for found in of_each.values())


def _replaced_lately(goal: KeyGoal, seen: Seen) -> dict[str, Users]:
    """In the state `retired`, the enabled versions that were replaced less than `unused_for` ago. It is not known yet
    who uses them then."""
    if goal.state != "retired" or seen.key is None:
        return {}
    return {
        version_of(item): Users([], max(since, updated_at(item)) + goal.unused_for)
        for item, since in versions_of(seen.key, seen.versions or (), seen.now).replaced
        if since > seen.now - goal.unused_for and item["attributes"]["enabled"]
    }


def _with_services(docs: Docs, goal: KeyGoal, seen: Seen, facts: Facts, *, is_due: bool) -> Seen:
    """Add the resources of other services that use the vault. That is due if something would be disabled or deleted,
    or if a refusal names all users."""
    if goal.vault_used_by == usage.BATCH:
        return seen
    visible, _ids = services.beside(docs, facts, goal.vault, seen.visible, is_due=is_due)
    return replace(seen, visible=visible)


def _unchanged(seen: Seen, kept: Mapping[str, Users]) -> Change:
    warnings = usage.pools_unknown(usage.together(kept.values()).ids, seen.visible)
    return Change(seen.described, seen.described, (), warnings, report(kept))


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


def _guard(goal: KeyGoal, seen: Seen, used: Users) -> tuple[str, ...]:
    """Refuse to remove what may be in use. With `force`, return warnings."""
    if used.until is not None and not goal.force:
        raise usage.recently_used(_what(goal), used.ids, used.until)
    warnings = usage.guard(used.ids, seen.visible, _what(goal), force=goal.force, until=used.until)
    return (*warnings, *usage.not_shown(goal.vault_used_by))


def _what(goal: KeyGoal) -> str:
    return f"{'delete' if goal.state == 'absent' else 'disable'} {_subject(goal)}"


def _subject(goal: KeyGoal) -> str:
    if goal.state == "retired":
        return f"unused versions of the key {goal.name}"
    return f"{version_text(goal.version)} of the key {goal.name}" if goal.version else f"the key {goal.name}"


def _cut_short(goal: KeyGoal, seen: Seen, versions: Sequence[str]) -> tuple[str, ...]:
    """The warning that versions are disabled earlier than Batch may allow, because `unused_for` is shorter than the
    margin."""
    if goal.force or goal.unused_for >= MARGIN_SECONDS:
        return ()
    within = usage.together(_users(goal, seen, versions, MARGIN_SECONDS).values())
    has_left = within.exist and not within.ids
    warnings = usage.cut_short(f"{_subject(goal)} ({', '.join(versions)})", within.ids, others=has_left)
    # Batch may not move them to the newest version any more. A pinned account has been moved.
    is_followed = not set(within.ids).isdisjoint(usage.following(seen.visible, seen.identifier))
    return tuple(f"{one} {_PIN}" for one in warnings) if is_followed else warnings


def _removing(
    goal: KeyGoal,
    seen: Seen,
    facts: Facts,
    versions: Sequence[str],
    warnings: tuple[str, ...],
    kept: Mapping[str, Users] | None = None,
) -> Change:
    """The change that disables these versions, or deletes the key."""
    before = seen.described
    if goal.state == "absent":
        delete = (requests.delete(seen.identifier),) if seen.key else ()
        return Change(before, {"exists": False, "soft_deleted": True}, delete, warnings, report({}))
    enabled = [version_of(item) for item in seen.versions or () if item["attributes"]["enabled"]]
    writes = (_set_enabled(seen, one, to=False) for one in versions if one in enabled)
    left = [version for version in before["enabled_versions"] if version not in versions]
    after = {**before, "enabled": before["version"] in left, "enabled_versions": left}
    return Change(before, after, tuple(writes), warnings, report(kept or {}, versions))


def _removed(change: Change, task: KeyTask, seen: Seen, versions: Sequence[str]) -> Change:
    """The change with its confirmation, which knows the accounts that were listed before. With `force`, users do not
    matter."""
    if task.goal.force:
        return _Forced(**vars(change), task=task, goal=task.goal, facts=task.facts)
    known = [one["id"].lower() for one in seen.visible["accounts"]]
    kind = _Deleted if task.goal.state == "absent" else _Disabled
    return kind(**vars(change), versions=tuple(versions), goal=task.goal, facts=task.facts, known=known)


@dataclass(frozen=True, kw_only=True)
class _Forced(Decided):
    goal: KeyGoal
    facts: Facts

    def shown(self, docs: Docs, request: Request) -> None:
        _require_deleted(docs, request, self.goal, self.facts)


@dataclass(frozen=True, kw_only=True)
class _Disabled(Removal):
    goal: KeyGoal
    facts: Facts
    known: Collection[str]

    def is_subject(self, ref: Ref[Any]) -> bool:
        return is_subject(ref)

    @property
    def delay(self) -> float:
        # A retired version was replaced long ago, so no run moves an account to it.
        return 0.0 if self.goal.state == "retired" else 2 * VALUE_LAG_SECONDS

    @property
    def keeps_used(self) -> bool:
        return self.goal.keeps_used

    def shown(self, docs: Docs, request: Request) -> None:
        _require_deleted(docs, request, self.goal, self.facts)

    def confirm(self, docs: Docs) -> Change:
        return still_unused(docs, self.goal, self.facts, self.versions, self.known)

    def back(self) -> Sequence[Task]:
        return [EnabledAgain(replace(self.goal, state="enabled_again"), self.facts, self.versions)]

    def undone(self, current: Mapping[str, Any]) -> str:
        return (
            "Therefore the key was enabled again. Batch may need ten minutes until accounts that use it are available."
        )


class _Deleted(_Disabled):
    @property
    def rights(self) -> list[Needed]:
        return [*super().rights, to_use_key("recover", self.goal.vault)]

    def back(self) -> Sequence[Task]:
        return [KeyRecovered(replace(self.goal, state="recovered"), self.facts, is_rollback=True)]

    def undone(self, current: Mapping[str, Any]) -> str:
        return "Therefore the key was recovered. Batch may need ten minutes until accounts that use it are available."


# After the removal


def _require_deleted(docs: Docs, request: Request, goal: KeyGoal, facts: Facts) -> None:
    if request.name == "delete":
        deleted = refs.deleted_key(identifier(goal, facts))
        requests.require_finished(docs, f"deletion of the key {goal.name}", deleted, facts)


def still_unused(
    docs: Docs, goal: KeyGoal, facts: Facts, versions: Sequence[str], known: Collection[str] = ()
) -> Change:
    """Require that no account or pool uses the `versions` that were disabled, or the key that was deleted. There is a
    request left if Azure does not show the removal. `known` are the ids of accounts that were listed before
    (users.everywhere). Azure Resource Graph confirms nothing, so it is not asked."""
    is_deletion = goal.state == "absent"
    seen = look(docs, goal, facts) if is_deletion else _with_versions(docs, goal, facts)
    if seen.key is None and not is_deletion:
        return _unchanged(seen, {})

    def used(seen: Seen) -> dict[str, Users]:
        before = replace(seen, versions=[_as_before(item, versions) for item in seen.versions or ()])
        # A deletion has no versions.
        return _users(goal, before, versions or [""], goal.unused_for)

    seen = with_users(docs, goal, seen, facts, lambda seen: _has_unused(used(seen)), known)
    found = usage.together(used(seen).values())
    what = f"keep {'versions of ' if versions and not goal.takes_whole_key else ''}the key {goal.name} "
    what += "deleted" if is_deletion else "disabled"
    warnings = usage.guard(found.ids, seen.visible, what, force=goal.force, until=found.until)
    return _removing(goal, seen, facts, versions, warnings)


def _as_before(item: KeyItem, disabled: Sequence[str]) -> KeyItem:
    """The version as it was before the task has disabled it, because the confirmation asks the same question."""
    if version_of(item) not in disabled:
        return item
    attributes = item["attributes"]
    return {**item, "attributes": {**attributes, "enabled": True, "updated": attributes["created"]}}


@dataclass(frozen=True)
class EnabledAgain(KeyTask):
    """The rollback. Each version is enabled whose change may have taken effect: reads may show only some of them."""

    versions: Sequence[str] = ()

    def decide(self, docs: Docs) -> Change:
        seen, journal = look(docs, self.goal, self.facts), self.facts.journal
        requests = (_set_enabled(seen, one, to=True) for one in self.versions)
        again = tuple(replace(one, undoes=True) for one in requests if journal.may_be_in_effect(one.ref))
        return _EnabledAgain(seen.described, seen.described, again, goal=self.goal, facts=self.facts)


@dataclass(frozen=True, kw_only=True)
class _EnabledAgain(Change):
    goal: KeyGoal
    facts: Facts

    def confirm(self, docs: Docs) -> Change:
        before = look(docs, self.goal, self.facts).described
        enabled = before["enabled_versions"]
        left = tuple(one for one in self.requests if one.ref.rpartition("/")[2] not in enabled)
        return Change(before, before, left)


def _set_enabled(seen: Seen, version: str, *, to: bool) -> Request:
    return requests.update(seen.identifier, version, {"attributes": {"enabled": to}})


# After a run that ended before it has asked


def _require_unused_lately(docs: Docs, goal: KeyGoal, seen: Seen, facts: Facts) -> None:
    """If the key or a version was deleted or disabled within the last day, perhaps by a run that ended before it has
    asked again who uses it, raise an error if an account does. Nothing is enabled: somebody may have disabled it on
    purpose."""
    lately = _removed_lately(goal, seen)
    if goal.force or not lately:
        return
    listed = usage.without(users.everywhere(docs, facts), goal.canary)
    newest = version_of(seen.key["key"]) if seen.key else None
    using = [
        account["id"]
        for account in usage.accounts_on_key(listed, seen.identifier)
        if goal.state == "absent" or ((key := key_of(account)) and (key.version or newest) in lately)
    ]
    if using:
        raise usage.lost(_what(goal), using)


def _removed_lately(goal: KeyGoal, seen: Seen) -> list[str]:
    """The disabled versions, or `absent` for the deleted key."""
    since = seen.now - _DAY_SECONDS
    if goal.state == "absent":
        return ["absent"] if seen.deleted and seen.deleted.get("deletedDate", 0) > since else []
    items = [item for item in seen.versions or () if goal.version in (None, version_of(item))]
    return [version_of(item) for item in items if not item["attributes"]["enabled"] and updated_at(item) > since]
