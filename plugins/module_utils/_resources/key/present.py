# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides how a key becomes usable: its newest version is repaired or, if rotation is due, a new version is created.
How a named version becomes usable again, and how a deleted key is recovered. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..._azure.facts import Facts
from ..._checks import usage
from ..._checks.versions import MARGIN_SECONDS, REPLACED_BEFORE_EXPIRY
from ..._core.docs import Docs, Ref
from ..._core.duration import instant
from ..._core.errors import PlanOutdated, Refused
from ..._core.ids import KeyIdentifier
from ..._core.rights import Needed
from ..._core.tasks import Change, Decided, Request, Task
from ..._documents import refs, rotation_policy
from ..._documents.key import (
    MOST_TAGS,
    OPERATIONS,
    SIZES,
    TAG,
    TYPES,
    KeyAttributes,
    KeyBundle,
    identifier_of,
    is_staged,
    item_of,
    newest_known,
    previous_version,
    size_of,
    tags_of_new_version,
    version_for,
    version_of,
)
from ..._documents.vault import HSM, require_sku_for
from ..._questions import health, users
from . import requests
from .goal import KeyGoal, KeyStateGoal, NamedKey, key_disabled, key_not_found, key_soft_deleted, version_not_found
from .seen import Seen, identifier, is_subject, look, look_for_usable, read_version, vault_of, visible_users

Requests = tuple[Request, ...]


@dataclass(frozen=True)
class KeyTask(Task):
    goal: NamedKey
    facts: Facts

    @property
    def lock(self) -> str:
        return self.goal.vault

    def is_subject(self, ref: Ref[Any]) -> bool:
        return is_subject(ref)

    def look(self, docs: Docs) -> Seen:
        """What the task has to know of the key, without its users."""
        return look(docs, self.goal, self.facts)


@dataclass(frozen=True)
class KeyPresent(KeyTask):
    """The newest usable version of the key is not too old."""

    goal: KeyGoal
    # The account that uses the key.
    account: UsedBy | None = None

    def is_subject(self, ref: Ref[Any]) -> bool:
        """Whether the account is available is only checked, and its last change says something about that."""
        return is_subject(ref) and not ref.is_dated

    @property
    def later(self) -> Sequence[Needed]:
        return self.account.to_move if self.account else ()

    def look(self, docs: Docs) -> Seen:
        goal = self.goal
        if goal.looks_at_policy:
            docs.want(refs.rotation_policy_of(identifier(goal, self.facts)))
        seen = look_for_usable(docs, goal, self.facts, counts_disabled=goal.repairs)
        if seen.key is None:
            return seen
        key, versions = seen.key, seen.versions
        for known in (goal.at_least, version_for(goal.purpose, key, versions, seen.now)):
            if known:
                key = newest_known(key, versions, known, partial(read_version, docs, seen))
        policy = docs.get(refs.rotation_policy_of(seen.identifier)) if goal.looks_at_policy else None
        return replace(seen, key=key, policy=policy)

    def decide(self, docs: Docs) -> Change:
        goal, facts = self.goal, self.facts
        seen = self.look(docs)
        forced = requests.made_version(seen.identifier)
        made_at = facts.journal.noted_at(forced) if goal.is_shared else None
        if made_at is not None:
            goal = replace(goal, new_version=False)
            if docs.of(refs.key(seen.identifier)).at < made_at:
                # Another task has made the version since this task has read the key.
                seen = self.look(docs.after(made_at))
        key, before = seen.key, seen.described
        if key is None and seen.deleted:
            if not goal.repairs:
                raise key_soft_deleted(goal)
            # Further changes can be decided only after the recovery, because Azure shows no versions before.
            return _RecoveredFirst(**vars(_recovery(seen, goal)), task=self)
        warnings: tuple[str, ...] = ()
        if goal.new_version and key and version_for(goal.purpose, key, seen.versions, seen.now):
            goal = replace(goal, new_version=False)
        is_due = _is_due(goal, seen)
        _refuse_to_enable(goal, key, before, is_due=is_due)
        if key is None or is_due:
            if key is None and goal.key_type == HSM:
                require_sku_for(HSM, vault_of(docs, goal.vault, facts))
            is_for_runs = goal.new_version and goal.purpose not in (None, facts.run)
            writes, after = _new_version(goal, seen, before, forced, wanted_first=is_for_runs)
            warnings += _previous_expires(goal, seen)
        else:
            _refuse_other_family(goal, key)
            _refuse_other_size(goal, key)
            writes, after = repaired(seen, key, before, {})
        has_policy = seen.policy
        if has_policy is not None and goal.stops_rotation(has_policy):
            warnings += _rotation_guard(goal, visible_users(docs, goal.vault, facts), seen.identifier)
            warnings += usage.left_out(users.left_out(docs, facts))
            policy = rotation_policy.without_rotation(has_policy)
            writes = (*writes, requests.set_rotation_policy(seen.identifier, policy))
            after = {**after, "rotation_policy": rotation_policy.describe(policy)}
        if goal.rotation_policy is not None and before.get("rotation_policy") != goal.rotation_policy:
            policy = rotation_policy.body(goal.rotation_policy, seen.policy)
            writes = (*writes, requests.set_rotation_policy(seen.identifier, policy))
            after = {**after, "rotation_policy": dict(goal.rotation_policy)}
        if goal.new_version:
            if goal.purpose and TAG not in (writes[0].body or {}).get("tags", {}):
                warnings += (_no_room_for_tag(goal),)
            goal = replace(goal, new_version=False, other_than=before.get("version"))
        return _Made(before, after, writes, warnings, task=replace(self, goal=goal))


@dataclass(frozen=True)
class UsedBy:
    """The Batch account for which the key is. Nothing is changed if it is not available. `to_move` are the rights to
    move it to the new version, without which no version is created."""

    group: str
    name: str
    to_move: tuple[Needed, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Made(Change):
    """`task` is what is confirmed."""

    task: KeyPresent

    def first(self, docs: Docs) -> Sequence[Task]:
        account = self.task.account
        if account:
            health.require_available(docs, self.task.facts, account.group, account.name)
        return ()

    def wanted(self, docs: Docs, request: Request) -> None:
        """Just before a version is created: another run may have created a version for the purpose since the key was
        read. If that is created at this moment, both runs use the newest."""
        if not request.wanted_first:
            return
        goal, facts = self.task.goal, self.task.facts
        seen = self.task.look(docs)
        made = seen.key and version_for(goal.purpose, seen.key, seen.versions, seen.now)
        # Whether this request has created it, the response does not show. The task reports then that it has.
        if made and not facts.journal.is_in_doubt(request.ref):
            raise PlanOutdated(f"Another run has created version {made} of the key {goal.name} for the same purpose.")

    def confirm(self, docs: Docs) -> Change:
        return self.task.decide(docs)


@dataclass(frozen=True, kw_only=True)
class _RecoveredFirst(_Made):
    """The key is recovered, before it is changed further."""

    def shown(self, docs: Docs, request: Request) -> None:
        _require_recovered(docs, request, self.task)

    def confirm(self, docs: Docs) -> Change:
        return _recovery(self.task.look(docs), self.task.goal)


def _is_due(goal: KeyGoal, seen: Seen) -> bool:
    key, now = seen.key, seen.now
    if key is None:
        return True
    attributes = key["attributes"]
    too_old = goal.max_version_age is not None and now - attributes["created"] > goal.max_version_age
    expires = "exp" in attributes and attributes["exp"] <= now + REPLACED_BEFORE_EXPIRY
    is_late = is_staged(item_of(key), now)
    return goal.new_version or too_old or expires or is_late or identifier_of(key).version == goal.other_than


def _refuse_to_enable(goal: KeyGoal, key: KeyBundle | None, before: Mapping[str, Any], *, is_due: bool) -> None:
    """Refuse a key whose newest version is disabled. If rotation is due and another version is enabled, a new version
    is created instead. If no version is enabled, or the versions cannot be listed, the key counts as revoked."""
    if key is None or key["attributes"]["enabled"] or goal.repairs:
        return
    if not (is_due and before["enabled_versions"]):
        raise key_disabled(goal, before["version"])


def _new_version(
    goal: KeyGoal, seen: Seen, before: Mapping[str, Any], forced: str, *, wanted_first: bool
) -> tuple[Requests, Any]:
    """Create a key, or a new version. Options that are not set have the values of the previous version."""
    previous = seen.key
    if previous is not None:
        _refuse_other_family(goal, previous)
    operations = list(previous["key"].get("key_ops", [])) if previous else []
    attributes: dict[str, Any] = {"enabled": True}
    if goal.expires_in is not None:
        attributes["exp"] = int(seen.now + goal.expires_in)
    body: dict[str, Any] = {
        "kty": goal.key_type or (previous["key"]["kty"] if previous else "RSA"),
        "key_size": goal.key_size or (size_of(previous) if previous else SIZES[0]),
        "key_ops": [*operations, *(o for o in OPERATIONS if o not in operations)],
        "attributes": attributes,
    }
    tags = tags_of_new_version(previous.get("tags", {}) if previous else {}, goal.purpose if goal.new_version else None)
    if tags:
        body["tags"] = tags
    after = {
        **before,
        "exists": True,
        "key_type": body["kty"],
        "key_size": body["key_size"],
        "key_ops": body["key_ops"],
        "enabled": True,
        "expires_on": instant(attributes.get("exp")),
        # Known only after Key Vault has created the version.
        "key_identifier": None,
        "version": None,
        "created_on": None,
        "enabled_versions": None,
        "previous_version": previous_version(seen.versions, None) or before.get("version"),
    }
    noted = forced if goal.new_version else ""
    return (requests.create(seen.identifier, body, noted=noted, wanted_first=wanted_first),), after


def _previous_expires(goal: KeyGoal, seen: Seen) -> tuple[str, ...]:
    """The warning that the previous version expires when accounts may still need it."""
    previous, now = seen.key, seen.now
    expires = previous["attributes"].get("exp") if previous else None
    if previous is None or expires is None or not now < expires < now + MARGIN_SECONDS:
        return ()
    return (
        f"Version {version_of(previous['key'])} of the key {goal.name} expires at {instant(expires)}. Accounts that "
        f"use it may need it until {instant(now + MARGIN_SECONDS)}, and may lose their key. Set a later expiry of the "
        "version.",
    )


def _no_room_for_tag(goal: KeyGoal) -> str:
    return (
        f"The new version of the key {goal.name} has no tag {TAG}, because the previous version already has "
        f"{MOST_TAGS} tags, and Key Vault allows no more. Other runs with the same O(new_version) create their own "
        "versions. Remove a tag from the newest version."
    )


def repaired(
    seen: Seen, key: KeyBundle, before: Mapping[str, Any], times: Mapping[str, int]
) -> tuple[Requests, Mapping[str, Any]]:
    """Enable the version, allow the operations that Batch needs, and set the times of its validity."""
    attributes: dict[str, Any] = dict(times)
    after = dict(before)
    if "exp" in times:
        after["expires_on"] = instant(times["exp"])
    if not key["attributes"]["enabled"]:
        attributes["enabled"] = after["enabled"] = True
        after["enabled_versions"] = sorted([*before["enabled_versions"], before["version"]])
    body: dict[str, Any] = {"attributes": attributes} if attributes else {}
    missing = [operation for operation in OPERATIONS if operation not in before["key_ops"]]
    if missing:
        body["key_ops"] = after["key_ops"] = [*before["key_ops"], *missing]
    if not body:
        return (), after
    return (requests.update(seen.identifier, before["version"], body),), after


def _rotation_guard(goal: KeyGoal, visible: usage.Visible, key: KeyIdentifier) -> tuple[str, ...]:
    """Refuse to remove the rotation policy if accounts or pools follow the key: they would keep a version until it
    expires."""
    following = usage.following(visible, key.versionless)
    return usage.guard(following, visible, f"remove the rotation policy of the key {goal.name}", force=goal.force)


def _refuse_other_family(goal: KeyGoal, key: KeyBundle) -> None:
    has = key["key"]["kty"]
    if has in TYPES and goal.key_type in (None, has):
        return
    if has in TYPES:
        remedy = f"Use another name, or set O(key_type={has})."
        what = f"The key {goal.name} exists with the type {has}, not {goal.key_type}."
    else:
        remedy = "If that is a mistake, disable it. If not, use another key."
        version = version_of(key["key"])
        what = f"Version {version}, the newest of the key {goal.name}, has the type {has}, which Batch cannot use."
    raise Refused(f"{what} {remedy}", code="key_type_differs", option="key_type", value=goal.key_type, remedy=remedy)


def _refuse_other_size(goal: KeyGoal, key: KeyBundle) -> None:
    has = size_of(key)
    if goal.key_size in (None, has):
        return
    raise Refused(
        f"The key {goal.name} has {has} bits, not {goal.key_size}. Set O(new_version=true) to create a version of "
        f"{goal.key_size} bits, or O(key_size={has}).",
        code="key_size_differs",
        option="key_size",
        value=goal.key_size,
        remedy=f"Set O(new_version=true), or O(key_size={has}).",
    )


@dataclass(frozen=True)
class KeyEnabled(KeyTask):
    """The key, or the named version, is enabled and valid."""

    goal: KeyStateGoal

    def decide(self, docs: Docs) -> Change:
        goal = self.goal
        seen = self.look(docs)
        if seen.key is None:
            raise key_soft_deleted(goal, goal.state) if seen.deleted else key_not_found(goal)
        version = read_version(docs, seen, goal.version) if goal.version else seen.key
        if version is None:
            raise version_not_found(goal)
        # The returned state is that of the named version, not of the newest version.
        before = replace(seen, key=version).described
        writes, after = repaired(seen, version, before, _validity(goal, version["attributes"], seen.now))
        return Decided(before, after, writes, task=self)


def _validity(goal: KeyStateGoal, attributes: KeyAttributes, now: float) -> dict[str, int]:
    times = {}
    if attributes.get("exp") is not None and attributes["exp"] <= now and goal.extend_expired_by is not None:
        times["exp"] = int(now + goal.extend_expired_by)
    if attributes.get("nbf") is not None and attributes["nbf"] > now:
        times["nbf"] = int(now)
    return times


@dataclass(frozen=True)
class KeyRecovered(KeyTask):
    """A deleted key exists again."""

    is_rollback: bool = False

    def decide(self, docs: Docs) -> Change:
        change = _recovery(self.look(docs), self.goal, is_rollback=self.is_rollback)
        return _Recovered(**vars(change), task=self)


@dataclass(frozen=True, kw_only=True)
class _Recovered(Decided):
    task: KeyRecovered

    def shown(self, docs: Docs, request: Request) -> None:
        _require_recovered(docs, request, self.task)


def _recovery(seen: Seen, goal: NamedKey, *, is_rollback: bool = False) -> Change:
    before, deleted = seen.described, seen.deleted
    if seen.key is not None:
        return Change(before, before)
    if deleted is None:
        raise key_not_found(goal)
    writes = [requests.recover(seen.identifier)]
    if not is_rollback:
        # The time of this update shows since when Batch can use the newest version, and accounts can be moved to it.
        enabled = deleted["attributes"]["enabled"]
        writes.append(requests.touch(seen.identifier, version_of(deleted["key"]), enabled=enabled))
    return Change(before, {"exists": True, "soft_deleted": False}, tuple(writes))


def _require_recovered(docs: Docs, request: Request, task: KeyTask) -> None:
    if request.name == "recover":
        key = refs.key(identifier(task.goal, task.facts))
        requests.require_finished(docs, f"recovery of the key {task.goal.name}", key, task.facts)
