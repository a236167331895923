# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Azure is eventually consistent: a read may return an account as it was before the last write of the run. If a read
shows the requested key, and the run has set another key in the last three minutes, the task sets the key again."""

from __future__ import annotations

import time
from typing import Any

import pytest
from harness import writes
from one_process import OneProcess
from operators import done
from service import DAY, GROUP, LOCATION, Service


def to_key(identifier: str) -> dict[str, Any]:
    where = {"resource_group": GROUP, "account_name": "account1", "previous_key": "any"}
    return {**where, "key_source": "microsoft_keyvault", "key_identifier": identifier}


@pytest.fixture
def keys(runner: OneProcess, service: Service) -> tuple[str, str]:
    """The key of account1 a moment ago, and the key to which the run has moved the account."""
    _principal, first = service.on_key()
    second = str(service.make_key("key2").id)
    service.sandbox.control.advance(DAY)
    service.sandbox.control.behavior(read_lag="60")
    assert done(runner.module("batch_encryption", to_key(second)))["changed"] is True
    return first, second


def test_a_read_shows_the_key_before_the_runs_last_write(
    runner: OneProcess, service: Service, keys: tuple[str, str]
) -> None:
    first, _second = keys
    assert service.encryption() == first, "reads are late"

    assert done(runner.module("batch_encryption", to_key(first)))["changed"] is True

    service.sandbox.control.advance(61)
    assert service.encryption() == first
    assert service.is_available()


def test_a_rerun_after_the_last_write_sends_no_write(
    runner: OneProcess, service: Service, keys: tuple[str, str]
) -> None:
    time.sleep(61)
    since = service.sandbox.control.last

    assert done(runner.module("batch_encryption", to_key(keys[1])))["changed"] is False

    assert writes(service.sandbox.control.requests(since)) == []


@pytest.mark.parametrize(("seconds", "is_written"), [(100, True), (170, True), (190, False)])
def test_somebody_has_moved_the_account_back(
    runner: OneProcess, service: Service, keys: tuple[str, str], seconds: int, is_written: bool
) -> None:
    """The task cannot know why a read shows the previous key, until no read can be older than the write of the run."""
    time.sleep(seconds - 61)
    service.point(keys[0])
    time.sleep(61)
    since = service.sandbox.control.last

    assert done(runner.module("batch_encryption", to_key(keys[0])))["changed"] is is_written

    sent = writes(service.sandbox.control.requests(since))
    assert [one["method"] for one in sent] == (["PATCH"] if is_written else [])
    assert service.encryption() == keys[0]


@pytest.mark.parametrize("lag", ["5", "180"])
def test_reads_show_the_identity_before_the_role_has_changed_it(runner: OneProcess, service: Service, lag: str) -> None:
    """The previous identity has no access to the key."""
    service.make_account(identity={"type": "SystemAssigned"})
    service.make_identity()
    service.sandbox.control.behavior(read_lag=lag)
    variables = {
        "cmk_resource_group": GROUP,
        "cmk_location": LOCATION,
        "cmk_account_name": "account1",
        "cmk_vault_name": "vault-one",
        "cmk_key_name": "key1",
        "cmk_identity_id": service.identity_id(),
        "cmk_adopt_existing": True,
    }

    report = done(runner.role("provision", variables))

    assert report["changed_steps"]["account"], report
    time.sleep(DAY)
    assert service.encryption() == service.key().id
    assert service.is_available()
