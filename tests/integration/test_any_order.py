# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Operators and mishaps in any order, over accounts that share keys and vaults.

After every run of ours, whatever became of it: an account that answered before answers, what the run reported is what
Azure holds, and nobody else's rights are lost.

`make test` tries the same few sequences each time. SEQUENCES=N tries N others, with SEED those of an earlier run.
"""

from __future__ import annotations

import os
import random
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from cases import DISTURBANCES
from hypothesis import HealthCheck, Phase, currently_in_test_context, event, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from meddling import REALISTIC, SETTLED, Killed, Wire
from one_process import OneProcess
from operators import FIRST_KEY, RBAC_VAULT, USER_ASSIGNED, Report, Run, World, brief
from others import MISHAPS, Others
from sandbox_client import Sandbox
from service import Service

SEQUENCES = int(os.environ.get("SEQUENCES", "0"))
SEED = int(os.environ.get("SEED") or (random.randrange(2**32) if SEQUENCES else 1))
SHARDS = 8 if SEQUENCES else 2
STEPS = 8

ACCOUNTS = ["account1", "account2", USER_ASSIGNED]
KEYS = [FIRST_KEY, ("vault-one", "key2"), (RBAC_VAULT, "key1")]


@dataclass(frozen=True)
class Meddling:
    """What happens to a run at one of its requests: a disturbance by name, its death, or another run meanwhile."""

    at: int
    what: str | Run


KILLED = "killed"
accounts = st.sampled_from(ACCOUNTS)
keys = st.sampled_from(KEYS)
own_or_any = st.none() | keys
never = st.just(False)
now_and_then = st.sampled_from([False] * 6 + [True])


def runs(checks: st.SearchStrategy[bool]) -> st.SearchStrategy[Run]:
    def of(
        what: str, key: st.SearchStrategy[Any], always: dict[str, Any] | None = None, **wishes: st.SearchStrategy[Any]
    ) -> st.SearchStrategy[Run]:
        fixed = {name: st.sampled_from(values) for name, values in (always or {}).items()}
        return st.builds(Run, st.just(what), accounts, key, st.fixed_dictionaries(fixed, optional=wishes), checks)

    yes = st.just(True)
    return st.one_of(
        of("provision", keys, cmk_key_follow_latest=yes, cmk_vault_recover=yes),
        of("provision", keys, cmk_key_follow_latest=yes, cmk_key_expires_in=st.just("P400D")),
        of(
            "rotate",
            own_or_any,
            cmk_key_max_age=st.just("P90D"),
            cmk_key_force_new_version=yes,
            cmk_key_follow_latest=yes,
            cmk_previous_version=st.just("disable"),
        ),
        of("rotate", own_or_any, {"to": KEYS}, cmk_previous_version=st.just("disable")),
        of(
            "revert",
            own_or_any,
            cmk_revert_key=st.sampled_from(["disable", "delete"]),
            cmk_revert_access=st.just("withdraw"),
        ),
        of("recover", st.none()),
        of("keyvault_cmk_key", keys, {"state": ["disabled", "absent", "enabled", "recovered"]}),
        of("keyvault_cmk_key", keys, expires_in=st.just("P30D"), remove_rotation_policy=yes),
        of("keyvault_cmk_access", own_or_any, {"state": ["absent"]}),
        of("keyvault_cmk_vault", keys, {"state": ["absent"]}),
        of("batch_account_identity", keys, adopt_existing=yes),
    )


def meddlings() -> st.SearchStrategy[Meddling]:
    # Not `|`, which would make the many kinds of runs the rule.
    faults: st.SearchStrategy[str | Run] = st.sampled_from([*DISTURBANCES, KILLED, KILLED])
    what = st.booleans().flatmap(lambda beside: runs(never) if beside else faults)
    return st.builds(Meddling, st.integers(0, 30), what)


class Operators(RuleBasedStateMachine):
    def __init__(self, sandbox: Sandbox, wire: Wire, runner: OneProcess) -> None:
        super().__init__()
        sandbox.control.reset()
        self._control = sandbox.control
        self._wire = wire
        self._world = World(Service(sandbox), runner)
        self._others = Others(self._world)

    @initialize(realistic=st.booleans())
    def begin(self, realistic: bool) -> None:
        if realistic:
            self._control.timing(**REALISTIC)
        for account, key in zip(ACCOUNTS[:2], KEYS, strict=False):
            self._operate(Run("provision", account, key))

    @rule(run=runs(now_and_then))
    def undisturbed(self, run: Run) -> None:
        self._operate(run)

    @rule(run=runs(never), meddling=meddlings())
    def disturbed(self, run: Run, meddling: Meddling) -> None:
        self._operate(run, meddling)

    @rule(mishap=st.sampled_from(sorted(MISHAPS)), account=accounts, key=own_or_any)
    def mishap(self, mishap: str, account: str, key: tuple[str, str] | None) -> None:
        MISHAPS[mishap](self._others, account, *(key or self._world.key_of(account) or FIRST_KEY))
        # Until it has taken effect, so that no run is taken for its cause.
        self._control.advance(SETTLED)

    def _operate(self, run: Run, meddling: Meddling | None = None) -> None:
        before = self._world.usable()
        since = self._control.last
        reports: list[Report] = []
        play = self._world.prepared(run)
        with self._meddled(meddling, reports), suppress(Killed):
            reports.append(play())
        if meddling is not None:
            self._control.call("DELETE", "/faults")
            self._world.service.sign_in_again()
        writes = [f"{one['method']} {one['url']}" for one in self._control.requests(since, writes=True)]
        if currently_in_test_context():
            note("\n".join([*(brief(one) for one in reports), *writes]))

        self._control.advance(SETTLED)
        lost = before - self._world.usable()
        assert not lost, f"{lost} answered before {run}"
        assert self._others.are_untouched()
        if not run.check:
            self._world.assert_reported(reports)
        if meddling is None:
            (report,) = reports
            if currently_in_test_context():
                event(f"{run.what}: {report.get('code', 'failed') if report.get('failed') else 'ok'}")
            assert not writes or (not run.check and (report.get("changed") or report.get("failed"))), writes

    def _meddled(self, meddling: Meddling | None, reports: list[Report]) -> AbstractContextManager[None]:
        if meddling is None:
            return nullcontext()
        what = meddling.what
        if isinstance(what, Run):
            return self._wire.meddled(meddling.at, lambda: reports.append(self._world.prepared(what, beside=True)()))
        if what == KILLED:
            return self._wire.meddled(meddling.at, self._wire.kill)
        return self._wire.meddled(meddling.at, lambda: self._control.fault(**DISTURBANCES[what]))


@pytest.mark.parametrize("shard", range(SHARDS))
def test_any_order(sandbox: Sandbox, wire: Wire, runner: OneProcess, shard: int) -> None:
    print(f"SEED={SEED}")
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


# What has failed once, as short as it could be made.
FAILED: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "a vault that was purged in time is made anew": [
        ("mishap", {"mishap": "delete_vault", "account": "account1", "key": None}),
        ("mishap", {"mishap": "sleep_a_quarter", "account": "account1", "key": None}),
        ("undisturbed", {"run": Run("provision", "account1", FIRST_KEY, {}, check=False)}),
    ],
}


@pytest.mark.parametrize("steps", FAILED.values(), ids=FAILED)
def test_in_this_order(
    sandbox: Sandbox, wire: Wire, runner: OneProcess, steps: list[tuple[str, dict[str, Any]]]
) -> None:
    operators = Operators(sandbox, wire, runner)
    operators.begin(realistic=False)
    for step, arguments in steps:
        getattr(operators, step)(**arguments)
