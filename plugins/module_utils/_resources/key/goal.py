# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The goals of the modules that manage keys.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..._checks.usage import ANY
from ..._checks.versions import MARGIN_SECONDS, REPLACED_BEFORE_EXPIRY
from ..._core.duration import seconds
from ..._core.errors import InvalidOption, NotFound, Problems, Refused
from ..._core.ids import (
    KeyIdentifier,
    check_account_name,
    check_key_name,
    check_subscriptions,
    check_vault_name,
    parse_key,
)
from ..._documents import rotation_policy as key_rotation_policy
from ..._documents.key import LONGEST, SIZES, TYPES
from ..._documents.rotation_policy import RotationPolicy

# As Ansible reads booleans.
_BOOLEANS = {
    **dict.fromkeys(("", "n", "no", "f", "false", "off", "0"), False),
    **dict.fromkeys(("y", "yes", "t", "true", "on", "1"), True),
}


@dataclass(frozen=True)
class NamedKey:
    vault: str
    name: str
    # The option `key_identifier`.
    identifier: str | None = None

    def names(self, key: KeyIdentifier | None) -> bool:
        """Whether the identifier names this key, regardless of the version."""
        return key is not None and key.is_named(self.vault, self.name)


@dataclass(frozen=True, kw_only=True)
class KeyGoal(NamedKey):
    """A key that Batch can use exists, and its newest version is not too old."""

    key_type: str | None = None
    key_size: int | None = None
    expires_in: int | None = None
    rotation_policy: Mapping[str, str] | None = None
    remove_rotation_policy: bool = False
    max_version_age: int | None = None
    new_version: bool = False
    # Whether the tasks of a run share the forced version.
    is_shared: bool = False
    # The purpose of a forced version. Runs that force a version for the same purpose share the version.
    purpose: str | None = None
    force: bool = False
    # Whether a deleted key is recovered, and a disabled version enabled. Somebody may have revoked the key on purpose.
    repairs: bool = False
    # The goal after a new version was requested: the newest version must differ from this version.
    other_than: str | None = None
    # The version that an account uses. A version that was created earlier does not count as the newest version.
    at_least: str | None = None

    @property
    def looks_at_policy(self) -> bool:
        return self.rotation_policy is not None or self.remove_rotation_policy

    def stops_rotation(self, policy: RotationPolicy | None) -> bool:
        return self.remove_rotation_policy and key_rotation_policy.rotates(policy)


@dataclass(frozen=True, kw_only=True)
class RemovalGoal(NamedKey):
    """A key, or one of its versions, cannot be used any more."""

    version: str | None = None
    force: bool = False
    # Leave the key or version as it is if Batch accounts use it.
    keeps_used: bool = False
    # The services that use the vault (usage.py).
    vault_used_by: str = ANY
    # The id of the account that may lose its key. All other users count.
    canary: str | None = None
    # The time for which a key or a version that was replaced or used stays enabled, in seconds.
    unused_for: int = MARGIN_SECONDS
    # Whether accounts that have left the key may need it.
    may_have_left: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class KeyStateGoal(RemovalGoal):
    """A key, or one of its versions, has this state, which may be that it can be used again."""

    state: Literal["enabled", "disabled", "absent", "recovered"]
    # The time from now for which an expired version becomes valid again, in seconds.
    extend_expired_by: int | None = None


@dataclass(frozen=True, kw_only=True)
class UnusedVersionsGoal(RemovalGoal):
    """The unused versions of a key cannot be used any more."""

    version: None = None
    keeps_used: bool = True
    may_have_left = False


def present(params: Mapping[str, Any]) -> KeyGoal:
    """The goal of azbatch.cmk.keyvault_cmk_key."""
    key_type, key_size, problems = params["key_type"], params["key_size"], Problems()
    if key_type is not None and key_type not in TYPES:
        problems.add("key_type", key_type, "Batch supports only RSA keys.", "Use RSA or RSA-HSM.")
    if key_size is not None and key_size not in SIZES:
        problems.add("key_size", key_size, "Batch does not support this size.", "Use 2048, 3072 or 4096.")
    if params["used_by_account"] and not params["account_resource_group"]:
        problems.add(
            "account_resource_group",
            None,
            "O(used_by_account) requires it.",
            "Set it to the resource group of the Batch account.",
        )
    if params["used_by_account"] is not None:
        problems.of(check_account_name, params["used_by_account"], "used_by_account")
    if params["rotation_policy"] and params["remove_rotation_policy"]:
        problems.add("remove_rotation_policy", True, "it contradicts O(rotation_policy).", "Leave out one of the two.")
    vault = problems.of(check_vault_name, params["vault_name"], "vault_name")
    name = problems.of(check_key_name, params["name"], "name")
    expires_in = problems.of(_expires_in, params["expires_in"])
    rotation_policy = problems.of(key_rotation_policy.checked, params["rotation_policy"])
    max_version_age = problems.of(seconds, params["max_version_age"], "max_version_age")
    problems.of(check_subscriptions, params["users_in"], "users_in")
    forced = problems.of(_forced, params["new_version"])
    problems.refuse()
    return KeyGoal(
        vault=vault,
        name=name,
        key_type=key_type,
        key_size=key_size,
        expires_in=expires_in,
        rotation_policy=rotation_policy,
        remove_rotation_policy=params["remove_rotation_policy"],
        max_version_age=max_version_age,
        new_version=forced[0],
        purpose=forced[1],
        force=params["force"],
        repairs="key" in (params["allowed_repairs"] or ()),
    )


def in_state(params: Mapping[str, Any]) -> KeyStateGoal:
    """The goal of azbatch.cmk.keyvault_cmk_key_state."""
    state, problems = params["state"], Problems()
    key = problems.of(_named, params, problems)
    if key and key.version and state not in ("disabled", "enabled"):
        option = "version" if params["version"] else "key_identifier"
        problems.add(
            option, params[option], f"a version has no meaning with O(state={state}).", "Leave out the version."
        )
    extended = params["extend_expired_by"]
    if extended is not None and state != "enabled":
        problems.add("extend_expired_by", extended, f"it has no meaning with O(state={state}).", "Leave it out.")
    extend_expired_by = problems.of(seconds, "P30D" if extended is None else extended, "extend_expired_by")
    unused_for = problems.of(seconds, params["unused_for"], "unused_for", or_none=True)
    problems.of(check_subscriptions, params["users_in"], "users_in")
    problems.refuse()
    return KeyStateGoal(
        vault=key.vault,
        name=key.name,
        state=state,
        version=key.version,
        identifier=params["key_identifier"],
        extend_expired_by=extend_expired_by,
        force=params["force"],
        keeps_used=params["in_use"] == "keep",
        vault_used_by=params["vault_used_by"],
        unused_for=unused_for or 0,
    )


def unused(params: Mapping[str, Any]) -> UnusedVersionsGoal:
    """The goal of azbatch.cmk.keyvault_cmk_unused_versions."""
    problems = Problems()
    key = problems.of(_named, {**params, "version": None}, problems)
    if key and key.version:
        problems.add("key_identifier", params["key_identifier"], "it has a version.", "Leave out the version.")
    unused_for = problems.of(seconds, params["unused_for"], "unused_for", or_none=True)
    problems.of(check_subscriptions, params["users_in"], "users_in")
    problems.refuse()
    return UnusedVersionsGoal(
        vault=key.vault,
        name=key.name,
        force=params["force"],
        identifier=params["key_identifier"],
        vault_used_by=params["vault_used_by"],
        unused_for=unused_for or 0,
    )


def _expires_in(duration: str | None) -> int | None:
    length = seconds(duration, "expires_in")
    if length is not None and length <= 2 * REPLACED_BEFORE_EXPIRY:
        raise InvalidOption(
            "expires_in",
            duration,
            f"a version is replaced {REPLACED_BEFORE_EXPIRY // 86400} days before it expires.",
            f"Use more than {2 * REPLACED_BEFORE_EXPIRY // 86400} days, for example P1Y.",
        )
    return length


def _forced(text: str | None) -> tuple[bool, str | None]:
    """Whether a version is forced, and for which purpose. The option is a boolean or the purpose."""
    given = str(text or "").lower()
    if given in _BOOLEANS:
        return _BOOLEANS[given], None
    if len(given) > LONGEST:
        raise InvalidOption(
            "new_version", text, f"it is longer than {LONGEST} characters.", "Use a shorter text, such as a number."
        )
    return True, text


def _named(params: Mapping[str, Any], problems: Problems) -> KeyIdentifier:
    """The key, or the version of the key, that the options name."""
    identifier, by_name = params["key_identifier"], ("vault_name", "name")
    if identifier is None:
        for option in by_name:
            if params[option] is None:
                raise InvalidOption(
                    option, None, "O(vault_name) and O(name), or O(key_identifier), are required.", f"Set O({option})."
                )
        vault = problems.of(check_vault_name, params["vault_name"], "vault_name")
        name = problems.of(check_key_name, params["name"], "name")
        return KeyIdentifier(vault, "", name, params["version"].lower() if params["version"] else None)
    for option in (*by_name, "version"):
        if params[option] is not None:
            raise InvalidOption(
                option, params[option], "O(key_identifier) already names the key.", "Leave out one of the two."
            )
    return parse_key(identifier, "key_identifier")


def key_soft_deleted(goal: NamedKey, state: str | None = None) -> Refused:
    """`state` is the option of this name, if the module has it."""
    set_to = "Set O(state=recovered)" if state else "Add key to O(allowed_repairs)"
    remedy = f"{set_to} to recover it, or use another name."
    return Refused(
        f"The key {goal.name} in the vault {goal.vault} was deleted, and the vault keeps its name. {remedy}",
        code="key_soft_deleted",
        option="state" if state else "allowed_repairs",
        value=state,
        remedy=remedy,
    )


def key_disabled(goal: NamedKey, version: str) -> Refused:
    return Refused(
        f"The newest version of the key {goal.name} in {goal.vault}, {version}, is disabled, perhaps on purpose. If it "
        "may be used again, add key to O(allowed_repairs). Otherwise set O(new_version=true).",
        key_version=version,
        code="key_disabled",
        option="allowed_repairs",
        remedy="Add key to O(allowed_repairs) if the key may be used again.",
    )


def version_not_found(goal: RemovalGoal) -> NotFound:
    option = "key_identifier" if goal.identifier else "version"
    remedy = f"Correct O({option}), or restore a purged version from a backup of the key."
    return NotFound(
        f"The key {goal.name} in {goal.vault} has no version {goal.version}. {remedy}",
        code="version_not_found",
        option=option,
        value=goal.identifier or goal.version,
        remedy=remedy,
    )


def key_not_found(goal: NamedKey) -> NotFound:
    option = "key_identifier" if goal.identifier else "name"
    remedy = "Correct O(key_identifier)." if goal.identifier else "Correct O(name) or O(vault_name)."
    return NotFound(
        f"There is no key {goal.name} in the vault {goal.vault}, and no deleted key has this name. {remedy}",
        code="key_not_found",
        option=option,
        value=goal.identifier or goal.name,
        remedy=remedy,
    )
