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

KEY1 = {"vault_name": "vault-one", "name": "key1"}
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


def updates(service: Service, since: int) -> list[str]:
    """The URLs of requests that have updated a key version since a request."""
    asked = service.sandbox.control.requests(since)
    return [one["url"] for one in asked if ".vault.azure.net/" in one["url"] and one["method"] == "PATCH"]


def retire(runner: OneProcess) -> dict[str, Any]:
    return done(runner.another().module("keyvault_cmk_unused_versions", KEY1))


@pytest.mark.parametrize("leaves", LEAVES)
def test_the_version_that_an_account_has_left_is_kept_for_the_margin(
    runner: OneProcess, service: Service, leaves: str
) -> None:
    target = begin(service) if leaves == "switch" else (begin(service), {})[1]
    first, second, third = service.versions()
    wanted = {**ON_ACCOUNT, **LEAVES[leaves], **target}
    since = service.sandbox.control.last
    assert done(runner.another().module("batch_encryption", wanted, check=True))["changed"]
    assert updates(service, since) == []

    report = done(runner.another().module("batch_encryption", wanted))

    assert report["available"] is True
    assert not report.get("warnings")
    [url] = updates(service, since)
    assert second.version in url
    after = service.versions()
    assert after[1].updated_on > second.updated_on
    assert [after[0].updated_on, after[2].updated_on] == [first.updated_on, third.updated_on]
    assert [(one.enabled, one.expires_on, one.tags) for one in after] == [
        (one.enabled, one.expires_on, one.tags) for one in (first, second, third)
    ]

    kept = retire(runner)
    assert (kept["disabled_versions"], kept["kept_versions"]) == ([first.version], [second.version])
    assert (kept["in_use_by"], bool(kept["kept_until"])) == ([], True)
    assert "because Batch may need it" in kept["summary"]
    service.sandbox.control.advance(7 * DAY - 600)
    assert retire(runner)["kept_versions"] == [second.version]
    service.sandbox.control.advance(600)
    assert retire(runner)["disabled_versions"] == [second.version]


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
