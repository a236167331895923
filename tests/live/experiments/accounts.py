# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with Batch accounts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from azure_sandbox.shared.behavior import POSITIONS

from ..azure import BATCH, RESOURCE_GRAPH, VAULTS, Response
from ..experiment import Experiment, Outcome
from ..lab import Lab, random_name

_GRAPH_WITHIN = 1800
_LIMIT, _COUNTED = "x-ms-ratelimit-remaining-", 3


def identities_on_put(lab: Lab) -> Outcome:
    first, second = lab.once("first", lab.identity), lab.once("second", lab.identity)
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(first)))
    lab.change(account, identity=lab.assigned(second)).required()
    lab.settle()
    has = [name.lower() for name in lab.read(account)["identity"]["userAssignedIdentities"]]
    if has == [second["id"].lower()]:
        return Outcome("The second identity has replaced the first.", {"identities_on_put": ("replaced",)})
    if sorted(has) == sorted(one["id"].lower() for one in (first, second)):
        return Outcome("The account has both identities.", {"identities_on_put": ("merged",)})
    return Outcome(f"The account has {len(has)} identities, among them not the second.", {"identities_on_put": ()})


def refused_creation(lab: Lab) -> Outcome:
    identity = lab.once("identity", lab.identity)
    # Without access for the identity.
    vault = lab.once("vault", lab.vault)
    kid = lab.once("key", lambda: lab.key(vault))
    body = {"identity": lab.assigned(identity), "properties": lab.encryption(kid)}
    tried = lab.tried(**body)
    # The refusal means the key only if the same request succeeds with access to the key.
    lab.admit(vault, identity["principal"])
    lab.until(lambda: lab.tried(**body).end.ok, "The creation succeeds with access to the key", step=30)
    if not tried.put.ok:
        return Outcome(f"The PUT was refused: {tried.put.what}.", {"refused_creation": ("at_once",)})
    seen = f"The operation ended with {tried.end.what} and left {tried.left}."
    position = {"": "no_account", "Failed": "failed_account"}.get(tried.state)
    return Outcome(seen, {"refused_creation": (position,) if position and not tried.end.ok else ()})


def resource_graph(lab: Lab) -> Outcome:
    account = lab.once("account", lab.account)
    tag = random_name("t")
    change = lab.timed(lambda: lab.change(account, tags={"probe": tag}).required())
    query = f"where resourceGroup =~ '{lab.place.group}' and name =~ '{account}' | project id, tags, properties"
    body = {"subscriptions": [lab.azure.subscription.rpartition("/")[2]], "query": query}
    row: dict[str, Any] = {}

    def is_shown() -> bool:
        response = lab.azure.arm("POST", "/providers/Microsoft.ResourceGraph/resources", RESOURCE_GRAPH, body)
        row.update(next(iter(response.required()["data"]), {}))
        return (row.get("tags") or {}).get("probe") == tag

    span = lab.first(is_shown, change, limit=_GRAPH_WITHIN, step=15)
    if span is None:
        seen = f"Resource Graph did not show the change of an account within {_GRAPH_WITHIN // 60} minutes."
        return Outcome(seen, {"graph_lag": ("never",)})
    lab.case("properties", lambda: ", ".join(sorted(row["properties"])))
    seen = f"Resource Graph showed the change of an account after {span.within:.0f} s."
    return Outcome(seen, spans={"graph_lag": span})


def life(lab: Lab) -> Outcome:
    account = random_name("ba")
    path = lab.account_path(account)
    began, created = lab.precisely(
        lambda: lab.finished(lab.azure.arm("PUT", path, BATCH, {"location": lab.place.location}))
    )
    lab.settle()
    headers = lab.azure.arm("GET", path, BATCH).headers
    deleting, deleted = lab.precisely(lambda: lab.finished(lab.azure.arm("DELETE", path, BATCH)))
    timing = {"batch_create": created - began, "batch_delete": deleted - deleting}
    names = ("ETag", "Last-Modified", *(name for name in headers if name.lower().startswith("x-ms-ratelimit")))
    shown = ", ".join(f"{name}: {headers[name]}" for name in names if name in headers)
    return Outcome(f"Headers of a read: {shown}.", timing=timing)


def one_patch(lab: Lab) -> Outcome:
    identity = lab.once("identity", lab.identity)
    vault = lab.once("vault", lambda: lab.vault(identity["principal"]))
    kid = lab.once("key", lambda: lab.key(vault))
    account = lab.once("account", lab.account)
    response = lab.change(account, identity=lab.assigned(identity), properties=lab.encryption(kid)).checked()
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

    def shown(response: Response) -> str:
        lab.settle()
        return f"{response.checked().said}; then {_shown(lab, account)}"

    def after(**body: Any) -> Callable[[], str]:
        return lambda: shown(lab.change(account, **body))

    # In this order, because each change begins with what the previous one has left.
    cases = {
        "PATCH with other tags": after(tags={"b": "2"}),
        "PATCH with the tags null": after(tags=None),
        "PATCH with the tags {}": after(tags={}),
        "PATCH with a key": after(properties=lab.encryption(kid)),
        "PATCH with the encryption null": after(properties={"encryption": None}),
        "PATCH with null for an identity": after(
            identity={"type": "UserAssigned", "userAssignedIdentities": {second["id"]: None}}
        ),
    }
    put = partial(lab.azure.arm, "PUT", lab.account_path(account), BATCH, {"location": lab.place.location})
    cases["PUT with the location only"] = lambda: shown(put())
    cases["PATCH without an identity"] = after(identity={"type": "None"})
    for what, ask in cases.items():
        lab.case(what, ask)
    return Outcome("Changed an account, and read it after each change.")


def _shown(lab: Lab, account: str) -> str:
    shown = lab.read(account)
    identities = shown["identity"].get("userAssignedIdentities") or {}
    source = shown["properties"]["encryption"]["keySource"]
    return f"tags {shown.get('tags', {})}, {len(identities)} identities, key source {source}"


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
    for what, request in requests.items():
        lab.case(what, partial(_counters, request))
    return Outcome(f"The counters of {_COUNTED} requests of each kind, one after the other.")


def _counters(request: Callable[[], Response]) -> str:
    counts: dict[str, list[str]] = {}
    for _ in range(_COUNTED):
        for name, value in request().checked().headers.items():
            if name.lower().startswith(_LIMIT):
                counts.setdefault(name.lower().removeprefix(_LIMIT), []).append(value)
    return "; ".join(f"{name}: {', '.join(values)}" for name, values in counts.items()) or "no counters"


EXPERIMENTS = (
    Experiment(
        "resource_graph",
        "How soon does Resource Graph show the change of an account?",
        "Change a tag of an account, and query Resource Graph every 15 s until it shows the change.",
        resource_graph,
        minutes=10,
        switches={
            "graph_lag": {one: f"after {one} s" for one in POSITIONS["graph_lag"] if one != "never"}
            | {"never": f"not within {_GRAPH_WITHIN} s"},
        },
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
        "Create an account with the key of a vault in which its identity has no access, and again with access.",
        refused_creation,
        minutes=2,
        switches={
            "refused_creation": {
                "failed_account": "the operation fails, and an account in the state Failed is left",
                "no_account": "the operation fails, and no account is left",
                "at_once": "the PUT is refused",
            }
        },
        creates="a vault, a key",
        cents=1,
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
        creates="a vault, a key",
        cents=1,
    ),
    Experiment(
        "changes",
        "What do a PATCH and another PUT keep of tags, identities and the encryption?",
        "Change an account in several ways, and read it after each change.",
        changes,
        minutes=2,
        creates="a vault, a key",
        cents=1,
    ),
    Experiment(
        "rate_limits",
        "Which requests does Resource Manager count, and in which headers?",
        "Send some requests of each kind one after the other, and compare the headers.",
        rate_limits,
        minutes=2,
        creates="a vault",
        cents=1,
    ),
)
