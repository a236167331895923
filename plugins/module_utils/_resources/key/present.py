# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans a usable key: its newest version is repaired or, if rotation is due, a new version is created. Plans to make a
named version usable again, and to recover a deleted key.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..._checks import usage
from ..._checks.rights import to_use_key
from ..._checks.versions import MARGIN_SECONDS, REPLACED_BEFORE_EXPIRY
from ..._core.documents import KeyAttributes, KeyBundle, RotationPolicy
from ..._core.duration import instant
from ..._core.errors import Refused
from ..._core.plan import Plan, Step, step
from ..._documents import rotation_policy
from ..._documents.key import (
    MOST_TAGS,
    OPERATIONS,
    SIZES,
    TAG,
    TYPES,
    describe,
    identifier_of,
    is_staged,
    item_of,
    previous_version,
    size_of,
    tags_of_new_version,
    version_for,
    version_of,
)
from ..._documents.vault import require_sku_for
from .goal import Goal, KeyWrites, Observed, key_disabled, key_not_found, key_soft_deleted, version_not_found

Steps = tuple[Step[KeyWrites], ...]


def plan_present(goal: Goal, observed: Observed, before: Mapping[str, Any]) -> Plan[KeyWrites]:
    key: KeyBundle | None = observed["key"]
    if key is None and observed["deleted"]:
        return _recovery(goal, observed, before)
    warnings: tuple[str, ...] = ()
    if goal.new_version and key and version_for(goal.new_version_for, key, observed["versions"], observed["now"]):
        goal = replace(goal, new_version=False)
    is_due = _is_due(goal, observed)
    _refuse_to_enable(goal, key, before, is_due=is_due)
    if key is None or is_due:
        steps, after = _new_version(goal, observed, before)
        warnings += _previous_expires(goal, observed)
    else:
        _refuse_other_family(goal, key)
        _refuse_other_size(goal, key)
        steps, after = repaired(goal, key, before, {})
    has_policy = observed["policy"]
    if has_policy is not None and goal.stops_rotation(has_policy):
        warnings += _rotation_guard(goal, observed)
        policy = rotation_policy.without_rotation(has_policy)
        steps = (*steps, _set_policy(goal, policy))
        after = {**after, "rotation_policy": rotation_policy.describe(policy)}
    if goal.rotation_policy is not None and before.get("rotation_policy") != goal.rotation_policy:
        policy = rotation_policy.body(goal.rotation_policy, observed["policy"])
        steps = (*steps, _set_policy(goal, policy))
        after = {**after, "rotation_policy": dict(goal.rotation_policy)}
    if goal.new_version:
        if goal.new_version_for and TAG not in steps[0].arguments["body"].get("tags", {}):
            warnings += (_no_room_for_tag(goal),)
        goal = replace(goal, new_version=False, other_than=before.get("version"))
    return Plan(goal, before, after, steps, warnings)


def _recovery(goal: Goal, observed: Observed, before: Mapping[str, Any]) -> Plan[KeyWrites]:
    if not goal.recover:
        raise key_soft_deleted(goal)
    # Further changes can be planned only after the recovery, because Azure shows no versions before.
    return plan_recovered(replace(goal, state="recovered"), observed, before)


def _set_policy(goal: Goal, policy: RotationPolicy) -> Step[KeyWrites]:
    write = step(KeyWrites.set_rotation_policy, vault=goal.vault, name=goal.name, policy=policy)
    # A read of the policy confirms the change.
    return write.needing(to_use_key("setrotationpolicy", goal.vault), to_use_key("getrotationpolicy", goal.vault))


def _is_due(goal: Goal, observed: Observed) -> bool:
    key: KeyBundle | None = observed["key"]
    now: float = observed["now"]
    if key is None:
        return True
    attributes = key["attributes"]
    too_old = goal.max_version_age is not None and now - attributes["created"] > goal.max_version_age
    expires = "exp" in attributes and attributes["exp"] <= now + REPLACED_BEFORE_EXPIRY
    is_late = is_staged(item_of(key), now)
    return goal.new_version or too_old or expires or is_late or identifier_of(key).version == goal.other_than


def _refuse_to_enable(goal: Goal, key: KeyBundle | None, before: Mapping[str, Any], *, is_due: bool) -> None:
    """Refuse a key whose newest version is disabled. If rotation is due and another version is enabled, a new version
    is created instead. If no version is enabled, or the versions cannot be listed, the key counts as revoked."""
    if key is None or key["attributes"]["enabled"] or goal.enable:
        return
    if not (is_due and before["enabled_versions"]):
        raise key_disabled(goal, before["version"])


def _new_version(goal: Goal, observed: Observed, before: Mapping[str, Any]) -> tuple[Steps, Any]:
    """Create a key, or a new version. Options that are not set have the values of the previous version."""
    previous: KeyBundle | None = observed["key"]
    if previous is not None:
        _refuse_other_family(goal, previous)
    elif observed["vault"]:
        require_sku_for(goal.key_type, observed["vault"])
    operations = list(previous["key"].get("key_ops", [])) if previous else []
    attributes: dict[str, Any] = {"enabled": True}
    if goal.expires_in is not None:
        attributes["exp"] = int(observed["now"] + goal.expires_in)
    body: dict[str, Any] = {
        "kty": goal.key_type or (previous["key"]["kty"] if previous else "RSA"),
        "key_size": goal.key_size or (size_of(previous) if previous else SIZES[0]),
        "key_ops": [*operations, *(o for o in OPERATIONS if o not in operations)],
        "attributes": attributes,
    }
    tags = tags_of_new_version(
        previous.get("tags", {}) if previous else {}, goal.new_version_for if goal.new_version else None
    )
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
        "previous_version": previous_version(observed["versions"], None) or before.get("version"),
    }
    create = step(KeyWrites.create, vault=goal.vault, name=goal.name, body=body)
    return (create.needing(to_use_key("create", goal.vault)),), after


def _previous_expires(goal: Goal, observed: Observed) -> tuple[str, ...]:
    """The warning that the previous version expires when accounts may still need it."""
    previous: KeyBundle | None = observed["key"]
    expires = previous["attributes"].get("exp") if previous else None
    now: float = observed["now"]
    if previous is None or expires is None or not now < expires < now + MARGIN_SECONDS:
        return ()
    return (
        f"Version {version_of(previous['key'])} of the key {goal.name} expires at {instant(expires)}. Accounts that "
        f"use it may need it until {instant(now + MARGIN_SECONDS)}, and may lose their key. Set a later expiry of the "
        "version.",
    )


def _no_room_for_tag(goal: Goal) -> str:
    return (
        f"The new version of the key {goal.name} has no tag {TAG}, because the previous version already has "
        f"{MOST_TAGS} tags, and Key Vault allows no more. Other runs with the same O(new_version_for) create their own "
        "versions. Remove a tag from the newest version."
    )


def repaired(
    goal: Goal, key: KeyBundle, before: Mapping[str, Any], times: Mapping[str, int]
) -> tuple[Steps, Mapping[str, Any]]:
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
    update = step(KeyWrites.update, vault=goal.vault, name=goal.name, version=before["version"], body=body)
    return (update.needing(to_use_key("update", goal.vault)),), after


def _rotation_guard(goal: Goal, observed: Observed) -> tuple[str, ...]:
    """Refuse to remove the rotation policy if accounts or pools follow the key: they would keep a version until it
    expires."""
    versionless, visible = observed["identifier"].versionless, observed["visible"]
    users = usage.following(visible, versionless)
    return usage.guard(users, visible, f"remove the rotation policy of the key {goal.name}", force=goal.force)


def _refuse_other_family(goal: Goal, key: KeyBundle) -> None:
    has = key["key"]["kty"]
    if has in TYPES and goal.key_type in (None, has):
        return
    if has in TYPES:
        remedy = f"Use another name, or set O(key_type={has})."
        what = f"The key {goal.name} exists with the type {has}, not {goal.key_type}."
    else:
        remedy = "If it was created by mistake, disable it: then an older version counts. If not, use another name."
        version = version_of(key["key"])
        what = f"Version {version}, the newest of the key {goal.name}, has the type {has}, which Batch cannot use."
    raise Refused(f"{what} {remedy}", code="key_type_differs", option="key_type", value=goal.key_type, remedy=remedy)


def _refuse_other_size(goal: Goal, key: KeyBundle) -> None:
    has = size_of(key)
    if goal.key_size in (None, has):
        return
    raise Refused(
        f"The key {goal.name}'s current version has {has} bits, not {goal.key_size}. A version never changes its "
        f"size: set O(new_version=true) to create a version of {goal.key_size} bits, or set O(key_size={has}).",
        code="key_size_differs",
        option="key_size",
        value=goal.key_size,
        remedy=f"Set O(new_version=true), or O(key_size={has}).",
    )


def plan_enabled(goal: Goal, observed: Observed, _newest: Mapping[str, Any]) -> Plan[KeyWrites]:
    if observed["key"] is None:
        raise key_soft_deleted(goal) if observed["deleted"] else key_not_found(goal)
    version: KeyBundle | None = observed["named"] if goal.version else observed["key"]
    if version is None:
        raise version_not_found(goal)
    # The returned state is that of the named version, not of the newest version.
    before = describe({**observed, "key": version})
    steps, after = repaired(goal, version, before, _validity(goal, version["attributes"], observed["now"]))
    return Plan(goal, before, after, steps)


def _validity(goal: Goal, attributes: KeyAttributes, now: float) -> dict[str, int]:
    times = {}
    if attributes.get("exp") is not None and attributes["exp"] <= now and goal.extend_expired_by is not None:
        times["exp"] = int(now + goal.extend_expired_by)
    if attributes.get("nbf") is not None and attributes["nbf"] > now:
        times["nbf"] = int(now)
    return times


def plan_recovered(goal: Goal, observed: Observed, before: Mapping[str, Any]) -> Plan[KeyWrites]:
    if observed["key"] is not None:
        return Plan(goal, before, before)
    deleted: KeyBundle | None = observed["deleted"]
    if deleted is None:
        raise key_not_found(goal)
    recover = step(KeyWrites.recover, vault=goal.vault, name=goal.name)
    steps = [recover.needing(to_use_key("recover", goal.vault))]
    if goal.taken_away is None:
        steps.append(_touch(goal, deleted))
    return Plan(goal, before, {"exists": True, "soft_deleted": False}, tuple(steps))


def _touch(goal: Goal, deleted: KeyBundle) -> Step[KeyWrites]:
    """Update the newest version without a change. Azure does not show when a key was recovered, but it shows when a
    version was updated: since when Batch can use the newest version, and accounts can be moved to it."""
    body = {"attributes": {"enabled": deleted["attributes"]["enabled"]}}
    update = step(KeyWrites.update, vault=goal.vault, name=goal.name, version=version_of(deleted["key"]), body=body)
    return update.needing(to_use_key("update", goal.vault))
