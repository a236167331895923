# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random sequences of runs and of changes by others, with accounts that share keys and vaults.

Random are the caller (permissions from Owner to Reader), the way to run (in process, as a module, two hosts of a run,
two controllers), the role or module, and an injected fault. After every run, even a failed run, these hold: accounts
that were available are available, the report is the current state of Azure, and other users have their permissions.
Before a run without a fault, the same play runs in check mode, which has to predict the run.

`make test` tries the same few sequences each time. SEQUENCES=N tries N other sequences. With SEED, they are the
sequences of a previous run.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any

import pytest
from cases import BUSY, DISTURBANCES
from hypothesis import HealthCheck, Phase, currently_in_test_context, event, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from meddling import REALISTIC, SETTLED, Killed, Wire
from one_process import OneProcess
from operators import (
    ACCOUNTS,
    AS_MODULE,
    CALLERS,
    DRAWN,
    FIRST_KEY,
    IN_PROCESS,
    OWNER,
    RBAC_VAULT,
    Report,
    Run,
    World,
    brief,
)
from others import HARMLESS, INCIDENTS, Others
from predictions import Played, assert_came_true, played, written
from sandbox_client import Sandbox
from service import Service

from azure_sandbox.shared.behavior import POSITIONS

SEQUENCES = int(os.environ.get("SEQUENCES", "0"))
SEED = int(os.environ.get("SEED") or (random.randrange(2**32) if SEQUENCES else 1))
SHARDS = 8 if SEQUENCES else 2
STEPS = 8

KEYS = [FIRST_KEY, ("vault-one", "key2"), (RBAC_VAULT, "key1")]
# The variable and the option with which a run disables unused versions at once.
AT_ONCE = ("cmk_unused_for", "unused_for")


@dataclass(frozen=True)
class Meddling:
    """An event before request number `at` of a run: a fault by name, the end of its process, a change by another user,
    or another run."""

    at: int
    what: str | Run


@dataclass(frozen=True)
class Beside:
    """Concurrent further runs. The first run sends `order[0]` requests, then the second sends `order[1]`, and so on.
    After the last run, the first one continues."""

    runs: tuple[Run, ...]
    order: tuple[int, ...]
    # Whether they are other hosts of the same run, or else runs of other controllers.
    same_run: bool


def _throttled_until_a_date() -> dict[str, Any]:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    return {"answer": {"status": 429, "headers": {"Retry-After": until}, "body": BUSY}}


def _false_404(times: int) -> Callable[[], dict[str, Any]]:
    """Azure is eventually consistent: the first reads do not find an existing resource."""
    error = {"error": {"code": "ResourceNotFound", "message": "The Resource was not found."}}
    match = {"method": "GET", "path": r"/(batchAccounts|vaults)/[^/?]+(\?|$)"}
    return lambda: {"match": match, "times": times, "answer": {"status": 404, "body": error}}


def _known(name: str) -> Callable[[], dict[str, Any]]:
    return lambda: DISTURBANCES[name]


FAULTS: dict[str, Callable[[], dict[str, Any]]] = {
    **{name: _known(name) for name in DISTURBANCES},
    "throttled until a date": _throttled_until_a_date,
    "false 404": _false_404(1),
    "two false 404s": _false_404(2),
}
KILLED, FOLDER_GONE, DISK_FULL = "killed", "temporary folder gone", "disk full"
# How often the random sequences contained each kind of run and event.
drawn: Counter[str] = Counter()
accounts = st.sampled_from(ACCOUNTS)
keys = st.sampled_from(KEYS)
own_or_any = st.none() | keys
callers = st.sampled_from([OWNER] * 4 + [one for one in CALLERS if one != OWNER])
ways = st.sampled_from([IN_PROCESS] * 3 + [AS_MODULE])
# A run cannot succeed under a lock or a policy, so these begin during a run.
REFUSED = {
    f"{switch}: {position}": {switch: position}
    for switch in ("resource_lock", "policy_denial")
    for position in POSITIONS[switch]
    if position != "none"
}
behaviors = st.fixed_dictionaries(
    {
        name: st.sampled_from(positions)
        for name, positions in POSITIONS.items()
        if not any(name in one for one in REFUSED.values())
    }
)
never = st.just(False)
now_and_then = st.sampled_from([False] * 6 + [True])


def _of(
    what: str,
    key: st.SearchStrategy[Any],
    checks: st.SearchStrategy[bool],
    always: dict[str, Any] | None = None,
    **options: st.SearchStrategy[Any],
) -> st.SearchStrategy[Run]:
    """Runs of a role or a module. Each has one of the values in `always`; `options` may be missing."""
    fixed = {name: st.sampled_from(values) for name, values in (always or {}).items()}
    requested = st.fixed_dictionaries(fixed, optional=options)
    return st.builds(Run, st.just(what), accounts, key, requested, checks, callers, ways)


def moves(checks: st.SearchStrategy[bool]) -> list[st.SearchStrategy[Run]]:
    """Runs that may change the key of an account."""
    modes, yes = st.sampled_from(["update", "keep", "pin", "follow"]), st.just(True)
    follow, any_key = st.just("follow"), st.just("any")
    asked = {"cmk_previous_key": any_key, "cmk_key_enable": yes}
    uses = ["newest", "oldest", "oldest", "latest", "microsoft"]
    return [
        _of("provision", keys, checks, cmk_key_version_mode=modes, cmk_vault_recover=yes, **asked),
        _of("provision", keys, checks, cmk_key_version_mode=follow, cmk_key_expires_in=st.just("P400D"), **asked),
        _of("batch_encryption", own_or_any, checks, {"uses": uses}, previous_key=any_key, version_mode=modes),
    ]


def removals(checks: st.SearchStrategy[bool]) -> list[st.SearchStrategy[Run]]:
    """Runs that may disable, delete or revoke something, of which some also change the key of an account."""
    yes, at_once, key_of_all = st.just(True), st.just("P0D"), st.sampled_from([key_identifier(*key) for key in KEYS])
    return [
        _of(
            "rotate",
            own_or_any,
            checks,
            cmk_key_max_version_age=st.just("P90D"),
            cmk_key_new_version=yes,
            cmk_key_version_mode=st.just("follow"),
            cmk_unused_versions=st.just("disable"),
            cmk_unused_for=at_once,
        ),
        _of("switch", own_or_any, checks, {"to": KEYS}, cmk_disable_key=key_of_all, cmk_unused_for=at_once),
        _of(
            "revert",
            own_or_any,
            checks,
            cmk_revert_key=st.sampled_from(["disable", "delete"]),
            cmk_revert_access=st.just("revoke"),
            cmk_unused_for=at_once,
        ),
        _of("keyvault_cmk_key_state", keys, checks, {"state": ["disabled", "absent"]}, unused_for=at_once),
        _of("keyvault_cmk_access", own_or_any, checks, {"state": ["absent"]}, unused_for=at_once),
        _of("keyvault_cmk_unused_versions", own_or_any, checks, unused_for=at_once),
        _of("keyvault_cmk_vault", keys, checks, {"state": ["absent"]}),
    ]


def runs(checks: st.SearchStrategy[bool]) -> st.SearchStrategy[Run]:
    return st.one_of(
        *moves(checks),
        *removals(checks),
        _of("recover", st.none(), checks),
        _of("keyvault_cmk_key_state", keys, checks, {"state": ["enabled", "recovered"]}),
        _of("keyvault_cmk_key", keys, checks, expires_in=st.just("P30D"), remove_rotation_policy=st.just(True)),
        _of("batch_encryption_info", st.none(), checks),
        _of("batch_account_identity", keys, checks, adopt_existing=st.just(True)),
    )


def key_identifier(vault: str, key: str) -> str:
    return f"https://{vault}.vault.azure.net/keys/{key}"


def meddlings() -> st.SearchStrategy[Meddling]:
    # Not `|`, because it would choose a run far more often than a fault.
    faults: st.SearchStrategy[str | Run] = st.sampled_from(
        [*FAULTS, KILLED, KILLED, FOLDER_GONE, DISK_FULL, *HARMLESS, *HARMLESS, *REFUSED]
    )
    what = st.booleans().flatmap(lambda beside: runs(never) if beside else faults)
    return st.builds(Meddling, st.integers(0, 30), what)


def besides() -> st.SearchStrategy[Beside]:
    orders = st.lists(st.integers(1, 20), min_size=1, max_size=6).map(tuple)
    return st.builds(Beside, st.lists(runs(never), min_size=1, max_size=2).map(tuple), orders, st.booleans())


class Operators(RuleBasedStateMachine):
    def __init__(self, sandbox: Sandbox, wire: Wire, runner: OneProcess) -> None:
        super().__init__()
        sandbox.control.reset()
        runner.forget()
        self._control = sandbox.control
        self._wire = wire
        self._runner = runner
        self._world = World(Service(sandbox), runner)
        self._others = Others(self._world)

    @initialize(realistic=st.booleans(), behavior=behaviors)
    def begin(self, realistic: bool, behavior: dict[str, str]) -> None:
        # Parameters of this rule, so that hypothesis prints them with the steps of a failing sequence.
        self._control.behavior(**behavior)
        self._behavior = behavior
        # Reads of the test show all writes then too.
        self._settled = max(SETTLED, *(int(behavior.get(name, "0")) + 1 for name in ("role_delay", "read_lag")))
        if realistic:
            self._control.timing(**REALISTIC)
        for account, key in zip(ACCOUNTS[:2], KEYS, strict=False):
            self._operate(Run("provision", account, key))
        # Two versions of each key, of which the first account uses the newest. Both have used them for a month.
        for vault, name in KEYS[:2]:
            self._world.service.make_key(name, vault=vault)
        self._operate(Run("batch_encryption", ACCOUNTS[0], KEYS[0], {"uses": "newest"}))
        self._control.advance(30 * 86400)

    @rule(run=runs(now_and_then), again=st.booleans())
    def undisturbed(self, run: Run, again: bool = False) -> None:
        """Run without a fault. Unless the run is in check mode, the same play runs in check mode first. If it runs
        again, it changes nothing."""
        if run.check:
            self._operate(run)
        elif not self._operate_checked(run).failure and again and "cmk_key_new_version" not in run.settings:
            self._operate(run, play=self._world.prepared(self._possible(run), beside=True), changes=False)

    @rule(run=runs(never), meddling=meddlings())
    def disturbed(self, run: Run, meddling: Meddling) -> None:
        self._operate(run, meddling)

    @rule(run=st.one_of(*moves(never), runs(never)), then=st.one_of(*removals(never), runs(never)))
    def one_after_the_other(self, run: Run, then: Run) -> None:
        """Two tasks or roles of a run. The reads of the second one may be older than the writes of the first."""
        self._operate(run, then=then)

    @rule(run=runs(never), beside=besides())
    def side_by_side(self, run: Run, beside: Beside) -> None:
        """Two or three concurrent controllers, or concurrent hosts of a run, as with `strategy: free` or forks."""
        if beside.same_run:
            others = [one for one in ACCOUNTS if one != run.account][: len(beside.runs)]
            hosts = tuple(replace(run, account=other, way=IN_PROCESS) for other in others)
            self._operate(replace(run, way=IN_PROCESS), replace(beside, runs=hosts))
        else:
            self._operate(run, beside)

    @rule(incident=st.sampled_from(sorted(INCIDENTS)), account=accounts, key=own_or_any, noticed=st.booleans())
    def incident(self, incident: str, account: str, key: tuple[str, str] | None, noticed: bool = True) -> None:
        drawn[f"incident: {incident}"] += 1
        INCIDENTS[incident](self._others, account, *(key or self._world.key_of(account) or FIRST_KEY))
        # Wait until the change has taken effect, so that a later check does not blame a run for it.
        self._control.advance(self._settled)
        # The runs of the next hour do not read what a run has stored before.
        self._runner.forget()
        # Runs begin before and after Batch has noticed a loss.
        if noticed:
            self._control.advance(int(self._behavior.get("key_loss_noticed", "0")))

    def _possible(self, run: Run) -> Run:
        """The run with the default margin, unless Batch does not need previous versions."""
        return run if self._behavior.get("previous_version_needed", "0") == "0" else _with_margin(run)

    def _operate_checked(self, run: Run) -> Played:
        """Run the play in check mode and then without, by two controllers, as two calls of `ansible-playbook` do."""
        run = self._possible(run)
        if self._behavior.get("read_lag", "0") != "0":
            # As long as Azure lists an account with the key that it has left, a run keeps that key. A check does not.
            run = _with_margin(run)
        plays = [self._world.prepared(replace(run, check=check), beside=True) for check in (True, False)]
        # Wait until permissions have taken effect and accounts with a restored key are available.
        self._control.advance(self._settled + REALISTIC["batch_recovery"])
        deleted = self._world.deleted_vaults()
        may_succeed = self._world.service.has_unnoticed_loss(run.account)
        since = self._control.last
        checks: list[Played] = []
        self._wire.scheduled(_only, {"check": lambda: checks.append(played(plays[0]))})
        [check] = checks
        if currently_in_test_context():
            note(f"check: {brief(check.report)}")
        assert written(self._world.service, since) == []
        came: list[Played] = []

        def play() -> Report:
            came.append(played(plays[1]))
            return came[0].report

        self._operate(run, play=play)
        first = check.first_changed
        # Azure shows neither the keys nor the permission model of a deleted vault.
        recovers = first is not None and check.tasks[first].get("name") in deleted
        # A module in a separate process does not share the planned changes of previous tasks.
        until = first if recovers or run.way == AS_MODULE else None
        drawn[f"check: {_kind(check)}{'' if until is None else ', first change compared'}"] += 1
        assert_came_true(check, came[0], until, with_diff=not recovers, may_succeed=may_succeed)
        return came[0]

    def _operate(
        self,
        run: Run,
        meddling: Meddling | Beside | None = None,
        play: Callable[[], Report] | None = None,
        *,
        then: Run | None = None,
        changes: bool = True,
    ) -> None:
        run = self._possible(run)
        _count(run, meddling)
        if isinstance(meddling, Meddling) and isinstance(meddling.what, Run):
            meddling = Beside((meddling.what,), (meddling.at,), same_run=False)
        if isinstance(meddling, Beside):
            meddling = replace(meddling, runs=tuple(map(self._possible, meddling.runs)))
        before = self._world.usable()
        reports: list[Report] = []
        play = play or self._world.prepared(run)
        plays = [play] if then is None else [play, self._world.prepared(self._possible(then))]
        since = self._control.last
        try:
            if isinstance(meddling, Beside):
                others = [self._world.prepared(one, beside=not meddling.same_run) for one in meddling.runs]
                self._wire.interleaved(meddling.order, [partial(_add, reports, one) for one in (play, *others)])
            else:
                with self._meddled(meddling, run), suppress(Killed):
                    self._wire.scheduled(_only, {"run": lambda: reports.extend(one() for one in plays)})
        finally:
            if meddling is not None:
                self._control.call("DELETE", "/faults")
                self._control.behavior(resource_lock="none", policy_denial="none")
                self._world.service.sign_in_again()
                self._runner.make_room()
        writes = [f"{one['method']} {one['url']}" for one in self._control.requests(since, writes=True)]
        if currently_in_test_context():
            note("\n".join([*(brief(one) for one in reports), *writes]))

        self._control.advance(self._settled)
        lost = before - self._world.usable()
        assert not lost, f"{lost} was available before {run}"
        assert self._others.are_untouched()
        if not run.check:
            self._world.assert_reported(reports)
        if meddling is None and then is None:
            (report,) = reports
            if currently_in_test_context():
                event(f"{run.what}: {report.get('code', 'failed') if report.get('failed') else 'ok'}")
            assert not writes or (not run.check and (report.get("changed") or report.get("failed"))), writes
            assert changes or not (report.get("failed") or report.get("changed")), report

    def _meddled(self, meddling: Meddling | None, run: Run) -> AbstractContextManager[None]:
        if meddling is None:
            return nullcontext()
        what = meddling.what
        vault, key = run.key or self._world.key_of(run.account) or FIRST_KEY
        acts: dict[str, Callable[[], None]] = {
            KILLED: self._wire.kill,
            FOLDER_GONE: lambda: shutil.rmtree(self._runner.tokens, ignore_errors=True),
            DISK_FULL: self._runner.fill_disk,
            **{name: lambda: HARMLESS[what](self._others, run.account, vault, key) for name in HARMLESS},
            **{name: lambda: self._control.behavior(**REFUSED[what]) for name in REFUSED},
        }
        return self._wire.meddled(meddling.at, acts.get(what) or (lambda: self._control.fault(**FAULTS[what]())))


def _add(reports: list[Report], play: Callable[[], Report]) -> None:
    reports.append(play())


def _only(names: list[str], _last: str) -> str:
    [name] = names
    return name


def _kind(check: Played) -> str:
    if check.failure:
        return "a failure"
    return "a change" if check.first_changed else "no change"


def _with_margin(run: Run) -> Run:
    return replace(run, settings={name: value for name, value in run.settings.items() if name not in AT_ONCE})


def _count(run: Run, meddling: Meddling | Beside | None) -> None:
    drawn.update([f"run: {run.what}", f"rights: {run.caller}", f"way: {run.way}"])
    if isinstance(meddling, Beside):
        drawn["beside: another host of the run" if meddling.same_run else "beside: a second controller"] += 1
    elif meddling is not None:
        drawn["meddling: another run" if isinstance(meddling.what, Run) else f"meddling: {meddling.what}"] += 1


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.slow(every=2)
def test_any_order(
    sandbox: Sandbox, wire: Wire, runner: OneProcess, shard: int, record_property: Callable[[str, object], None]
) -> None:
    print(f"SEED={SEED}")
    drawn.clear()
    run_state_machine_as_test(
        seed(SEED + shard)(lambda: Operators(sandbox, wire, runner)),
        settings=settings(
            max_examples=SEQUENCES // SHARDS if SEQUENCES else 6,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            print_blob=True,
        ),
    )
    record_property(DRAWN, dict(drawn))


# Sequences that have failed once, shortened as far as possible, with the positions of switches.
FAILED: dict[str, tuple[dict[str, str], list[tuple[str, dict[str, Any]]]]] = {
    "a vault that was purged in time is created again": (
        {},
        [
            ("incident", {"incident": "delete_vault", "account": "account1", "key": None}),
            ("incident", {"incident": "sleep_a_quarter", "account": "account1", "key": None}),
            ("undisturbed", {"run": Run("provision", "account1", FIRST_KEY)}),
        ],
    ),
    "an account whose loss Batch has not noticed leaves its deleted key": (
        {"pools_without_key": "200", "key_loss_noticed": "3600"},
        [
            ("incident", {"incident": "delete", "account": "account1", "key": None, "noticed": False}),
            ("undisturbed", {"run": Run("revert", "account1", None, {"cmk_revert_key": "disable"})}),
        ],
    ),
    "a key is recovered by a caller who may not list its versions": (
        {},
        [
            ("incident", {"incident": "delete", "account": "account1", "key": FIRST_KEY}),
            ("undisturbed", {"run": Run("recover", "account1", None, caller="without lists")}),
        ],
    ),
    "a vault is created by a caller who cannot see that a deleted vault has the name": (
        {"subscription_list": "denied"},
        [
            ("undisturbed", {"run": Run("revert", "account1")}),
            ("undisturbed", {"run": Run("revert", "account2")}),
            ("incident", {"incident": "delete_vault", "account": "account1", "key": None}),
            ("undisturbed", {"run": Run("provision", "account3", FIRST_KEY, caller="resource group only")}),
        ],
    ),
    "a key is disabled in the vault of a key that an account has lost": (
        {},
        [
            ("undisturbed", {"run": Run("revert", "account2")}),
            ("incident", {"incident": "delete", "account": "account1", "key": None}),
            ("undisturbed", {"run": Run("keyvault_cmk_key_state", "account1", KEYS[1], {"state": "disabled"})}),
        ],
    ),
    "an account is moved from a key before Batch notices its loss": (
        {},
        [
            ("incident", {"incident": "delete", "account": "account1", "key": FIRST_KEY, "noticed": False}),
            ("undisturbed", {"run": Run("provision", "account1", KEYS[1], {"cmk_previous_key": "any"})}),
        ],
    ),
}


@pytest.mark.parametrize("name", FAILED)
def test_in_this_order(sandbox: Sandbox, wire: Wire, runner: OneProcess, name: str) -> None:
    behavior, steps = FAILED[name]
    operators = Operators(sandbox, wire, runner)
    operators.begin(realistic=False, behavior=behavior)
    for step, arguments in steps:
        getattr(operators, step)(**arguments)
