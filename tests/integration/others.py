# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Permissions of other users, which runs must not remove, and changes that other users make."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from azure.core.exceptions import AzureError
from operators import World
from service import DAY, GROUP, Service

SERVICES = {
    "storage": "Microsoft.Storage/storageAccounts",
    "disks": "Microsoft.Compute/diskEncryptionSets",
    "sql": "Microsoft.Sql/servers",
    "cosmos": "Microsoft.DocumentDB/databaseAccounts",
}
STRANGER = "0a1b2c3d-0000-4000-8000-00000000cafe"


class Others:
    def __init__(self, world: World) -> None:
        self._world = world
        self._service = world.service
        # vault-one uses access policies.
        self._service.set_policy("add", self._service.policy(STRANGER, "get", "list", "sign"))
        self._service.change_vault(tags={"owner": "others"})

    def disable(self, _account: str, vault: str, key: str) -> None:
        self._service.disable(key, vault=vault)

    def disable_all(self, _account: str, vault: str, key: str) -> None:
        for version in self._service.versions(key, vault):
            self._service.disable(key, version.version, vault)

    def expire(self, _account: str, vault: str, key: str) -> None:
        past = datetime.fromtimestamp(self._service.key(key, vault=vault).properties.created_on.timestamp() + 1, UTC)
        self._service.keys(vault).update_key_properties(key, expires_on=past)

    def expire_in_time(self, _account: str, vault: str, key: str) -> None:
        created: datetime = self._service.key(key, vault=vault).properties.created_on
        self._service.keys(vault).update_key_properties(key, expires_on=created + timedelta(days=200))

    def delete(self, _account: str, vault: str, key: str) -> None:
        self._service.keys(vault).begin_delete_key(key).wait()

    def make_version(self, _account: str, vault: str, key: str) -> None:
        self._service.make_key(key, vault)

    def restore(self, account: str, vault: str, key: str) -> None:
        with suppress(AzureError):
            self._service.keys(vault).begin_recover_deleted_key(key).wait()
        self._service.keys(vault).update_key_properties(key, enabled=True)
        self._service.grant(self._world.principal(account), vault)

    def revoke(self, account: str, vault: str, _key: str) -> None:
        self._service.revoke(self._world.principal(account), vault)

    def interrupt_access(self, account: str, vault: str, key: str) -> None:
        """The account has no access to the key for two days. A new version is created meanwhile."""
        self.revoke(account, vault, key)
        self._service.make_key(key, vault)
        self._service.sandbox.control.advance(2 * DAY)
        self._service.grant(self._world.principal(account), vault)

    def delete_vault(self, _account: str, vault: str, _key: str) -> None:
        self._service.delete_vault(vault)

    def close_vault(self, _account: str, vault: str, _key: str) -> None:
        self._service.change_vault(vault, properties={"networkAcls": {"bypass": "None", "defaultAction": "Allow"}})

    def delete_account(self, account: str, _vault: str, _key: str) -> None:
        self._service.batch.batch_account.begin_delete(GROUP, account).wait()


def _possibly(method: Callable[[Others, str, str, str], None]) -> Callable[[Others, str, str, str], None]:
    """The method without its errors, because the resource that it changes may not exist."""

    def happens(others: Others, account: str, vault: str, key: str) -> None:
        with suppress(AzureError, AssertionError):
            method(others, account, vault, key)

    return happens


INCIDENTS = {
    name: _possibly(getattr(Others, name))
    for name in (
        *("disable", "disable_all", "expire", "expire_in_time", "delete", "make_version", "restore", "revoke"),
        *("interrupt_access", "delete_vault", "close_vault", "delete_account"),
    )
}


def uses(service: Service, name: str, identifier: str, group: str = "") -> str:
    """Add a resource of another service that uses the key, in two services by a host of a private endpoint. Returns its
    id."""
    vault, _, key = identifier.partition("/keys/")
    private = vault.replace(".vault.", ".privatelink.vaultcore.")
    parts = [*key.split("/"), ""]
    properties = {
        "storage": {
            "encryption": {
                "keyvaultproperties": {"keyvaulturi": private.upper(), "keyname": parts[0], "keyversion": parts[1]}
            }
        },
        "disks": {"activeKey": {"keyUrl": identifier, "sourceVault": {"id": service.vault_id()}}},
        "sql": {"keyId": f"{vault.replace('.vault.', '.private.')}:443/keys/{key}"},
        "cosmos": {"keyVaultKeyUri": identifier},
    }[name]
    resource = f"{group or service.sandbox.group}/providers/{SERVICES[name]}/{name}"
    document = {"id": resource, "location": "westeurope", "properties": properties}
    service.sandbox.control.call("POST", "/other-resources", document, 201)
    return resource
