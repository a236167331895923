# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two concurrent runs: the second begins and ends between two requests of the first.

By default, some positions between requests are tried. PROOF=all tries each position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from cases import PROOF_OF_ALL
from meddling import REALISTIC, Wire
from moments import creates_account, moves_account
from one_process import OneProcess
from operators import FIRST_KEY, RBAC_VAULT, Report, Run, World, brief
from others import Others
from positions import SETTLED, position
from role_runs import QUARTER
from service import Service, reset

AT_ONCE = {"cmk_unused_for": "P0D"}
DISABLE = {"cmk_unused_versions": "disable", **AT_ONCE}
LEAVE = {"cmk_disable_key": "https://vault-one.vault.azure.net/keys/key1", **AT_ONCE}
FORCE = {"cmk_key_new_version": True}
KEY2 = ("vault-one", "key2")
KEY3 = (RBAC_VAULT, "key1")


def on(account: str, key: tuple[str, str] = FIRST_KEY, **settings: Any) -> Run:
    return Run("provision", account, key, settings)


@dataclass(frozen=True)
class Pair:
    first: Run
    second: Run
    # The resources before both runs.
    before: tuple[Run, ...] = (on("account1"), on("account2"))


PAIRS = {
    "both create one account": Pair(on("account1"), on("account1"), ()),
    "both create one account, on different keys": Pair(on("account1"), on("account1", KEY2), ()),
    "both are granted access": Pair(on("account1"), on("account2"), ()),
    "both rotate one account": Pair(Run("rotate", "account1", None, FORCE), Run("rotate", "account1", None, FORCE)),
    "both rotate one account, and disable": Pair(
        Run("rotate", "account1", None, FORCE | DISABLE), Run("rotate", "account1", None, FORCE | DISABLE)
    ),
    "both rotate one key, and disable": Pair(
        Run("rotate", "account1", None, FORCE | DISABLE), Run("rotate", "account2", None, FORCE | DISABLE)
    ),
    "both switch one account": Pair(
        Run("switch", "account1", None, {"to": KEY2} | LEAVE),
        Run("switch", "account1", None, {"to": KEY3} | LEAVE),
        (on("account1"), on("account2", KEY2), on("other", KEY3)),
    ),
    "one switches away and disables, one moves to the key": Pair(
        Run("switch", "account1", None, {"to": KEY2} | LEAVE),
        on("account2"),
        (on("account1"), on("account2", KEY2)),
    ),
    "one reverts and deletes, one moves to the key": Pair(
        Run("revert", "account1", None, {"cmk_revert_key": "delete"} | AT_ONCE), on("account2"), (on("account1"),)
    ),
    "one reverts and disables, one moves to the key": Pair(
        Run("revert", "account1", None, {"cmk_revert_key": "disable"} | AT_ONCE), on("account2"), (on("account1"),)
    ),
    "one reverts and revokes, one goes back": Pair(
        Run("revert", "account1", None, {"cmk_revert_access": "revoke"} | AT_ONCE), on("account1"), (on("account1"),)
    ),
    "one reverts and revokes roles, one goes back": Pair(
        Run("revert", "account1", None, {"cmk_revert_access": "revoke"} | AT_ONCE),
        on("account1", KEY3),
        (on("account1", KEY3),),
    ),
    "one deletes the vault, one moves to the key": Pair(
        Run("keyvault_cmk_vault", "account1", FIRST_KEY, {"state": "absent"}), on("account1"), (on("account2", KEY3),)
    ),
    "one gives another identity, one encrypts": Pair(
        Run("batch_account_identity", "account1", None, {"adopt_existing": True}),
        on("account1"),
        (on("account1"), Run("revert", "account1")),
    ),
    "one disables the key, one moves to the key": Pair(
        Run("keyvault_cmk_key_state", "account1", FIRST_KEY, {"state": "disabled", "unused_for": "P0D"}),
        on("account2"),
        (on("account1", KEY2), on("account2"), Run("revert", "account2")),
    ),
}


# Pairs for which a revocation takes effect in Batch after a delay.
IN_WHILE = {
    vault: Pair(
        Run("switch", "account1", None, {"to": (vault, "key2")}),
        Run("revert", "account1", None, {"cmk_revert_access": "revoke"} | AT_ONCE),
        (on("account1", (vault, "key1")), on("account2", (vault, "key2"))),
    )
    for vault in ("vault-one", RBAC_VAULT)
}


@pytest.mark.parametrize("name", IN_WHILE)
def test_access_revoked_before_it_takes_effect_in_batch(
    runner: OneProcess, wire: Wire, service: Service, name: str
) -> None:
    """The second run reverts the account and revokes its access after the first run's checks, before its switch."""
    assert meanwhile(runner, wire, service, IN_WHILE[name], moves_account(), **REALISTIC)
    assert service.encryption() is None


def test_creation_that_resets_the_key_of_another_run(runner: OneProcess, wire: Wire, service: Service) -> None:
    """The second run creates the account and sets its key before the first run's creation, which resets the key. The
    reads of the first run still show the key."""
    pair = PAIRS["both create one account"]
    assert meanwhile(runner, wire, service, pair, creates_account(), {"read_lag": "60"})
    assert service.encryption() is not None


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.slow(every=4)
def test_meanwhile(runner: OneProcess, wire: Wire, service: Service, name: str) -> None:
    pair = PAIRS[name]
    at = 0 if PROOF_OF_ALL else len(name) % 8
    while meanwhile(runner, wire, service, pair, at):
        at += 1 if PROOF_OF_ALL else 8


@pytest.mark.parametrize(("number", "name"), list(enumerate(PAIRS)))
@pytest.mark.slow(every=15)
def test_meanwhile_in_other_positions(runner: OneProcess, wire: Wire, service: Service, number: int, name: str) -> None:
    """At each request, another switch of the sandbox is in another position."""
    at = 0 if PROOF_OF_ALL else len(name) % 8
    switch = number * 5
    while meanwhile(runner, wire, service, PAIRS[name], at, position(2 * switch + 1)):
        at += 1 if PROOF_OF_ALL else 8
        switch += 1


def meanwhile(
    runner: OneProcess,
    wire: Wire,
    service: Service,
    pair: Pair,
    at: int | Callable[[Any], bool],
    switches: Mapping[str, str] | None = None,
    **timing: int,
) -> bool:
    """Run the pair, with the second run before request `at` of the first, and check the accounts. Returns whether the
    first run sent that request. The switches of the sandbox are set after the resources were created."""
    reset(service.sandbox.control)
    # The runner's cache has the resources of the previous pair.
    runner.forget()
    world = World(service, runner)
    others = Others(world)
    for run in pair.before:
        report = world.prepared(run)()
        assert not report.get("failed"), report
    service.sandbox.control.timing(**timing)
    service.sandbox.control.advance(QUARTER)
    service.sandbox.control.behavior(**switches or {})
    before = world.usable()
    reports: list[Report] = []
    play = world.prepared(pair.first)
    met = False

    def first() -> None:
        reports.append(play())

    def second() -> None:
        nonlocal met
        met = not reports
        if met:
            reports.append(world.prepared(pair.second, beside=True)())

    if callable(at):
        with wire.meddled(at, second):
            first()
    else:
        wire.interleaved((at,), [first, second])
    service.sandbox.control.advance(SETTLED)
    message = f"at request {at}, {switches}: " + "; ".join(brief(one) for one in reports)
    assert before <= world.usable(), message
    on_keys = {name for name in service.accounts() if service.encryption(name)}
    assert on_keys <= world.usable(), message
    assert others.are_untouched(), message
    world.assert_reported(reports)
    return met
