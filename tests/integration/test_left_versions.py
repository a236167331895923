# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account that leaves a key. Before that, the versions that it may use are updated without a change, and they stay
enabled for the margin. An account that uses another key does not count for the versions of this key."""

from __future__ import annotations

from typing import Any

import pytest
from callers import give, sign_in
from meddling import Wire
from moments import lists_accounts
from one_process import OneProcess
from operators import done
from role_runs import VARS
from service import DAY, GROUP, Service
from test_recover_combinations import ACTIONS, DATA_ACTIONS, DELETED, KEYS

KEY1 = {"vault_name": "vault-one", "name": "key1"}
ON_ACCOUNT = {"resource_group": GROUP, "account_name": "account1"}
LEAVES = {
    "switch": {"key_source": "microsoft_keyvault", "previous_key": "any"},
    "revert": {"key_source": "microsoft_batch"},
}


def begin(service: Service, *, follow: bool = False) -> dict[str, Any]:
    """An account that uses the second of three versions, or follows them. Returns where it is moved."""
    service.on_key(follow=follow)
    service.sandbox.control.advance(30 * DAY)
    second = service.make_key().id
    if not follow:
        service.point(second)
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


def test_an_account_that_leaves_just_before_the_accounts_are_listed(
    runner: OneProcess, wire: Wire, service: Service
) -> None:
    """The task has read the versions before, and the list does not show the account with the key any more."""
    target = begin(service)
    first, second, _third = service.versions()

    def leaves() -> None:
        done(runner.another().module("batch_encryption", {**ON_ACCOUNT, **LEAVES["switch"], **target}))

    with wire.meddled(lists_accounts, leaves):
        report = retire(runner)

    assert (report["disabled_versions"], report["kept_versions"]) == ([first.version], [second.version])


def test_no_version_is_updated_if_the_account_leaves_the_newest(runner: OneProcess, service: Service) -> None:
    target = begin(service)
    service.point(service.versions()[-1].id)
    service.sandbox.control.advance(8 * DAY)
    since = service.sandbox.control.last

    done(runner.another().module("batch_encryption", {**ON_ACCOUNT, **LEAVES["switch"], **target}))

    assert updates(service, since) == []
    assert len(retire(runner)["disabled_versions"]) == 2


def test_each_version_that_the_account_may_use_is_updated(runner: OneProcess, service: Service) -> None:
    """The account was moved to the newest version an hour ago."""
    target = begin(service)
    service.point(service.versions()[-1].id)
    service.sandbox.control.advance(3600)

    done(runner.another().module("batch_encryption", {**ON_ACCOUNT, **LEAVES["switch"], **target}))

    assert len(retire(runner)["kept_versions"]) == 2


@pytest.mark.parametrize("days", [1, 8])
def test_a_follower_that_leaves(runner: OneProcess, service: Service, days: int) -> None:
    """Until it could use the newest version for the margin, it may use each version."""
    target = begin(service, follow=True)
    service.make_key()
    service.sandbox.control.advance(days * DAY)

    done(runner.another().module("batch_encryption", {**ON_ACCOUNT, **LEAVES["switch"], **target}))

    report = retire(runner)
    # After a day, also the version that the newest has replaced.
    assert len(report["kept_versions"]) == (3 if days == 1 else 0)


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
    wanted = {**ON_ACCOUNT, **LEAVES["switch"], **target}

    for check in (True, False):
        report = done(runner.another().module("batch_encryption", wanted, check=check))
        assert any("may therefore disable them earlier" in one for one in report["warnings"]), report
        assert report["changed"]


def test_tags_on_accounts_of_other_keys_do_not_matter(runner: OneProcess, service: Service) -> None:
    service.on_key()
    other = service.make_key("other").id
    service.grant(service.make_account("account2")["identity"]["principalId"])
    service.point(other, "account2")
    service.sandbox.control.advance(30 * DAY)
    done(runner.another().role("rotate", {**VARS, "cmk_key_new_version": True}))
    for night in range(8):
        service.change_account("account2", tags={"night": str(night)})
        service.sandbox.control.advance(DAY)
    assert len(retire(runner)["disabled_versions"]) == 1
