# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an experiment works with: a resource group, the resources that it creates there, time, and a memory."""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .azure import BATCH, BATCH_DATA, IDENTITIES, ROLES, VAULTS, Azure, NoResponse, Refused, Response
from .clock import Clock

CRYPTO_OFFICER = "14b46e9e-c2b7-41b4-b07b-48a6ebf60603"
ENCRYPTION_USER = "e147488a-f6f5-4113-8e2d-b22465e65bf6"
# How long an operation may take, in seconds.
PATIENCE = 1800
KEY = "cmk"
# How long a deleted vault is kept: the shortest time that Azure allows.
RETENTION_DAYS = 7
NEEDED = ("get", "wrapKey", "unwrapKey")
# What the caller does with keys.
CALLER = ("get", "list", "create", "update", "delete", "recover")
EXPIRED = 1_000_000_000
FUTURE = 4_000_000_000

# A user-assigned identity: its id, and its principal.
Identity = dict[str, str]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Place:
    """Where the resources are created."""

    # The name of the resource group.
    group: str
    location: str
    tenant: str
    # The object id of the caller, and its type in role assignments.
    caller: str
    caller_type: str


def vault_of(kid: str) -> str:
    """The name of the vault of a key."""
    return kid.removeprefix("https://").partition(".")[0]


def random_name(prefix: str) -> str:
    """A name that no resource has. The names of vaults and accounts are unique in a cloud or a region."""
    return prefix + "".join(random.choices(string.ascii_lowercase + string.digits, k=12))


class Lab:
    """`memory` is what the experiment has noted, and `save` stores it. It survives the end of the process."""

    def __init__(
        self,
        azure: Azure,
        clock: Clock,
        place: Place,
        memory: dict[str, Any],
        save: Callable[[], None],
        found: Mapping[str, tuple[str, ...]],
        environment: Mapping[str, str],
    ) -> None:
        self.azure = azure
        self.clock = clock
        self.place = place
        self.group = f"{azure.subscription}/resourceGroups/{place.group}"
        # By switch, the positions that earlier experiments have found.
        self.found = found
        # With these environment variables, the requests of a command are recorded.
        self.environment = environment
        self._memory = memory
        self._save = save

    def once(self, name: str, make: Callable[[], Value]) -> Value:
        """The result of `make`, a JSON value. `make` is not called again if the process ends and starts again."""
        if name not in self._memory:
            self._memory[name] = make()
            self._save()
        value: Value = self._memory[name]
        return value

    def knows(self, name: str) -> bool:
        """Whether `once` has a result of this name."""
        return name in self._memory

    # Identities and access

    def identity(self) -> Identity:
        path = self.identity_path(random_name("id"))
        document: dict[str, Any] = self.azure.arm("PUT", path, IDENTITIES, self._located()).required()
        return {"id": document["id"], "principal": document["properties"]["principalId"]}

    def delete_identity(self, identity: Identity) -> None:
        self.azure.arm("DELETE", identity["id"], IDENTITIES).required()

    @staticmethod
    def assigned(*identities: Identity) -> dict[str, Any]:
        """The identity of an account."""
        return {"type": "UserAssigned", "userAssignedIdentities": {one["id"]: {} for one in identities}}

    def grant_caller(self, role: str) -> str:
        """Assign the role at the resource group to the caller."""
        response = self.assign(self.group, self.place.caller, role=role, kind=self.place.caller_type)
        # The caller may have the role already.
        return response.what if response.code == "RoleAssignmentExists" else str(response.required()["id"])

    def assign(
        self, scope: str, principal: str, *, role: str = ENCRYPTION_USER, kind: str | None = "ServicePrincipal"
    ) -> Response:
        """Assign a role, by default the one that Batch needs. `kind` is the principalType."""
        definitions = f"{self.azure.subscription}/providers/Microsoft.Authorization/roleDefinitions"
        properties = {"roleDefinitionId": f"{definitions}/{role}", "principalId": principal}
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        return self.azure.arm(
            "PUT", path, ROLES, {"properties": {**properties, **({"principalType": kind} if kind else {})}}
        )

    # Vaults and keys

    def vault(
        self,
        *principals: str,
        roles: bool = False,
        is_protected: bool = True,
        sku: str = "standard",
        location: str | None = None,
    ) -> str:
        """The name of a new vault, by default with purge protection. The caller and the principals can use its keys by
        access policies. With `roles`, the vault uses Azure RBAC, and nobody has a role."""
        name = random_name("kv")
        properties: dict[str, Any] = {
            "tenantId": self.place.tenant,
            "sku": {"family": "A", "name": sku},
            "softDeleteRetentionInDays": RETENTION_DAYS,
            # False is refused: the property is true, or missing.
            **({"enablePurgeProtection": True} if is_protected else {}),
            "enableRbacAuthorization": roles,
            "accessPolicies": [] if roles else self._policies(*principals),
        }
        body = {"location": location or self.place.location, "properties": properties}
        self.azure.arm("PUT", self.vault_path(name), VAULTS, body).required()
        self.until(lambda: self._state_of_vault(name) == "Succeeded", f"The vault {name} is ready")
        self.until(lambda: self._resolves(name), f"The name of the vault {name} resolves")
        return name

    def _resolves(self, vault: str) -> bool:
        """Whether the data plane of a new vault responds. Its name can be missing in the DNS for some time."""
        try:
            self.azure.vault("GET", vault, "/keys")
        except NoResponse:
            return False
        return True

    def _state_of_vault(self, name: str) -> str:
        """The state of a vault; empty if no read shows the vault yet."""
        response = self.azure.arm("GET", self.vault_path(name), VAULTS)
        return str(response.required()["properties"]["provisioningState"]) if response.status != 404 else ""

    def admit(self, vault: str, principal: str) -> None:
        """Add an access policy of the principal."""
        body = {"properties": {"accessPolicies": self._policies(principal)}}
        self.azure.arm("PUT", f"{self.vault_path(vault)}/accessPolicies/add", VAULTS, body).required()

    def dismiss(self, vault: str, principal: str) -> None:
        """Remove the access policy of the principal."""
        [policy] = [one for one in self._policies(principal) if one["objectId"] == principal]
        body = {"properties": {"accessPolicies": [policy]}}
        self.azure.arm("PUT", f"{self.vault_path(vault)}/accessPolicies/remove", VAULTS, body).required()

    def open_vault(self, vault: str, *, is_open: bool) -> None:
        """Open or close the vault's firewall, for Microsoft's services too."""
        rules = {"defaultAction": "Allow" if is_open else "Deny", "bypass": "AzureServices" if is_open else "None"}
        self.azure.arm("PATCH", self.vault_path(vault), VAULTS, {"properties": {"networkAcls": rules}}).required()

    def delete_vault(self, vault: str) -> None:
        self.azure.arm("DELETE", self.vault_path(vault), VAULTS).required()

    def recover_vault(self, vault: str) -> None:
        properties = {
            "tenantId": self.place.tenant,
            "createMode": "recover",
            "sku": {"family": "A", "name": "standard"},
        }
        body = {**self._located(), "properties": {**properties, "accessPolicies": []}}
        self.azure.arm("PUT", self.vault_path(vault), VAULTS, body).required()
        self.until(lambda: self._state_of_vault(vault) == "Succeeded", f"The vault {vault} is recovered")

    def use_roles(self, vault: str) -> None:
        """Change the vault from access policies to Azure RBAC."""
        body = {"properties": {"enableRbacAuthorization": True}}
        self.azure.arm("PATCH", self.vault_path(vault), VAULTS, body).required()

    def _policies(self, *principals: str) -> list[dict[str, Any]]:
        keys = {self.place.caller: CALLER, **dict.fromkeys(principals, NEEDED)}
        return [
            {"tenantId": self.place.tenant, "objectId": principal, "permissions": {"keys": [*allowed]}}
            for principal, allowed in keys.items()
        ]

    def key(self, vault: str, name: str = KEY, **settings: Any) -> str:
        """The identifier of a new key, or of a new version of the key."""
        body = {"kty": "RSA", "key_size": 2048, "key_ops": ["wrapKey", "unwrapKey"], **settings}
        kid = self.azure.vault("POST", vault, f"/keys/{name}/create", body).required()["key"]["kid"]
        return str(kid)

    def enable(self, kid: str, *, enabled: bool) -> None:
        self.update_key(kid, enabled=enabled)

    def update_key(self, kid: str, **attributes: Any) -> None:
        path = kid.partition(".vault.azure.net")[2]
        self.azure.vault("PATCH", vault_of(kid), path, {"attributes": attributes}).required()

    def allow(self, kid: str, *operations: str) -> None:
        """Replace the operations that the key permits."""
        path = kid.partition(".vault.azure.net")[2]
        self.azure.vault("PATCH", vault_of(kid), path, {"key_ops": operations}).required()

    def delete_key(self, kid: str) -> None:
        self.azure.vault("DELETE", vault_of(kid), f"/keys/{kid.split('/')[-2]}").required()

    def recover_key(self, kid: str) -> None:
        name = kid.split("/")[-2]
        deleted = f"/deletedkeys/{name}"
        self.until(lambda: self.azure.vault("GET", vault_of(kid), deleted).ok, f"The key {name} is deleted")
        self.azure.vault("POST", vault_of(kid), f"{deleted}/recover").required()

    # Accounts

    def account(self, **body: Any) -> str:
        """The name of a new account."""
        name = random_name("ba")
        self.finished(self.azure.arm("PUT", self.account_path(name), BATCH, {**self._located(), **body}))
        self.until(lambda: self.azure.arm("GET", self.account_path(name), BATCH).ok, f"A read shows {name}", step=1)
        return name

    def account_on_key(self, kid: str, identity: Identity) -> str:
        """The name of a new account that uses the key."""
        name = self.account(identity=self.assigned(identity))
        # The principal of a new identity may not be everywhere yet.
        self.until(lambda: self.change(name, properties=self.encryption(kid)).ok, f"Batch accepts the key of {name}")
        return name

    def created(self, **body: Any) -> Response:
        """The last response to the creation of an account, which is deleted then."""
        name = random_name("ba")
        response = self.ended(self.azure.arm("PUT", self.account_path(name), BATCH, {**self._located(), **body}))
        self.delete_account(name)
        return response

    def delete_account(self, account: str) -> Response:
        """The last response."""
        return self.ended(self.azure.arm("DELETE", self.account_path(account), BATCH))

    def delete_accounts(self) -> None:
        """Delete all accounts in the resource group."""
        accounts = self.azure.arm("GET", self.accounts_path, BATCH).required()["value"]
        for response in [self.azure.arm("DELETE", account["id"], BATCH) for account in accounts]:
            self.ended(response)

    def change(self, account: str, **body: Any) -> Response:
        return self.azure.arm("PATCH", self.account_path(account), BATCH, body)

    def read(self, account: str) -> dict[str, Any]:
        document: dict[str, Any] = self.azure.arm("GET", self.account_path(account), BATCH).required()
        return document

    @staticmethod
    def encryption(kid: str) -> dict[str, Any]:
        """The properties of an account that uses the key."""
        return {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": kid}}}

    def uses(self, account: str) -> dict[str, Response]:
        """Operations that need the account's key, with the responses."""
        path = self.account_path(account)
        return {
            "list the pools": self.azure.arm("GET", f"{path}/pools", BATCH),
            "list the keys": self.azure.arm("POST", f"{path}/listKeys", BATCH),
            "change the tags": self.change(account, tags={"probe": "1"}),
        }

    def is_refused(self, account: str) -> bool:
        """Whether Batch refuses one of them."""
        return not all(response.ok for response in self.uses(account).values())

    def data_plane(self, account: str) -> str:
        """What the list of pools in the data plane of the account gives."""
        host = self.read(account)["properties"]["accountEndpoint"]
        try:
            return self.azure.send("GET", f"https://{host}/pools?api-version={BATCH_DATA}").said
        except NoResponse:
            # Its name may be new.
            return "no response"

    # Names

    def _located(self) -> dict[str, Any]:
        return {"location": self.place.location}

    def identity_path(self, name: str) -> str:
        return self._path("Microsoft.ManagedIdentity/userAssignedIdentities", name)

    def vault_path(self, name: str) -> str:
        return self._path("Microsoft.KeyVault/vaults", name)

    @property
    def accounts_path(self) -> str:
        return f"{self.group}/providers/Microsoft.Batch/batchAccounts"

    def account_path(self, name: str) -> str:
        return f"{self.accounts_path}/{name}"

    def _path(self, kind: str, name: str) -> str:
        return f"{self.group}/providers/{kind}/{name}"

    # Time

    def ended(self, response: Response) -> Response:
        """The last response to an operation that was begun."""
        began = self.clock.now()
        while response.status == 202:
            where = self.azure.next_of(response)
            if where is None or self.clock.now() > began + PATIENCE:
                raise Refused(f"{response.request}: the operation has no end.")
            self.clock.wait(float(response.headers.get("retry-after", 10)))
            response = self.azure.send("GET", where)
        return response

    def finished(self, response: Response) -> None:
        """Wait until an operation has ended. Raises Refused if it fails."""
        response.required()
        self.ended(response).required()

    def until(self, condition: Callable[[], bool], what: str, *, step: float = 5) -> float:
        """Wait until the condition is true, and return how long that took, in seconds. Raises Refused."""
        seconds = self.first(condition, limit=PATIENCE, step=step)
        if seconds is None:
            raise Refused(f"{what}: not within {PATIENCE} seconds.")
        return seconds

    def first(
        self, condition: Callable[[], bool], *, limit: float, step: float, began: float | None = None
    ) -> float | None:
        """How many seconds after `began` (default: now) the condition was true for the first time; None if not within
        the limit."""
        began = self.clock.now() if began is None else began
        while not condition():
            if self.clock.now() - began > limit:
                return None
            self.clock.wait(step)
        return self.clock.now() - began

    def wait_until(self, time: float) -> None:
        if time > self.clock.now():
            self.clock.wait(time - self.clock.now())

    def wait_for_roles(self) -> None:
        """Wait until the data plane applies an earlier role assignment."""
        self.clock.wait(max(map(float, self.found.get("role_delay") or ("600",))) + 60)

    def settle(self) -> None:
        """Wait until reads show earlier changes."""
        self.clock.wait(max(map(float, self.found.get("read_lag") or ("120",))) + 5)

    def timed(self, change: Callable[[], object]) -> float:
        """The time of a change."""
        change()
        return self.clock.now()


def measured(positions: Sequence[str], seconds: float | None, step: float) -> tuple[str, ...]:
    """The positions (seconds) that explain that something was first found after `seconds`, and not one step before.
    None: it was not found within the limit."""
    if seconds is None:
        return ()
    # Requests take some seconds too.
    return tuple(one for one in positions if seconds - step - 10 <= float(one) <= seconds + 1)
