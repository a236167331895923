# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role recover by its playbook: every way to lose access to a key, its repair, and accounts that the role cannot
recover."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cases import CLOSED
from harness import Ansible, Run
from meddling import REALISTIC, SETTLED
from one_process import RolesRunner
from reports import DIAGNOSIS
from role_runs import holdings, play_role, refused, result, run_role, steps, unchanged, wrote
from service import DAY, GROUP, Service

from ansible_collections.azbatch.cmk.plugins.module_utils._core.duration import moment

ACCOUNT = {"cmk_resource_group": "rg-sandbox", "cmk_account_name": "account1"}
WAIT = "Wait until the account is available"


def recover(roles: RolesRunner, **options: Any) -> Run:
    return play_role(roles, "recover", **options)


def principal(service: Service) -> str:
    return str(service.account()["identity"]["principalId"])


def delete_key(service: Service) -> None:
    service.keys().begin_delete_key("key1").wait()


def expire(service: Service) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    service.keys().update_key_properties("key1", expires_on=soon)
    service.sandbox.control.advance(DAY)


def take_unwrap(service: Service) -> None:
    service.keys().update_key_properties("key1", key_operations=["wrapKey"])


Loss = Callable[[Service], None]
LOSSES: dict[str, tuple[Loss, list[str], list[str]]] = {
    "vault deleted": (Service.delete_vault, ["vault_deleted"], ["vault"]),
    "key deleted": (delete_key, ["key_deleted"], ["key"]),
    "disabled": (Service.disable, ["version_unusable"], ["version"]),
    "expired": (expire, ["version_unusable"], ["version"]),
    "may not unwrap": (take_unwrap, ["operations_missing"], ["version"]),
    "grant revoked": (lambda service: service.revoke(principal(service)), ["access_missing"], ["access"]),
    "firewall": (
        lambda service: service.change_vault(properties={"networkAcls": CLOSED}),
        ["network_closed"],
        ["network"],
    ),
}


@pytest.mark.slow(every=3)
@pytest.mark.parametrize(
    ("loss", "rbac", "follow"),
    [
        *(pytest.param(loss, False, False, id=loss) for loss in LOSSES),
        *(pytest.param(loss, True, True, id=f"{loss}, follows, by role") for loss in ("vault deleted", "disabled")),
        pytest.param("grant revoked", True, False, id="grant revoked, by role"),
    ],
)
def test_an_account_is_recovered(roles: RolesRunner, service: Service, loss: str, rbac: bool, follow: bool) -> None:
    lose, causes, repaired = LOSSES[loss]
    service.on_key(rbac=rbac, follow=follow)
    identifier = service.encryption()
    before = holdings(service)
    lose(service)
    assert not service.is_available()

    lost = holdings(service) if loss != "vault deleted" else None
    predicted = recover(roles, check=True)
    assert wrote(predicted) == []
    assert [cause["name"] for cause in result(predicted)["causes"]] == causes
    assert lost is None or holdings(service) == lost

    run = recover(roles)
    reported = result(run)
    assert [cause["name"] for cause in reported["causes"]] == causes
    # The role assignments on a vault are deleted with the vault, and its recovery does not restore them.
    expected = ["vault", "access"] if loss == "vault deleted" and rbac else repaired
    assert steps(run) == expected
    # The permission model of a deleted vault is known only after its recovery, so the check predicts a grant.
    assert steps(predicted) == (["vault", "access"] if loss == "vault deleted" else expected)
    assert (reported["answered_before"], reported["available"], reported["key_identifier"]) == (False, True, identifier)
    assert service.is_available()
    if loss not in ("expired", "firewall"):
        assert holdings(service) == before
    unchanged(recover(roles))


def test_an_account_that_is_about_to_lose_its_key(roles: RolesRunner, service: Service) -> None:
    """A revocation takes effect later. That Batch lists the pools does not show that the account can use its key."""
    service.on_key(rbac=True)
    service.sandbox.control.timing(**REALISTIC)
    service.sandbox.control.advance(60)
    service.revoke(principal(service))
    run = recover(roles)
    assert steps(run) == ["access"]
    assert result(run)["available"] is None
    at = moment(run[WAIT]["available_known_from"]) or 0
    service.sandbox.control.advance(SETTLED + REALISTIC["batch_recovery"])
    assert service.is_available()
    service.sandbox.control.advance(at - service.sandbox.control.call("GET", "/clock")["time"])
    assert result(recover(roles))["available"] is True


def test_network_rules_for_others_stay(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    service.change_vault(properties={"networkAcls": CLOSED})
    recover(roles)
    rules = service.vault()["properties"]["networkAcls"]
    assert (rules["bypass"], rules["defaultAction"]) == ("AzureServices", "Deny")
    assert [rule["value"] for rule in rules["ipRules"]] == ["127.0.0.1/32"]


def test_a_vault_that_is_not_public(roles: RolesRunner, service: Service) -> None:
    """Batch returns an error that public network access is disabled, instead of an error about the key."""
    service.on_key()
    service.change_vault(properties={"publicNetworkAccess": "Disabled", "networkAcls": CLOSED})
    assert not service.is_available()
    assert steps(recover(roles)) == ["network"]
    assert service.is_available()
    assert service.vault()["properties"]["publicNetworkAccess"] == "Disabled"


def test_ip_rules_that_do_not_let_batch_in(roles: RolesRunner, service: Service) -> None:
    """Batch refuses the account, and reports why."""
    service.sandbox.control.behavior(pools_without_key="409")
    service.on_key()
    rules = [*CLOSED["ipRules"], {"value": "198.51.100.7"}]
    service.change_vault(properties={"networkAcls": {**CLOSED, "ipRules": rules}})
    assert steps(recover(roles)) == ["network"]
    assert service.is_available()


def test_an_expired_version_is_extended_by_the_configured_duration(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    expire(service)
    now = service.sandbox.control.call("GET", "/clock")["time"]
    recover(roles, cmk_recover_extend_expired_by="P2D")
    expires = service.key().properties.expires_on.timestamp()
    assert abs(expires - now - 2 * DAY) < 300


def test_several_causes_are_repaired_in_order(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    service.disable()
    service.revoke(principal(service))
    service.change_vault(properties={"networkAcls": CLOSED})
    run = recover(roles)
    assert [cause["name"] for cause in result(run)["causes"]] == [
        "network_closed",
        "version_unusable",
        "access_missing",
    ]
    assert steps(run) == ["network", "version", "access"]
    assert service.is_available()


def test_a_key_in_a_deleted_vault_that_was_deleted_before(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    delete_key(service)
    service.delete_vault()
    run = recover(roles)
    assert [cause["name"] for cause in result(run)["causes"]] == ["vault_deleted"]
    assert steps(run) == ["vault", "key"]
    assert service.is_available()


def test_one_version_of_several(roles: RolesRunner, service: Service) -> None:
    """A version that the account cannot have used stays disabled."""
    _, first = service.on_key()
    second = service.make_key()
    service.sandbox.control.advance(8 * DAY)
    service.disable(version=first.rpartition("/")[2])
    service.disable(version=second.properties.version)
    recover(roles)
    assert service.key(version=first.rpartition("/")[2]).properties.enabled
    assert not service.key(version=second.properties.version).properties.enabled


@pytest.mark.parametrize("usable", [True, False])
def test_a_follower_that_could_not_move_to_newer_versions(roles: RolesRunner, service: Service, usable: bool) -> None:
    """The account's version was disabled before Batch could use the newer versions, so Batch still needs it."""
    _, first = service.on_key(follow=True)
    if usable:
        service.disable()
    for _ in range(2):
        service.make_key(enabled=usable)
    service.sandbox.control.advance(2 * DAY)
    service.disable(version=first.rpartition("/")[2])
    assert not service.is_available()

    assert steps(recover(roles)) == ["version"]
    assert service.is_available()


def test_the_recovery_of_ten_minutes_is_waited_for(ansible: Ansible, service: Service) -> None:
    service.on_key()
    service.sandbox.control.timing(batch_recovery=600)
    service.disable()
    control, since = service.sandbox.control, service.sandbox.control.last

    def recover_in_a_while() -> None:
        """Advance the clock some seconds after the role begins to wait."""
        while not is_waiting(control.requests(since)):
            time.sleep(0.2)
        time.sleep(6)
        control.advance(600)

    def is_waiting(requests: list[dict[str, Any]]) -> bool:
        """Whether the role has listed the account's pools after it enabled the key."""
        after_change = itertools.dropwhile(lambda one: not (one["write"] and "/keys/" in one["url"]), requests)
        return any(one["url"].partition("?")[0].endswith("/pools") for one in after_change)

    clock = threading.Thread(target=recover_in_a_while, daemon=True)
    clock.start()
    run = recover(ansible)
    clock.join(1)
    assert result(run)["available"] is True
    waits = re.findall(r"^\[localhost\]: Waiting for (.*)$", run.output, re.M)
    assert re.fullmatch(
        r"the Batch account account1 to become available \(0 of \d+ s\)\. Azure reports: \(\w+\) .*", waits[0]
    )
    assert len(waits) > 2
    assert all(re.fullmatch(r"the Batch account account1 to become available \(\d+ of \d+ s\)", w) for w in waits[1:])


def test_an_account_that_stays_unavailable_is_reported(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    service.sandbox.control.timing(batch_recovery=600)
    service.disable()
    run = run_role(roles, "recover", cmk_wait_timeout=3)
    assert run.rc != 0
    assert run[WAIT]["code"] == "account_unavailable"
    service.sandbox.control.advance(600)
    run = recover(roles)
    assert result(run)["changed"] is False


# Accounts that are not recovered


def test_a_purged_key(roles: RolesRunner, service: Service) -> None:
    """Purge protection prevents a purge of the key, but Azure purges the key with its vault after the retention
    period."""
    service.on_key()
    service.delete_vault()
    service.sandbox.control.advance(91 * DAY)
    run = run_role(roles, "recover")
    refused(run, DIAGNOSIS, "vault_missing", "can only be deleted")
    service.make_vault()
    run = run_role(roles, "recover")
    refused(run, DIAGNOSIS, "key_missing", "backup", "can only be deleted")
    service.make_key()
    run = run_role(roles, "recover")
    refused(run, DIAGNOSIS, "version_missing", "can only be deleted")


@pytest.mark.parametrize("recreated", [False, True])
def test_a_deleted_identity(roles: RolesRunner, service: Service, recreated: bool) -> None:
    identity = service.make_identity()
    service.make_vault()
    service.grant(identity["properties"]["principalId"])
    key = service.make_key()
    assigned = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
    service.make_account(identity=assigned)
    service.point(key.id)
    service.identities.user_assigned_identities.delete("rg-sandbox", "identity1")
    if recreated:
        # The new identity has the same resource ID but another principal, which the account does not use.
        service.make_identity()
    assert not service.is_available()
    refused(
        run_role(roles, "recover"),
        DIAGNOSIS,
        "identity_missing",
        "were deleted",
        "can only be deleted",
    )


def test_a_vault_that_was_moved_to_another_tenant(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    other = service.sandbox.control.call("POST", "/tenants", {"name": "Elsewhere"})
    service.change_vault(properties={"tenantId": other["tenant_id"], "accessPolicies": []})
    assert not service.is_available()
    refused(
        run_role(roles, "recover"),
        DIAGNOSIS,
        "vault_in_other_tenant",
        "Move the vault back",
        "This task changed nothing",
    )


def test_a_follower_whose_version_was_purged(roles: RolesRunner, service: Service) -> None:
    """A new key of the same name does not make the account available, so the role fails without a wait."""
    service.on_key(follow=True)
    service.delete_vault()
    service.sandbox.control.advance(91 * DAY)
    service.make_vault()
    service.grant(principal(service))
    service.make_key()
    assert not service.is_available()
    refused(run_role(roles, "recover"), DIAGNOSIS, "version_missing", "was not found", "can only be deleted")


def test_a_follower_whose_newest_version_is_of_another_type(roles: RolesRunner, service: Service) -> None:
    """Batch does not use an EC key, and needs the version before it, which Batch names."""
    _, first = service.on_key(follow=True)
    service.sandbox.control.advance(60)
    service.keys().create_ec_key("key1")
    assert service.is_available()
    service.disable(version=first.rpartition("/")[2])
    assert not service.is_available()

    assert result(recover(roles, check=True))["available"] is True
    run = recover(roles)

    assert result(run)["available"] is True
    assert service.is_available()
    assert steps(run) == ["version"]


def test_a_repair_that_is_not_allowed(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    service.disable()
    run = run_role(roles, "recover", cmk_allowed_repairs=["access"])
    refused(run, DIAGNOSIS, "key", "is disabled", "This task changed nothing")
    assert not service.is_available()


@pytest.mark.parametrize("on_key", [True, False])
def test_an_available_account_is_not_changed(roles: RolesRunner, service: Service, on_key: bool) -> None:
    if on_key:
        service.on_key()
    else:
        service.make_account()
    run = unchanged(recover(roles))
    assert result(run)["causes"] == []


def test_an_account_that_is_being_created(roles: RolesRunner, service: Service) -> None:
    service.sandbox.control.timing(batch_create=600)
    service.make_account()
    refused(run_role(roles, "recover"), DIAGNOSIS, "is being created. Wait until that has finished.")


def test_no_account(roles: RolesRunner, service: Service) -> None:
    refused(run_role(roles, "recover"), DIAGNOSIS, "account1")


def test_a_follower_needs_its_newest_version_and_an_older_one(roles: RolesRunner, service: Service) -> None:
    """One run makes both versions usable: the newest, which does not allow unwrapKey, and the disabled one."""
    service.on_key(follow=True)
    service.sandbox.control.advance(3 * DAY)
    [used] = service.versions()
    service.make_key(key_operations=["sign"])
    service.disable(version=used.version)
    assert not service.is_available()

    run = recover(roles)
    assert {cause["name"] for cause in result(run)["causes"]} == {"version_unusable", "operations_missing"}
    assert service.key(version=used.version).properties.enabled
    assert "unwrapKey" in service.key().key_operations
    assert service.is_available()
    assert unchanged(recover(roles))


@pytest.mark.parametrize("pools_without_key", ["200", "409"])
def test_a_caller_who_cannot_read_the_key_learns_that_a_repair_is_not_confirmed(
    roles: RolesRunner, service: Service, pools_without_key: str
) -> None:
    """Only Batch can confirm the repair of the firewall, if it refuses requests without the key."""
    service.on_key()
    service.sandbox.control.behavior(pools_without_key=pools_without_key)
    service.change_vault(properties={"networkAcls": {**CLOSED, "ipRules": []}})
    assert not service.is_available()

    run = run_role(roles, "recover")
    assert service.is_available()
    if pools_without_key == "409":
        assert result(run)["available"] is True
    else:
        [failed] = run.failed
        assert failed.name == "Find the causes after these repairs"
        assert "Run the task from a network" in failed["msg"]


def test_two_accounts_of_one_host(ansible: Ansible, service: Service) -> None:
    """A loop over include_role, or the role twice in a play. The second account has other causes than the first."""
    service.on_key()
    second = service.make_account("account2")
    service.grant(second["identity"]["principalId"])
    service.point(str(service.make_key("key2").id), "account2")
    service.keys().begin_delete_key("key1").wait()
    service.disable("key2")
    recover = {
        "name": "Recover each account",
        "ansible.builtin.include_role": {"name": "azbatch.cmk.recover"},
        "vars": {"cmk_account_name": "{{ item }}", "cmk_resource_group": GROUP, "cmk_wait_timeout": 60},
        "loop": ["account1", "account2"],
    }

    run = ansible.playbook([{"name": "Test", "hosts": "localhost", "gather_facts": False, "tasks": [recover]}])

    assert run.rc == 0, run.output
    assert all(service.is_available(name) for name in ("account1", "account2"))


@pytest.mark.parametrize("follow", [True, False])
def test_a_disabled_version_of_another_type_stays_disabled(roles: RolesRunner, service: Service, follow: bool) -> None:
    """Batch has never used the EC version, which somebody created by mistake."""
    _, first = service.on_key(follow=follow)
    service.sandbox.control.advance(60)
    elliptic = service.keys().create_ec_key("key1").properties.version
    assert elliptic is not None
    service.disable(version=elliptic)
    service.disable(version=first.rpartition("/")[2])
    assert not service.is_available()

    run = recover(roles)

    assert result(run)["available"] is True
    assert service.is_available()
    assert [one.version for one in service.versions() if not one.enabled] == [elliptic]


def test_a_version_of_another_type_that_was_disabled_long_ago_stays_disabled(
    roles: RolesRunner, service: Service
) -> None:
    """The newest version is disabled, so the account may use each older version."""
    service.on_key(follow=True)
    service.sandbox.control.advance(60)
    elliptic = service.keys().create_ec_key("key1").properties.version
    assert elliptic is not None
    service.sandbox.control.advance(60)
    service.disable(version=elliptic)
    service.make_key()
    service.sandbox.control.advance(30 * DAY)
    service.disable()
    assert not service.is_available()

    run = recover(roles)

    assert result(run)["available"] is True
    assert service.is_available()
    assert [one.version for one in service.versions() if not one.enabled] == [elliptic]
