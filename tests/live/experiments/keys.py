# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with keys: those that Batch cannot use, those that are unusual, and the deletion of a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..azure import BATCH, Response
from ..experiment import Experiment, Length, Outcome
from ..lab import EXPIRED, FUTURE, KEY, Identity, Lab, random_name


def _vault(lab: Lab, identity: Identity) -> str:
    """A vault for all keys of an experiment."""
    return lab.once("vault", lambda: lab.vault(identity["principal"]))


def _key(lab: Lab, identity: Identity, **settings: Any) -> str:
    return lab.key(_vault(lab, identity), random_name("k"), **settings)


def _disabled(lab: Lab, identity: Identity) -> str:
    kid = _key(lab, identity)
    lab.enable(kid, enabled=False)
    return kid


def _deleted(lab: Lab, identity: Identity) -> str:
    kid = _key(lab, identity)
    lab.delete_key(kid)
    return kid


# By the problem, how to make the identifier of such a key.
_UNUSABLE: Mapping[str, Callable[[Lab, Identity], str]] = {
    "disabled": _disabled,
    "expired": partial(_key, attributes={"exp": EXPIRED}),
    "not yet valid": partial(_key, attributes={"nbf": FUTURE}),
    "deleted": _deleted,
    "an elliptic-curve key": partial(_key, kty="EC", key_size=None, crv="P-256", key_ops=["sign", "verify"]),
    "a key that may not wrap": partial(_key, key_ops=["unwrapKey"]),
    "a key that may not unwrap": partial(_key, key_ops=["wrapKey"]),
    "a missing key": lambda lab, identity: f"https://{_vault(lab, identity)}.vault.azure.net/keys/missing",
    "a missing version": lambda lab, identity: f"{_key(lab, identity).rpartition('/')[0]}/{'0' * 32}",
    "a missing vault": lambda lab, identity: f"https://{random_name('kv')}.vault.azure.net/keys/{KEY}",
    "a double slash": lambda lab, identity: _key(lab, identity).replace("/keys/", "//keys/"),
    "a short version": lambda lab, identity: _key(lab, identity)[:-8],
    "a managed HSM": lambda lab, identity: f"https://{_vault(lab, identity)}.managedhsm.azure.net/keys/{KEY}",
    "no access": lambda lab, identity: lab.key(lab.vault()),
    "a vault without purge protection": lambda lab, identity: lab.key(
        lab.vault(identity["principal"], is_protected=False)
    ),
}


def refused_keys(lab: Lab) -> Outcome:
    identity = lab.once("identity", lab.identity)
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(identity)))
    found = {}
    for problem, make in _UNUSABLE.items():
        kid = lab.once(problem, partial(make, lab, identity))
        found[f"PATCH, {problem}"] = lab.once(f"PATCH {problem}", partial(_patched, lab, account, kid))
        found[f"creation, {problem}"] = lab.once(f"creation {problem}", partial(_created, lab, identity, kid))
    left = lab.read(account)["properties"]["encryption"]["keySource"]
    taken = [what for what, said in found.items() if said.startswith("2")]
    return Outcome(
        f"The account has the key source {left} after all PATCHes. Accepted: {', '.join(taken) or 'nothing'}.",
        details=found,
    )


def _patched(lab: Lab, account: str, kid: str) -> str:
    response = lab.change(account, properties=lab.encryption(kid))
    if response.ok:
        # So that the next PATCH begins with a Microsoft-managed key too.
        lab.change(account, properties={"encryption": {"keySource": "Microsoft.Batch"}}).required()
    return response.said


def _created(lab: Lab, identity: Identity, kid: str) -> str:
    name = random_name("ba")
    body = {"location": lab.place.location, "identity": lab.assigned(identity), "properties": lab.encryption(kid)}
    end = lab.ended(lab.azure.arm("PUT", lab.account_path(name), BATCH, body))
    left = lab.azure.arm("GET", lab.account_path(name), BATCH)
    if not left.ok:
        return f"{end.said}; no account is left"
    lab.delete_account(name)
    return f"{end.said}; an account in the state {left.document['properties']['provisioningState']} is left"


def which_identity(lab: Lab) -> Outcome:
    """With two identities, of which one has access, and without an identity."""
    first, second = lab.once("first", lab.identity), lab.once("second", lab.identity)
    kid = lab.once("key", lambda: lab.key(lab.vault(second["principal"])))

    def moved(*identities: Identity) -> Response:
        account = lab.account(**({"identity": lab.assigned(*identities)} if identities else {}))
        response = lab.change(account, properties=lab.encryption(kid))
        lab.delete_account(account)
        return response

    found = {
        "access for the second identity of the request": moved(first, second).said,
        "access for the first identity of the request": moved(second, first).said,
        "no identity": moved().said,
    }
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(second)))
    lab.delete_identity(second)
    found["deleted identity"] = lab.change(account, properties=lab.encryption(kid)).said
    return Outcome("Moved accounts with these identities to a key.", details=found)


def _unusual(make: Callable[[Lab, Identity], str], lab: Lab) -> Outcome:
    identity = lab.once("identity", lab.identity)
    kid = lab.once("key", partial(make, lab, identity))
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(identity)))
    response = lab.change(account, properties=lab.encryption(kid))
    return Outcome(f"A PATCH with the key: {response.said}.")


def _far_away(lab: Lab, identity: Identity) -> str:
    location = "northeurope" if lab.place.location != "northeurope" else "westeurope"
    return lab.key(lab.vault(identity["principal"], location=location))


def _in_hardware(lab: Lab, identity: Identity) -> str:
    return lab.key(lab.vault(identity["principal"], sku="premium"), kty="RSA-HSM")


def deletion(lab: Lab) -> Outcome:
    vault = lab.once("vault", lab.vault)
    kid = lab.key(vault, random_name("k"))
    name = kid.split("/")[-2]
    lab.delete_key(kid)
    deleted = lab.until(lambda: lab.azure.vault("GET", vault, f"/deletedkeys/{name}").ok, "the key is deleted", step=2)
    lab.azure.vault("POST", vault, f"/deletedkeys/{name}/recover").required()
    back = lab.until(lambda: lab.azure.vault("GET", vault, f"/keys/{name}").ok, "the key is recovered", step=2)
    seen = f"The deletion took {deleted:.0f} s, the recovery {back:.0f} s."
    return Outcome(seen, timing={"key_delete": deleted, "key_recover": back})


EXPERIMENTS = (
    Experiment(
        "refused_keys",
        "How does Batch refuse a key that it cannot use, in a PATCH and at the creation of an account?",
        f"Move an account to a key, and create an account with the key, for: {', '.join(_UNUSABLE)}.",
        refused_keys,
        minutes=12,
        accounts=2,
        cost="three vaults with keys: some cents",
    ),
    Experiment(
        "which_identity",
        "Which of several identities does Batch use, and what does it say without one?",
        "Move accounts to a key: with two identities of which one has access, without identity, with a deleted one.",
        which_identity,
        minutes=3,
        cost="a vault, a key: less than a cent",
    ),
    Experiment(
        "key_of_another_region",
        "Does Batch accept the key of a vault in another region?",
        "Move an account to a key of a vault in another region.",
        partial(_unusual, _far_away),
        minutes=2,
        cost="a vault, a key: less than a cent",
    ),
    Experiment(
        "key_deletion",
        "How long do the deletion and the recovery of a key take?",
        f"Delete a key like {KEY}, and recover it.",
        deletion,
        minutes=2,
        durations=("key_delete", "key_recover"),
        cost="a vault, a key: less than a cent",
    ),
    Experiment(
        "hsm_key",
        "Does Batch accept a key that an HSM protects?",
        "Move an account to a key of the type RSA-HSM in a premium vault.",
        partial(_unusual, _in_hardware),
        minutes=2,
        length=Length.HOURS,
        cost="a premium vault, an HSM-protected key: about a dollar",
    ),
)
