# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with accounts that lose their key, each in another way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from azure_sandbox.shared.behavior import POSITIONS

from ..azure import NoResult
from ..experiment import Experiment, Length, Outcome
from ..lab import EXPIRED, FUTURE, Identity, Lab, Moment, Span, common, longer_than, vault_of

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
    """The ways in which an account loses its key, as many at once as there may be accounts."""
    sentences: list[str] = []
    noticed: list[Span] = []
    back: list[float] = []
    ways = [*_WAYS]
    while ways:
        some, ways = ways[: lab.free_accounts], ways[lab.free_accounts :]
        sentences += _lost(lab, some, noticed, back)
    if not sentences:
        raise NoResult("No account has lost its key.")
    answers = [lab.answers.get(f"After {way}: list the pools") for way in _WAYS]
    statuses = {answer.partition(" ")[0] for answer in answers if answer}
    positions = {"pools_without_key": tuple(one for one in _POOLS if statuses == {one})} if statuses else {}
    timing = {"batch_recovery": max(back)} if back else {}
    span = common(noticed) if noticed else longer_than(NOTICED_WITHIN)
    return Outcome(" ".join(sentences), positions, timing, spans={"key_loss_noticed": span})


def _lost(lab: Lab, ways: Sequence[str], noticed: list[Span], back: list[float]) -> list[str]:
    """Take the key away from an account in each of the ways, and give the key back. Adds when Batch noticed the loss,
    and how long Batch needed to recover. Returns a sentence for each way."""
    identity = lab.once("identity", lab.identity)
    principal = identity["principal"]
    kids = lab.each("key", ways, lambda _: lab.key(lab.vault(principal)))
    accounts = lab.each("account", kids, lambda way: lab.account_on_key(kids[way], identity))
    lost = lab.each("lost", accounts, lambda way: lab.timed(partial(_WAYS[way][0], lab, kids[way], principal)))
    refused = _noticed(lab, accounts, lost)
    unavailable = {way: accounts[way] for way, (span, _) in refused.items() if span is not None}
    for way, account in unavailable.items():
        _ask_without_key(lab, way, account)
    restored = lab.each("restored", lost, lambda way: lab.timed(partial(_WAYS[way][1], lab, kids[way], principal)))
    changes = {way: restored[way] for way in unavailable if way in restored}

    def works(way: str) -> str:
        return "" if lab.refusal(accounts[way]) else "everything"

    available = lab.first_times("back", changes, works, limit=_RECOVERED_WITHIN, step=30)
    if len(ways) < len(_WAYS):
        lab.delete_accounts()
    noticed += [span for span, _ in refused.values() if span is not None]
    back += [span.within for span, _ in available.values() if span is not None]
    return [_sentence(way, *refused[way], available.get(way, (None, ""))[0]) for way in refused]


def weaknesses(lab: Lab) -> Outcome:
    """Changes after which an account may still have its key."""
    identities = lab.each("identity", _WEAKNESSES, lambda _: lab.identity())
    kids = lab.each("key", identities, lambda way: lab.key(lab.vault(identities[way]["principal"])))
    accounts = lab.each("account", kids, lambda way: lab.account_on_key(kids[way], identities[way]))

    def weaken(way: str) -> Moment:
        return lab.timed(lambda: _WEAKNESSES[way](lab, kids[way], accounts[way], identities[way]))

    done = lab.each("done", accounts, weaken)
    refused = _noticed(lab, accounts, done)
    for way, (span, _first) in refused.items():
        if span is not None:
            _ask_without_key(lab, way, accounts[way])
    return Outcome(" ".join(_sentence(way, *one, None) for way, one in refused.items()))


def _remove_identity(lab: Lab, account: str) -> None:
    # Batch may refuse this, which is a result too.
    change = partial(lab.change, account, identity={"type": "None"})
    lab.case("PATCH without the identity", lambda: change().checked().said)


_WEAKNESSES: Mapping[str, Callable[[Lab, str, str, Identity], object]] = {
    "the operation wrapKey was taken from the key": lambda lab, kid, _account, _identity: lab.allow(kid, "unwrapKey"),
    "the identity was removed from the account": lambda lab, _kid, account, _identity: _remove_identity(lab, account),
    "the identity was deleted": lambda lab, _kid, _account, identity: lab.delete_identity(identity),
}


def _noticed(
    lab: Lab, accounts: Mapping[str, str], changes: Mapping[str, Moment]
) -> dict[str, tuple[Span | None, str]]:
    """By the way, when Batch refused something after the change, and what it refused first."""
    return lab.first_times("noticed", changes, lambda way: lab.refusal(accounts[way]), limit=NOTICED_WITHIN, step=STEP)


def _ask_without_key(lab: Lab, way: str, account: str) -> None:
    """How Batch responds to requests for an account whose loss it has noticed."""
    for what, request in lab.uses(account).items():
        lab.case(f"After {way}: {what}", lambda request=request: lab.without_key(request).said)  # type: ignore[misc]
    lab.case(f"After {way}: list the pools in the data plane", partial(lab.data_plane, account))
    lab.case(f"After {way}: state in a read", lambda: str(lab.read(account)["properties"]["provisioningState"]))


def _sentence(way: str, noticed: Span | None, first: str, back: Span | None) -> str:
    if noticed is None:
        return f"After {way}, Batch refused nothing within {NOTICED_WITHIN // 3600} hours."
    seen = f"After {way}, Batch refused something after {noticed.within:.0f} s, first: {first}."
    return seen if back is None else f"{seen} With the key, the account was available again after {back.within:.0f} s."


EXPERIMENTS = (
    Experiment(
        "key_loss",
        "How soon does Batch notice that it cannot use a key, how does it respond then, and how soon does it recover?",
        "Take the key away from seven accounts, each in another way, as many at once as the quota allows. Ask every "
        "minute until Batch refuses something, and give the keys back.",
        loss,
        minutes=190,
        length=Length.HOURS,
        switches={
            "key_loss_noticed": {one: f"after {one} s" for one in _NOTICED},
            "pools_without_key": {one: f"the status {one}" for one in _POOLS},
        },
        durations=("batch_recovery",),
        creates="seven vaults with a key each",
        cents=3,
    ),
    Experiment(
        "weaknesses",
        "Does an account keep its key without the operation wrapKey, or without its identity?",
        "Take them from three accounts, and ask every minute for two hours whether Batch refuses something.",
        weaknesses,
        minutes=125,
        accounts=len(_WEAKNESSES),
        length=Length.HOURS,
        creates="three vaults with a key each",
        cents=3,
    ),
)
