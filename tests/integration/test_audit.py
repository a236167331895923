# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role audit by its playbook: its findings, its requests and its reports."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from azure.keyvault.keys import KeyRotationLifetimeAction, KeyRotationPolicy
from callers import give, sign_in
from harness import WAYS, Ansible, Run, fails, task
from junitparser import JUnitXml
from one_process import OneProcess
from operators import done
from role_runs import VARS, holdings
from sandbox_client import VAULTS
from service import DAY, NEEDED, Service

from azure_sandbox.shared.behavior import POSITIONS

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "audit.schema.json"
TASK = "Audit the accounts and write the reports"
READER, BATCH_CONTRIBUTOR = "Reader", "Azure Batch Account Contributor"
ACCOUNT = {"resource_group": "rg-sandbox", "account_name": "account1"}


def audit(ansible: Ansible, *, check: bool = False, environment: Any = None, **options: Any) -> Run:
    """Run the playbook, which may fail. `options` are variables of the role without the prefix cmk_audit_, or cmk_ for
    the exceptions."""
    given = {f"cmk_{'' if name == 'exceptions' else 'audit_'}{name}": value for name, value in options.items()}
    run = ansible.playbook("azbatch.cmk.audit", extra_vars=given, check=check, environment=environment)
    assert run.writes == []
    assert not run.changed
    return run


def report(ansible: Ansible, name: str = "cmk-audit") -> dict[str, Any]:
    """The JSON report that the role wrote, which has to be valid by its schema."""
    read: dict[str, Any] = json.loads((ansible.folder / "cmk-audit" / f"{name}.json").read_text())
    jsonschema.validate(read, json.loads(SCHEMA.read_text()))
    return read


def looked_at(ansible: Ansible, **options: Any) -> dict[str, dict[str, Any]]:
    """The report of each account, by name."""
    run = audit(ansible, **options)
    assert run.rc == 0, run.output
    return {account["name"]: account for account in report(ansible)["accounts"]}


def shown(run: Run) -> str:
    return " ".join(run["Show the summary, the most severe findings, and the paths of the reports"]["msg"])


def found(account: dict[str, Any]) -> list[str]:
    return [one["id"] for one in account["findings"]]


@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "following"])
@pytest.mark.parametrize("rbac", [False, True], ids=["access_policy", "rbac"])
@pytest.mark.slow(every=6)
def test_compliant_accounts(ansible: Ansible, service: Service, rbac: bool, follow: bool) -> None:
    service.on_key(rbac=rbac, follow=follow)
    service.make_account("account2")
    service.keys().update_key_rotation_policy("key1", rotation()) if follow else None
    before = holdings(service)

    accounts = looked_at(ansible, pools=True)

    assert holdings(service) == before
    assert {name: (one["state"], found(one), one["unknown"]) for name, one in accounts.items()} == {
        "account1": ("ok", [], {}),
        "account2": ("ok", [], {}),
    }
    first = accounts["account1"]
    version = service.key().properties.version
    assert (first["version"], first["newest_version"], first["access"], first["available"]) == (
        *(version, version),
        *("granted", True),
    )
    assert first["key_version"] == (None if follow else version)
    assert first["vault"]["authorization"] == ("rbac" if rbac else "access_policy")
    assert (accounts["account2"]["version"], accounts["account2"]["vault"]) == (None, None)


def rotation() -> KeyRotationPolicy:
    return KeyRotationPolicy(lifetime_actions=[KeyRotationLifetimeAction("Rotate", time_after_create="P90D")])


@pytest.mark.slow
def test_requests_do_not_grow_with_accounts(ansible: Ansible, service: Service) -> None:
    _, key = service.on_key(rbac=True)
    few = audit(ansible)
    for number in range(2, 8):
        account = service.make_account(f"account{number}")
        service.assign(account["identity"]["principalId"], service.vault_id())
        service.point(key, f"account{number}")
    many = audit(ansible)

    assert report(ansible)["summary"]["accounts"] == 7
    assert len(many.requests) == len(few.requests)
    # The list of pools is one request per account. For twenty minutes after the access was granted, the time of
    # the account's last change is read too.
    assert len(audit(ansible, pools=True).requests) == len(many.requests) + 14
    service.sandbox.control.advance(1200)
    assert len(audit(ansible, pools=True).requests) == len(many.requests) + 7


def access_revoked(service: Service, principal: str) -> None:
    service.revoke(principal)


def version_disabled(service: Service, principal: str) -> None:
    service.disable()


def version_expired(service: Service, principal: str) -> None:
    soon = service.key().properties.created_on.timestamp() + 40 * DAY
    service.keys().update_key_properties("key1", expires_on=datetime.fromtimestamp(soon, UTC))
    service.sandbox.control.advance(41 * DAY)


def key_deleted(service: Service, principal: str) -> None:
    service.keys().begin_delete_key("key1", _polling_interval=0).wait(30)


def vault_deleted(service: Service, principal: str) -> None:
    service.delete_vault()


def network_closed(service: Service, principal: str) -> None:
    close(service)


def close(service: Service, *addresses: str) -> None:
    """Let the vault's firewall deny all addresses except these."""
    acls = {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": one} for one in addresses]}
    service.change_vault(properties={"networkAcls": acls})


LOST: dict[str, Callable[[Service, str], None]] = {
    "access_missing": access_revoked,
    "version_unusable": version_disabled,
    "key_deleted": key_deleted,
    "vault_deleted": vault_deleted,
    "network_closed": network_closed,
}


@pytest.mark.parametrize("finding", LOST)
@pytest.mark.slow(every=6)
def test_an_account_that_lost_its_key(ansible: Ansible, service: Service, finding: str) -> None:
    """The audit detects the loss without a request to the account, and reports it first."""
    principal, _ = service.on_key(rbac=True)
    service.make_account("account2")
    LOST[finding](service, principal)

    accounts = looked_at(ansible)
    assert list(accounts) == ["account1", "account2"]
    assert accounts["account1"]["state"] == "at_risk"
    assert finding in found(accounts["account1"])
    assert (accounts["account1"]["available"], service.is_available()) == (None, False)


@pytest.mark.parametrize("pools", [False, True])
def test_an_account_that_the_ip_rules_of_its_vault_may_let_in(
    runner: OneProcess, service: Service, pools: bool
) -> None:
    service.on_key()
    close(service, "127.0.0.1", "203.0.113.0/24")
    assert service.is_available()

    found = done(runner.module("batch_encryption_audit", {"return_accounts": True, "pools": pools}))
    [account] = found["accounts"]
    assert (account["state"], account["available"]) == ("unknown", None)
    assert "networkAcls.bypass" in account["unknown"]["network"]
    info = done(runner.another().module("batch_encryption_info", ACCOUNT))
    assert info["available"] is None
    assert "IP addresses" in info["warnings"][0]
    recovered = done(runner.another().role("recover", VARS))
    assert (recovered["changed"], recovered["available"]) == (False, None)
    moved = done(runner.another().role("rotate", {**VARS, "cmk_key_new_version": True}))
    assert moved["changed_steps"]["encryption"]


def test_the_audit_of_pools_finds_an_unavailable_account(ansible: Ansible, service: Service) -> None:
    principal, _ = service.on_key()
    service.revoke(principal)

    asked = looked_at(ansible, pools=True)["account1"]

    assert (asked["available"], "account_unavailable" in found(asked)) == (False, True)
    assert "KeyVaultKeyNotAccessible" in asked["unavailable_reason"]
    assert "pools" not in asked["unknown"]


def test_a_version_that_has_expired(ansible: Ansible, service: Service) -> None:
    principal, _ = service.on_key()
    version_expired(service, principal)

    account = looked_at(ansible)["account1"]
    assert (account["state"], found(account)) == ("at_risk", ["version_unusable"])
    assert account["days_left"] < 0


@pytest.mark.parametrize(("days", "state"), [(2, "unknown"), (7, "ok")])
def test_a_previous_version_that_was_disabled_after_the_rotation(
    runner: OneProcess, service: Service, days: int, state: str
) -> None:
    """Batch may need the previous version for seven days after the newest version was created."""
    _, old = service.on_key(follow=True)
    service.keys().update_key_rotation_policy("key1", rotation())
    service.make_key()
    service.sandbox.control.advance(days * DAY)
    service.disable(version=old.rpartition("/")[2])

    account = audited(runner)
    assert service.is_available()
    assert account["state"] == state
    assert "version_unusable" not in found(account)
    service.sandbox.control.advance(7 * DAY)
    assert audited(runner)["state"] == "ok"


@pytest.mark.parametrize("follow", [True, False], ids=["follows", "pinned"])
def test_a_previous_version_that_expires_after_the_rotation(runner: OneProcess, service: Service, follow: bool) -> None:
    """The audit says so before the account is lost, until the expiry is later than the margin."""
    control = service.sandbox.control
    _, old = service.on_key(follow=follow)
    service.keys().update_key_rotation_policy("key1", rotation())
    control.advance(20 * DAY)
    newest = service.make_key()
    if not follow:
        service.point(newest.id)
    version = old.rpartition("/")[2]
    assert audited(runner)["state"] == "ok"
    expires = newest.properties.created_on + timedelta(days=2)
    service.keys().update_key_properties("key1", version, expires_on=expires)
    # Somebody may have repaired the version a moment ago.
    control.advance(3600)

    for pools in (False, True):
        account = audited(runner, pools=pools)
        assert (found(account), account["state"]) == (["key_expires_soon"], "non_compliant")
        assert version in account["findings"][0]["evidence"]
    service.keys().update_key_properties("key1", version, expires_on=expires + timedelta(days=6))
    assert found(audited(runner)) == []


def test_all_reports_agree_on_a_follower_whose_previous_version_expires(runner: OneProcess, service: Service) -> None:
    """The role rotate, batch_encryption_info and the audit ask the same rule until the margin of seven days is over."""
    _, old = service.on_key(follow=True)
    version, control = old.rpartition("/")[2], service.sandbox.control
    expires = service.key().properties.created_on + timedelta(days=5)
    service.keys().update_key_properties("key1", version, expires_on=expires)
    control.advance(3600)

    def reported() -> list[bool | None]:
        """Whether the account is available, by each report. Only the report of an unknown value names the version."""
        rotated = done(runner.another().role("rotate", VARS))
        info = done(runner.another().module("batch_encryption_diagnosis", ACCOUNT))
        account = audited(runner, pools=True)
        for told in (rotated["warnings"], info.get("warnings", []), account["unknown"]):
            assert (f"{version} has expired" in str(told)) is (info["available"] is None), told
        return [rotated["available"], info["available"], account["available"]]

    # The first run creates a version, because the account's version expires within nine days.
    assert reported() == [True] * 3
    assert service.key().properties.version != version
    for advanced, available in ((4.5 * DAY, True), (0.5 * DAY, None), (1.9 * DAY, None), (0.2 * DAY, True)):
        control.advance(advanced)
        assert service.is_available()
        assert reported() == [available] * 3, advanced


@pytest.mark.slow
def test_an_identity_that_was_deleted(ansible: Ansible, service: Service) -> None:
    identity = service.make_identity()
    service.make_vault()
    service.grant(identity["properties"]["principalId"])
    assigned = {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}
    service.make_account(identity=assigned)
    service.point(service.make_key().id)
    assert looked_at(ansible)["account1"]["state"] == "ok"

    service.identities.user_assigned_identities.delete("rg-sandbox", "identity1")
    assert "identity_missing" in found(looked_at(ansible)["account1"])

    # The new identity has the same resource ID but another principal, which the account does not use.
    service.make_identity()
    assert not service.is_available()
    assert "identity_missing" in found(looked_at(ansible)["account1"])


@pytest.mark.slow
def test_one_of_two_identities_has_access(ansible: Ansible, service: Service) -> None:
    one, two = service.make_identity("identity1"), service.make_identity("identity2")
    service.make_vault()
    service.grant(one["properties"]["principalId"])
    service.make_account(identity={"type": "UserAssigned", "userAssignedIdentities": {one["id"]: {}, two["id"]: {}}})
    service.point(service.make_key().id)

    account = looked_at(ansible)["account1"]
    assert (account["state"], found(account), account["access"]) == ("unknown", ["not_read"], None)
    assert two["properties"]["principalId"] in account["unknown"]["access"]
    account = looked_at(ansible, pools=True)["account1"]
    assert (account["state"], found(account), account["access"]) == ("ok", [], "granted")

    service.revoke(one["properties"]["principalId"])
    assert found(looked_at(ansible)["account1"]) == ["access_missing"]


def audited(runner: OneProcess, **options: Any) -> dict[str, Any]:
    """The module's report of the only account."""
    (account,) = runner.another().module("batch_encryption_audit", {"return_accounts": True, **options})["accounts"]
    found: dict[str, Any] = account
    return found


def test_an_account_that_is_being_created(runner: OneProcess, service: Service) -> None:
    """The pools of the account cannot be listed, which is not caused by its key."""
    service.sandbox.control.timing(batch_create=600)
    service.make_account()

    account = audited(runner, pools=True)
    assert (account["state"], found(account), account["available"]) == ("under_way", [], None)
    assert "'Creating'" in account["unknown"]["pools"]


@pytest.mark.parametrize("pools", [False, True])
@pytest.mark.parametrize("position", POSITIONS["pools_without_key"])
def test_a_closed_firewall_that_allows_the_controller(
    runner: OneProcess, service: Service, position: str, pools: bool
) -> None:
    """Batch may list the pools although it cannot use the key, and the caller can read the key."""
    service.on_key()
    close(service, "127.0.0.1/32")
    service.sandbox.control.behavior(pools_without_key=position)
    assert not service.is_available()

    account = audited(runner, pools=pools)
    assert account["state"] == "at_risk"
    assert found(account) == ["network_closed", *(["account_unavailable"] if pools else [])]
    assert account["available"] is (False if pools else None)


CHECK_NAMES = "Microsoft.KeyVault/checkNameAvailability/read"
LIST_DELETED = "Microsoft.KeyVault/deletedVaults/read"
READS = {
    *("Microsoft.Authorization/permissions/read", "Microsoft.Resources/subscriptions/read"),
    *("Microsoft.Batch/batchAccounts/read", "Microsoft.Authorization/roleAssignments/read"),
    *("Microsoft.Batch/batchAccounts/pools/read", "Microsoft.KeyVault/vaults/read", CHECK_NAMES, LIST_DELETED),
}


def lose_vault(service: Service, subscription: str, *, purge: bool = False) -> None:
    """Create account1 with a key of a vault in this subscription, and delete the vault."""
    group = f"{subscription}/resourceGroups/rg-vaults"
    assert service.sandbox.arm("PUT", group, "2021-04-01", {"location": "westeurope"}).ok
    principal = service.make_account()["identity"]["principalId"]
    properties = {
        **{"tenantId": service.sandbox.tenant_id, "sku": {"family": "A", "name": "standard"}},
        "enablePurgeProtection": True,
        "enableRbacAuthorization": False,
        "accessPolicies": [service.policy(service.operator, "create"), service.policy(principal, *NEEDED)],
    }
    path = f"{group}/providers/Microsoft.KeyVault/vaults/vault-two"
    body = {"location": "westeurope", "properties": properties}
    assert service.sandbox.arm("PUT", path, VAULTS, body).ok
    service.point(service.make_key(vault="vault-two").id)
    assert service.sandbox.arm("DELETE", path, VAULTS).ok
    service.sandbox.control.advance(91 * DAY if purge else 0)
    assert not service.is_available()


def lose_own(service: Service) -> None:
    lose_vault(service, service.sandbox.subscription)


def lose_unseen(service: Service) -> None:
    second = service.sandbox.control.call("POST", "/subscriptions", {"name": "second"})["subscription_id"]
    lose_vault(service, f"/subscriptions/{second}")


def purge_own(service: Service) -> None:
    lose_vault(service, service.sandbox.subscription, purge=True)


@pytest.mark.parametrize("position", POSITIONS["subscription_list"])
@pytest.mark.parametrize(
    ("lose", "lacks", "finding", "expected"),
    [
        pytest.param(lose_own, set(), "vault_deleted", "", id="deleted"),
        pytest.param(lose_own, {LIST_DELETED}, None, LIST_DELETED, id="deleted, not to be listed"),
        pytest.param(
            lose_own, {LIST_DELETED, CHECK_NAMES}, None, CHECK_NAMES, id="deleted, and the name not to be checked"
        ),
        pytest.param(lose_unseen, set(), None, "in no subscription that the caller can read", id="deleted, unseen"),
        pytest.param(purge_own, set(), "vault_missing", "", id="purged"),
        pytest.param(purge_own, {LIST_DELETED}, "vault_missing", "", id="purged, and deleted ones not to be listed"),
        pytest.param(purge_own, {CHECK_NAMES}, None, CHECK_NAMES, id="purged, and the name not to be checked"),
    ],
)
def test_a_vault_is_missing_only_if_its_name_is_available(
    runner: OneProcess,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[Service], None],
    lacks: set[str],
    finding: str | None,
    expected: str,
    position: str,
) -> None:
    """The audit, the diagnosis and the first task of the role recover must agree."""
    service.sandbox.control.behavior(subscription_list=position)
    lose(service)
    sign_in(service, monkeypatch, [give(service, service.sandbox.subscription, READS - lacks)])

    account = audited(runner)
    diagnosis = runner.another().module("batch_encryption_diagnosis", ACCOUNT)
    recovery = runner.another().module(
        "batch_encryption_diagnosis", {**ACCOUNT, "allowed_repairs": ["vault", "network", "key", "access"]}
    )

    assert found(account) == [finding or "not_read"]
    assert [cause["name"] for cause in diagnosis["causes"]] == ([finding] if finding else [])
    if finding is None:
        assert (account["state"], recovery["code"]) == ("unknown", "permission_denied")
        for message in (account["unknown"]["deleted_vault"], *diagnosis["warnings"], recovery["msg"]):
            assert expected in message, message
            assert LIST_DELETED in message
            assert "deletion" not in message
    elif finding == "vault_missing":
        assert recovery["code"] == "not_recoverable"


def test_a_vault_name_is_checked_in_a_subscription_with_permission(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    purge_own(service)
    second = service.sandbox.control.call("POST", "/subscriptions", {"name": "second"})["subscription_id"]
    at_second = {"role": READER, "scope": f"/subscriptions/{second}"}
    sign_in(service, monkeypatch, [give(service, service.sandbox.subscription, READS - {CHECK_NAMES}), at_second])

    assert found(audited(runner)) == ["vault_missing"]


def test_the_name_of_a_reachable_vault_is_not_checked(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscription that the caller cannot read may have many vaults, and each check needs a separate request."""
    service.on_key(rbac=True)
    sign_in(
        service, monkeypatch, [give(service, service.sandbox.subscription, READS - {"Microsoft.KeyVault/vaults/read"})]
    )
    since = service.sandbox.control.last

    assert found(audited(runner)) == ["not_read"]
    assert not [one for one in service.sandbox.control.requests(since) if "/checkNameAvailability" in one["url"]]


def test_findings_about_expiry_and_about_the_policy(ansible: Ansible, service: Service) -> None:
    _, old = service.on_key()
    service.sandbox.control.advance(100 * DAY)
    service.make_key(size=2048)
    service.make_account("account2", tags={"environment": "production"})
    rules = {
        "required": [{"tags": {"environment": "production"}}],
        "allowed_vaults": ["vault-two"],
        "max_version_age": "P90D",
        "expiry_required": True,
        "rbac_only": True,
        "key_types": ["RSA-HSM"],
        "min_key_size": 3072,
    }

    accounts = looked_at(ansible, **rules)

    assert set(found(accounts["account1"])) == {
        *("vault_not_allowed", "version_too_old", "vault_uses_access_policies", "key_type_not_allowed"),
        *("key_too_small", "key_without_expiry", "newer_version_unused"),
    }
    assert found(accounts["account2"]) == ["not_on_customer_managed_key"]
    assert {one["state"] for one in accounts.values()} == {"non_compliant"}
    assert accounts["account1"]["version_age_days"] == 100
    assert {one["state"] for one in looked_at(ansible, min_days_to_expiry=0).values()} == {"non_compliant", "ok"}
    assert old.rpartition("/")[2] == accounts["account1"]["version"] != accounts["account1"]["newest_version"]


def test_pools(ansible: Ansible, service: Service) -> None:
    service.make_account()
    disks = {"targets": ["OsDisk", "TemporaryDisk"]}
    service.make_vault("vault-two")
    key = service.make_key("disks", "vault-two").id
    own = {**disks, "customerManagedKey": {"keyUrl": key}}
    for name, encryption in (("bare", None), ("safe", disks), ("keyed", own)):
        machine = {"virtualMachineConfiguration": {"diskEncryptionConfiguration": encryption} if encryption else {}}
        service.make_pool(name, deploymentConfiguration=machine)
    at_host = {"virtualMachineConfiguration": {"securityProfile": {"encryptionAtHost": True}}}
    service.make_pool("host", deploymentConfiguration=at_host)

    account = looked_at(ansible, pools=True)["account1"]

    findings = {one["id"]: one["evidence"] for one in account["findings"]}
    assert findings == {
        "pool_disks_not_encrypted": "These pools have no disk encryption: bare.",
        "pool_key_pinned": f"These pools with their own key are pinned to a version: keyed ({key}).",
        "pool_uses_other_key": f"These pools use their own keys: keyed ({key}).",
    }
    assert {pool["name"]: pool["encrypted_disks"] for pool in account["pools"]} == {
        "bare": [],
        "safe": ["OsDisk", "TemporaryDisk"],
        "keyed": ["OsDisk", "TemporaryDisk"],
        "host": [],
    }


def who_reads(service: Service, *roles: str) -> dict[str, str]:
    """Create a principal that has these roles on the subscription. Returns the environment that signs in as it."""
    scope = service.sandbox.subscription
    made = service.sandbox.control.principal("auditor", roles=[{"role": role, "scope": scope} for role in roles])
    return {"AZURE_CLIENT_ID": made["client_id"], "AZURE_SECRET": made["secret"], "AZURE_CLIENT_SECRET": made["secret"]}


def test_rights_to_read_are_enough(ansible: Ansible, service: Service) -> None:
    service.on_key(rbac=True)
    run = audit(ansible, environment=who_reads(service, READER, "Key Vault Reader"), pools=True)

    assert run.rc == 0, run.output
    (account,) = report(ansible)["accounts"]
    assert (account["state"], account["unknown"]) == ("ok", {})
    assert (account["access"], account["version_enabled"], account["available"]) == ("granted", True, True)


@pytest.mark.slow(every=2)
@pytest.mark.parametrize("fail_on", ["never", "high"])
def test_unreadable_items_are_unknown_and_not_compliant(ansible: Ansible, service: Service, fail_on: str) -> None:
    """The screen, the exit status and the reports agree on that."""
    service.on_key(rbac=True)
    run = audit(ansible, environment=who_reads(service, READER), fail_on=fail_on)

    incomplete = (
        "Not all data of 1 of 1 Batch account (account1) is known. The caller lacks "
        "Microsoft.KeyVault/vaults/keys/read."
    )
    if fail_on == "never":
        assert run.rc == 0, run.output
        counted = "0 of 1 Batch account at risk, 0 non-compliant, 1 unknown, 0 ok."
        assert run[TASK]["summary"].startswith(f"{counted} Incomplete: {incomplete} ")
    else:
        refused = run[TASK].refused("audit_incomplete")
        assert refused["msg"].startswith(f"The audit is incomplete. {incomplete} See ")
        assert "Key Vault Reader" in refused["remedy"]
        assert "cmk_exceptions" in refused["remedy"]
        assert ".json" not in refused["msg"]
    suite = ElementTree.parse(ansible.folder / "cmk-audit" / "cmk-audit.junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.attrib["failures"], suite.attrib["errors"]) == ("1", "1")
    assert incomplete in (ansible.folder / "cmk-audit" / "cmk-audit.html").read_text()
    (account,) = report(ansible)["accounts"]
    assert account["missing_rights"] == ["Microsoft.KeyVault/vaults/keys/read"]
    assert account["state"] == "unknown"
    assert found(account) == ["not_read"]
    assert "Microsoft.KeyVault/vaults/keys/read" in account["unknown"]["key"]
    assert (account["version"], account["key_type"], account["days_left"]) == (None, None, None)
    assert (account["access"], account["vault"]["purge_protection"]) == ("granted", True)


def test_the_audit_fails_after_it_has_written_the_reports(ansible: Ansible, service: Service) -> None:
    principal, _ = service.on_key()
    service.revoke(principal)

    run = audit(ansible, fail_on="high")

    assert run.rc != 0
    assert run[TASK].refused("audit_failed")["findings"][0].startswith("account1: access_missing (critical)")
    assert report(ansible)["summary"]["states"]["at_risk"] == 1
    service.grant(principal)
    assert audit(ansible, fail_on="high").rc == 0


def test_the_message_names_each_account_before_a_second_finding_of_one(ansible: Ansible, service: Service) -> None:
    principal, identifier = service.on_key()
    principals = {"account1": principal}
    for name in ("account2", "account3"):
        principals[name] = service.make_account(name)["identity"]["principalId"]
        service.grant(principals[name])
        service.point(identifier, name)
    for principal in principals.values():
        service.revoke(principal)
    service.sandbox.control.advance(3600)

    refused = audit(ansible, fail_on="high", pools=True)[TASK].refused("audit_failed")

    assert len(refused["findings"]) == 6
    assert refused["msg"].startswith("6 open findings of severity high or higher: account")
    assert all(f"{name}: " in refused["msg"] for name in principals)
    assert " And 3 more. " in refused["msg"]


@pytest.mark.slow
def test_an_exception_applies_until_it_expires(ansible: Ansible, service: Service) -> None:
    service.on_key()
    known = {"finding": "vault_uses_access_policies", "accounts": ["acc*"], "reason": "Moves in May"}
    rules = {"rbac_only": True, "fail_on": "medium"}
    assert audit(ansible, **rules).rc != 0

    assert audit(ansible, exceptions=[{**known, "expires_on": "2099-12-31"}], **rules).rc == 0
    (account,) = report(ansible)["accounts"]
    assert (account["state"], account["findings"][0]["accepted"]) == ("ok", True)
    assert account["findings"][0]["exception"]["reason"] == "Moves in May"

    assert audit(ansible, exceptions=[{**known, "expires_on": "2020-12-31"}], **rules).rc != 0
    misspelt = [{**known, "accounts": ["other"], "expires_on": "2099-12-31"}]
    unused = audit(ansible, exceptions=misspelt, required=[{}, {"locations": ["nowhere"]}])
    required, exception = unused[TASK].warnings
    assert required == 'No account matches the item {"locations": ["nowhere"]}. Correct cmk_audit_required.'
    assert "matches no finding" in exception


@pytest.mark.slow(every=2)
@pytest.mark.parametrize("way", WAYS)
def test_warnings_are_shown_although_a_finding_fails_the_task(ansible: Ansible, service: Service, way: str) -> None:
    service.on_key()
    stale = {"finding": "not_read", "accounts": ["other"], "reason": "So.", "expires_on": "2099-12-31"}
    asked = {"rbac_only": True, "fail_on": "medium", "exceptions": [stale]}

    run = ansible.play([fails(task("audit", "batch_encryption_audit", **asked))], way=way)

    assert run["audit"].refused("audit_failed")
    shown = "The exception of not_read for other matches no finding."
    assert run["audit"].warnings == [shown]
    assert shown in " ".join(run.output.split())


def test_check_mode_writes_nothing(ansible: Ansible, service: Service) -> None:
    service.on_key()
    run = audit(ansible, check=True)

    assert run.rc == 0, run.output
    assert run[TASK]["counts"]["accounts"] == 1
    assert run[TASK]["files"] == {}
    assert not (ansible.folder / "cmk-audit").exists()


def test_all_formats_have_the_same_content(ansible: Ansible, service: Service) -> None:
    principal, _ = service.on_key()
    service.make_account("account2")
    service.revoke(principal)

    run = audit(ansible)

    whole = report(ansible)
    folder = ansible.folder / "cmk-audit"
    assert sorted(Path(path).name for path in run[TASK]["files"].values()) == sorted(
        f"cmk-audit{suffix}" for suffix in (".json", ".csv", ".junit.xml", ".sarif", ".html")
    )
    with (folder / "cmk-audit.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["state"]) for row in rows] == [(one["name"], one["state"]) for one in whole["accounts"]]
    assert rows[0]["open_findings"] == "access_missing"
    assert rows[0]["subscription_name"] == whole["accounts"][0]["subscription_name"] == "Sandbox (not Azure)"
    cases = JUnitXml.fromfile(str(folder / "cmk-audit.junit.xml"))
    assert (cases.tests, cases.failures) == (2, 1)
    assert [case.is_passed for suite in cases for case in suite] == [False, True]
    sarif = json.loads((folder / "cmk-audit.sarif").read_text())
    (result,) = sarif["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("access_missing", "error")
    assert sarif["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "access_missing"
    assert "account1" in (folder / "cmk-audit.html").read_text()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_two_reports_are_compared(ansible: Ansible, service: Service) -> None:
    principal, _ = service.on_key()
    service.make_account("account2")
    path = str(ansible.folder / "cmk-audit" / "cmk-audit.json")
    begin = audit(ansible, compare_with=path)
    assert begin[TASK]["comparison"] is None
    assert "no changes are reported" in begin[TASK].warnings[0]

    service.revoke(principal)
    service.batch.batch_account.begin_delete("rg-sandbox", "account2").wait(30)
    service.make_account("account3")
    run = audit(ansible, compare_with=path)

    counted = {name: number for name, number in run[TASK]["comparison"].items() if name != "since"}
    assert counted == {"added": 1, "removed": 1, "changed": 2, "opened": 1, "closed": 0, "not_compared": 0}
    comparison = report(ansible)["comparison"]
    assert [one["name"] for one in (*comparison["added"], *comparison["removed"])] == ["account3", "account2"]
    assert {(one["field"], one["before"], one["after"]) for one in comparison["changed"]} == {
        ("state", "ok", "at_risk"),
        ("access", "granted", "missing"),
    }
    assert comparison["opened"][0]["finding"] == "access_missing"
    changes = "1 new finding (access_missing of account1), 1 added account (account3), 1 removed account (account2)."
    assert f"Since {comparison['since']}: {changes}" in shown(run)

    failed = audit(ansible, compare_with=path, fail_on="critical")
    assert "no new or closed finding." in failed[TASK]["msg"]
    service.grant(principal)
    other = audit(ansible, compare_with=path, pools=True)
    assert other[TASK].warnings == [
        "cmk_audit_pools is true, and was false in the earlier report, so some differences may not be changes."
    ]
    assert [one["finding"] for one in report(ansible)["comparison"]["closed"]] == ["access_missing"]


@pytest.mark.slow(every=2)
@pytest.mark.parametrize("fail_on", ["never", "critical"])
def test_a_caller_without_any_role(ansible: Ansible, service: Service, fail_on: str) -> None:
    """A gate that could read nothing must not be open."""
    service.on_key()
    run = audit(ansible, environment=who_reads(service), fail_on=fail_on)

    (incomplete, *_) = run[TASK]["unlisted"]
    if fail_on == "never":
        assert run.rc == 0, run.output
        assert run[TASK]["summary"].startswith("Incomplete: ")
    else:
        assert incomplete["reason"] in run[TASK].refused("audit_incomplete")["msg"]
    junit = ElementTree.parse(ansible.folder / "cmk-audit" / "cmk-audit.junit.xml").getroot()
    assert junit.find("testsuite").attrib["errors"] == "1"
    assert len(list(junit.iter("error"))) == 1
    page = (ansible.folder / "cmk-audit" / "cmk-audit.html").read_text()
    assert page.index("could be listed") < page.index("On a customer-managed key")
    assert "No open findings." not in page


@pytest.mark.slow(every=2)
@pytest.mark.parametrize("fail_on", ["never", "critical"])
def test_a_vault_that_the_caller_cannot_read(ansible: Ansible, service: Service, fail_on: str) -> None:
    service.on_key()
    reader = who_reads(service, BATCH_CONTRIBUTOR)
    run = audit(ansible, environment=reader, fail_on=fail_on)

    assert (run.rc == 0) is (fail_on == "never"), run.output
    told = run[TASK]["summary"] if fail_on == "never" else run[TASK].refused("audit_incomplete")["msg"]
    assert "Not all data of 1 of 1 Batch account (account1) is known." in told
    assert "Microsoft.KeyVault/vaults/read" in told


def test_a_subscription_that_the_caller_cannot_read(ansible: Ansible, service: Service) -> None:
    service.on_key()
    second = service.sandbox.control.call("POST", "/subscriptions", {"name": "second"})["subscription_id"]
    reader = who_reads(service, READER)
    run = audit(ansible, environment=reader, subscriptions=[service.sandbox.subscription_id, second])

    assert run.rc == 0, run.output
    assert report(ansible)["unlisted_subscriptions"] == [second]
    assert second in run[TASK].warnings[0]


def test_a_subscription_that_does_not_exist(ansible: Ansible) -> None:
    run = audit(ansible, subscriptions=["11111111-2222-3333-4444-555555555555"])

    refused = run[TASK].refused("subscription_not_found")
    assert refused["variable"] == "cmk_audit_subscriptions"
    assert "Correct cmk_audit_subscriptions, or grant" in refused["msg"]


NOT_SEEN = {"finding": "not_read", "accounts": ["*"]}
MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"max_version_age": "90 days"}, "max_version_age"),
    ({"min_days_to_expiry": -1}, "min_days_to_expiry"),
    ({"subscriptions": ["mine"]}, "subscriptions"),
    ({"account_name": "account1"}, "resource_group"),
    ({"resource_group": "rg-sandbox", "account_name": "my-account"}, "account_name"),
    ({"allowed_vaults": ["v"]}, "allowed_vaults"),
    ({"name": "../audit"}, "name"),
    ({"folder": "/proc/audit"}, "folder"),
    ({"compare_with": "ansible.cfg"}, "compare_with"),
    ({"exceptions": [{**NOT_SEEN, "reason": " ", "expires_on": "2027-01-01"}]}, "exceptions"),
    ({"exceptions": [{**NOT_SEEN, "reason": "So", "expires_on": "soon"}]}, "exceptions"),
    ({"exceptions": [{"finding": "x", "accounts": [], "reason": "So", "expires_on": "2027-01-01"}]}, "exceptions"),
]


def test_malformed_options_are_refused_before_anything_is_read(ansible: Ansible) -> None:
    run = ansible.play([fails(task(named, "batch_encryption_audit", **options)) for options, named in MALFORMED])

    assert run.requests == []
    for _options, named in MALFORMED:
        assert run[named].get("option") == named, run[named]
        assert named in run[named]["msg"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow(every=2)
def test_the_result_of_the_module(ansible: Ansible, service: Service, way: str) -> None:
    principal, _ = service.on_key()
    service.make_account("account2")
    service.revoke(principal)
    place = {"resource_group": "rg-sandbox"}

    run = ansible.play(
        [
            task("all", "batch_encryption_audit", return_accounts=True),
            task("a group", "batch_encryption_audit", **place, return_accounts=True),
            task("one", "batch_encryption_audit", **place, account_name="account1", return_accounts=True),
            task("just its key", "batch_encryption_info", **place, account_name="account1"),
            task("a report", "batch_encryption_audit", **place, folder=str(ansible.folder / "cmk-audit")),
        ],
        way=way,
    )

    assert run.writes == []
    for name in ("all", "a group"):
        assert [one["name"] for one in run[name]["accounts"]] == ["account1", "account2"]
        assert run[name]["counts"]["states"]["at_risk"] == 1
    (one,) = run["one"]["accounts"]
    assert found(one) == ["access_missing"]
    assert (run["just its key"]["exists"], run["just its key"]["available"]) == (True, False)
    assert "accounts" not in run["a report"].result
    assert report(ansible)["summary"]["accounts"] == 2
