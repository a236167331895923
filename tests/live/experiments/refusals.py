# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with requests that Batch refuses for other reasons than the key."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..azure import BATCH, Response
from ..experiment import Experiment, Outcome
from ..lab import Lab, random_name

_NO_POOL, _NO_OPERATION = "/pools/missing", "/operationResults/00000000-0000-0000-0000-000000000001"


def refused_requests(lab: Lab) -> Outcome:
    identity = lab.once("identity", lab.identity)
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(identity)))
    path = lab.account_path(account)
    keys = {"keyIdentifier": "https://kv.vault.azure.net/keys/cmk"}
    assigned = lab.assigned(identity)

    def patch(**body: Any) -> Callable[[], Response]:
        return partial(lab.change, account, **body)

    def encryption(**members: Any) -> Callable[[], Response]:
        return patch(properties={"encryption": members})

    def send(method: str, below: str, body: Any = None) -> Callable[[], Response]:
        return partial(lab.azure.arm, method, f"{path}{below}", BATCH, body)

    def put(name: str, **body: Any) -> Callable[[], Response]:
        return partial(lab.azure.arm, "PUT", lab.account_path(name), BATCH, body)

    missing = lab.identity_path(random_name("id"))
    requests: dict[str, Callable[[], Response]] = {
        "a PATCH of poolAllocationMode": patch(properties={"poolAllocationMode": "UserSubscription"}),
        "keySource Microsoft.Batch with a key": encryption(keySource="Microsoft.Batch", keyVaultProperties=keys),
        "keySource Microsoft.KeyVault without a key": encryption(keySource="Microsoft.KeyVault"),
        "a key without keySource": encryption(keyVaultProperties=keys),
        "a key without keyIdentifier": encryption(keySource="Microsoft.KeyVault", keyVaultProperties={}),
        "an unknown keySource": encryption(keySource="Microsoft.Nothing"),
        "identities without a type": patch(identity={"userAssignedIdentities": assigned["userAssignedIdentities"]}),
        "UserAssigned without an identity": patch(identity={"type": "UserAssigned"}),
        "identities with SystemAssigned": patch(identity={**assigned, "type": "SystemAssigned"}),
        "SystemAssigned, UserAssigned": patch(identity={**assigned, "type": "SystemAssigned, UserAssigned"}),
        "a missing identity": patch(identity=lab.assigned({"id": missing})),
        "a malformed id of an identity": patch(identity=lab.assigned({"id": "identity1"})),
        "a malformed id of a storage account": patch(properties={"autoStorage": {"storageAccountId": ""}}),
        "autoStorage without storageAccountId": patch(properties={"autoStorage": {}}),
        "a synchronization without auto-storage": send("POST", "/syncAutoStorageKeys"),
        "a regeneration without keyName": send("POST", "/regenerateKeys", {}),
        "a missing pool": send("GET", _NO_POOL),
        "a missing operation": send("GET", _NO_OPERATION),
        "a malformed skip token": partial(lab.azure.arm, "GET", f"{lab.accounts_path}?$skipToken=x", BATCH),
        "an account without a location": put(random_name("ba")),
        "an unknown location": put(random_name("ba"), location="nowhere"),
        "a PUT with another location": put(account, location="northeurope"),
        "a malformed name": put("no-account", location=lab.place.location),
        "a check of a malformed name": partial(
            lab.azure.arm,
            "POST",
            f"{lab.azure.subscription}/providers/Microsoft.Batch/locations/{lab.place.location}/checkNameAvailability",
            BATCH,
            {"name": "no-account", "type": "Microsoft.Batch/batchAccounts"},
        ),
        "a deletion of a missing account": partial(lab.azure.arm, "DELETE", lab.account_path(random_name("ba")), BATCH),
        "a PATCH of a missing account": partial(lab.change, random_name("ba"), tags={}),
    }
    for what, request in requests.items():
        lab.case(what, partial(_said, request))
    lab.change(account, properties={"allowedAuthenticationModes": ["AAD"]}).required()
    lab.case("the keys of an account that allows only Entra ID", partial(_said, send("POST", "/listKeys")))
    accepted = [what for what, said in lab.answers.items() if said.startswith("2")]
    return Outcome(f"Accepted: {', '.join(accepted) or 'nothing'}.")


def _said(request: Callable[[], Response]) -> str:
    return request().checked().said


def changing_accounts(lab: Lab) -> Outcome:
    """Requests to an account that is created or deleted."""
    name = random_name("ba")
    with lab.azure.undisturbed():
        created = lab.azure.arm("PUT", lab.account_path(name), BATCH, {"location": lab.place.location}).checked()
        _probe(lab, name, "during the creation")
    lab.finished(created)
    lab.settle()
    with lab.azure.undisturbed():
        deleted = lab.azure.arm("DELETE", lab.account_path(name), BATCH).checked()
        _probe(lab, name, "during the deletion")
    lab.finished(deleted)
    lab.case("GET after the deletion", partial(_said, partial(lab.azure.arm, "GET", lab.account_path(name), BATCH)))
    return Outcome("Sent requests to an account while it was created and deleted.")


def _probe(lab: Lab, name: str, when: str) -> None:
    path = lab.account_path(name)
    change = partial(lab.change, name, tags={"probe": "1"})

    def read() -> str:
        response = lab.azure.arm("GET", path, BATCH).checked()
        state = response.document["properties"]["provisioningState"] if response.ok else ""
        return f"{response.said} {state}".strip()

    lab.case(f"GET {when}", read)
    # Here, it is a result that another operation is in progress.
    lab.case(f"PATCH {when}", lambda: change().checked("AccountOperationInProgress").said)
    lab.case(f"list of pools {when}", partial(_said, partial(lab.azure.arm, "GET", f"{path}/pools", BATCH)))


EXPERIMENTS = (
    Experiment(
        "refused_requests",
        "Which requests does Batch refuse, and how?",
        "Send requests with mistakes for an account, for example an identity that does not exist.",
        refused_requests,
        minutes=2,
    ),
    Experiment(
        "changing_accounts",
        "How does Batch respond to requests for an account that is created or deleted at that time?",
        "Create and delete an account, and send requests meanwhile.",
        changing_accounts,
        minutes=2,
    ),
)
