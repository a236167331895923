# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A resource that a Batch account uses is not disabled, deleted or revoked without `force: true`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from callers import give, sign_in
from cases import DISABLE
from harness import Ansible, Task, advance, checked, fails, key, moment, task
from meddling import Wire
from moments import changes_version
from one_process import OneProcess
from role_runs import VARS
from service import DAY, ENCRYPTION_USER, GROUP, OFFICER, Service


def in_use(one: Task, *accounts: str) -> None:
    """Check that the task failed with code `in_use` and names these accounts."""
    one.refused("in_use")
    assert set(one["accounts"]) == set(accounts)
    for name in names(accounts):
        assert name in one["msg"]
    assert "force" in one["remedy"]
    assert one["unlisted"] == []


def warned(one: Task, *accounts: str) -> None:
    """Check that the task made its change, with a warning that names the accounts."""
    assert one["changed"] is True, one
    assert any(all(name in warning for name in names(accounts)) for warning in one.warnings), one.warnings


def names(accounts: Iterable[str]) -> list[str]:
    return [one.rpartition("/")[2] for one in accounts]


def test_key(ansible: Ansible, service: Service, way: str) -> None:
    """A version that a pinned account uses cannot be disabled. A version that no account uses can be disabled."""
    _principal, first = service.on_key()
    second, third = service.make_key().id, service.make_key().id
    service.make_account("account2")
    service.grant(service.account("account2")["identity"]["principalId"])
    service.point(second, "account2")
    service.make_key("other")
    # An account may need the version from which it was moved for seven days.
    service.sandbox.control.advance(8 * DAY)
    versions = [identifier.rpartition("/")[2] for identifier in (first, second, third)]
    account1, account2 = service.account_id(), service.account_id("account2")
    tasks = [
        fails(key("first", state="disabled", version=versions[0])),
        fails(checked(key("first", state="disabled", version=versions[0]))),
        fails(key("second", state="disabled", version=versions[1])),
        fails(key("all", state="disabled")),
        fails(key("delete", state="absent")),
        fails(checked(key("delete", state="absent"))),
        key("third", state="disabled", version=versions[2], vault_used_by="any"),
        key("third again", state="disabled", version=versions[2]),
        key("other", name="other", state="absent"),
    ]
    run = ansible.play(tasks, way=way)
    in_use(run["first"], account1)
    in_use(run["first (check)"], account1)
    in_use(run["second"], account2)
    in_use(run["all"], account1, account2)
    in_use(run["delete"], account1, account2)
    in_use(run["delete (check)"], account1, account2)
    assert run["third"]["changed"] is True
    assert run["third"].warnings == []
    assert run["third again"]["changed"] is False
    assert run["other"]["soft_deleted"] is True
    assert {one.version: one.enabled for one in service.versions()} == dict(
        zip(versions, (True, True, False), strict=True)
    )
    assert service.is_available()

    run = ansible.play(
        [
            checked(key("by force", state="disabled", version=versions[0], force=True)),
            key("by force", state="disabled", version=versions[0], force=True),
            key("deleted by force", state="absent", force=True),
        ],
        way=way,
    )
    warned(run["by force (check)"].untouched(), account1)
    warned(run["by force"], account1)
    warned(run["deleted by force"], account1, account2)
    # Without force, the task prevented this loss.
    assert not service.is_available()
    assert not service.is_available("account2")


def test_follower(ansible: Ansible, service: Service, way: str) -> None:
    """For seven days after a new version, an account that follows the latest version may need a previous version."""
    _principal, first = service.on_key(follow=True)
    second = service.make_key().id
    old, new = (identifier.rpartition("/")[2] for identifier in (first, second))
    account = service.account_id()
    run = ansible.play(
        [
            fails(key("old, soon", state="disabled", version=old)),
            advance("six days later", service.sandbox, 6 * DAY),
            fails(key("old, within seven days", state="disabled", version=old)),
            advance("eight days in all", service.sandbox, 2 * DAY),
            fails(key("new", state="disabled", version=new)),
            key("old, after seven days", state="disabled", version=old, vault_used_by="any"),
            fails(key("new, after that", state="disabled", version=new)),
            fails(key("all", state="disabled")),
            fails(key("gone", state="absent")),
        ],
        way=way,
    )
    recently = ("old, soon", "old, within seven days")
    for one in run.failed:
        if one.name not in recently:
            in_use(one, account)
    for name in recently:
        assert run[name].refused("recently_used")["accounts"] == [account]
        assert run[name]["kept_until"] in run[name]["msg"]
    assert run["old, after seven days"]["changed"] is True
    assert run["old, after seven days"].warnings == []
    assert {one.version: one.enabled for one in service.versions()} == {old: False, new: True}
    assert service.is_available()


@pytest.mark.parametrize("newest", [{"enabled": False}, {"key_operations": ["sign", "verify"]}, {"not_before": True}])
def test_follower_of_a_newest_version_that_batch_cannot_use(
    runner: OneProcess, service: Service, newest: dict[str, Any]
) -> None:
    """The account still uses the previous version, even after the margin."""
    service.on_key(follow=True)
    first = service.key().properties
    valid_from = first.created_on + timedelta(days=30)
    service.make_key(**{**newest, **({"not_before": valid_from} if "not_before" in newest else {})})
    service.sandbox.control.advance(8 * DAY)
    assert service.is_available()
    failure = runner.module(
        "keyvault_cmk_key_state",
        {"vault_name": "vault-one", "name": "key1", "state": "disabled", "version": first.version},
    )
    assert service.is_available(), failure
    assert (failure.get("code"), failure.get("accounts")) == ("in_use", [service.account_id()])


@pytest.mark.parametrize("rbac", [False, True])
def test_grant(ansible: Ansible, service: Service, way: str, rbac: bool) -> None:
    principal, _identifier = service.on_key(rbac=rbac)
    idle = service.make_account("idle")["identity"]["principalId"]
    service.grant(idle)
    service.sandbox.control.advance(8 * DAY)
    account = service.account_id()

    def away(title: str, **options: Any) -> dict[str, Any]:
        wanted = {"vault_name": "vault-one", "principal_id": principal, "state": "absent"}
        return task(title, "keyvault_cmk_access", **{**wanted, **options})

    run = ansible.play(
        [
            fails(away("used")),
            fails(checked(away("used"))),
            away("idle", principal_id=idle),
            checked(away("by force", force=True)),
            away("by force", force=True),
            fails(away("again")),
        ],
        way=way,
    )
    in_use(run["used"], account)
    in_use(run["used (check)"], account)
    assert run["idle"]["changed"] is True
    assert run["idle"].warnings == []
    warned(run["by force (check)"].untouched(), account)
    warned(run["by force"], account)
    assert "azbatch.cmk.recover" in run["again"].refused("in_use")["remedy"]
    assert not service.is_available()


@pytest.fixture
def shared(service: Service) -> str:
    """The principal of an identity that account1 and account2 share. account2 left the key of vault-one two days after
    account1, and four days ago."""
    principal: str = service.make_identity()["properties"]["principalId"]
    identity = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
    service.make_vault()
    service.grant(principal)
    used = service.make_key().id
    for name in ("account1", "account2"):
        service.make_account(name, identity=identity)
        service.point(used, name)
    service.sandbox.control.advance(30 * DAY)
    service.point(None)
    service.sandbox.control.advance(2 * DAY)
    service.point(None, "account2")
    service.sandbox.control.advance(4 * DAY)
    return principal


def revoked(runner: OneProcess, principal: str, **options: Any) -> dict[str, Any]:
    access = {"vault_resource_group": GROUP, "vault_name": "vault-one", "principal_id": principal, "state": "absent"}
    return runner.another().module("keyvault_cmk_access", {**access, **options})


def test_access_is_kept_until_the_margin_of_the_last_account_ends(
    runner: OneProcess, service: Service, shared: str
) -> None:
    control, both = service.sandbox.control, [service.account_id(), service.account_id("account2")]
    refused = revoked(runner, shared)
    kept = revoked(runner, shared, in_use="keep")
    now = datetime.fromtimestamp(control.call("GET", "/clock")["time"], UTC)

    assert (refused["code"], sorted(refused["accounts"])) == ("recently_used", both), refused
    assert (kept["changed"], sorted(kept["in_use_by"])) == (False, both), kept
    assert refused["kept_until"] == kept["kept_until"]
    assert abs(moment(kept["kept_until"]) - now - timedelta(days=3)) < timedelta(hours=1)
    # The margin of account1 has ended, and that of account2 has not.
    control.advance(2 * DAY)
    again = revoked(runner, shared)
    assert (again["code"], again["accounts"], again["kept_until"]) == ("recently_used", both[1:], kept["kept_until"])
    control.advance(DAY + 3600)
    assert revoked(runner, shared)["changed"] is True
    assert service.permissions(shared) is None


def test_the_margin_ends_while_the_times_of_the_accounts_are_read(
    runner: OneProcess, service: Service, shared: str, wire: Wire
) -> None:
    """A response that was slow shows that the margin has ended."""
    control = service.sandbox.control
    control.advance(3 * DAY - 1800)
    since = control.last

    def is_read(url: str, account: str) -> bool:
        return url.partition("?")[0].endswith(f"/batchAccounts/{account}")

    def takes_an_hour() -> None:
        for _try in range(100):
            if any(is_read(one["url"], "account1") for one in control.requests(since)):
                break
        control.advance(3600)

    with wire.meddled(lambda request: is_read(request.url, "account2"), takes_an_hour):
        report = revoked(runner, shared)

    assert report["changed"] is True, report


@pytest.mark.slow
def test_grant_of_another_key(ansible: Ansible, service: Service, way: str) -> None:
    """A role assignment on a key is in use only if an account uses that key and has no other role."""
    principal, _identifier = service.on_key(rbac=True)
    service.make_key("other")
    service.assign(principal, f"{service.vault_id()}/keys/other")
    service.assign(principal, f"{service.vault_id()}/keys/key1")
    service.sandbox.control.advance(8 * DAY)

    def away(title: str, **options: Any) -> dict[str, Any]:
        wanted = {"vault_name": "vault-one", "principal_id": principal, "state": "absent"}
        return task(title, "keyvault_cmk_access", **wanted, **options)

    run = ansible.play(
        [
            away("other", key_name="other"),
            checked(away("redundant", key_name="key1")),
            away("redundant", key_name="key1"),
            fails(away("used")),
        ],
        way=way,
    )
    assert run["other"]["changed"] is True
    # The role at the vault still gives the account its access.
    for title in ("redundant (check)", "redundant"):
        assert run[title]["changed"] is True
        assert run[title]["granted"] == ["get", "unwrapKey", "wrapKey"]
        assert [service.vault_id() in warning for warning in run[title].warnings] == [True]
    in_use(run["used"], service.account_id())
    assert service.is_available()


def test_a_role_at_a_key_that_a_new_role_at_the_vault_makes_redundant(runner: OneProcess, service: Service) -> None:
    """A new role may not be in effect for ten minutes."""
    service.make_vault(rbac=True)
    principal = service.make_account()["identity"]["principalId"]
    service.assign(principal, f"{service.vault_id()}/keys/key1")
    service.point(service.make_key().id)
    service.sandbox.control.advance(8 * DAY)
    wanted = {"vault_name": "vault-one", "principal_id": principal, "key_name": "key1", "state": "absent"}
    assert runner.module("keyvault_cmk_access", wanted)["code"] == "in_use"
    service.assign(principal, service.vault_id())

    refused = runner.another().module("keyvault_cmk_access", wanted)
    assert refused["code"] == "recently_used"
    assert refused["accounts"] == [service.account_id()]
    kept = runner.another().module("keyvault_cmk_access", {**wanted, "in_use": "keep"})
    assert (kept["changed"], kept["kept_until"]) == (False, refused["kept_until"])
    assert refused["kept_until"] in refused["msg"]

    service.sandbox.control.advance(601)
    assert runner.another().module("keyvault_cmk_access", wanted)["changed"] is True
    assert service.assignments(principal) == [(service.vault_id(), ENCRYPTION_USER)]
    assert service.is_available()


def test_identity(ansible: Ansible, service: Service, way: str) -> None:
    """The identity that an account uses for its key is changed only with `force: true`."""
    service.on_key()
    service.make_identity()
    other = {
        "resource_group": GROUP,
        "name": "account1",
        "identity_id": service.identity_id(),
        "allowed_repairs": ["identity"],
    }
    service.make_account("free")
    service.make_account("none", identity={"type": "None"})
    run = ansible.play(
        [
            fails(task("used", "batch_account_identity", **other)),
            fails(checked(task("used", "batch_account_identity", **other))),
            fails(task("other", "batch_account_identity", **{**other, "name": "free", "allowed_repairs": []})),
            fails(task("none", "batch_account_identity", resource_group=GROUP, name="none")),
            task("as it is", "batch_account_identity", resource_group=GROUP, name="account1"),
        ],
        way=way,
    )
    for name in ("used", "used (check)"):
        assert run[name].refused("identity_in_use")["accounts"] == [service.account_id()]
        assert run[name]["option"] == "identity_id"
        assert "Leave out identity_id" in run[name]["remedy"]
    assert run["other"].refused("identity_differs")["option"] == "identity_id"
    assert run["none"].refused("account_without_identity")["option"] == "allowed_repairs"
    assert run["as it is"]["changed"] is False
    assert service.is_available()


def test_accounts_that_cannot_be_listed_count_as_users(ansible: Ansible, service: Service, way: str) -> None:
    """If the accounts of a subscription cannot be listed, they count as users."""
    service.make_vault()
    service.make_key()
    version = service.make_key().properties.version
    officer = service.sandbox.control.principal("officer", roles=[])
    service.set_policy("add", service.policy(officer["object_id"], "get", "list", "update"))
    service.sandbox.control.fault(
        match={"method": "GET", "path": "/providers/Microsoft.Batch/batchAccounts[?]"},
        times=None,
        answer={"status": 403, "body": {"error": {"code": "AuthorizationFailed", "message": "No."}}},
    )
    wanted = {"state": "disabled", "version": version, "vault_used_by": "any"}
    run = ansible.play([fails(key("disabled", **wanted)), key("by force", **wanted, force=True)], way=way)
    [unlisted] = run["disabled"].refused("users_unknown")["unlisted"]
    assert unlisted["scope"] == service.sandbox.subscription
    assert unlisted["action"] == "Microsoft.Batch/batchAccounts/read"
    assert run["by force"]["changed"] is True
    assert len(run["by force"].warnings) == 1
    assert service.sandbox.subscription in run["by force"].warnings[0]


@pytest.mark.slow
def test_expiry_and_rotation(ansible: Ansible, service: Service, way: str) -> None:
    """Changes that disable the key later are checked too."""
    _principal, identifier = service.on_key(follow=True)
    account1 = service.account_id()
    policy = {"time_after_create": "P90D", "expiry_time": "P1Y"}
    run = ansible.play(
        [
            key("rotates", rotation_policy=policy),
            key("expires", expires_in="P30D"),
            fails(key("rotates no more", remove_rotation_policy=True)),
        ],
        way=way,
    )
    in_use(run["rotates no more"], account1)
    # The option applies to versions that the task creates. The expiry of existing versions is not brought forward.
    assert run["expires"].untouched()["changed"] is False
    assert service.key().properties.expires_on is None
    assert service.is_available()

    pinned = ansible.play(
        [
            task(
                "pin",
                "batch_encryption",
                resource_group=GROUP,
                account_name="account1",
                key_source="microsoft_keyvault",
                key_identifier=identifier,
                version_mode="pin",
            ),
            key("rotates no more", remove_rotation_policy=True),
            key("as before", remove_rotation_policy=True),
            key("expires, with force", expires_in="P30D", force=True),
        ],
        way=way,
    )
    assert pinned["rotates no more"]["changed"] is True
    assert pinned["rotates no more"]["rotation_policy"]["time_after_create"] is None
    assert pinned["as before"]["changed"] is False
    assert pinned["expires, with force"].untouched()["changed"] is False
    assert service.is_available()


def encrypts_its_disks(service: Service, key: str, account: str = "account1", **identity: Any) -> str:
    """Create a pool of the account whose disks are encrypted with this key. Returns its ID."""
    own = {"targets": ["OsDisk"], "customerManagedKey": {"keyUrl": key}}
    machine = {"virtualMachineConfiguration": {"diskEncryptionConfiguration": own}}
    service.make_pool("pool1", account, deploymentConfiguration=machine, **identity)
    return f"{service.account_id(account)}/pools/pool1"


def test_version_that_a_pool_encrypts_its_disks_with(runner: OneProcess, service: Service) -> None:
    """The account is moved to a new version, but the disks of its pool still use the previous version."""
    _principal, first = service.on_key()
    pool = encrypts_its_disks(service, first)
    report = runner.role("rotate", {**VARS, "cmk_key_new_version": True})
    assert service.encryption() != first, report
    service.sandbox.control.advance(8 * DAY)
    for after in ({}, {"cmk_unused_for": "P0D"}):
        report = runner.another().role("rotate", {**VARS, **DISABLE, **after})
        assert (report["changed"], report["key_kept_for"], report["key_kept_until"]) == (False, [pool], None)
    assert service.key(version=first.rpartition("/")[2]).properties.enabled


def test_a_pool_that_was_changed_recently_keeps_the_previous_version(runner: OneProcess, service: Service) -> None:
    """The pool uses the new version, but may have used the previous version before its last change."""
    _principal, first = service.on_key()
    assert runner.role("rotate", {**VARS, "cmk_key_new_version": True})["changed"]
    service.sandbox.control.advance(3 * DAY)
    pool = encrypts_its_disks(service, service.key().id)
    wanted = {**VARS, "cmk_unused_versions": "disable"}
    service.sandbox.control.advance(5 * DAY)
    report = runner.another().role("rotate", wanted)
    assert (report["changed"], report["key_kept_for"]) == (False, [pool]), report
    assert report["key_kept_until"]
    service.sandbox.control.advance(2 * DAY + 60)
    report = runner.another().role("rotate", wanted)
    assert report["changed_steps"]["unused_disabled"], report
    assert not service.key(version=first[-32:]).properties.enabled


@pytest.mark.parametrize("rbac", [False, True])
def test_a_pool_that_could_not_adopt_the_newest_version_for_the_margin(
    runner: OneProcess, service: Service, rbac: bool
) -> None:
    """The pool follows the key. When the newest version was created, the pool had lost the access, and has it again
    since a minute."""
    service.on_key(rbac=rbac, follow=True)
    principal = service.make_identity()["properties"]["principalId"]
    service.grant(principal)
    identity = service.identity_id()
    followed = {"keyUrl": str(service.key().id), "rotationToLatestKeyVersionEnabled": True}
    own = {"targets": ["OsDisk"], "customerManagedKey": {**followed, "identityReference": {"resourceId": identity}}}
    service.make_pool(
        "pool1",
        identity={"type": "UserAssigned", "userAssignedIdentities": {identity: {}}},
        deploymentConfiguration={"virtualMachineConfiguration": {"diskEncryptionConfiguration": own}},
    )
    control = service.sandbox.control
    control.advance(30 * DAY)
    service.make_key()
    control.advance(30 * DAY)
    service.revoke(principal)
    control.advance(DAY)
    service.make_key()
    control.advance(9 * DAY)
    service.grant(principal)
    control.advance(60)

    report = runner.role("rotate", {**VARS, "cmk_unused_versions": "disable"})

    assert report["changed"] is False, report
    assert service.enabled() == [True, True, True]


def test_the_access_of_a_pool_is_not_read_if_force_decides(runner: OneProcess, service: Service) -> None:
    _principal, first = service.on_key(rbac=True)
    encrypts_its_disks(service, first)
    service.point(None)
    service.make_key()
    since = service.sandbox.control.last
    disable = {"vault_name": "vault-one", "name": "key1", "version": first[-32:], "state": "disabled", "force": True}

    assert runner.module("keyvault_cmk_key_state", disable)["changed"]

    asked = [one["url"] for one in service.sandbox.control.requests(since)]
    assert [url for url in asked if "/pools" in url]
    assert [url for url in asked if "roleAssignments" in url] == []


def test_a_key_that_a_pool_of_another_account_uses(runner: OneProcess, service: Service) -> None:
    """A pool may use a key that no account uses."""
    principal, _first = service.on_key()
    service.point(None)
    service.make_account("account2")
    first = service.key().id
    service.make_key()
    pool = encrypts_its_disks(service, first, "account2")
    # account1 has not used the key for the margin.
    service.sandbox.control.advance(8 * DAY)
    ours = {"vault_name": "vault-one", "name": "key1"}
    refusals = {
        "version": runner.module("keyvault_cmk_key_state", {**ours, "state": "disabled", "version": first[-32:]}),
        "key": runner.module("keyvault_cmk_key_state", {**ours, "state": "absent"}),
    }
    for what, report in refusals.items():
        assert (report["code"], report["accounts"], report["pools"]) == ("in_use", [], [pool]), what
        assert "because 1 pool uses it" in report["msg"]
    # The pool cannot have the system-assigned identity of another account.
    access = {"vault_name": "vault-one", "principal_id": principal, "state": "absent"}
    assert runner.module("keyvault_cmk_access", access)["changed"]
    assert runner.module("keyvault_cmk_key_state", {**ours, "state": "disabled", "version": service.key().id[-32:]})[
        "changed"
    ]


def test_a_pool_created_while_its_key_is_disabled(runner: OneProcess, service: Service, wire: Wire) -> None:
    """The check after the change finds the pool, and the version is enabled again."""
    service.on_key()
    first = service.make_key().id
    service.make_key()
    service.sandbox.control.advance(8 * DAY)

    def comes() -> None:
        encrypts_its_disks(service, first)

    key = {"vault_name": "vault-one", "name": "key1", "state": "disabled", "version": first[-32:]}
    with wire.meddled(changes_version, comes):
        report = runner.module("keyvault_cmk_key_state", key)

    assert report["code"] == "in_use", report
    assert service.key(version=first[-32:]).properties.enabled


def test_pools_of_an_unavailable_account(runner: OneProcess, service: Service) -> None:
    """The pools of an unavailable account cannot be listed, so they may use any key."""
    service.on_key()
    service.disable()
    spare = service.make_key("spare").properties.version
    service.make_key("spare")
    service.sandbox.control.advance(8 * DAY)
    key = {"vault_name": "vault-one", "name": "spare", "version": spare}

    refused = runner.module("keyvault_cmk_key_state", {**key, "state": "disabled"})
    kept = runner.module("keyvault_cmk_key_state", {**key, "state": "disabled", "in_use": "keep"})
    forced = runner.module("keyvault_cmk_key_state", {**key, "state": "disabled", "force": True})

    account = service.account_id()
    assert (refused["code"], refused["accounts"]) == ("in_use", [account]), refused
    assert "recover it, or delete it" in refused["msg"]
    assert (kept["changed"], kept["in_use_by"]) == (False, [account])
    assert any("may use any key" in warning for warning in kept["warnings"])
    assert forced["changed"] is True


def test_pools_that_the_caller_may_not_list(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller lacks the permission in another resource group. Nothing is disabled."""
    service.on_key()
    newest = service.make_key().id
    service.point(newest)
    service.sandbox.control.advance(8 * DAY)
    sandbox = service.sandbox
    elsewhere = f"{sandbox.subscription}/resourceGroups/elsewhere"
    assert sandbox.arm("PUT", elsewhere, "2021-04-01", {"location": "westeurope"}).ok
    hidden = f"{elsewhere}/providers/Microsoft.Batch/batchAccounts/hidden"
    assert sandbox.arm("PUT", hidden, "2024-07-01", {"location": "westeurope"}).ok
    listing = ("Microsoft.Batch/batchAccounts/read", "Microsoft.Authorization/permissions/read")
    roles = [{"role": "Owner", "scope": sandbox.group}, give(service, sandbox.subscription, listing)]
    who = sign_in(service, monkeypatch, roles)
    service.set_policy("add", service.policy(who, *OFFICER))
    report = runner.another().role("rotate", {**VARS, **DISABLE, "cmk_vault_used_by": "batch"})
    assert report["code"] == "users_unknown", report
    [unlisted] = report["unlisted"]
    assert (unlisted["scope"], unlisted["action"]) == (sandbox.subscription, f"{listing[0][:-5]}/pools/read")
    assert service.encryption() == newest
    assert service.enabled() == [True, True]


def test_unused_versions_if_accounts_cannot_be_listed(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller sees only its own resource group. It may rotate, and keep unused versions."""
    service.on_key()
    newest = service.make_key().id
    service.point(newest)
    service.sandbox.control.advance(8 * DAY)
    who = sign_in(service, monkeypatch, [{"role": "Owner", "scope": service.sandbox.group}])
    service.set_policy("add", service.policy(who, *OFFICER))
    force = {**VARS, "cmk_key_new_version": True}

    report = runner.another().role("rotate", {**force, "cmk_unused_versions": "disable"})
    assert report["code"] == "users_unknown", report
    assert "unused_versions: keep" in report["remedy"]
    assert (service.encryption(), len(service.versions())) == (service.key().id, 3)
    report = runner.another().role("rotate", force)
    assert report["changed_steps"] == {"key": True, "encryption": True, "unused_disabled": False}
    assert all(version.enabled for version in service.versions())


def test_an_account_without_its_key_can_be_deleted(ansible: Ansible, service: Service, way: str) -> None:
    """An account that has lost its key can only be deleted."""
    _principal, identifier = service.on_key()
    service.disable()
    assert not service.is_available()
    run = ansible.play(
        [
            fails(
                task(
                    "to Batch",
                    "batch_encryption",
                    resource_group=GROUP,
                    account_name="account1",
                    key_source="microsoft_batch",
                )
            ),
            task("info", "batch_encryption_info", resource_group=GROUP, account_name="account1"),
            task("gone", "batch_account_identity", resource_group=GROUP, name="account1", state="absent"),
            key("now the key too", state="absent"),
        ],
        way=way,
    )
    one = run["to Batch"].refused("account_unavailable", by_azure=True)
    assert one["key_identifier"] == run["info"]["key_identifier"] == identifier
    assert run["info"]["available"] is False
    assert run["info"]["unavailable_reason"]
    assert run["gone"]["exists"] is False
    assert run["now the key too"]["changed"] is True
    assert service.accounts() == []
