# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account that leaves a key. Before that, the versions that it may use are updated without a change, and they stay
enabled for the margin."""

from __future__ import annotations

from typing import Any

import pytest
from callers import give, sign_in
from one_process import OneProcess
from operators import done
from service import DAY, GROUP, Service
from test_recover_combinations import ACTIONS, DATA_ACTIONS, DELETED, KEYS

ON_ACCOUNT = {"resource_group": GROUP, "account_name": "account1"}
LEAVES = {
    "switch": {"key_source": "microsoft_keyvault", "previous_key": "any"},
    "revert": {"key_source": "microsoft_batch"},
}


def begin(service: Service) -> dict[str, Any]:
    """An account that uses the second of three versions. Returns where it is moved."""
    service.on_key()
    service.sandbox.control.advance(30 * DAY)
    service.point(service.make_key().id)
    service.sandbox.control.advance(30 * DAY)
    service.make_key()
    other = service.make_key("other").id
    service.sandbox.control.advance(30 * DAY)
    return {"key_identifier": other}


@pytest.mark.parametrize("right", ["update", "list"])
def test_a_caller_who_may_not_update_the_version_is_warned(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, right: str
) -> None:
    target = begin(service)
    permissions = {"update": ("get", "list"), "list": ("get",)}[right]
    at_group = give(service, service.sandbox.group, {*ACTIONS, "Microsoft.Batch/batchAccounts/write"}, set())
    who = sign_in(service, monkeypatch, [at_group, give(service, service.sandbox.subscription, {DELETED}, set())])
    service.set_policy("add", service.policy(who, *permissions))
    wanted = {**ON_ACCOUNT, **LEAVES["switch"], **target}

    check = done(runner.another().module("batch_encryption", wanted, check=True))
    report = done(runner.another().module("batch_encryption", wanted))

    assert report["changed"] is check["changed"] is True
    assert service.encryption() == target["key_identifier"]
    for told in (check, report) if right == "list" else (report,):
        (warning,) = told["warnings"]
        assert "may therefore disable them earlier" in warning


def test_in_check_mode_a_missing_role_is_named(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = begin(service)
    service.change_vault(properties={"enableRbacAuthorization": True})
    service.grant(service.account()["identity"]["principalId"])
    service.sandbox.control.advance(DAY)
    data = {*DATA_ACTIONS} - {f"{KEYS}/update/action"}
    at_group = give(service, service.sandbox.group, {*ACTIONS, "Microsoft.Batch/batchAccounts/write"}, data)
    sign_in(service, monkeypatch, [at_group, give(service, service.sandbox.subscription, {DELETED}, set())])

    report = done(runner.module("batch_encryption", {**ON_ACCOUNT, **LEAVES["switch"], **target}, check=True))

    assert report["changed"]
    assert any("may therefore disable them earlier" in one for one in report["warnings"]), report
