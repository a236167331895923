# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules: what may be found, how grave it is, why it matters, and what repairs it.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CRITICAL, HIGH, MEDIUM, LOW, INFO = "critical", "high", "medium", "low", "info"
# The gravest first.
SEVERITIES = (CRITICAL, HIGH, MEDIUM, LOW, INFO)


@dataclass(frozen=True)
class Repair:
    """A role or module of this collection, with what it is given beside the names of the account or vault."""

    name: str
    # What a module is run for: account or vault.
    each: str = "account"
    options: Mapping[str, Any] = field(default_factory=dict)
    # Options that are to be what the policy asks for, by the policy's own name for it.
    asked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    severity: str
    title: str
    why: str
    remedy: str
    repair: Repair | None = None


_CUT_OFF = "Batch cannot use the key, so the account accepts nothing but its deletion, or soon will."
_RECOVER = Repair("role recover")
_OTHER_KEY = Repair(
    "role rotate",
    options={
        "cmk_new_key_identifier": "https://VAULT.vault.azure.net/keys/KEY/VERSION",
        # Otherwise an account that is moved to a version of a different key is pinned to the version.
        "cmk_key_follow_latest": "{{ cmk_follows_latest }}",
    },
)
_LOST = "Nothing brings the account back; delete it and make it anew."

RULES: dict[str, Rule] = {
    # What cuts an account off from its key: the causes of batch_encryption_info's diagnosis, by the same names.
    "account_unavailable": Rule(
        CRITICAL,
        "The account is not available",
        _CUT_OFF,
        "Run the role recover, which finds and repairs the cause.",
        _RECOVER,
    ),
    "identity_missing": Rule(CRITICAL, "The account's identity is gone", _CUT_OFF, _LOST),
    "vault_deleted": Rule(
        CRITICAL,
        "The key's vault was deleted",
        "Once the vault is purged the key is gone for good, and the account with it.",
        "Recover the vault while it can be recovered.",
        _RECOVER,
    ),
    "vault_missing": Rule(CRITICAL, "The key's vault is gone", _CUT_OFF, _LOST),
    "vault_in_other_tenant": Rule(
        CRITICAL, "The vault belongs to another tenant", _CUT_OFF, "Have the vault moved back to the account's tenant."
    ),
    "network_closed": Rule(
        CRITICAL,
        "The vault's firewall keeps Batch out",
        _CUT_OFF,
        "Allow trusted Microsoft services on the vault.",
        _RECOVER,
    ),
    "key_deleted": Rule(
        CRITICAL,
        "The key was deleted",
        "Once the key is purged it is gone for good, and the account with it.",
        "Recover the key while it can be recovered.",
        _RECOVER,
    ),
    "key_missing": Rule(CRITICAL, "The key is gone", _CUT_OFF, "Restore a backup of the key, if there is one."),
    "version_missing": Rule(
        CRITICAL, "The version that the account is pinned to is gone", _CUT_OFF, "Restore a backup, if there is one."
    ),
    "version_unusable": Rule(
        CRITICAL,
        "The account's version is disabled, has expired or is not valid yet",
        _CUT_OFF,
        "Enable the version, or have it expire later; then rotate.",
        _RECOVER,
    ),
    "operations_missing": Rule(
        CRITICAL,
        "The key does not allow wrapKey and unwrapKey",
        _CUT_OFF,
        "Allow both operations on the key.",
        _RECOVER,
    ),
    "key_unfit": Rule(
        CRITICAL,
        "Batch takes no key of this type or size",
        _CUT_OFF,
        "Switch to an RSA key of 2048, 3072 or 4096 bits.",
    ),
    "access_missing": Rule(
        CRITICAL,
        "The account's identity may not use the key",
        _CUT_OFF,
        "Grant it get, wrapKey and unwrapKey.",
        # The role leaves alone an account that is available with one of its identities.
        Repair("module keyvault_cmk_access"),
    ),
    # What is about to break, or breaks what the organisation has asked for.
    "key_expires_soon": Rule(
        HIGH,
        "The account's version expires soon",
        "Once the version has expired Batch cannot use it, and the account accepts nothing but its deletion.",
        "Rotate: make a new version and move the account to it.",
        Repair("role rotate", options={"cmk_key_force_new_version": True}),
    ),
    "vault_without_purge_protection": Rule(
        HIGH,
        "The vault can be purged",
        "Whoever may purge can destroy its keys, and every account on them, at once and for good. Batch asks for purge "
        "protection.",
        "Turn on purge protection.",
        Repair("module keyvault_cmk_vault", each="vault"),
    ),
    "vault_without_soft_delete": Rule(
        HIGH,
        "What is deleted in the vault cannot be recovered",
        "A deleted key is gone at once, and every account on it. Batch asks for soft delete.",
        "Turn on soft delete.",
        Repair("module keyvault_cmk_vault", each="vault"),
    ),
    "not_on_customer_managed_key": Rule(
        HIGH,
        "The account is not on a customer-managed key",
        "The policy asks for a key of one's own, which one can rotate, withdraw and keep a record of.",
        "Put the account on a key of yours.",
        Repair(
            "role provision",
            options={
                "cmk_vault_name": "NAME_OF_THE_VAULT",
                "cmk_vault_resource_group": "RESOURCE_GROUP_OF_THE_VAULT",
                "cmk_key_name": "NAME_OF_THE_KEY",
            },
        ),
    ),
    "vault_not_allowed": Rule(
        HIGH,
        "The key lies in a vault that the policy does not allow",
        "Who governs the vault governs the account; a vault that nobody looks after may be deleted by anybody.",
        "Switch the account to a key in an allowed vault.",
        _OTHER_KEY,
    ),
    "version_too_old": Rule(
        MEDIUM,
        "The version that the account is on is too old",
        "The longer a version serves, the more is lost with it. The policy sets a limit.",
        "Rotate: make a new version and move the account to it.",
        Repair("role rotate", asked={"cmk_key_max_age": "max_version_age"}),
    ),
    "vault_uses_access_policies": Rule(
        MEDIUM,
        "The vault uses access policies",
        "Whoever may write the vault can give themselves access to its keys; roles can be granted for one key alone. "
        "The policy asks for roles.",
        "Grant the accounts' identities the role Key Vault Crypto Service Encryption User first, then switch the vault "
        "to Azure role-based access control. This collection does not switch it, for all others lose their access too.",
    ),
    "key_type_not_allowed": Rule(
        MEDIUM,
        "The key is of a type that the policy does not allow",
        "The policy names the types of keys, for example those that live in hardware (RSA-HSM).",
        "Make a key of an allowed type and switch the account to it.",
        _OTHER_KEY,
    ),
    "key_too_small": Rule(
        MEDIUM,
        "The key has fewer bits than the policy asks for",
        "The shorter a key, the sooner it can be broken.",
        "Rotate to a version with more bits.",
        Repair("role rotate", options={"cmk_key_force_new_version": True}, asked={"cmk_key_size": "min_key_size"}),
    ),
    "key_without_expiry": Rule(
        MEDIUM,
        "The account's version never expires",
        "The policy asks for an expiry, so that a forgotten key does not serve for ever. Rotate well before it.",
        "Rotate to a version that expires, and watch its days left.",
        Repair("role rotate", options={"cmk_key_force_new_version": True, "cmk_key_expires_in": "P1Y"}),
    ),
    "pool_disks_not_encrypted": Rule(
        MEDIUM,
        "Pools are without disk encryption",
        "The account's key does not reach the disks of its pools' virtual machines. Without "
        "diskEncryptionConfiguration their temporary disks are not encrypted, the others with a key of Microsoft's.",
        "Make the pool anew with diskEncryptionConfiguration: it cannot be set later.",
    ),
    "follows_without_rotation": Rule(
        LOW,
        "The account follows a key that Key Vault does not rotate",
        "Who follows the newest version waits for one; without a rotation policy nothing makes it.",
        "Set a rotation policy on the key.",
        Repair("role rotate", options={"cmk_key_rotation_policy": {"time_after_create": "P90D", "expiry_time": "P1Y"}}),
    ),
    "newer_version_unused": Rule(
        LOW,
        "A newer version of the key is there and the account is not on it",
        "An account that is pinned stays on its version until it is moved: a rotation may have been left half done.",
        "Rotate: move the account to the newest version.",
        Repair("role rotate"),
    ),
    "not_seen": Rule(
        LOW,
        "Something could not be seen",
        "What could not be seen is not known to be well.",
        "Grant the caller the permissions that the evidence names, and look again.",
    ),
    "pool_key_of_its_own": Rule(
        INFO,
        "Pools encrypt their disks with a key of their own",
        "That key is rotated, and lost, apart from the account's. This collection does not look after it.",
        "Nothing has to be done. Keep that key in mind when its vault is changed.",
    ),
}


def graver(one: str, other: str) -> bool:
    """Whether it is at least as grave."""
    return SEVERITIES.index(one) <= SEVERITIES.index(other)
