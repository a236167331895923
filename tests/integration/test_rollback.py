# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rollbacks during which faults occur, and rollbacks with lists and reads that are out of date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from meddling import REALISTIC, SETTLED, Wire
from moments import (
    Moment,
    after,
    confirms_move,
    deletes,
    lists_pools,
    lists_versions_of_key1,
    moves_account,
    reads_account,
)
from one_process import OneProcess
from operators import FIRST_KEY, RBAC_VAULT, Run, World, done
from role_runs import VARS
from service import DAY, Service

OTHER_KEY = (RBAC_VAULT, "key1")
BUSY = {"times": 5, "answer": {"status": 503}}
THROTTLED = {"status": 429, "headers": {"Retry-After": "60"}, "body": {"error": {"code": "TooManyRequests"}}}
UNREACHABLE = {"times": 5, "drop": "before"}
EMPTY = {"times": 1, "answer": {"status": 200, "body": {"value": []}}}
DELETED_KEY = {"method": "GET", "path": "/deletedkeys/"}
ACCOUNTS = {"method": "GET", "path": r"providers/Microsoft\.Batch/batchAccounts[?]"}
# Seconds until an account whose key was restored is available.
RECOVERED = 2 * REALISTIC["batch_recovery"]


def is_look_after(refusals: int, service: Service) -> Callable[[Any], bool]:
    """A function that is true for a read of the account after Batch has refused that many switches."""
    since = service.sandbox.control.last

    def is_it(request: Any) -> bool:
        asked = service.sandbox.control.requests(since) if reads_account()(request) else []
        return [one["status"] >= 400 for one in asked if one["method"] == "PATCH"] == [True] * refusals

    return is_it


@pytest.fixture
def world(runner: OneProcess, service: Service) -> World:
    return World(service, runner)


def is_available(service: Service, name: str = "account1") -> bool:
    service.sandbox.control.call("DELETE", "/faults")
    service.sandbox.control.advance(SETTLED)
    # The sandbox counts the time of a recovery from the first request that needs the key.
    service.is_available(name)
    service.sandbox.control.advance(RECOVERED)
    return service.is_available(name)


@pytest.mark.parametrize(
    "fault",
    [{"match": DELETED_KEY, **BUSY}, {"match": DELETED_KEY, **UNREACHABLE}, {"match": ACCOUNTS, **EMPTY}],
)
@pytest.mark.parametrize("key", [FIRST_KEY, OTHER_KEY], ids=["policy", "role"])
@pytest.mark.slow(every=3)
def test_an_account_starts_to_use_a_key_during_its_deletion(
    world: World, wire: Wire, service: Service, fault: dict[str, Any], key: tuple[str, str]
) -> None:
    """The rollback recovers the key although one of its requests fails, or a list is empty for a moment."""
    done(world.prepared(Run("provision", "account1", key))())
    identifier = service.encryption()
    done(world.prepared(Run("revert", "account1", key))())
    service.sandbox.control.timing(**REALISTIC)

    def comes() -> None:
        service.point(identifier)
        service.sandbox.control.fault(**fault)

    with wire.meddled(deletes, comes):
        options = {"state": "absent", "unused_for": "P0D"}
        report = world.prepared(Run("keyvault_cmk_key_state", "account1", key, options))()
    assert report["failed"]
    assert report["restored"] is True
    assert is_available(service)


@pytest.mark.parametrize("times", [1, 3])
def test_a_read_after_a_switch_is_out_of_date(world: World, wire: Wire, service: Service, times: int) -> None:
    """Access was revoked just before the switch, and Batch does not know that yet. The rollback writes the previous key
    although a read still shows it."""
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    done(world.prepared(Run("provision", "account2", OTHER_KEY))())
    principal, first = world.principal("account1"), service.encryption()
    service.grant(principal, RBAC_VAULT)
    service.sandbox.control.advance(SETTLED)
    service.sandbox.control.timing(**REALISTIC)

    def revoked() -> None:
        service.revoke(principal, RBAC_VAULT)
        old = {"status": 200, "body": service.account()}
        reads = {"method": "GET", "path": "/batchAccounts/account1[?]"}
        service.sandbox.control.fault(match=reads, times=times, answer=old)

    with wire.meddled(moves_account(), revoked):
        report = world.prepared(Run("switch", "account1", None, {"to": OTHER_KEY}))()
    assert report["code"] == "preflight_failed"
    assert report["restored"] is True
    assert service.encryption() == first
    assert is_available(service)


@pytest.mark.parametrize("refusals", [1, 3])
def test_somebody_else_moves_the_account_while_batch_refuses_its_key(
    world: World, wire: Wire, service: Service, refusals: int
) -> None:
    """Batch refuses the new key until the access to it has taken effect. The account stays on the key to which somebody
    else has moved it, because the run may move it from its previous key only."""
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    done(world.prepared(Run("provision", "account2", OTHER_KEY))())
    service.sandbox.control.advance(SETTLED)
    service.sandbox.control.timing(**REALISTIC)
    newer = service.make_key("key2").id
    with wire.meddled(is_look_after(refusals, service), lambda: service.point(newer)):
        report = world.prepared(Run("switch", "account1", None, {"to": OTHER_KEY}))()
    assert service.encryption() == newer, report
    assert report["code"] == "account_on_another_key"
    assert is_available(service)


@pytest.mark.parametrize(
    ("read", "is_lost", "after_switch"),
    [
        pytest.param("/pools", False, lists_pools, id="confirmation"),
        pytest.param("/pools", True, lists_pools, id="confirmation of a lost account"),
        pytest.param(r"/batchAccounts/account1(?:\?|$)", True, lists_versions_of_key1, id="rollback"),
    ],
)
def test_a_switch_is_confirmed_or_rolled_back_although_a_read_is_throttled(
    world: World, wire: Wire, service: Service, read: str, is_lost: bool, after_switch: Moment
) -> None:
    """Azure requires a wait that is longer than wait_timeout. If the task did not wait, it could neither confirm the
    change nor roll it back."""
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    done(world.prepared(Run("provision", "account2", OTHER_KEY))())
    first, wanted = service.encryption(), service.encryption("account2")
    control = service.sandbox.control
    # Batch accepts the rollback until it notices that the key is lost.
    control.behavior(key_loss_noticed="3600")

    def others() -> None:
        control.fault(match={"method": "GET", "path": read}, times=1, answer=THROTTLED)
        if is_lost:
            service.disable("key1", vault=RBAC_VAULT)

    with wire.meddled(after(moves_account(), after_switch), others):
        report = world.prepared(Run("switch", "account1", None, {"to": OTHER_KEY, "cmk_wait_timeout": 30}))()
    assert service.encryption() == (first if is_lost else wanted), report
    assert report.get("restored") == (True if is_lost else None), report
    assert service.is_safe()


@pytest.mark.parametrize("ends", ["not confirmed", "interrupted"])
def test_a_rollback_while_reads_lag(runner: OneProcess, service: Service, wire: Wire, ends: str) -> None:
    """Reads show neither the change nor the rollback yet."""
    _, version = service.on_key()
    service.sandbox.control.advance(DAY)
    service.sandbox.control.behavior(value_lag="20")

    def end() -> None:
        service.sandbox.control.advance(10)
        if ends == "interrupted":
            raise KeyboardInterrupt
        service.sandbox.control.fault(match={"method": "GET", "path": "/pools"}, **{**BUSY, "times": 4})

    with wire.meddled(confirms_move(), end):
        report = runner.role("revert", {**VARS, "cmk_wait_timeout": 600})

    assert report["code"] == ("interrupted" if ends == "interrupted" else "service_unavailable")
    assert "The change was rolled back." in report["msg"]
    assert report["restored"] is True
    service.sandbox.control.advance(40)
    assert service.encryption() == version
