# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with several versions of a key. Each disables the previous version some time after a change, and watches
whether the account loses its key: the account does so only if it still needs that version when Batch notices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from azure_sandbox.shared.behavior import POSITIONS

from ..azure import NoResult
from ..experiment import Experiment, Length, Outcome
from ..lab import Bounds, Identity, Lab, Moment, Span, vault_of
from .loss import NOTICED_WITHIN

_HOUR, _DAY = 3600, 86400
# How long after the change the previous version is disabled, in seconds. None is the sum of two positions.
_PROBES = (300, 2 * _HOUR, 26 * _HOUR)
_NEEDED = POSITIONS["previous_version_needed"]
_FOLLOWED = POSITIONS["follower_delay"]


def previous_version_needed(lab: Lab) -> Outcome:
    def move(account: str, vault: str) -> None:
        kid = lab.key(vault)
        lab.change(account, properties=lab.encryption(kid)).required()

    return _outcome(lab, "previous_version_needed", move, follows=False)


def follower_delay(lab: Lab) -> Outcome:
    def rotate(_account: str, vault: str) -> None:
        lab.key(vault)

    return _outcome(lab, "follower_delay", rotate, follows=True)


def _outcome(lab: Lab, switch: str, change: Callable[[str, str], None], *, follows: bool) -> Outcome:
    lost = _lost(lab, change, follows=follows)
    if not lost:
        raise NoResult("No previous version was disabled.")
    seen = " ".join(
        f"The previous version was disabled {after / _HOUR:.1f} h after the change: the account "
        f"{'lost its key' if is_lost else 'stayed available'}."
        for (after, _), is_lost in lost.items()
    )
    needed = lab.bounds("previous_version_needed") if follows else None
    span = explanation(lost, lab.bounds("key_loss_noticed"), needed)
    return Outcome(seen, {switch: ()}) if span is None else Outcome(seen, spans={switch: span})


def explanation(lost: Mapping[Bounds, bool], noticed: Bounds, needed: Bounds | None) -> Span | None:
    """The time that explains which accounts lost their key when the previous version was disabled that long after the
    change: those whose time had not passed when Batch `noticed` it. A follower has `needed`, for which it also needs
    the previous version after it has followed. If its version was disabled before, it may follow or not. None if no
    time explains this."""
    least, most = needed or (0.0, 0.0)
    passed, not_passed = [0.0], [math.inf]
    for (at_least, at_most), is_lost in lost.items():
        if is_lost:
            after = at_least + noticed[0] - most
            passed.append(after if needed is None else min(after, at_least))
        else:
            within = at_most + noticed[1] - least
            not_passed.append(within if needed is None else max(within, at_most))
    return Span(max(passed), min(not_passed)) if max(passed) < min(not_passed) else None


def _lost(lab: Lab, change: Callable[[str, str], None], *, follows: bool) -> Mapping[Bounds, bool]:
    """By the seconds between the change and the moment at which the previous version was disabled, at least and at
    most, whether the account lost its key. The moment may be later than planned if the changes of the other accounts
    took long."""
    identity = lab.once("identity", lab.identity)
    changed = {}
    for probe in _PROBES:
        kid, account = _account(lab, probe, identity, follows=follows)
        changed[probe] = lab.once(f"changed {probe}", partial(lab.timed, partial(change, account, vault_of(kid))))
    disabled: dict[int, Moment] = {}
    noticed: dict[str, bool] = {}
    for probe in _PROBES:
        kid, account = _account(lab, probe, identity, follows=follows)
        lab.wait_until(changed[probe][0] + probe)
        disabled[probe] = lab.once(f"disabled {probe}", partial(lab.timed, partial(lab.enable, kid, enabled=False)))
        is_lost = partial(_is_lost, lab, account, disabled[probe])
        noticed |= lab.each("lost", [str(probe)], lambda _, is_lost=is_lost: is_lost())  # type: ignore[misc]
    return {
        (disabled[probe][0] - changed[probe][1], disabled[probe][1] - changed[probe][0]): noticed[str(probe)]
        for probe in _PROBES
        if str(probe) in noticed
    }


def _is_lost(lab: Lab, account: str, disabled: Moment) -> bool:
    return lab.first(lambda: bool(lab.refusal(account)), disabled, limit=NOTICED_WITHIN, step=600) is not None


def _account(lab: Lab, probe: int, identity: Identity, *, follows: bool) -> tuple[str, str]:
    """The first version of a separate key, and an account that uses it."""
    vault = lab.once(f"vault {probe}", partial(lab.vault, identity["principal"]))
    kid = lab.once(f"key {probe}", partial(lab.key, vault))
    used = kid.rpartition("/")[0] if follows else kid
    return kid, lab.once(f"account {probe}", partial(lab.account_on_key, used, identity))


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
        creates="three vaults with two keys each",
        cents=3,
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
        creates="three vaults with two keys each",
        cents=3,
    ),
)
