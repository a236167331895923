# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with several versions of a key. Each disables the previous version some time after a change, and watches
whether the account loses its key: the account does so only if it still needs that version when Batch notices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from azure_sandbox.shared.behavior import POSITIONS

from ..experiment import Experiment, Length, Outcome
from ..lab import Identity, Lab, vault_of
from .loss import NOTICED_WITHIN

_HOUR, _DAY = 3600, 86400
# How long after the change the previous version is disabled, in seconds. None is the sum of two positions.
_PROBES = (300, 2 * _HOUR, 26 * _HOUR)
_NOTICED = POSITIONS["key_loss_noticed"]
_NEEDED = POSITIONS["previous_version_needed"]
_FOLLOWED = POSITIONS["follower_delay"]


def previous_version_needed(lab: Lab) -> Outcome:
    def move(account: str, vault: str) -> None:
        lab.change(account, properties=lab.encryption(lab.key(vault))).required()

    lost = _lost(lab, move, follows=False)
    positions = tuple(
        needed
        for needed in _NEEDED
        if any(
            _explains(float(needed), float(noticed), lost) for noticed in lab.found.get("key_loss_noticed") or _NOTICED
        )
    )
    return Outcome(_seen(lost), {"previous_version_needed": positions})


def follower_delay(lab: Lab) -> Outcome:
    def rotate(_account: str, vault: str) -> None:
        lab.key(vault)

    lost = _lost(lab, rotate, follows=True)
    positions = tuple(
        followed
        for followed in _FOLLOWED
        if any(
            _explains(float(followed) + float(needed), float(noticed), lost)
            for noticed in lab.found.get("key_loss_noticed") or _NOTICED
            for needed in lab.found.get("previous_version_needed") or _NEEDED
        )
    )
    return Outcome(_seen(lost), {"follower_delay": positions})


def _lost(lab: Lab, change: Callable[[str, str], None], *, follows: bool) -> Mapping[float, bool]:
    """By the seconds between the change and the moment at which the previous version was disabled, whether the account
    lost its key. The moment may be later than planned if the changes of the other accounts took long."""
    identity = lab.once("identity", lab.identity)
    changed = {}
    for probe in _PROBES:
        kid, account = _account(lab, probe, identity, follows=follows)
        changed[probe] = lab.once(f"changed {probe}", partial(lab.timed, partial(change, account, vault_of(kid))))
    lost = dict[float, bool]()
    for probe in _PROBES:
        kid, account = _account(lab, probe, identity, follows=follows)
        lab.wait_until(changed[probe] + probe)
        began = lab.once(f"disabled {probe}", partial(lab.timed, partial(lab.enable, kid, enabled=False)))
        refuses = partial(lab.is_refused, account)
        noticed = partial(lab.first, refuses, limit=NOTICED_WITHIN, step=600, began=began)
        lost[began - changed[probe]] = lab.once(f"noticed {probe}", noticed) is not None
    return lost


def _account(lab: Lab, probe: int, identity: Identity, *, follows: bool) -> tuple[str, str]:
    """The first version of a separate key, and an account that uses it."""
    vault = lab.once(f"vault {probe}", partial(lab.vault, identity["principal"]))
    kid = lab.once(f"key {probe}", partial(lab.key, vault))
    used = kid.rpartition("/")[0] if follows else kid
    return kid, lab.once(f"account {probe}", partial(lab.account_on_key, used, identity))


def _explains(needed: float, noticed: float, lost: Mapping[float, bool]) -> bool:
    """Whether this explains what was measured: an account needs its previous version for a time after the change, and
    Batch notices a loss after a time. In seconds."""
    return all((needed > probe + noticed) == is_lost for probe, is_lost in lost.items())


def _seen(lost: Mapping[float, bool]) -> str:
    return " ".join(
        f"The previous version was disabled {after / _HOUR:.1f} h after the change: the account "
        f"{'lost its key' if is_lost else 'stayed available'}."
        for after, is_lost in lost.items()
    )


EXPERIMENTS = (
    Experiment(
        "previous_version_needed",
        "How long does Batch need the previous version after an account was moved to a new version?",
        "Move three accounts to a new version of their key, and disable the previous version 5 minutes, 2 hours and 26 "
        "hours later.",
        previous_version_needed,
        minutes=27 * 60,
        accounts=len(_PROBES),
        length=Length.DAYS,
        switches={"previous_version_needed": {one: f"for {one} s" for one in _NEEDED}},
        cost="three vaults with two keys each: some cents",
    ),
    Experiment(
        "follower_delay",
        "How soon does an account without a version in its key identifier use a new version?",
        "Create a new version of the keys of three such accounts, and disable the previous version 5 minutes, 2 hours "
        "and 26 hours later.",
        follower_delay,
        minutes=27 * 60,
        accounts=len(_PROBES),
        length=Length.DAYS,
        switches={"follower_delay": {one: f"after {one} s" for one in _FOLLOWED}},
        cost="three vaults with two keys each: some cents",
    ),
)
