# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with Batch accounts."""

from __future__ import annotations

from functools import partial
from typing import Any

from azure_sandbox.shared.behavior import POSITIONS

from ..azure import BATCH, VAULTS
from ..experiment import Experiment, Outcome
from ..lab import Lab, measured, random_name

_LIMIT, _COUNTED = "x-ms-ratelimit-remaining-", 3


def identities_on_put(lab: Lab) -> Outcome:
    first, second = lab.once("first", lab.identity), lab.once("second", lab.identity)
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(first)))
    response = lab.change(account, identity=lab.assigned(second))
    response.required()
    lab.settle()
    has = [name.lower() for name in lab.read(account)["identity"]["userAssignedIdentities"]]
    if has == [second["id"].lower()]:
        return Outcome("The second identity has replaced the first.", {"identities_on_put": ("replaced",)})
    if sorted(has) == sorted(one["id"].lower() for one in (first, second)):
        return Outcome("The account has both identities.", {"identities_on_put": ("merged",)})
    return Outcome(f"The account has the identities {', '.join(has) or 'none'}.", {"identities_on_put": ()})


def refused_creation(lab: Lab) -> Outcome:
    identity = lab.once("identity", lab.identity)
    # Without access for the identity.
    vault = lab.once("vault", lab.vault)
    kid = lab.once("key", lambda: lab.key(vault))
    name = lab.once("account", lambda: random_name("ba"))
    body = {"location": lab.place.location, "identity": lab.assigned(identity), "properties": lab.encryption(kid)}
    put = lab.azure.arm("PUT", lab.account_path(name), BATCH, body)
    if not put.ok:
        return Outcome(f"The PUT was refused: {put.what}.", {"refused_creation": ("at_once",)})
    end = lab.ended(put)
    lab.settle()
    left = lab.azure.arm("GET", lab.account_path(name), BATCH)
    if left.status == 404:
        return Outcome(
            f"The operation ended with {end.what} and left no account.", {"refused_creation": ("no_account",)}
        )
    state = left.required()["properties"]["provisioningState"]
    seen = f"The operation ended with {end.what} and left an account in the state {state}."
    return Outcome(seen, {"refused_creation": ("failed_account",) if state == "Failed" else ()})


def read_lag(lab: Lab) -> Outcome:
    account = lab.once("account", lab.account)
    value = random_name("t")
    lab.change(account, tags={"probe": value}).required()
    seconds = lab.first(lambda: lab.read(account).get("tags") == {"probe": value}, limit=300, step=1)
    seen = f"A read showed the change after {seconds:.0f} s." if seconds is not None else "No read showed the change."
    return Outcome(seen, {"read_lag": measured(POSITIONS["read_lag"], seconds, 1)})


def life(lab: Lab) -> Outcome:
    account, began = random_name("ba"), lab.clock.now()
    lab.finished(lab.azure.arm("PUT", lab.account_path(account), BATCH, {"location": lab.place.location}))
    created = lab.clock.now()
    lab.settle()
    headers = lab.azure.arm("GET", lab.account_path(account), BATCH).headers
    deleting = lab.clock.now()
    lab.finished(lab.azure.arm("DELETE", lab.account_path(account), BATCH))
    timing = {"batch_create": created - began, "batch_delete": lab.clock.now() - deleting}
    names = ("ETag", "Last-Modified", *(name for name in headers if name.lower().startswith("x-ms-ratelimit")))
    shown = ", ".join(f"{name}: {headers[name]}" for name in names if name in headers)
    return Outcome(f"Headers of a read: {shown}.", timing=timing)


def one_patch(lab: Lab) -> Outcome:
    identity = lab.once("identity", lab.identity)
    vault = lab.once("vault", lambda: lab.vault(identity["principal"]))
    kid = lab.once("key", lambda: lab.key(vault))
    account = lab.once("account", lab.account)
    response = lab.change(account, identity=lab.assigned(identity), properties=lab.encryption(kid))
    lab.settle()
    shown = lab.read(account)["properties"]["encryption"]
    agrees = response.ok and response.document["properties"]["encryption"] == shown
    return Outcome(
        f"A PATCH with identity and key: {response.what}. The account then has the key source {shown['keySource']}. "
        f"The response and the read {'agree' if agrees else 'differ'}."
    )


def changes(lab: Lab) -> Outcome:
    """What a PATCH and another PUT keep."""
    first, second = lab.once("first", lab.identity), lab.once("second", lab.identity)
    kid = lab.once("key", lambda: lab.key(lab.vault(first["principal"], second["principal"])))
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(first, second), tags={"a": "1"}))

    def after(**body: Any) -> str:
        response = lab.change(account, **body)
        lab.settle()
        return f"{response.said}; then {_shown(lab, account)}"

    found = {
        "PATCH with other tags": after(tags={"b": "2"}),
        "PATCH with the tags null": after(tags=None),
        "PATCH with the tags {}": after(tags={}),
        "PATCH with a key": after(properties=lab.encryption(kid)),
        "PATCH with the encryption null": after(properties={"encryption": None}),
        "PATCH with null for an identity": after(
            identity={"type": "UserAssigned", "userAssignedIdentities": {second["id"]: None}}
        ),
    }
    put = lab.azure.arm("PUT", lab.account_path(account), BATCH, {"location": lab.place.location})
    lab.settle()
    found["PUT with the location only"] = f"{put.said}; then {_shown(lab, account)}"
    found["PATCH without an identity"] = after(identity={"type": "None"})
    return Outcome("Changed an account, and read it after each change.", details=found)


def _shown(lab: Lab, account: str) -> str:
    shown = lab.read(account)
    identities = shown["identity"].get("userAssignedIdentities") or {}
    source = shown["properties"]["encryption"]["keySource"]
    return f"tags {shown.get('tags', {})}, {len(identities)} identities, key source {source}"


def conditional_requests(lab: Lab) -> Outcome:
    account = lab.once("account", lab.account)
    lab.settle()
    path = lab.account_path(account)
    shown = lab.azure.arm("GET", path, BATCH)
    etag = shown.headers.get("etag", "")

    def sent(method: str, header: str, value: str) -> str:
        body = {"tags": {"probe": value}} if method == "PATCH" else None
        return lab.azure.arm(method, path, BATCH, body, {header: value}).said

    found = {
        "GET, If-None-Match: the ETag": sent("GET", "If-None-Match", etag),
        "PATCH, If-Match: another ETag": sent("PATCH", "If-Match", '"0x1"'),
        "PATCH, If-Match: the ETag": sent("PATCH", "If-Match", etag),
        "PATCH, If-Match: the ETag before that": sent("PATCH", "If-Match", etag),
    }
    changed = lab.change(account, tags={"probe": "3"})
    again = lab.azure.arm("GET", path, BATCH)
    for header in ("ETag", "Last-Modified"):
        values = f"{changed.headers.get(header)} in the response, {again.headers.get(header)} in the next read"
        found[f"{header} of a PATCH"] = values
    return Outcome("Sent requests with conditions.", details=found)


def rate_limits(lab: Lab) -> Outcome:
    account = lab.once("account", lab.account)
    vault = lab.once("vault", lab.vault)
    path = lab.account_path(account)
    requests = {
        "read the account": partial(lab.azure.arm, "GET", path, BATCH),
        "list the accounts": partial(lab.azure.arm, "GET", lab.accounts_path, BATCH),
        "list the pools": partial(lab.azure.arm, "GET", f"{path}/pools", BATCH),
        "list the keys": partial(lab.azure.arm, "POST", f"{path}/listKeys", BATCH),
        "change the tags": partial(lab.change, account, tags={"probe": "1"}),
        "read the vault": partial(lab.azure.arm, "GET", lab.vault_path(vault), VAULTS),
    }
    found = {}
    for what, request in requests.items():
        counts: dict[str, list[str]] = {}
        for _ in range(_COUNTED):
            for name, value in request().headers.items():
                if name.lower().startswith(_LIMIT):
                    counts.setdefault(name.lower().removeprefix(_LIMIT), []).append(value)
        found[what] = "; ".join(f"{name}: {', '.join(values)}" for name, values in counts.items())
    return Outcome(f"The counters of {_COUNTED} requests of each kind, one after the other.", details=found)


EXPERIMENTS = (
    Experiment(
        "read_lag",
        "How soon does a read show a change?",
        "Change the tags of an account, and read it every second until it shows them.",
        read_lag,
        minutes=1,
        switches={"read_lag": {one: f"after {one} s" for one in POSITIONS["read_lag"]}},
    ),
    Experiment(
        "identities_on_put",
        "Do the user-assigned identities of a PATCH replace those of the account?",
        "Create an account with an identity, send a PATCH with another identity, and read the account.",
        identities_on_put,
        minutes=1,
        switches={"identities_on_put": {"replaced": "only the second is left", "merged": "the account has both"}},
    ),
    Experiment(
        "refused_creation",
        "What is left of a creation with a key that Batch cannot use?",
        "Create an account with the key of a vault in which its identity has no access.",
        refused_creation,
        minutes=2,
        switches={
            "refused_creation": {
                "failed_account": "the operation fails, and an account in the state Failed is left",
                "no_account": "the operation fails, and no account is left",
                "at_once": "the PUT is refused",
            }
        },
        cost="a vault, a key: less than a cent",
    ),
    Experiment(
        "account_life",
        "How long do the creation and the deletion of an account take, and which headers does a read have?",
        "Create, read and delete an account.",
        life,
        minutes=2,
        durations=("batch_create", "batch_delete"),
    ),
    Experiment(
        "identity_and_key_in_one_patch",
        "May one PATCH contain the identity and the key, and does its response agree with the next read?",
        "Create an account without identity, send the PATCH, and read the account.",
        one_patch,
        minutes=2,
        cost="a vault, a key: less than a cent",
    ),
    Experiment(
        "changes",
        "What do a PATCH and another PUT keep of tags, identities and the encryption?",
        "Change an account in several ways, and read it after each change.",
        changes,
        minutes=2,
        cost="a vault, a key: less than a cent",
    ),
    Experiment(
        "conditional_requests",
        "Does Batch evaluate conditions, and do the ETag and the Last-Modified of a change agree with the next read?",
        "Send requests with If-Match and If-None-Match.",
        conditional_requests,
        minutes=1,
    ),
    Experiment(
        "rate_limits",
        "Which requests does Resource Manager count, and in which headers?",
        "Send some requests of each kind one after the other, and compare the headers.",
        rate_limits,
        minutes=2,
        cost="a vault: less than a cent",
    ),
)
