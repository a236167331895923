# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Vaults, their key versions, the principals that may use the keys, and the soft-deleted vaults and keys."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..batch.key_check import KeyIdentifier
from ..key_vault.grants import Grants, Holder
from ..key_vault.vault import Vault
from ..key_vault_keys.key import Key, KeyVersion
from ..world import World
from . import shown
from .query import PageQuery
from .shown import Rows

MOST_VAULTS = 50
# The limit for the rows of a table: key versions or principals of one vault, or soft-deleted resources.
MOST_ROWS = 100
# If there are more vaults, they are shown collapsed.
FEW = 5


def facts(world: World, grants: Grants, page_query: PageQuery) -> dict[str, Any]:
    live, deleted = world.vaults.live_and_deleted()
    wraps = _wraps(world)
    vaults = [vault for vault in live if page_query.finds(*_texts(world, vault))]
    removed = [row for vault in live for row in _deleted_keys(world, vault)] + [_deleted(world, v) for v in deleted]
    found = [row for row in removed if page_query.finds(row["name"])]
    rows = [_vault(world, grants, wraps, vault) for vault in vaults[:MOST_VAULTS]]
    return {
        "rows": Rows(rows, len(vaults), len(live)),
        "open": len(vaults) <= FEW,
        "keys": sum(len(world.keys.stored(vault)[0]) for vault in live),
        "deleted": Rows.first(MOST_ROWS, found, len(removed)),
    }


def _wraps(world: World) -> Counter[tuple[str, str]]:
    """The number of accounts that use each key version, by vault and version."""
    versions = (account.protection.version for account in world.batch.existing() if account.protection)
    used = (KeyIdentifier.parse(version) for version in versions)
    return Counter((key.vault, key.version) for key in used if key)


def _texts(world: World, vault: Vault) -> list[str]:
    keys = [text for key in world.keys.stored(vault)[0] for text in (key.name, *(v.version for v in key.versions))]
    return [vault.id, *keys, *(f"{name}={value}" for name, value in vault.tags.items())]


def _vault(world: World, grants: Grants, wraps: Counter[tuple[str, str]], vault: Vault) -> dict[str, Any]:
    keys = sorted(world.keys.stored(vault)[0], key=lambda key: key.name.lower())
    versions = [
        _version(world, key, version) | {"wraps": wraps[vault.name.lower(), version.version]}
        for key in keys
        for version in reversed(key.versions)
    ]
    holders = grants.holders(vault)
    return {
        "name": vault.name,
        "group": vault.resource_group,
        "location": vault.location,
        "tags": vault.tags,
        "permission_model": "role assignments" if vault.rbac else "access policies",
        "purge_protection": vault.purge_protection,
        "retention_days": vault.retention_days,
        "network": _network(vault),
        "registering": world.vaults.is_registering(vault),
        "keys": len(keys),
        "versions": Rows.first(MOST_ROWS, versions, len(versions)),
        "holders": Rows([_holder(world, vault, h) for h in holders[:MOST_ROWS]], len(holders), len(holders)),
    }


def _network(vault: Vault) -> str:
    if vault.public_network_access == "SecuredByPerimeter":
        return "network security perimeter; trusted services are not allowed"
    if vault.public_network_access != "Enabled":
        access = "closed"
    elif vault.network.default_action == "Allow":
        access = "open"
    else:
        access = f"only {', '.join(vault.network.ip_rules) or 'no addresses'}"
    return f"{access}; trusted services are {'allowed' if vault.network.bypass == 'AzureServices' else 'not allowed'}"


def _version(world: World, key: Key, version: KeyVersion) -> dict[str, Any]:
    return {
        "key": key.name,
        "version": version.version,
        "newest": version is key.latest,
        "state": _state(world, key, version),
        "enabled": version.enabled,
        "created": shown.moment(version.created),
        "not_before": shown.moment(version.not_before),
        "expires": shown.moment(version.expires),
        "kind": f"{version.kty} {version.size or version.public.get('crv', '')}",
        "operations": version.key_ops,
        "rotates": _rotates(key) if version is key.latest else "",
    }


def _state(world: World, key: Key, version: KeyVersion) -> str:
    """The state of a key version. Only a version in the state `enabled` can be used."""
    now = world.clock.time()
    if key.visible_from > now:
        return "being recovered"
    if not version.enabled:
        return "disabled"
    if version.expires is not None and version.expires <= now:
        return "expired"
    if version.not_before is not None and version.not_before > now:
        return "not valid yet"
    return "enabled"


def _rotates(key: Key) -> str:
    rotate = next((action for action in key.policy.actions if action.kind == "Rotate"), None) if key.policy else None
    if rotate is None:
        return ""
    return f"{rotate.duration} {'after creation' if rotate.trigger == 'timeAfterCreate' else 'before expiry'}"


def _holder(world: World, vault: Vault, holder: Holder) -> dict[str, Any]:
    inside = holder.scope.lower() != vault.id.lower()
    notes = []
    if holder.effective_from > world.clock.time():
        notes.append(f"in effect from {shown.moment(holder.effective_from)}")
    if holder.effective_until != float("inf"):
        notes.append(f"revoked, in effect until {shown.moment(holder.effective_until)}")
    return {
        "principal": shown.principal(world, holder.principal_id),
        "by": holder.role or "access policy",
        "where": shown.place(world, holder.scope) if inside else "this vault",
        "permissions": holder.permissions,
        "note": ", ".join(notes),
    }


def _deleted(world: World, vault: Vault) -> dict[str, Any]:
    return {
        "kind": "vault",
        "name": vault.name,
        "deleted": shown.moment(vault.deleted_at),
        "purge": shown.moment(world.vaults.purge_date(vault).timestamp()),
        "protected": vault.purge_protection,
    }


def _deleted_keys(world: World, vault: Vault) -> list[dict[str, Any]]:
    return [
        {
            "kind": "key" if key.deleted_from <= world.clock.time() else "key, being deleted",
            "name": f"{vault.name}/{key.name}",
            "deleted": shown.moment(key.deleted_at),
            "purge": shown.moment((key.deleted_at or 0) + vault.retention_days * 86400),
            "protected": vault.purge_protection,
        }
        for key in world.keys.stored(vault)[1]
    ]
