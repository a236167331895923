# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with accounts that lose their key, each in another way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce

from azure_sandbox.shared.behavior import POSITIONS

from ..experiment import Experiment, Length, Outcome
from ..lab import EXPIRED, FUTURE, Identity, Lab, measured, vault_of

STEP = 60
# The longest time until Batch notices that it cannot use the key, with some reserve, in seconds.
NOTICED_WITHIN = 2 * 3600
_RECOVERED_WITHIN = 3600
_NOTICED, _POOLS = POSITIONS["key_loss_noticed"], POSITIONS["pools_without_key"]

# By the way in which the account loses its key: what takes the key away, and what restores it. The arguments are the
# identifier of the key, and the principal of the account.
_WAYS: Mapping[str, tuple[Callable[[Lab, str, str], object], Callable[[Lab, str, str], object]]] = {
    "the key was disabled": (
        lambda lab, kid, _: lab.enable(kid, enabled=False),
        lambda lab, kid, _: lab.enable(kid, enabled=True),
    ),
    "the key has expired": (
        lambda lab, kid, _: lab.update_key(kid, exp=EXPIRED),
        lambda lab, kid, _: lab.update_key(kid, exp=FUTURE),
    ),
    "the key was deleted": (lambda lab, kid, _: lab.delete_key(kid), lambda lab, kid, _: lab.recover_key(kid)),
    "the operation unwrapKey was taken from the key": (
        lambda lab, kid, _: lab.allow(kid, "wrapKey"),
        lambda lab, kid, _: lab.allow(kid, "wrapKey", "unwrapKey"),
    ),
    "the access was revoked": (
        lambda lab, kid, principal: lab.dismiss(vault_of(kid), principal),
        lambda lab, kid, principal: lab.admit(vault_of(kid), principal),
    ),
    "the vault was closed": (
        lambda lab, kid, _: lab.open_vault(vault_of(kid), is_open=False),
        lambda lab, kid, _: lab.open_vault(vault_of(kid), is_open=True),
    ),
    "the vault was deleted": (
        lambda lab, kid, _: lab.delete_vault(vault_of(kid)),
        lambda lab, kid, _: lab.recover_vault(vault_of(kid)),
    ),
}


def loss(lab: Lab) -> Outcome:
    identity = lab.once("identity", lab.identity)
    principal = identity["principal"]
    accounts: dict[str, tuple[str, str]] = {}
    for way in _WAYS:
        kid = lab.once(f"key, {way}", lambda: lab.key(lab.vault(principal)))
        accounts[way] = (kid, lab.once(f"account, {way}", partial(lab.account_on_key, kid, identity)))
    for way, (kid, _account) in accounts.items():
        lab.once(f"lost, {way}", partial(lab.timed, partial(_WAYS[way][0], lab, kid, principal)))
    noticed = _first_times(lab, "noticed", accounts, NOTICED_WITHIN, STEP, lab.is_refused)
    refusals = {
        way: lab.once(f"refusals, {way}", partial(_refusals, lab, account))
        for way, (_kid, account) in accounts.items()
        if noticed[way] is not None
    }
    for way, (kid, _account) in accounts.items():
        lab.once(f"restored, {way}", partial(lab.timed, partial(_WAYS[way][1], lab, kid, principal)))
    back = _first_times(lab, "back", accounts, _RECOVERED_WITHIN, 30, lambda account: not lab.is_refused(account))
    statuses = {one["list the pools"].partition(" ")[0] for one in refusals.values()}
    positions = (set(measured(_NOTICED, seconds, STEP)) for seconds in noticed.values())
    common = reduce(set.intersection, positions)
    known = [seconds for seconds in back.values() if seconds is not None]
    return Outcome(
        " ".join(_sentence(way, noticed[way], back[way]) for way in accounts),
        {
            "key_loss_noticed": tuple(one for one in _NOTICED if one in common),
            "pools_without_key": tuple(one for one in _POOLS if statuses == {one}),
        },
        {"batch_recovery": max(known)} if known else {},
        {f"After {way}: {what}": said for way, one in refusals.items() for what, said in one.items()},
    )


def weaknesses(lab: Lab) -> Outcome:
    """Changes after which an account may still have its key."""
    identities = {way: lab.once(f"identity, {way}", lab.identity) for way in _WEAKNESSES}
    accounts: dict[str, tuple[str, str]] = {}
    for way, identity in identities.items():
        kid = lab.once(f"key, {way}", partial(_key_for, lab, identity))
        accounts[way] = (kid, lab.once(f"account, {way}", partial(lab.account_on_key, kid, identity)))
    found = {
        way: lab.once(f"done, {way}", partial(_WEAKNESSES[way], lab, *accounts[way], identities[way]))
        for way in accounts
    }
    noticed = _first_times(lab, "noticed", accounts, NOTICED_WITHIN, STEP, lab.is_refused)
    for way, (_kid, account) in accounts.items():
        seconds = noticed[way]
        found[f"After {way}"] = (
            f"Batch refused nothing within {NOTICED_WITHIN // 3600} hours"
            if seconds is None
            else f"Batch refused something after {seconds:.0f} s: {_refusals(lab, account)}"
        )
    return Outcome("Watched accounts after such changes.", details=found)


def _key_for(lab: Lab, identity: Identity) -> str:
    return lab.key(lab.vault(identity["principal"]))


def _take_wrap(lab: Lab, kid: str, _account: str, _identity: Identity) -> str:
    lab.allow(kid, "unwrapKey")
    return "done"


def _remove_identity(lab: Lab, _kid: str, account: str, _identity: Identity) -> str:
    return lab.change(account, identity={"type": "None"}).said


def _delete_identity(lab: Lab, _kid: str, _account: str, identity: Identity) -> str:
    lab.delete_identity(identity)
    return "done"


_WEAKNESSES = {
    "the operation wrapKey was taken from the key": _take_wrap,
    "the identity was removed from the account": _remove_identity,
    "the identity was deleted": _delete_identity,
}


def _first_times(
    lab: Lab,
    what: str,
    accounts: Mapping[str, tuple[str, str]],
    limit: float,
    step: float,
    condition: Callable[[str], bool],
) -> dict[str, float | None]:
    """By the way, after how many seconds the condition was true for the account; None if not within the limit. The
    accounts are asked together, because each of them may take hours."""
    began = lab.once(f"{what}, began", lab.clock.now)
    while True:
        for way, (_kid, account) in accounts.items():
            if not lab.knows(f"{what}, {way}") and condition(account):
                lab.once(f"{what}, {way}", lambda: lab.clock.now() - began)
        left = [way for way in accounts if not lab.knows(f"{what}, {way}")]
        if not left or lab.clock.now() - began > limit:
            return {way: None if way in left else lab.once(f"{what}, {way}", lambda: 0.0) for way in accounts}
        lab.clock.wait(step)


def _refusals(lab: Lab, account: str) -> dict[str, str]:
    """The responses to requests, refused and accepted ones."""
    state = lab.read(account)["properties"]["provisioningState"]
    said = {what: response.said for what, response in lab.uses(account).items()}
    return {**said, "list the pools in the data plane": lab.data_plane(account), "state in a read": state}


def _sentence(way: str, noticed: float | None, back: float | None) -> str:
    if noticed is None:
        return f"After {way}, Batch refused nothing within {NOTICED_WITHIN // 3600} hours."
    again = "was not available within an hour" if back is None else f"was available again after {back:.0f} s"
    return f"After {way}, Batch noticed it after {noticed:.0f} s. With the key, the account {again}."


EXPERIMENTS = (
    Experiment(
        "key_loss",
        "How soon does Batch notice that it cannot use a key, how does it respond then, and how soon does it recover?",
        "Take the key away from seven accounts, each in another way. Ask every minute until Batch refuses something, "
        "and give the keys back.",
        loss,
        minutes=190,
        accounts=len(_WAYS),
        length=Length.HOURS,
        switches={
            "key_loss_noticed": {one: f"after {one} s" for one in _NOTICED},
            "pools_without_key": {one: f"the status {one}" for one in _POOLS},
        },
        durations=("batch_recovery",),
        cost="seven vaults with a key each: some cents",
    ),
    Experiment(
        "weaknesses",
        "Does an account keep its key without the operation wrapKey, or without its identity?",
        "Take them from three accounts, and ask every minute for two hours whether Batch refuses something.",
        weaknesses,
        minutes=125,
        accounts=len(_WEAKNESSES),
        length=Length.HOURS,
        cost="three vaults with a key each: some cents",
    ),
)
