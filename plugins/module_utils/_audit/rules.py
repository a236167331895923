# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules: for each finding, its severity, reason, remedy and repair.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# The findings in the documentation of this release.
MANUAL = "https://github.com/azbatch/azbatch.cmk/blob/1.0.0/docs/findings.md"
CRITICAL, HIGH, MEDIUM, LOW, INFO = "critical", "high", "medium", "low", "info"
# The most severe first.
SEVERITIES = (CRITICAL, HIGH, MEDIUM, LOW, INFO)
# The types of resources that are a common cause of findings of many accounts.
VAULT, KEY, VERSION, IDENTITIES = "vault", "key", "key_version", "identities"
NOTHING = None


@dataclass(frozen=True)
class Repair:
    """A role or module of this collection, with the options that are set in addition to the names of the account or
    vault."""

    name: str
    # Whether a module runs for each account or for each vault.
    each: str = "account"
    options: Mapping[str, Any] = field(default_factory=dict)
    # Options that are set to a value of the audit's policy: by option, the name of the policy's option.
    asked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    severity: str
    # If accounts have the finding because of the same resource of this type, the findings have one cause.
    shared: str | None
    title: str
    why: str
    remedy: str
    repair: Repair | None = None
    # Nobody can repair it, except with a backup of the key.
    is_permanent: bool = False


_CUT_OFF = "Batch cannot use the key, so the account accepts only its deletion, or soon will."
_RECOVER = Repair("role recover")
_OTHER_KEY = Repair(
    "role switch",
    options={
        "cmk_new_key_identifier": "https://VAULT.vault.azure.net/keys/KEY/VERSION",
        # Otherwise an account that is moved to a version of a different key is pinned to the version.
        "cmk_key_version_mode": "{{ 'follow' if cmk_follows_latest else 'pin' }}",
    },
)
_LOST = "The account cannot be recovered; delete the account and create it again."
_EMPTY_POOL = "while the pool has no nodes, or create the pool again."

RULES: dict[str, Rule] = {
    # Causes why an account cannot use its key. The module batch_encryption_diagnosis has the same names.
    "account_unavailable": Rule(
        CRITICAL,
        KEY,
        "The account is not available",
        _CUT_OFF,
        "Run the role recover, which finds and repairs the cause.",
        _RECOVER,
    ),
    "identity_missing": Rule(
        CRITICAL, IDENTITIES, "The account's identity was deleted", _CUT_OFF, _LOST, is_permanent=True
    ),
    "vault_deleted": Rule(
        CRITICAL,
        VAULT,
        "The key's vault was deleted",
        "If the vault is purged, the key and the account are lost permanently.",
        "Recover the vault while it can be recovered.",
        _RECOVER,
    ),
    "vault_missing": Rule(CRITICAL, VAULT, "The key's vault was purged", _CUT_OFF, _LOST, is_permanent=True),
    "vault_in_other_tenant": Rule(
        CRITICAL, VAULT, "The vault belongs to another tenant", _CUT_OFF, "Move the vault back to the account's tenant."
    ),
    "network_closed": Rule(
        CRITICAL,
        VAULT,
        "The vault's firewall blocks Batch",
        _CUT_OFF,
        "Allow trusted Microsoft services on the vault.",
        _RECOVER,
    ),
    "key_deleted": Rule(
        CRITICAL,
        KEY,
        "The key was deleted",
        "If the key is purged, the key and the account are lost permanently.",
        "Recover the key while it can be recovered.",
        _RECOVER,
    ),
    "key_missing": Rule(
        CRITICAL,
        KEY,
        "The key was purged",
        _CUT_OFF,
        "Restore a backup of the key, if there is one.",
        is_permanent=True,
    ),
    "version_missing": Rule(
        CRITICAL,
        VERSION,
        "The version that the account is pinned to was purged",
        _CUT_OFF,
        "Restore a backup, if there is one.",
        is_permanent=True,
    ),
    "version_unusable": Rule(
        CRITICAL,
        VERSION,
        "The account's version is disabled, has expired or is not valid yet",
        _CUT_OFF,
        "Recover the account: enable the version, or extend its validity.",
        _RECOVER,
    ),
    "operations_missing": Rule(
        CRITICAL,
        KEY,
        "The key does not allow wrapKey and unwrapKey",
        _CUT_OFF,
        "Allow both operations on the key.",
        _RECOVER,
    ),
    "key_not_supported": Rule(
        CRITICAL,
        KEY,
        "Batch does not support this type or size of key",
        _CUT_OFF,
        "Switch to an RSA key of 2048, 3072 or 4096 bits.",
    ),
    "access_missing": Rule(
        CRITICAL,
        KEY,
        "The account's identity may not use the key",
        _CUT_OFF,
        "Grant the account's identity get, wrapKey and unwrapKey.",
        # The role recover changes nothing if the account is available through one of its identities.
        Repair("module keyvault_cmk_access"),
    ),
    # Future causes, and violations of the organization's policy.
    "key_expires_soon": Rule(
        HIGH,
        VERSION,
        "The account's version expires soon",
        "After the version has expired, Batch cannot use it, and the account accepts only its deletion.",
        "Rotate: create a new version and move the account to it.",
        Repair("role rotate", options={"cmk_key_new_version": True}),
    ),
    "vault_without_purge_protection": Rule(
        HIGH,
        VAULT,
        "The vault can be purged",
        "A principal that may purge can destroy the keys and every account that uses them, at once and permanently. "
        "Batch requires purge protection.",
        "Turn on purge protection.",
        Repair("module keyvault_cmk_vault", each="vault"),
    ),
    "vault_without_soft_delete": Rule(
        HIGH,
        VAULT,
        "Keys that are deleted in the vault cannot be recovered",
        "A deleted key is lost at once, with every account that uses it. Batch requires soft delete.",
        "Turn on soft delete.",
        Repair("module keyvault_cmk_vault", each="vault"),
    ),
    "account_failed": Rule(
        HIGH,
        NOTHING,
        "The last operation on the account has failed",
        "The account may not have the setting that the operation was to make, or may never have been usable.",
        "If its creation has failed, run the role provision, or delete the account. If a change has failed, repeat it.",
    ),
    "not_on_customer_managed_key": Rule(
        HIGH,
        NOTHING,
        "The account does not use a customer-managed key",
        "The policy requires a customer-managed key, which its owner can rotate, revoke and audit.",
        "Move the account to a customer-managed key. An account without an identity gets a system-assigned identity.",
        Repair(
            "role provision",
            options={
                "cmk_vault_name": "NAME_OF_THE_VAULT",
                "cmk_vault_resource_group": "RESOURCE_GROUP_OF_THE_VAULT",
                "cmk_key_name": "NAME_OF_THE_KEY",
                "cmk_allowed_repairs": ["identity"],
            },
        ),
    ),
    "vault_not_allowed": Rule(
        HIGH,
        VAULT,
        "The key is in a vault that the policy does not allow",
        "The owners of the vault control the account; a vault without an owner may be deleted by mistake.",
        "Switch the account to a key in an allowed vault.",
        _OTHER_KEY,
    ),
    "version_too_old": Rule(
        MEDIUM,
        VERSION,
        "The version that the account uses is too old",
        "The longer a version is used, the more data depends on it. The policy sets a limit.",
        "Rotate: create a new version and move the account to it.",
        Repair("role rotate", asked={"cmk_key_max_version_age": "max_version_age"}),
    ),
    "vault_uses_access_policies": Rule(
        MEDIUM,
        VAULT,
        "The vault uses access policies",
        "A principal that may write the vault can grant itself access to its keys; a role can be assigned at a single "
        "key. The policy requires Azure RBAC.",
        "Grant the accounts' identities the role Key Vault Crypto Service Encryption User first, then switch the vault "
        "to Azure role-based access control. This collection does not switch it, because other principals would lose "
        "access.",
    ),
    "key_type_not_allowed": Rule(
        MEDIUM,
        KEY,
        "The key is of a type that the policy does not allow",
        "The policy names the types of keys, for example keys that an HSM protects (RSA-HSM).",
        "Create a key of an allowed type and move the account to it.",
        _OTHER_KEY,
    ),
    "key_too_small": Rule(
        MEDIUM,
        KEY,
        "The key has fewer bits than the policy requires",
        "The shorter a key, the sooner it can be broken.",
        "Rotate to a version with more bits.",
        Repair("role rotate", options={"cmk_key_new_version": True}, asked={"cmk_key_size": "min_key_size"}),
    ),
    "key_without_expiry": Rule(
        MEDIUM,
        VERSION,
        "The account's version never expires",
        "The policy requires an expiry, so that a forgotten key does not stay in use. Rotate well before the expiry.",
        "Rotate to a version that expires, and monitor the days until its expiry.",
        Repair("role rotate", options={"cmk_key_new_version": True, "cmk_key_expires_in": "P1Y"}),
    ),
    "pool_disks_not_encrypted": Rule(
        MEDIUM,
        NOTHING,
        "Pools are without disk encryption",
        "The account's key does not encrypt the disks of its pools' virtual machines. Without a setting of the pool, "
        "temporary disks are not encrypted, and other disks use a Microsoft-managed key.",
        f"Set diskEncryptionConfiguration or encryptionAtHost {_EMPTY_POOL}",
    ),
    "follows_without_rotation": Rule(
        LOW,
        KEY,
        "The account follows a key that Key Vault does not rotate",
        "The account uses new versions automatically; without a rotation policy, Key Vault creates none.",
        "Set a rotation policy on the key.",
        Repair("role rotate", options={"cmk_key_rotation_policy": {"time_after_create": "P90D", "expiry_time": "P1Y"}}),
    ),
    "newer_version_unused": Rule(
        LOW,
        KEY,
        "A newer version of the key exists and the account does not use it",
        "A pinned account keeps its version until it is moved: a rotation may be incomplete.",
        "Rotate: move the account to the newest version.",
        Repair("role rotate"),
    ),
    "pool_key_pinned": Rule(
        LOW,
        NOTHING,
        "Pools with their own key are pinned to a version",
        "Without rotationToLatestKeyVersionEnabled, a pool keeps the version in its keyUrl until somebody changes it.",
        f"Set rotationToLatestKeyVersionEnabled to true {_EMPTY_POOL}",
    ),
    "not_read": Rule(
        LOW,
        VAULT,
        "Some data could not be read",
        "Data that could not be read is reported as unknown, never as compliant.",
        "Grant the caller the permissions that the evidence names, or follow its remedy, and run the audit again.",
    ),
    "pool_uses_other_key": Rule(
        INFO,
        NOTHING,
        "Pools encrypt their disks with their own key",
        "That key is rotated, and may be lost, separately from the account's key. This collection does not manage it.",
        "No action is required. Consider that key if its vault is changed.",
    ),
}


def is_at_least(one: str, other: str) -> bool:
    """Return whether `one` is at least as severe as `other`."""
    return SEVERITIES.index(one) <= SEVERITIES.index(other)


def urgency(finding: str) -> tuple[bool, int]:
    """The order of repair: by severity, and last the findings that nobody can repair."""
    rule = RULES[finding]
    return rule.is_permanent, SEVERITIES.index(rule.severity)
