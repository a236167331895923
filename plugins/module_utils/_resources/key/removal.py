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
from typing import Any, ClassVar

from ..._checks import usage
from ..._checks.rights import to_use_key
from ..._checks.usage import Users
from ..._checks.versions import MARGIN_SECONDS
from ..._core.docs import Docs, Ref
from ..._core.duration import instant
from ..._core.errors import Denied
from ..._core.rights import Needed
from ..._core.summary import version_text
from ..._core.tasks import VALUE_LAG_SECONDS, Change, Decided, Removal, Request, Task
from ..._documents import refs
from ..._documents.account import key_of
from ..._documents.key import KeyItem, updated_at, version_of
from ..._questions import services, users
from . import requests
from .goal import RemovalGoal, UnusedVersionsGoal, key_not_found, key_soft_deleted, version_not_found
from .present import KeyRecovered, KeyTask
from .seen import Seen, identifier, is_subject, look_for_usable, with_latest_versions, with_users

_PIN = "Pin accounts that follow the latest version first (in the role rotate, set cmk_key_version_mode: pin)."
_DAY_SECONDS = 24 * 3600
_KEEP = "cmk_unused_versions: keep"


# Before the removal


@dataclass(frozen=True)
class _Removing(KeyTask):
    """The `subject` is disabled or deleted (`verb`) unless it is in use."""

    goal: RemovalGoal
    verb: ClassVar[str] = "disable"
    # The seconds until it is asked again who uses it. Until then, a run may move an account to it.
    delay: ClassVar[float] = 2 * VALUE_LAG_SECONDS

    @property
    def subject(self) -> str:
        version, name = self.goal.version, self.goal.name
        return f"{version_text(version)} of the key {name}" if version else f"the key {name}"

    def glance(self, docs: Docs) -> None:
        """What another host has read may be restored by its task a moment later."""

    def decide(self, docs: Docs) -> Change:
        return users.with_left_out(docs, self.facts, self._decided(docs))

    def _decided(self, docs: Docs) -> Change:
        raise NotImplementedError

    def still_unused(self, docs: Docs, versions: Sequence[str], known: Collection[str] = ()) -> Change:
        """Require that no account or pool uses the key that was deleted, or the `versions` that were disabled. There is
        a request left if Azure does not show that. `known` are the ids of accounts that were listed before
        (users.everywhere). Azure Resource Graph confirms nothing, so it is not asked."""
        raise NotImplementedError

    def _with_services(self, docs: Docs, seen: Seen, *, is_due: bool) -> Seen:
        """Add the resources of other services that use the vault. That is due if something would be disabled or
        deleted, or if a refusal names all users."""
        if self.goal.vault_used_by == usage.BATCH:
            return seen
        visible, _ids = services.beside(docs, self.facts, self.goal.vault, seen.visible, is_due=is_due)
        return replace(seen, visible=visible)

    def _guard(self, seen: Seen, used: Users) -> tuple[str, ...]:
        """Refuse to remove what may be in use. With `force`, return warnings."""
        what, force = f"{self.verb} {self.subject}", self.goal.force
        if used.until is not None and not force:
            raise usage.recently_used(what, used.ids, used.until)
        warnings = usage.guard(used.ids, seen.visible, what, force=force, until=used.until)
        return (*warnings, *usage.not_shown(self.goal.vault_used_by))

    def _require_unused_already(self, docs: Docs, seen: Seen, versions: Collection[str] | None) -> None:
        """The key (None) or these versions were removed within the last day, perhaps by a run that ended before it has
        asked again who uses them. Raise an error if an account does. Nothing is enabled: somebody may have disabled it
        on purpose."""
        if self.goal.force:
            return
        listed = usage.without(users.everywhere(docs, self.facts), self.goal.canary)
        newest = version_of(seen.key["key"]) if seen.key else None
        using = [
            account["id"]
            for account in usage.accounts_on_key(listed, seen.identifier)
            if versions is None or ((key := key_of(account)) and (key.version or newest) in versions)
        ]
        if using:
            raise usage.lost(f"{self.verb} {self.subject}", using)


class KeyDisabled(_Removing):
    """The key or the named version is disabled."""

    @property
    def takes_whole_key(self) -> bool:
        """Whether no version of the key can be used any more."""
        return self.goal.version is None

    def look(self, docs: Docs) -> Seen:
        goal, seen = self.goal, _listed(super().look(docs))
        if seen.key is None:
            raise key_soft_deleted(goal, "disabled") if seen.deleted else key_not_found(goal)
        if goal.version and goal.version not in map(version_of, seen.versions or ()):
            raise version_not_found(goal)
        return seen

    def _candidates(self, seen: Seen) -> list[str]:
        """The enabled versions that are disabled if they are unused."""
        enabled = [version_of(item) for item in seen.all_versions.newest_first if item["attributes"]["enabled"]]
        return [version for version in enabled if self.goal.version in (None, version)]

    def _kept(self, seen: Seen, of_each: Mapping[str, Users]) -> dict[str, Users]:
        return {version: one for version, one in of_each.items() if one.exist} if self.goal.keeps_used else {}

    def _decided(self, docs: Docs) -> Change:
        goal, facts = self.goal, self.facts
        seen = self.look(docs)
        if seen.key is None:
            return _unchanged(seen, {})
        found = self._candidates(seen)
        # Also if nothing can be disabled, so that a missing right shows before something can.
        seen = with_users(docs, goal, seen, facts, lambda seen: _has_unused(self._users(seen, found)))
        is_unused = _has_unused(self._users(seen, found))
        seen = self._with_services(docs, seen, is_due=is_unused or (bool(found) and not goal.keeps_used))
        if is_unused and not goal.force:
            # Last, so that as little time as possible passes until a version is disabled.
            seen = with_latest_versions(docs, seen, facts)
            found = self._candidates(seen)
        of_each = self._users(seen, found)
        kept = self._kept(seen, of_each)
        if lately := self._disabled_lately(seen):
            self._require_unused_already(docs, seen, lately)
        versions = [version for version in found if version not in kept]
        if not versions:
            return _unchanged(seen, kept)
        warnings = self._guard(seen, usage.together(of_each[version] for version in versions))
        warnings += self._cut_short(seen, versions)
        change = _disabling(seen, versions, warnings, kept)
        if goal.force:
            return Decided(**vars(change), task=self)
        return _Disabled(**vars(change), versions=tuple(versions), task=self, known=_known(seen))

    def _users(self, seen: Seen, versions: Collection[str], margin: float | None = None) -> dict[str, Users]:
        """The users of each of these versions. If the whole key is disabled, the users of the key are users of each
        version."""
        margin = self.goal.unused_for if margin is None else margin
        if self.takes_whole_key:
            return dict.fromkeys(versions, _users_of_key(seen, margin))
        known = seen.all_versions
        return {
            one: usage.users_of_version(seen.visible, replace(seen.identifier, version=one), known, seen.times, margin)
            for one in versions
        }

    def _cut_short(self, seen: Seen, versions: Sequence[str]) -> tuple[str, ...]:
        """The warning that versions are disabled earlier than Batch may allow, because `unused_for` is shorter than the
        margin."""
        if self.goal.force or self.goal.unused_for >= MARGIN_SECONDS:
            return ()
        within = usage.together(self._users(seen, versions, MARGIN_SECONDS).values())
        has_left = within.exist and not within.ids
        warnings = usage.cut_short(f"{self.subject} ({', '.join(versions)})", within.ids, others=has_left)
        # Batch may not move them to the newest version any more. A pinned account has been moved.
        is_followed = not set(within.ids).isdisjoint(usage.following(seen.visible, seen.identifier))
        return tuple(f"{one} {_PIN}" for one in warnings) if is_followed else warnings

    def _disabled_lately(self, seen: Seen) -> list[str]:
        since = seen.now - _DAY_SECONDS
        items = [item for item in seen.versions or () if self.goal.version in (None, version_of(item))]
        return [version_of(item) for item in items if not item["attributes"]["enabled"] and updated_at(item) > since]

    def still_unused(self, docs: Docs, versions: Sequence[str], known: Collection[str] = ()) -> Change:
        seen = self.look(docs)
        if seen.key is None:
            return _unchanged(seen, {})

        def used(seen: Seen) -> dict[str, Users]:
            before = replace(seen, versions=[_as_before(item, versions) for item in seen.versions or ()])
            # A drill may revoke only the access to the key.
            return self._users(before, versions or [""])

        seen = with_users(docs, self.goal, seen, self.facts, lambda seen: _has_unused(used(seen)), known)
        what = f"keep {'' if self.takes_whole_key else 'versions of '}the key {self.goal.name} disabled"
        return _disabling(seen, versions, _guard_again(seen, usage.together(used(seen).values()), what))


@dataclass(frozen=True)
class UnusedDisabled(KeyDisabled):
    """Each unused version is disabled. It is older than the newest version that Batch can use, and was replaced at
    least `unused_for` ago. A key that was deleted has none."""

    goal: UnusedVersionsGoal
    takes_whole_key = False
    # They were replaced long ago, so no run moves an account to them.
    delay = 0.0

    @property
    def subject(self) -> str:
        return f"unused versions of the key {self.goal.name}"

    def look(self, docs: Docs) -> Seen:
        return _listed(look_for_usable(docs, self.goal, self.facts))

    def _candidates(self, seen: Seen) -> list[str]:
        return [version_of(item) for item, kept_until in self._replaced(seen) if kept_until <= seen.now]

    def _kept(self, seen: Seen, of_each: Mapping[str, Users]) -> dict[str, Users]:
        """Also those that were replaced lately: it is not known yet who uses them once they may be disabled. Raises an
        error if not all users are known."""
        if not self.goal.force:
            usage.require_whole(seen.visible, f"disable {self.subject}", _KEEP)
        lately = {
            version_of(item): Users([], max(kept_until, updated_at(item) + self.goal.unused_for))
            for item, kept_until in self._replaced(seen)
            if kept_until > seen.now
        }
        return lately | super()._kept(seen, of_each)

    def _replaced(self, seen: Seen) -> list[tuple[KeyItem, float]]:
        """The enabled versions that were replaced, each with the time until which it is kept."""
        replaced = seen.all_versions.replaced
        return [(item, since + self.goal.unused_for) for item, since in replaced if item["attributes"]["enabled"]]


class KeyDeleted(_Removing):
    verb = "delete"

    def _decided(self, docs: Docs) -> Change:
        goal, facts = self.goal, self.facts
        seen = self.look(docs)
        if seen.key is None:
            if seen.deleted and seen.deleted.get("deletedDate", 0) > seen.now - _DAY_SECONDS:
                self._require_unused_already(docs, seen, None)
            return _unchanged(seen, {})
        seen = with_users(docs, goal, seen, facts, lambda seen: not self._users(seen).exist)
        seen = self._with_services(docs, seen, is_due=not (goal.keeps_used and self._users(seen).exist))
        used = self._users(seen)
        if used.exist and goal.keeps_used:
            return _unchanged(seen, {"": used})
        warnings = self._guard(seen, used)
        if not goal.force and goal.unused_for < MARGIN_SECONDS:
            warnings += usage.cut_short(self.subject, _users_of_key(seen, MARGIN_SECONDS).ids)
        change = _deletion(seen, warnings)
        if goal.force:
            return _ForceDeleted(**vars(change), task=self)
        return _Deleted(**vars(change), task=self, known=_known(seen))

    def _users(self, seen: Seen) -> Users:
        return _users_of_key(seen, self.goal.unused_for)

    def still_unused(self, docs: Docs, versions: Sequence[str], known: Collection[str] = ()) -> Change:
        seen = self.look(docs)
        seen = with_users(docs, self.goal, seen, self.facts, lambda seen: not self._users(seen).exist, known)
        return _deletion(seen, _guard_again(seen, self._users(seen), f"keep {self.subject} deleted"))


def _listed(seen: Seen) -> Seen:
    if seen.versions is None:
        raise Denied(
            f"The versions of the key {seen.identifier.name} could not be listed, because the caller lacks the "
            "permission to list keys. Grant the permission (Key Vault Crypto Officer, or `list` in the access policy).",
        )
    return seen


def _users_of_key(seen: Seen, margin: float) -> Users:
    return usage.users_of_key(seen.visible, seen.identifier, seen.times, seen.now, margin)


def _has_unused(of_each: Mapping[str, Users]) -> bool:
    return any(not found.exist for found in of_each.values())


def _known(seen: Seen) -> list[str]:
    return [one["id"].lower() for one in seen.visible["accounts"]]


def _guard_again(seen: Seen, used: Users, what: str) -> tuple[str, ...]:
    return usage.guard(used.ids, seen.visible, what, force=False, until=used.until)


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


def _deletion(seen: Seen, warnings: tuple[str, ...]) -> Change:
    delete = (requests.delete(seen.identifier),) if seen.key else ()
    return Change(seen.described, {"exists": False, "soft_deleted": True}, delete, warnings, report({}))


def _disabling(
    seen: Seen, versions: Sequence[str], warnings: tuple[str, ...], kept: Mapping[str, Users] | None = None
) -> Change:
    before = seen.described
    enabled = [version_of(item) for item in seen.versions or () if item["attributes"]["enabled"]]
    writes = (_set_enabled(seen, one, to=False) for one in versions if one in enabled)
    left = [version for version in before["enabled_versions"] if version not in versions]
    after = {**before, "enabled": before["version"] in left, "enabled_versions": left}
    return Change(before, after, tuple(writes), warnings, report(kept or {}, versions))


@dataclass(frozen=True, kw_only=True)
class _Disabled(Removal):
    task: _Removing
    # The ids of the accounts that were listed before.
    known: Collection[str]

    def is_subject(self, ref: Ref[Any]) -> bool:
        return is_subject(ref)

    @property
    def delay(self) -> float:
        return self.task.delay

    @property
    def keeps_used(self) -> bool:
        return self.task.goal.keeps_used

    def confirm(self, docs: Docs) -> Change:
        return self.task.still_unused(docs, self.versions, self.known)

    def back(self) -> Sequence[Task]:
        return [EnabledAgain(self.task.goal, self.task.facts, self.versions)]

    def undone(self, current: Mapping[str, Any]) -> str:
        return (
            "Therefore the key was enabled again. Batch may need ten minutes until accounts that use it are available."
        )


class _Deleted(_Disabled):
    @property
    def rights(self) -> list[Needed]:
        return [*super().rights, to_use_key("recover", self.task.goal.vault)]

    def shown(self, docs: Docs, request: Request) -> None:
        _require_deleted(docs, self.task)

    def back(self) -> Sequence[Task]:
        return [KeyRecovered(self.task.goal, self.task.facts, is_rollback=True)]

    def undone(self, current: Mapping[str, Any]) -> str:
        return "Therefore the key was recovered. Batch may need ten minutes until accounts that use it are available."


@dataclass(frozen=True, kw_only=True)
class _ForceDeleted(Decided):
    """Users do not matter."""

    task: KeyTask

    def shown(self, docs: Docs, request: Request) -> None:
        _require_deleted(docs, self.task)


def _require_deleted(docs: Docs, task: KeyTask) -> None:
    deleted = refs.deleted_key(identifier(task.goal, task.facts))
    requests.require_finished(docs, f"deletion of the key {task.goal.name}", deleted, task.facts)


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
        seen, journal = self.look(docs), self.facts.journal
        requests = (_set_enabled(seen, one, to=True) for one in self.versions)
        again = tuple(replace(one, undoes=True) for one in requests if journal.may_be_in_effect(one.ref))
        return _Reenabled(seen.described, seen.described, again, task=self)


@dataclass(frozen=True, kw_only=True)
class _Reenabled(Change):
    task: EnabledAgain

    def confirm(self, docs: Docs) -> Change:
        before = self.task.look(docs).described
        enabled = before["enabled_versions"]
        left = tuple(one for one in self.requests if one.ref.rpartition("/")[2] not in enabled)
        return Change(before, before, left)


def _set_enabled(seen: Seen, version: str, *, to: bool) -> Request:
    return requests.update(seen.identifier, version, {"attributes": {"enabled": to}})
