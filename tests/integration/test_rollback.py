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
    lists_pools,
    lists_versions_of_key1,
    moves_account,
    reads_account,
)
from one_process import OneProcess
from operators import FIRST_KEY, RBAC_VAULT, Run, World, done
from service import Service

OTHER_KEY = (RBAC_VAULT, "key1")
THROTTLED = {"status": 429, "headers": {"Retry-After": "60"}, "body": {"error": {"code": "TooManyRequests"}}}
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
