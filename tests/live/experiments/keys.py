# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with keys: those that Batch cannot use, those that are unusual, and the deletion of a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..azure import NoResult
from ..experiment import Experiment, Length, Outcome
from ..lab import EXPIRED, FUTURE, KEY, PATIENCE, Identity, Lab, random_name


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
    kids = {problem: partial(lab.once, problem, partial(make, lab, identity)) for problem, make in _UNUSABLE.items()}
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(identity)))
    for problem, kid in kids.items():
        lab.case(f"PATCH, {problem}", partial(_patched, lab, account, kid))
    left = lab.read(account)["properties"]["encryption"]["keySource"]
    # The quota of a region can be one account.
    lab.forget("account")
    lab.delete_accounts()
    for problem, kid in kids.items():
        lab.case(f"creation, {problem}", partial(_created, lab, identity, kid))
    taken = [what for what, said in lab.answers.items() if said.startswith("2")]
    return Outcome(
        f"The account has the key source {left} after all PATCHes. Accepted: {', '.join(taken) or 'nothing'}."
    )


def _patched(lab: Lab, account: str, kid: Callable[[], str]) -> str:
    response = lab.change(account, properties=lab.encryption(kid())).checked()
    if response.ok:
        # So that the next PATCH begins with a Microsoft-managed key too.
        lab.change(account, properties={"encryption": {"keySource": "Microsoft.Batch"}}).required()
    return response.said


def _created(lab: Lab, identity: Identity, kid: Callable[[], str]) -> str:
    tried = lab.tried(identity=lab.assigned(identity), properties=lab.encryption(kid()))
    return f"{tried.end.said}; {tried.left} is left"


def which_identity(lab: Lab) -> Outcome:
    """With two identities, of which one has access, and without an identity."""
    first, second = lab.once("first", lab.identity), lab.once("second", lab.identity)
    kid = lab.once("key", lambda: lab.key(lab.vault(second["principal"])))

    def moved(*identities: Identity) -> str:
        account = lab.account(**({"identity": lab.assigned(*identities)} if identities else {}))
        response = lab.change(account, properties=lab.encryption(kid))
        lab.delete_account(account)
        return response.checked().said

    def moved_without_identity() -> str:
        account = lab.account(identity=lab.assigned(second))
        lab.delete_identity(second)
        return lab.change(account, properties=lab.encryption(kid)).checked().said

    lab.case("access for the second identity of the request", partial(moved, first, second))
    lab.case("access for the first identity of the request", partial(moved, second, first))
    lab.case("no identity", moved)
    lab.case("deleted identity", moved_without_identity)
    return Outcome("Moved accounts with these identities to a key.")


def _unusual(make: Callable[[Lab, Identity], str], lab: Lab) -> Outcome:
    identity = lab.once("identity", lab.identity)
    kid = lab.once("key", partial(make, lab, identity))
    account = lab.once("account", lambda: lab.account(identity=lab.assigned(identity)))
    response = lab.change(account, properties=lab.encryption(kid)).checked()
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
    recover = partial(lab.azure.vault, "POST", vault, f"/deletedkeys/{name}/recover")
    deleted = _time(lab, lambda: lab.delete_key(kid), f"/deletedkeys/{name}", vault)
    back = _time(lab, lambda: recover().required(), f"/keys/{name}", vault)
    seen = f"The deletion took {deleted:.0f} s, the recovery {back:.0f} s."
    return Outcome(seen, timing={"key_delete": deleted, "key_recover": back})


def _time(lab: Lab, change: Callable[[], object], path: str, vault: str) -> float:
    """How many seconds after a change of the vault it has what the path names."""
    span = lab.first(lambda: lab.azure.vault("GET", vault, path).ok, lab.precisely(change), limit=PATIENCE, step=2)
    if span is None:
        raise NoResult(f"GET {path}: not within {PATIENCE} seconds.")
    return span.within


EXPERIMENTS = (
    Experiment(
        "refused_keys",
        "How does Batch refuse a key that it cannot use, in a PATCH and at the creation of an account?",
        f"Move an account to a key, and create an account with the key, for: {', '.join(_UNUSABLE)}.",
        refused_keys,
        minutes=12,
        creates="three vaults with keys",
        cents=3,
    ),
    Experiment(
        "which_identity",
        "Which of several identities does Batch use, and what does it say without one?",
        "Move accounts to a key: with two identities of which one has access, without identity, with a deleted one.",
        which_identity,
        minutes=3,
        creates="a vault, a key",
        cents=1,
    ),
    Experiment(
        "key_of_another_region",
        "Does Batch accept the key of a vault in another region?",
        "Move an account to a key of a vault in another region.",
        partial(_unusual, _far_away),
        minutes=2,
        creates="a vault, a key",
        cents=1,
    ),
    Experiment(
        "key_deletion",
        "How long do the deletion and the recovery of a key take?",
        f"Delete a key like {KEY}, and recover it.",
        deletion,
        minutes=2,
        durations=("key_delete", "key_recover"),
        creates="a vault, a key",
        cents=1,
    ),
    Experiment(
        "hsm_key",
        "Does Batch accept a key that an HSM protects?",
        "Move an account to a key of the type RSA-HSM in a premium vault.",
        partial(_unusual, _in_hardware),
        minutes=2,
        length=Length.HOURS,
        creates="a premium vault, an HSM-protected key",
        cents=100,
    ),
)
