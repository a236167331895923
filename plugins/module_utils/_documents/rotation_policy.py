# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotation policies: when Key Vault automatically creates a new version of a key.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from .._core.duration import iso, seconds
from .._core.errors import InvalidOption

# learn.microsoft.com, "Configure cryptographic key auto-rotation in Azure Key Vault": a version is valid for 28
# days or more. It is rotated 7 days or more after its creation, and 7 days or more before it expires. In seconds.
_SHORTEST_LIFE = 28 * 86400
_MARGIN = 7 * 86400
_NAMES = ("time_after_create", "time_before_expiry", "expiry_time")


class LifetimeTrigger(TypedDict, total=False):
    timeAfterCreate: str
    timeBeforeExpiry: str


class LifetimeActionType(TypedDict):
    type: str


class LifetimeAction(TypedDict):
    trigger: LifetimeTrigger
    action: LifetimeActionType


class RotationPolicyAttributes(TypedDict, total=False):
    expiryTime: str


class RotationPolicy(TypedDict, total=False):
    """When Key Vault rotates a key by itself."""

    lifetimeActions: list[LifetimeAction]
    attributes: RotationPolicyAttributes


def checked(policy: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if policy is None:
        return None
    policy = {name: iso(duration or "") or None for name, duration in policy.items()}
    length = {name: seconds(value, f"rotation_policy.{name}") for name, value in policy.items()}
    after, before = policy["time_after_create"], policy["time_before_expiry"]
    given = {name: value for name, value in policy.items() if value is not None}
    if after is None and before is None:
        problem, remedy = "it has neither time_after_create nor time_before_expiry.", "Set one of them."
        raise InvalidOption("rotation_policy", given, problem, remedy)
    if after is not None and before is not None:
        problem, remedy = "it has both time_after_create and time_before_expiry.", "Remove one of them."
        raise InvalidOption("rotation_policy", given, problem, remedy)
    _refuse_out_of_range(policy, length)
    return policy


def _refuse_out_of_range(policy: Mapping[str, Any], length: Mapping[str, int | None]) -> None:
    """Refuse in advance the values that Key Vault would refuse after the key is created."""
    life = length["expiry_time"]
    name = "time_after_create" if policy["time_after_create"] else "time_before_expiry"
    span = length[name] or 0

    def invalid(name: str, problem: str, remedy: str) -> InvalidOption:
        return InvalidOption(f"rotation_policy.{name}", policy[name], problem, remedy)

    if life is not None and life < _SHORTEST_LIFE:
        raise invalid("expiry_time", "Key Vault requires an expiry time of 28 days or more.", "Use P28D or more.")
    if span < _MARGIN:
        raise invalid(name, "Key Vault requires 7 days or more.", "Use P7D or more.")
    if life is None and name == "time_before_expiry":
        raise invalid(name, "versions that do not expire have no time before their expiry.", "Set expiry_time.")
    if life is not None and life - span < _MARGIN:
        raise invalid(
            name,
            f"Key Vault requires 7 days or more between the rotation and both ends of expiry_time "
            f"{policy['expiry_time']}.",
            "Use a time that is 7 days or more shorter.",
        )


def interval(policy: Mapping[str, str | None]) -> int:
    """The time between two versions that Key Vault creates, in seconds. `policy` is valid; a blank duration is not
    set."""
    after, before, life = (seconds((policy.get(name) or "").strip() or None, name) or 0 for name in _NAMES)
    return after or life - before


def describe(policy: RotationPolicy | None) -> dict[str, str | None] | None:
    if policy is None:
        return None
    nothing: LifetimeTrigger = {}
    trigger = next((a["trigger"] for a in policy.get("lifetimeActions", []) if _rotates(a)), nothing)
    return {
        "expiry_time": policy.get("attributes", {}).get("expiryTime"),
        "time_after_create": trigger.get("timeAfterCreate"),
        "time_before_expiry": trigger.get("timeBeforeExpiry"),
    }


def rotates(policy: RotationPolicy | None) -> bool:
    return any(_rotates(action) for action in (policy or {}).get("lifetimeActions", []))


def without_rotation(policy: RotationPolicy) -> RotationPolicy:
    """The policy without rotation. Other actions, and the expiry of future versions, are not changed."""
    kept = [action for action in policy.get("lifetimeActions", []) if not _rotates(action)]
    return {"lifetimeActions": kept, "attributes": policy.get("attributes", {}).copy()}


def body(policy: Mapping[str, Any], previous: RotationPolicy | None) -> RotationPolicy:
    """The body of a PUT, which replaces the whole policy. Other actions than rotation are not changed."""
    trigger: LifetimeTrigger = {}
    if policy["time_after_create"]:
        trigger["timeAfterCreate"] = policy["time_after_create"]
    if policy["time_before_expiry"]:
        trigger["timeBeforeExpiry"] = policy["time_before_expiry"]
    rotate: LifetimeAction = {"trigger": trigger, "action": {"type": "Rotate"}}
    others = [a for a in (previous or {}).get("lifetimeActions", []) if not _rotates(a)]
    attributes: RotationPolicyAttributes = {"expiryTime": policy["expiry_time"]} if policy["expiry_time"] else {}
    return {"lifetimeActions": [rotate, *others], "attributes": attributes}


def _rotates(action: LifetimeAction) -> bool:
    return str(action["action"]["type"]).lower() == "rotate"
