# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the experiments need: rights of the caller, registered resource providers, and Batch accounts that the quota
allows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .azure import BATCH, GROUPS, PERMISSIONS, Azure

# The operations of the experiments and of the cleaning, at the subscription.
PROVIDERS = ("Microsoft.Batch", "Microsoft.KeyVault", "Microsoft.ManagedIdentity")
NEEDED = (
    "Microsoft.Resources/subscriptions/resourceGroups/read",
    "Microsoft.Resources/subscriptions/resourceGroups/write",
    "Microsoft.Resources/subscriptions/resourceGroups/delete",
    "Microsoft.Batch/batchAccounts/read",
    "Microsoft.Batch/batchAccounts/write",
    "Microsoft.Batch/batchAccounts/delete",
    "Microsoft.Batch/batchAccounts/listKeys/action",
    "Microsoft.Batch/batchAccounts/pools/read",
    "Microsoft.KeyVault/vaults/read",
    "Microsoft.KeyVault/vaults/write",
    "Microsoft.KeyVault/vaults/delete",
    "Microsoft.KeyVault/vaults/accessPolicies/write",
    "Microsoft.ManagedIdentity/userAssignedIdentities/read",
    "Microsoft.ManagedIdentity/userAssignedIdentities/write",
    "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
    "Microsoft.Authorization/roleAssignments/read",
    "Microsoft.Authorization/roleAssignments/write",
    "Microsoft.Authorization/locks/read",
    "Microsoft.Authorization/locks/write",
    "Microsoft.Authorization/locks/delete",
)


def missing(azure: Azure) -> list[str]:
    """The operations that the caller's roles at the subscription do not allow."""
    path = f"{azure.subscription}/providers/Microsoft.Authorization/permissions"
    permissions = azure.arm("GET", path, PERMISSIONS).required()["value"]

    def allows(operation: str) -> bool:
        return any(
            _matches(one.get("actions", ()), operation) and not _matches(one.get("notActions", ()), operation)
            for one in permissions
        )

    return [operation for operation in NEEDED if not allows(operation)]


def unregistered(azure: Azure) -> list[str]:
    """The resource providers that are not registered in the subscription."""

    def state(provider: str) -> str:
        document = azure.arm("GET", f"{azure.subscription}/providers/{provider}", GROUPS).required()
        return str(document["registrationState"])

    return [provider for provider in PROVIDERS if state(provider) != "Registered"]


def free_accounts(azure: Azure, location: str, group: str) -> int:
    """How many Batch accounts the quota of the region allows, beside those that exist outside of the resource group."""
    provider = f"{azure.subscription}/providers/Microsoft.Batch"
    quota: int = azure.arm("GET", f"{provider}/locations/{location}/quotas", BATCH).required()["accountQuota"]
    page = azure.arm("GET", f"{provider}/batchAccounts", BATCH).required()
    while True:
        for account in page["value"]:
            own = group and f"/resourcegroups/{group}/" in account["id"].lower()
            quota -= account["location"] == location and not own
        if "nextLink" not in page:
            return quota
        page = azure.send("GET", page["nextLink"]).required()


def _matches(patterns: Sequence[str], operation: str) -> bool:
    return any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), operation, re.IGNORECASE) for pattern in patterns
    )
