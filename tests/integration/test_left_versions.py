# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account that leaves a key. Before that, the versions that it may use are updated without a change, and they stay
enabled for the margin."""

from __future__ import annotations

import pytest
from callers import give, sign_in
from one_process import OneProcess
from operators import done
from service import DAY, GROUP, Service
from test_recover_combinations import ACTIONS, DELETED


@pytest.mark.parametrize("right", ["update", "list"])
def test_a_caller_who_may_not_update_the_version_is_warned(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, right: str
) -> None:
    """It uses the second of three versions."""
    service.on_key()
    service.sandbox.control.advance(30 * DAY)
    service.point(service.make_key().id)
    service.sandbox.control.advance(30 * DAY)
    service.make_key()
    other = service.make_key("other").id
    service.sandbox.control.advance(30 * DAY)
    permissions = {"update": ("get", "list"), "list": ("get",)}[right]
    at_group = give(service, service.sandbox.group, {*ACTIONS, "Microsoft.Batch/batchAccounts/write"}, set())
    who = sign_in(service, monkeypatch, [at_group, give(service, service.sandbox.subscription, {DELETED}, set())])
    service.set_policy("add", service.policy(who, *permissions))
    account = {"resource_group": GROUP, "account_name": "account1"}
    wanted = {**account, "key_source": "microsoft_keyvault", "key_identifier": other, "previous_key": "any"}

    check = done(runner.another().module("batch_encryption", wanted, check=True))
    report = done(runner.another().module("batch_encryption", wanted))

    assert report["changed"] is check["changed"] is True
    assert service.encryption() == other
    for told in (check, report) if right == "list" else (report,):
        (warning,) = told["warnings"]
        assert "may therefore disable them earlier" in warning
