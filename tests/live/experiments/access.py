# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with access to keys, and with versions of Key Vault's management API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from azure_sandbox.shared.behavior import POSITIONS

from ..azure import VAULTS, Disturbed, NoResult
from ..experiment import Experiment, Outcome
from ..lab import PATIENCE, Lab, Moment, Span, common, longer_than, random_name

_RETIREMENT = datetime(2027, 2, 27, tzinfo=UTC)
_RETIRED = "2023-07-01"
# How Resource Manager refuses a version that does not exist.
_UNKNOWN_VERSION = ("InvalidApiVersionParameter", "InvalidResourceType", "NoRegisteredProviderFound")
_STEP = 5


def new_principal(lab: Lab) -> Outcome:
    vault = lab.once("vault", lambda: lab.vault(roles=True))
    with lab.azure.undisturbed():
        identity = lab.identity()
        response = lab.assign(lab.vault_path(vault), identity["principal"], kind=None)
    if response.ok:
        return Outcome("The assignment was accepted.", {"new_principal": ("known",)})
    if response.code != "PrincipalNotFound":
        raise NoResult(f"The assignment was refused: {response.said}.")
    return Outcome(f"The assignment was refused: {response.what}.", {"new_principal": ("unknown",)})


def role_delay(lab: Lab) -> Outcome:
    # The caller creates the key in a vault with access policies, which then changes to Azure RBAC.
    identity = lab.once("identity", lab.identity)
    vault = lab.once("vault", lambda: lab.vault(identity["principal"]))
    kid = lab.once("key", lambda: lab.key(vault))
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(identity)))
    usable = partial(_is_usable, lab, account, kid)
    lab.once("usable", lambda: lab.until(usable, "Batch can use the key"))
    lab.once("roles", lambda: lab.use_roles(vault))
    # That change takes time too.
    lab.once("applied", lambda: lab.until(lambda: not usable(), "The vault applies Azure RBAC"))
    _require_available(lab)
    assign = partial(lab.assign, lab.vault_path(vault), identity["principal"])
    assigned = lab.once("assigned", lambda: lab.timed(lambda: assign().required()))
    span = lab.first(partial(_accepts, lab, account, kid), assigned, limit=1500, step=_STEP)
    if span is None:
        return Outcome("Batch could not use the key after 25 minutes.", spans={"role_delay": longer_than(1500)})
    seen = f"Batch accepted the key {span.within:.0f} s after the assignment."
    return Outcome(seen, timing={"role_propagation": span.within}, spans={"role_delay": span})


def policy_delay(lab: Lab) -> Outcome:
    identity = lab.once("identity", lab.identity)
    # Without access for the identity.
    vault = lab.once("vault", lab.vault)
    kid = lab.once("key", lambda: lab.key(vault))
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(identity)))
    lab.case("a key without access", lambda: lab.change(account, properties=lab.encryption(kid)).checked().said)
    admitted = lab.once("admitted", lambda: lab.timed(lambda: lab.admit(vault, identity["principal"])))
    span = lab.first(partial(_accepts, lab, account, kid), admitted, limit=PATIENCE, step=_STEP)
    if span is None:
        raise NoResult(f"Batch could not use the key {PATIENCE} s after the access policy was added.")
    seen = f"Batch accepted the key {span.within:.0f} s after the access policy was added."
    return Outcome(seen, timing={"policy_propagation": span.within})


def _accepts(lab: Lab, account: str, kid: str) -> bool:
    return lab.change(account, properties=lab.encryption(kid)).checked().ok


def _is_usable(lab: Lab, account: str, kid: str) -> bool:
    """Whether the account can change to the key. Then it changes back."""
    if not _accepts(lab, account, kid):
        return False
    back = lab.change(account, properties={"encryption": {"keySource": "Microsoft.Batch"}})
    if back.code == "KeyVaultKeyNotAccessible":
        lab.note("lost", True)
        return False
    back.required()
    return True


def _require_available(lab: Lab) -> None:
    """Begin again if the access ended between the two changes of `_is_usable`. Batch may need time until such an
    account accepts a key again, and that would be measured too."""
    if lab.knows("lost"):
        raise Disturbed("The account lost its key between two changes.")


def permission_model(lab: Lab) -> Outcome:
    """A vault with access policies is changed to Azure RBAC and back."""
    identity = lab.once("identity", lab.identity)
    vault = lab.once("vault", lambda: lab.vault(identity["principal"]))
    kid = lab.once("key", lambda: lab.key(vault))
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(identity)))

    def policies() -> int:
        lab.settle()
        document = lab.azure.arm("GET", lab.vault_path(vault), VAULTS).required()
        return len(document["properties"].get("accessPolicies") or ())

    usable = partial(_is_usable, lab, account, kid)
    lab.once("usable", lambda: lab.until(usable, "Batch can use the key"))
    before = lab.once("before", policies)
    refused = _changed_model(lab, vault, lambda: not usable(), roles=True)
    left = lab.once("left", policies)
    added = "an access policy is added to a vault that uses Azure RBAC"
    lab.case(added, lambda: lab.put_policies(vault, "add", identity["principal"]).checked().said)
    accepted = {"2": "accepted", "4": "refused"}.get(lab.answers.get(added, "")[:1])
    seen = f"Changed to Azure RBAC: Batch could not use the key {_when(refused)}, "
    seen += f"and the vault showed {left} of {before} access policies."
    back = None
    if left == before:
        _require_available(lab)
        back = _changed_model(lab, vault, usable, roles=False)
        seen += f" Changed back: Batch could use the key {_when(back)}."
    spans = [one for one in (refused, back) if one is not None]
    return Outcome(
        seen,
        {
            # Azure may keep some, which no position explains.
            "policies_after_change": {before: ("kept",), 0: ("dropped",)}.get(left, ()),
            **({"policies_of_rbac_vault": (accepted,)} if accepted else {}),
        },
        spans={"permission_model_delay": common(spans) if spans else longer_than(1500)},
    )


def _changed_model(lab: Lab, vault: str, applies: Callable[[], bool], *, roles: bool) -> Span | None:
    """When a change of the permission model of a vault applies."""
    change = lab.once(f"roles {roles}", lambda: lab.timed(lambda: lab.use_roles(vault, roles=roles)))
    return lab.first(applies, change, limit=1500, step=_STEP)


def _when(span: Span | None) -> str:
    return "not within 25 minutes" if span is None else f"after {span.within:.0f} s"


def vault_creation(lab: Lab) -> Outcome:
    def create() -> tuple[str, Moment]:
        name = random_name("kv")
        return name, lab.precisely(lambda: lab.put_vault(name))

    # Of the same vault, if the experiment is continued.
    name, created = lab.once("vault", create)

    def is_ready() -> bool:
        read = lab.azure.arm("GET", lab.vault_path(name), VAULTS)
        if read.status == 404:
            # The creation may have ended: reads may show a new name late.
            raise Disturbed("A read did not show the vault.")
        return bool(read.required()["properties"]["provisioningState"] == "Succeeded")

    asked = {"ready": is_ready, "resolves": lambda: lab.resolves(name)}
    found = lab.first_times(
        "vault", dict.fromkeys(asked, created), lambda what: "yes" if asked[what]() else "", limit=PATIENCE, step=1
    )
    if len(found) < len(asked):
        raise NoResult("The creation of the vault could not be watched.")
    ready, resolves = found["ready"][0], found["resolves"][0]
    if ready is None:
        raise NoResult(f"The vault was not ready within {PATIENCE} s.")
    # If no read showed that the vault was not ready yet, only the reads may have been late.
    timing = {"vault_dns": ready.within} if ready.after or ready.within < _STEP else {}
    seen = f"A read showed after {ready.within:.0f} s that the vault was ready."
    if resolves is None:
        seen += f" Its name did not resolve within {PATIENCE} s."
        return Outcome(seen, timing=timing, spans={"vault_name_delay": longer_than(PATIENCE)})
    seen += f" Its name resolved after {resolves.within:.0f} s."
    # A read shows late that the vault is ready.
    ready_after = max(ready.after - lab.bounds("value_lag")[1], 0.0)
    delay = Span(max(resolves.after - ready.within, 0.0), resolves.within - ready_after)
    return Outcome(seen, timing=timing, spans={"vault_name_delay": delay})


def retired_versions(lab: Lab) -> Outcome:
    vault = lab.once("vault", lab.vault)
    response = lab.azure.arm("GET", lab.vault_path(vault), _RETIRED).checked()
    seen = f"A read with api-version {_RETIRED}: {response.what}."
    if lab.clock.now() < _RETIREMENT.timestamp():
        reason = "the version retires on 27 February 2027; run the experiment again then"
        return Outcome(seen, not_yet={"retired_versions": reason})
    if not response.ok and response.code not in _UNKNOWN_VERSION:
        raise NoResult(seen)
    return Outcome(seen, {"retired_versions": ("taken",) if response.ok else ("refused",)})


EXPERIMENTS = (
    Experiment(
        "new_principal",
        "Does a role assignment without principalType find an identity that was created a moment ago?",
        "Create an identity, and assign a role at a vault to it at once.",
        new_principal,
        minutes=2,
        switches={"new_principal": {"unknown": "400 PrincipalNotFound", "known": "the assignment is accepted"}},
        creates="a vault",
        cents=1,
    ),
    Experiment(
        "role_delay",
        "How soon can Batch use a key after its identity got a role?",
        "Assign the role to the identity of an account, and move the account to the key every 5 s until Batch accepts.",
        role_delay,
        minutes=11,
        switches={"role_delay": {one: f"after {one} s" for one in POSITIONS["role_delay"]}},
        durations=("role_propagation",),
        creates="a vault, a key",
        cents=1,
    ),
    Experiment(
        "policy_delay",
        "How does Batch refuse a key without access, and how soon can it use the key after an access policy was added?",
        "Move an account to the key before and after the access policy.",
        policy_delay,
        minutes=3,
        durations=("policy_propagation",),
        creates="a vault, a key",
        cents=1,
    ),
    Experiment(
        "permission_model",
        "Does a vault keep its access policies when it changes to Azure RBAC and back, and how soon does that apply?",
        "Change a vault with access policies to Azure RBAC and back, and move an account to its key every 5 s.",
        permission_model,
        minutes=15,
        switches={
            "permission_model_delay": {one: f"after {one} s" for one in POSITIONS["permission_model_delay"]},
            "policies_after_change": {"dropped": "the vault has none", "kept": "the vault has them"},
            "policies_of_rbac_vault": {"accepted": "a policy can be added", "refused": "it cannot"},
        },
        creates="a vault, a key",
        cents=1,
    ),
    Experiment(
        "vault_creation",
        "How long does the creation of a vault take, and how soon does its name resolve?",
        "Create a vault, read it every second until it is ready, and send requests to it until it responds.",
        vault_creation,
        minutes=2,
        switches={"vault_name_delay": {one: f"after {one} s" for one in POSITIONS["vault_name_delay"]}},
        durations=("vault_dns",),
        creates="a vault",
        cents=1,
    ),
    Experiment(
        "retired_versions",
        "Does Azure accept a version of Key Vault's management API after its retirement?",
        "Read a vault with an old version.",
        retired_versions,
        minutes=1,
        switches={"retired_versions": {"refused": "the read is refused", "taken": "the read is accepted"}},
        creates="a vault",
        cents=1,
    ),
)
