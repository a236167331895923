# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A task waits as long as Azure's header Retry-After demands, but not longer than `wait_timeout`."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from harness import Ansible, fails, task
from sandbox_client import Control
from service import GROUP, Service


def date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def busy(retry_after: str, **match: str) -> dict[str, Any]:
    body = {"error": {"code": "TooManyRequests", "message": "The request is being throttled."}}
    return {"match": match, "answer": {"status": 429, "headers": {"Retry-After": retry_after}, "body": body}}


def refused_at_once(ansible: Ansible, control: Control, fault: dict[str, Any], **options: Any) -> None:
    control.call("POST", "/faults", {**fault, "times": None})
    change = task("change", "keyvault_cmk_key", vault_name="vault-one", name="key1", new_version=True, wait_timeout=30)
    run = ansible.play([fails(change)], **options)
    run["change"].refused("throttled")
    assert 3000 < run["change"]["retry_after"] <= 3600
    assert run["change"]["option"] == "wait_timeout"
    faulted = [one for one in control.requests() if one["fault"] and one["method"] != "CONNECT"]
    sent = Counter((one["method"], one["url"]) for one in faulted)
    # Two reads begin at the same time, and the second may sign in after the sign-in of the first has failed.
    assert max(sent.values()) <= (2 if fault["match"]["host"] == "login" else 1), sent


def test_a_longer_wait_than_the_task_may_take(ansible: Ansible, service: Service, control: Control, way: str) -> None:
    service.on_key()
    refused_at_once(ansible, control, busy("3600", host="vault-one"), way=way)


@pytest.mark.parametrize("host", ["vault-one", "login"])
def test_a_longer_wait_that_is_given_as_a_date(ansible: Ansible, service: Service, control: Control, host: str) -> None:
    service.on_key()
    refused_at_once(ansible, control, busy(date(3600), host=host), way="in_process")


def test_a_short_wait_that_is_given_as_a_date(ansible: Ansible, service: Service, control: Control, way: str) -> None:
    """The task waits during a switch, and then completes the switch."""
    service.on_key()
    newer = service.make_key().id
    control.call("POST", "/faults", busy(date(2), host="management", method="PATCH"))
    account = {"resource_group": GROUP, "account_name": "account1"}
    switch = task("switch", "batch_encryption", **account, key_source="microsoft_keyvault", key_identifier=newer)
    run = ansible.play([switch], way=way)
    assert run["switch"]["changed"] is True
    assert service.encryption() == newer


@pytest.mark.parametrize("host", ["management", "login"])
@pytest.mark.slow(every=2)
def test_ten_seconds_of_throttling(ansible: Ansible, service: Service, control: Control, host: str) -> None:
    """The SDKs give up at the fourth response."""
    service.on_key()
    control.call("POST", "/faults", {**busy("1", host=host), "times": 8})
    run = ansible.play([task("change", "keyvault_cmk_key", vault_name="vault-one", name="key1", new_version=True)])
    assert run["change"]["changed"] is True


@pytest.mark.parametrize("no_log", [False, True])
def test_a_wait_is_shown_without_no_log(ansible: Ansible, service: Service, control: Control, no_log: bool) -> None:
    service.make_account()
    control.call("POST", "/faults", busy("6", host="management", path="batchAccounts"))
    look = task("look", "batch_encryption_info", resource_group=GROUP, account_name="account1")
    run = ansible.play([look], way="in_process", keywords={"no_log": no_log})
    assert ("Waiting 6 s before the next request: " in run.output) is not no_log
