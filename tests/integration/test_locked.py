# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""If a lock or an Azure Policy forbids a change of an account or a vault, the run fails at once with a remedy, and all
accounts stay available."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cases import AT_ONCE
from one_process import OneProcess
from operators import FIRST_KEY, RBAC_VAULT, Run, World, done
from role_runs import QUARTER
from service import Service

REFUSALS = {
    "lock": ("resource_lock", "resource_locked", "Remove the lock"),
    "policy": ("policy_denial", "permission_denied", "create an exemption"),
}
TARGETS = ["accounts", "vaults"]
KEY2 = (RBAC_VAULT, "key1")
RUNS = {
    "provision": Run("provision", "account2", KEY2),
    "rotate": Run("rotate", "account1", None, {"cmk_key_max_version_age": "P90D"}),
    "switch": Run("switch", "account1", None, {"to": KEY2}),
    "revert": Run("revert", "account1", None, {"cmk_unused_access": "revoke", "cmk_unused_key": "disable", **AT_ONCE}),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.slow(every=6)
def test_a_change_that_is_forbidden(runner: OneProcess, service: Service, run: Run, target: str, refusal: str) -> None:
    world = World(service, runner)
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    done(world.prepared(Run("provision", "account3", KEY2))())
    service.sandbox.control.advance(QUARTER)
    before, began = service.encryption(), service.sandbox.control.call("GET", "/clock")["time"]
    switch, code, remedy = REFUSALS[refusal]
    service.sandbox.control.behavior(**{switch: target})

    predicted = world.prepared(replace(run, check=True))()
    report = world.prepared(run)()

    if refusal == "lock" and (run.what, target) != ("provision", "accounts"):
        # No read shows the policies, nor the lock of an account that does not exist yet.
        assert predicted.get("code") == report.get("code")
    service.sandbox.control.behavior(**{switch: "none"})
    took = service.sandbox.control.call("GET", "/clock")["time"] - began
    if report.get("failed"):
        assert (report["code"], report["changed"]) == (code, False), report
        assert remedy in report["remedy"]
        assert remedy in report["msg"]
        # `revert` confirms first that nobody uses the key that it has disabled.
        confirms = 180 if (run.what, target) == ("revert", "vaults") else 0
        assert took < confirms + 60, "nothing changes while one waits"
    else:
        # The run did not need to change a vault.
        assert target == "vaults", report
    if target == "accounts":
        assert service.encryption() == before
    assert all(service.is_available(name) for name in service.accounts())
    done(world.prepared(run)())


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_repair_that_is_forbidden(runner: OneProcess, service: Service, refusal: str) -> None:
    world = World(service, runner)
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    service.revoke(world.principal("account1"))
    switch, code, remedy = REFUSALS[refusal]
    service.sandbox.control.behavior(**{switch: "vaults"})

    report = world.prepared(Run("recover", "account1"))()

    assert (report["code"], remedy in report["msg"]) == (code, True), report
    service.sandbox.control.behavior(**{switch: "none"})
    done(world.prepared(Run("recover", "account1"))())
    assert service.is_available()
