# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documents of many accounts that an audit reads, and reports on these documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from documents import (
    DAY,
    ENCRYPTION_USER,
    KEY,
    NEW,
    NOW,
    OLD,
    PRINCIPAL,
    SUBSCRIPTION,
    TENANT,
    VAULT_ID,
    account,
    assignment,
    key,
    listed,
    rotation_policy,
    system_assigned,
    vault,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import VAULT_USERS
from ansible_collections.azbatch.cmk.plugins.module_utils._audit import options
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.policy import policy as parsed
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.report import whole

GRANT = assignment(ENCRYPTION_USER, f"{VAULT_ID}/keys/batch")


def asked(**given: Any) -> dict[str, Any]:
    """The options of an audit, with their defaults."""
    specs = {**options.SCOPE, **options.POLICY, **VAULT_USERS}
    return {name: given.get(name, spec.get("default")) for name, spec in specs.items()}


def seen(*accounts: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """Compliant accounts that use the versions OLD and NEW of one key, in a vault that uses Azure RBAC."""
    old, new = key(OLD, created=NOW - 100 * DAY), key(NEW)
    versions = [listed(old), listed(new)]
    read = {
        "accounts": list(accounts),
        "unlisted": [],
        "vaults": {"myvault": vault(rbac=True)},
        "deleted_vaults": {},
        "keys": {KEY: {"newest": new, "versions": versions, "policy": rotation_policy(), "deleted": None}},
        "grants": {KEY: {"by_principal": {PRINCIPAL: [GRANT]}, "of_groups": []}},
        "definitions": {},
        "identities": {},
        "changed_at": {},
        "pools": {},
        "subscription_names": {SUBSCRIPTION: "Research"},
        "tenant_id": TENANT,
        "now": NOW,
        **others,
    }
    unused = {name.split("/")[2].partition(".")[0]: {"resources": [], "unknown": None} for name in read["keys"]}
    read = {"other_users": unused, **read}
    return {"named": {f"{KEY}/{OLD}": old, f"{KEY}/{NEW}": read["keys"][KEY]["newest"]}, **read}


def on(version: str | None = NEW, name: str = "mybatch", **more: Any) -> dict[str, Any]:
    """An account that is pinned to that version, or follows the key."""
    return account(name, key=f"{KEY}/{version}" if version else KEY, identity=system_assigned(), **more)


def report(*accounts: Mapping[str, Any], by: Mapping[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    """A report. `by` has the options of the audit's policy."""
    given = asked(**(by or {}))
    return {**whole(seen(*accounts, **others), parsed(given), given), "comparison": None, "drills": None}


def found(one: Mapping[str, Any]) -> list[str]:
    """The findings of a report's only account."""
    (account,) = one["accounts"]
    return [finding["id"] for finding in account["findings"]]


def many(count: int) -> dict[str, Any]:
    """A report with this number of accounts in different states."""
    kinds = [lambda name: on(name=name), lambda name: on(OLD, name), lambda name: on(None, name), account]
    accounts: Iterable[Mapping[str, Any]] = (
        {**kinds[number % 4](f"batch{number:05d}"), "tags": {"team": f"team{number % 7}"}} for number in range(count)
    )
    gone = "https://gone.vault.azure.net/keys/batch"
    lost = account("lost", key=gone, identity=system_assigned())
    by = {
        "required": [{"tags": {"team": "team3"}}],
        "max_version_age": "P90D",
        "expiry_required": True,
        "exceptions": [
            {
                "finding": "version_too_old",
                "accounts": ["batch00001"],
                "reason": "Moves soon",
                "expires_on": "2099-12-31",
            }
        ],
    }
    base = seen()
    return report(
        *accounts,
        lost,
        by=by,
        vaults={**base["vaults"], "gone": None},
        deleted_vaults={"gone": {"properties": {"vaultId": VAULT_ID, "scheduledPurgeDate": "2026-08-20T06:24:25Z"}}},
        keys={**base["keys"], gone: {"newest": None, "versions": None, "policy": None, "deleted": None}},
    )
