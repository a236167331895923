# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an experiment works with: a resource group, the resources that it creates there, time, and a memory."""

from __future__ import annotations

import math
import random
import string
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from azure_sandbox.shared.behavior import POSITIONS

from .azure import (
    BATCH,
    BATCH_DATA,
    IDENTITIES,
    KEYS,
    ROLES,
    VAULTS,
    Azure,
    Disturbed,
    NoResponse,
    NoResult,
    Response,
    Unavailable,
)
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
CALLER = ("get", "list", "create", "update", "delete", "recover", "getrotationpolicy")
EXPIRED = 1_000_000_000
FUTURE = 4_000_000_000

# A user-assigned identity: its id, and its principal.
Identity = dict[str, str]

# The codes of an error in Azure itself that can be the response of Batch without a key: it is the same each time.
_INTERNAL = ("InternalError", "InternalServerError")

Value = TypeVar("Value")
# A time of at least and at most so many seconds.
Bounds = tuple[float, float]
# When a change was sent, and when Azure had responded.
Moment = list[float]


@dataclass(frozen=True)
class Span:
    """Something was noticed for the first time after more than `after` and at most `within` seconds, which is infinite
    if the experiment was too short."""

    after: float
    within: float

    def document(self) -> list[float | None]:
        return [self.after, self.within if math.isfinite(self.within) else None]

    def explained_by(self, positions: Sequence[str]) -> tuple[str, ...]:
        """The positions (seconds) in this span. Clocks and requests may differ by a second."""
        times = (one for one in positions if one.isdecimal())
        return tuple(one for one in times if self.after - 1 <= float(one) <= self.within + 1)


def longer_than(seconds: float) -> Span:
    """Something was not noticed within this time."""
    return Span(seconds, math.inf)


def common(spans: Sequence[Span]) -> Span:
    """The time that explains all of these, or the longest if none does."""
    after, within = max(one.after for one in spans), min(one.within for one in spans)
    return Span(after, within if after < within else max(one.within for one in spans))


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


@dataclass(frozen=True)
class Trial:
    """The creation of an account."""

    put: Response
    # The last response to the operation.
    end: Response
    # The state of the account that was left; empty if there was none.
    state: str

    @property
    def left(self) -> str:
        return f"an account in the state {self.state}" if self.state else "no account"


def vault_of(kid: str) -> str:
    """The name of the vault of a key."""
    return kid.removeprefix("https://").partition(".")[0]


def random_name(prefix: str) -> str:
    """A name that no resource has. The names of vaults and accounts are unique in a cloud or a region."""
    return prefix + "".join(random.choices(string.ascii_lowercase + string.digits, k=12))


class Lab:
    """`memory` has the resources of the experiment, and `answers` the results of its cases. `save` stores both, so
    that they survive the end of the process. The latter survive the resource group too."""

    def __init__(
        self,
        azure: Azure,
        clock: Clock,
        place: Place,
        memory: dict[str, Any],
        answers: dict[str, str],
        save: Callable[[], None],
        known: Mapping[str, Bounds],
        free_accounts: int,
        environment: Mapping[str, str],
        folder: Path,
    ) -> None:
        self.azure = azure
        self.clock = clock
        self.place = place
        self.group = f"{azure.subscription}/resourceGroups/{place.group}"
        # By switch, the time that earlier experiments have found.
        self._known = known
        # How many Batch accounts the experiment may have at once.
        self.free_accounts = free_accounts
        # With these environment variables, the requests of a command are recorded.
        self.environment = environment
        # For files that are only for the caller.
        self.folder = folder
        self.answers = answers
        # By case without a result, the reason.
        self.unanswered: dict[str, NoResult] = {}
        self._memory = memory
        self._save = save

    def document(self) -> dict[str, Any]:
        """What another process needs to work in the same resource group (`in_another_process`), a JSON value."""
        return {"place": asdict(self.place), "known": self._known, "clock": self.clock.url}

    @classmethod
    def in_another_process(cls, azure: Azure, clock: Clock, document: Mapping[str, Any], folder: Path) -> Lab:
        """A lab without a memory. `document` is that of the lab of the experiment."""
        place = Place(**document["place"])
        return cls(azure, clock, place, {}, {}, lambda: None, document["known"], 1, {}, folder)

    def once(self, name: str, make: Callable[[], Value]) -> Value:
        """The result of `make`, a JSON value. `make` is not called again if the process ends and starts again."""
        if name not in self._memory:
            self._memory[name] = make()
            self._save()
        value: Value = self._memory[name]
        return value

    def note(self, name: str, value: Any) -> None:
        """Replace the result of `once`."""
        self._memory[name] = value
        self._save()

    def forget(self, name: str) -> None:
        """Let `once` make this again."""
        self._memory.pop(name, None)
        self._save()

    def knows(self, name: str) -> bool:
        """Whether `once` has a result of this name."""
        return name in self._memory

    def each(self, what: str, names: Iterable[str], make: Callable[[str], Value]) -> dict[str, Value]:
        """By name, the result of `once`. A name without a result is left out. Then the next run asks again."""
        made = {}
        for name in names:
            try:
                made[name] = self.once(f"{what}, {name}", partial(make, name))
            except NoResult as reason:
                self.unanswered[f"{what}, {name}"] = reason
        return made

    def case(self, name: str, ask: Callable[[], str]) -> str:
        """What Azure said, or an empty text if the case has no result. Then the next run asks again."""
        if name not in self.answers:
            try:
                self.answers[name] = ask()
            except NoResult as reason:
                self.unanswered[name] = reason
                return ""
            self._save()
        return self.answers[name]

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
        self,
        scope: str,
        principal: str,
        *,
        role: str = ENCRYPTION_USER,
        kind: str | None = "ServicePrincipal",
        name: str = "",
    ) -> Response:
        """Assign a role, by default the one that Batch needs. `kind` is the principalType, `name` that of the
        assignment."""
        definitions = f"{self.azure.subscription}/providers/Microsoft.Authorization/roleDefinitions"
        properties = {"roleDefinitionId": f"{definitions}/{role}", "principalId": principal}
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{name or uuid.uuid4()}"
        return self.azure.arm(
            "PUT", path, ROLES, {"properties": {**properties, **({"principalType": kind} if kind else {})}}
        )

    # Vaults and keys

    def vault(self, *principals: str, **settings: Any) -> str:
        """The name of a new vault, which is ready. The parameters are those of `put_vault`."""
        name = random_name("kv")
        self.put_vault(name, *principals, **settings)
        self.until(lambda: self.is_ready(name), f"The vault {name} is ready")
        self.until(lambda: self.resolves(name), f"The name of the vault {name} resolves")
        return name

    def put_vault(
        self,
        name: str,
        *principals: str,
        roles: bool = False,
        is_protected: bool = True,
        sku: str = "standard",
        location: str | None = None,
    ) -> None:
        """Begin to create a vault, by default with purge protection. The caller and the principals can use its keys by
        access policies. With `roles`, the vault uses Azure RBAC, and nobody has a role."""
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

    def resolves(self, vault: str) -> bool:
        """Whether the data plane of a new vault responds. Its name can be missing in the DNS for some time."""
        return self.azure.responds(f"https://{vault}.vault.azure.net/keys?api-version={KEYS}")

    def is_ready(self, vault: str) -> bool:
        """Whether the creation of a vault has ended. At first, reads may not show the vault."""
        response = self.azure.arm("GET", self.vault_path(vault), VAULTS)
        return response.status != 404 and response.required()["properties"]["provisioningState"] == "Succeeded"

    def admit(self, vault: str, principal: str) -> None:
        """Add an access policy of the principal."""
        self.put_policies(vault, "add", principal).required()

    def put_policies(self, vault: str, operation: str, principal: str) -> Response:
        """Add or remove the access policy of the principal."""
        policies = [one for one in self._policies(principal) if one["objectId"] == principal]
        body = {"properties": {"accessPolicies": policies}}
        return self.azure.arm("PUT", f"{self.vault_path(vault)}/accessPolicies/{operation}", VAULTS, body)

    def dismiss(self, vault: str, principal: str) -> None:
        """Remove the access policy of the principal."""
        self.put_policies(vault, "remove", principal).required()

    def open_vault(self, vault: str, *, is_open: bool) -> None:
        """Open or close the vault's firewall, for Microsoft's services too."""
        rules = {"defaultAction": "Allow" if is_open else "Deny", "bypass": "AzureServices" if is_open else "None"}
        self.azure.arm("PATCH", self.vault_path(vault), VAULTS, {"properties": {"networkAcls": rules}}).required()

    def delete_vault(self, vault: str) -> None:
        deleted = self.azure.arm("DELETE", self.vault_path(vault), VAULTS)
        if deleted.status != 404:
            # Otherwise an earlier attempt has deleted it.
            deleted.required()

    def recover_vault(self, vault: str) -> None:
        properties = {
            "tenantId": self.place.tenant,
            "createMode": "recover",
            "sku": {"family": "A", "name": "standard"},
        }
        body = {**self._located(), "properties": {**properties, "accessPolicies": []}}
        self.azure.arm("PUT", self.vault_path(vault), VAULTS, body).required()
        self.until(lambda: self.is_ready(vault), f"The vault {vault} is recovered")

    def use_roles(self, vault: str, *, roles: bool = True) -> None:
        """Change the vault from access policies to Azure RBAC, or back."""
        body = {"properties": {"enableRbacAuthorization": roles}}
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
        deleted = self.azure.vault("DELETE", vault_of(kid), f"/keys/{kid.split('/')[-2]}")
        if deleted.status != 404:
            # Otherwise an earlier attempt has deleted it.
            deleted.required()

    def recover_key(self, kid: str) -> None:
        name = kid.split("/")[-2]
        deleted = f"/deletedkeys/{name}"
        self.until(lambda: self.azure.vault("GET", vault_of(kid), deleted).ok, f"The key {name} is deleted")
        self.azure.vault("POST", vault_of(kid), f"{deleted}/recover").required()

    # Accounts

    def account(self, **body: Any) -> str:
        """The name of a new account."""
        name = random_name("ba")
        self.make_account(name, **body)
        self.until(lambda: self.azure.arm("GET", self.account_path(name), BATCH).ok, f"A read shows {name}", step=1)
        return name

    def make_account(self, name: str, **body: Any) -> None:
        """Create the account. A read may not show it yet."""
        self.finished(self.azure.arm("PUT", self.account_path(name), BATCH, {**self._located(), **body}))

    def account_on_key(self, kid: str, identity: Identity) -> str:
        """The name of a new account that uses the key."""
        name = self.account(identity=self.assigned(identity))
        # The principal of a new identity may not be everywhere yet.
        move = partial(self.change, name, properties=self.encryption(kid))
        self.until(lambda: move().checked().ok, f"Batch accepts the key of {name}")
        return name

    def tried(self, *codes: str, **body: Any) -> Trial:
        """Create an account, and delete what is left of it. Raises NoResult if the creation is refused for another
        reason than its request, except with one of the codes."""
        name = random_name("ba")
        with self.azure.undisturbed():
            put = self.azure.arm("PUT", self.account_path(name), BATCH, {**self._located(), **body})
        end = self.ended(put)
        self.settle(new=True)
        left = self.azure.arm("GET", self.account_path(name), BATCH)
        state = left.required()["properties"]["provisioningState"] if left.status != 404 else ""
        if state:
            self.delete_account(name)
        return Trial(put.checked(*codes), end.checked(*codes), state)

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

    def uses(self, account: str) -> dict[str, Callable[[], Response]]:
        """Requests that need the account's key."""
        path = self.account_path(account)
        return {
            "list the keys": partial(self.azure.arm, "POST", f"{path}/listKeys", BATCH),
            "change the tags": partial(self.change, account, tags={"probe": "1"}),
            "list the pools": partial(self.azure.arm, "GET", f"{path}/pools", BATCH),
        }

    def refusal(self, account: str) -> str:
        """The first of these requests that Batch refuses because of the account, and how; empty if it refuses none."""
        for what, request in self.uses(account).items():
            response = self.without_key(request)
            if not response.ok:
                return f"{what}: {response.what}"
        return ""

    def without_key(self, request: Callable[[], Response]) -> Response:
        """The response to a request that may need a key. Raises NoResult if the response is not about the account."""
        try:
            response = request().checked()
        except Unavailable as unavailable:
            if unavailable.response.code in _INTERNAL:
                return unavailable.response
            raise
        if response.status == 404:
            raise NoResult(f"{response.request}: {response.what}")
        return response

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
                raise NoResult(f"{response.request}: the operation has no end.")
            self.clock.wait(response.retry_after)
            response = self.azure.send("GET", where)
        return response

    def finished(self, response: Response) -> None:
        """Wait until an operation has ended. Raises NoResult if it fails."""
        response.required()
        self.ended(response).required()

    def until(self, condition: Callable[[], bool], what: str, *, step: float = 5) -> None:
        """Wait until the condition is true. Raises NoResult."""
        now = self.clock.now()
        if self.first(condition, [now, now], limit=PATIENCE, step=step) is None:
            raise NoResult(f"{what}: not within {PATIENCE} seconds.")

    def first(self, condition: Callable[[], bool], change: Moment, *, limit: float, step: float) -> Span | None:
        """When the condition was true for the first time, in seconds after the change; None if not within the limit.
        While Azure does not respond to the question, nothing is known."""
        sent, done = change
        after = 0.0
        while True:
            asked = self.clock.now()
            is_late = asked - sent > limit
            try:
                if condition():
                    return Span(after, self.clock.now() - sent)
                after = max(asked - done, 0.0)
                if is_late:
                    return None
            except Disturbed:
                if asked - sent > 2 * limit:
                    raise
            self.clock.wait(step)

    def first_times(
        self,
        what: str,
        changes: Mapping[str, Moment],
        found: Callable[[str], str],
        *,
        limit: float,
        step: float,
    ) -> dict[str, tuple[Span | None, str]]:
        """By name, when something was found for the first time after the change of that name, and what; None if not
        within the limit. The names are asked together, because each of them may take hours. A name without a result is
        left out."""
        left = [name for name in changes if not self.knows(f"{what}, {name}")]
        began = self.clock.now()
        while left:
            for name in [*left]:
                sent, done = changes[name]
                after: float = self.once(f"{what}, not before, {name}", float)
                asked = self.clock.now()
                try:
                    answer = found(name)
                except Disturbed:
                    # Nothing is known about this moment.
                    continue
                except NoResult as reason:
                    self.unanswered[f"{what}, {name}"] = reason
                    left.remove(name)
                    continue
                if answer or asked - sent > limit:
                    self.note(f"{what}, {name}", [after, self.clock.now() - sent, answer])
                    left.remove(name)
                else:
                    self.note(f"{what}, not before, {name}", max(asked - done, 0.0))
            if left and self.clock.now() - began > 2 * limit:
                raise NoResult(f"{what}: Azure did not respond within {limit:.0f} s.")
            if left:
                self.clock.wait(step)
        known = {name: self.once(f"{what}, {name}", list[Any]) for name in changes if self.knows(f"{what}, {name}")}
        return {name: (Span(*one[:2]) if one[2] else None, one[2]) for name, one in known.items()}

    def timed(self, change: Callable[[], object]) -> Moment:
        """When a change was made."""
        sent = self.clock.now()
        change()
        return [sent, self.clock.now()]

    def precisely(self, change: Callable[[], object]) -> Moment:
        """When a change was made that is compared with seconds. Raises Disturbed if a request had to be sent again."""
        with self.azure.undisturbed():
            return self.timed(change)

    def wait_until(self, time: float) -> None:
        if time > self.clock.now():
            self.clock.wait(time - self.clock.now())

    def bounds(self, switch: str) -> Bounds:
        """The time that earlier experiments have found for a switch, or all its positions."""
        times = [float(position) for position in POSITIONS[switch]]
        return self._known.get(switch, (min(times), max(times)))

    def wait_for_roles(self) -> None:
        """Wait until the data plane applies an earlier role assignment."""
        self.clock.wait(self.bounds("role_delay")[1] + 60)

    def settle(self, *, new: bool = False) -> None:
        """Wait until reads show earlier changes and, if `new`, what was created."""
        switches = ("value_lag", "name_lag") if new else ("value_lag",)
        self.clock.wait(max(self.bounds(switch)[1] for switch in switches) + 5)
