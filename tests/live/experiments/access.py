# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with access to keys, and with versions of Key Vault's management API."""

from __future__ import annotations

from datetime import UTC, datetime

from azure_sandbox.shared.behavior import POSITIONS

from ..experiment import Experiment, Outcome
from ..lab import Identity, Lab, measured

_RETIREMENT = datetime(2027, 2, 27, tzinfo=UTC)
_RETIRED = "2023-07-01"
_STEP = 5


def new_principal(lab: Lab) -> Outcome:
    vault = lab.once("vault", lambda: lab.vault(roles=True))
    identity = lab.identity()
    response = lab.assign(lab.vault_path(vault), identity["principal"], kind=None)
    if response.ok:
        return Outcome("The assignment was accepted.", {"new_principal": ("known",)})
    seen = f"The assignment was refused: {response.what}."
    return Outcome(seen, {"new_principal": ("unknown",) if response.code == "PrincipalNotFound" else ()})


def role_delay(lab: Lab) -> Outcome:
    # The caller creates the key in an open vault, which then changes to Azure RBAC.
    identity, vault, kid, account = _without_access(lab)
    lab.once("roles", lambda: lab.use_roles(vault))
    lab.assign(lab.vault_path(vault), identity["principal"]).required()
    seconds = lab.first(lambda: lab.change(account, properties=lab.encryption(kid)).ok, limit=1500, step=_STEP)
    if seconds is None:
        return Outcome("Batch could not use the key after 25 minutes.", {"role_delay": ()})
    consistent = {"role_delay": measured(POSITIONS["role_delay"], seconds, _STEP)}
    seen = f"Batch accepted the key {seconds:.0f} s after the assignment."
    return Outcome(seen, consistent, {"role_propagation": seconds})


def policy_delay(lab: Lab) -> Outcome:
    identity, vault, kid, account = _without_access(lab)
    refused = lab.change(account, properties=lab.encryption(kid))
    lab.admit(vault, identity["principal"])
    seconds = lab.until(
        lambda: lab.change(account, properties=lab.encryption(kid)).ok, "Batch can use the key", step=_STEP
    )
    seen = f"Without access: {refused.what}. Batch accepted the key {seconds:.0f} s after the access policy was added."
    return Outcome(seen, timing={"policy_propagation": seconds})


def _without_access(lab: Lab) -> tuple[Identity, str, str, str]:
    """An identity, a vault and a key to which it has no access, and an account with the identity."""
    identity = lab.once("identity", lab.identity)
    vault = lab.once("vault", lab.vault)
    kid = lab.once("key", lambda: lab.key(vault))
    return identity, vault, kid, lab.once("account", lambda: lab.account(identity=lab.assigned(identity)))


def vault_creation(lab: Lab) -> Outcome:
    began = lab.clock.now()
    lab.vault()
    seconds = lab.clock.now() - began
    return Outcome(f"The vault was ready after {seconds:.0f} s.", timing={"vault_dns": seconds})


def retired_versions(lab: Lab) -> Outcome:
    vault = lab.once("vault", lab.vault)
    response = lab.azure.arm("GET", lab.vault_path(vault), _RETIRED)
    seen = f"A read with api-version {_RETIRED}: {response.what}."
    if lab.clock.now() < _RETIREMENT.timestamp():
        return Outcome(f"{seen} The version retires on 27 February 2027; ask again then.")
    return Outcome(seen, {"retired_versions": ("taken",) if response.ok else ("refused",)})


EXPERIMENTS = (
    Experiment(
        "new_principal",
        "Does a role assignment without principalType find an identity that was created a moment ago?",
        "Create an identity, and assign a role at a vault to it at once.",
        new_principal,
        minutes=2,
        switches={"new_principal": {"unknown": "400 PrincipalNotFound", "known": "the assignment is accepted"}},
        cost="a vault: less than a cent",
    ),
    Experiment(
        "role_delay",
        "How soon can Batch use a key after its identity got a role?",
        "Assign the role to the identity of an account, and move the account to the key every 5 s until Batch accepts.",
        role_delay,
        minutes=11,
        switches={"role_delay": {one: f"after {one} s" for one in POSITIONS["role_delay"]}},
        durations=("role_propagation",),
        cost="a vault, a key: less than a cent",
    ),
    Experiment(
        "policy_delay",
        "How does Batch refuse a key without access, and how soon can it use the key after an access policy was added?",
        "Move an account to the key before and after the access policy.",
        policy_delay,
        minutes=3,
        durations=("policy_propagation",),
        cost="a vault, a key: less than a cent",
    ),
    Experiment(
        "vault_creation",
        "How long does the creation of a vault take?",
        "Create a vault, and read it every 5 s until it is ready.",
        vault_creation,
        minutes=1,
        durations=("vault_dns",),
        cost="a vault: less than a cent",
    ),
    Experiment(
        "retired_versions",
        "Does Azure accept a version of Key Vault's management API after its retirement?",
        "Read a vault with an old version.",
        retired_versions,
        minutes=1,
        switches={"retired_versions": {"refused": "the read is refused", "taken": "the read is accepted"}},
        cost="a vault: less than a cent",
    ),
)
