# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account is never moved to a key that Batch cannot use."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import Ansible, Task, checked, fails, here, task
from service import GROUP, Service

CHECKS = {
    "identity_present",
    "vault_reachable",
    "vault_soft_delete",
    "vault_purge_protection",
    "same_tenant",
    "key_exists",
    "key_enabled",
    "key_not_expired",
    "key_type_rsa",
    "key_size_supported",
    "key_ops_wrap_unwrap",
    "access_granted",
    "network_open_to_batch",
}


def to_key(title: str, identifier: str, account: str = "account1", **options: Any) -> dict[str, Any]:
    wanted = {"key_source": "microsoft_keyvault", "key_identifier": identifier}
    return task(title, "batch_encryption", resource_group=GROUP, account_name=account, **wanted, **options)


def status_of(one: Task) -> dict[str, str]:
    """The status of each check. A failed task has only the checks that made it fail."""
    causes = one.get("failed_checks", ["access_granted"])
    assert {check["name"] for check in one["preflight"]} == (set(causes) if one.failed else CHECKS)
    for check in one["preflight"]:
        # A failed check has its evidence and a remedy. An unknown check has the reason.
        assert check["evidence"], check
        assert bool(check["remedy"]) is (check["status"] == "failed"), check
    return {check["name"]: check["status"] for check in one["preflight"]}


def lying(service: Service, vault: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Let reads of the vault return a property that the sandbox does not allow for a vault."""
    shown = copy.deepcopy(service.vault(vault))
    change(shown)
    service.sandbox.control.fault(
        match={"method": "GET", "path": rf"/vaults/{vault}\?"}, times=None, answer={"status": 200, "body": shown}
    )


# Each function creates a vault or a key with a problem, and returns the key's identifier.


def no_vault(service: Service, vault: str, principal: str) -> str:
    return f"https://{vault}.vault.azure.net/keys/key1"


def vault_without_soft_delete(service: Service, vault: str, principal: str) -> str:
    identifier = fit(service, vault, principal)
    lying(service, vault, lambda shown: shown["properties"].update(enableSoftDelete=False))
    return identifier


def vault_without_purge_protection(service: Service, vault: str, principal: str) -> str:
    return fit(service, vault, principal, enablePurgeProtection=None)


def vault_of_another_tenant(service: Service, vault: str, principal: str) -> str:
    identifier = fit(service, vault, principal)
    lying(service, vault, lambda shown: shown["properties"].update(tenantId="00000000-0000-4000-8000-000000000001"))
    return identifier


def no_key(service: Service, vault: str, principal: str) -> str:
    return fit(service, vault, principal).replace("key1", "key2").rpartition("/")[0]


def no_such_version(service: Service, vault: str, principal: str) -> str:
    return f"{fit(service, vault, principal).rpartition('/')[0]}/{'0' * 32}"


def disabled_version(service: Service, vault: str, principal: str) -> str:
    identifier = fit(service, vault, principal)
    service.disable("key1", vault=vault)
    service.make_key("key1", vault)
    return identifier


def disabled_newest_version(service: Service, vault: str, principal: str) -> str:
    identifier = fit(service, vault, principal)
    service.make_key("key1", vault)
    service.disable("key1", vault=vault)
    return identifier.rpartition("/")[0]


def expired(service: Service, vault: str, principal: str) -> str:
    fit(service, vault, principal)
    return service.make_key("key1", vault, expires_on=datetime.now(UTC) - timedelta(days=1)).id


def not_yet_valid(service: Service, vault: str, principal: str) -> str:
    fit(service, vault, principal)
    return service.make_key("key1", vault, not_before=datetime.now(UTC) + timedelta(days=400)).id


def elliptic_curve(service: Service, vault: str, principal: str) -> str:
    fit(service, vault, principal)
    return service.keys(vault).create_ec_key("curve").id


def too_small(service: Service, vault: str, principal: str) -> str:
    identifier = fit(service, vault, principal)
    modulus = base64.urlsafe_b64encode(b"\xff" * 128).decode().rstrip("=")
    operations = ["wrapKey", "unwrapKey"]
    jwk = {"kid": identifier, "kty": "RSA", "key_ops": operations, "n": modulus, "e": "AQAB"}
    attributes = {"enabled": True, "created": 1, "updated": 1, "recoveryLevel": "Recoverable"}
    answer = {"status": 200, "body": {"key": jwk, "attributes": attributes}}
    service.sandbox.control.fault(match={"method": "GET", "host": f"^{vault}[.]"}, times=None, answer=answer)
    return identifier


def for_signing(service: Service, vault: str, principal: str) -> str:
    fit(service, vault, principal)
    return service.make_key("key1", vault, key_operations=["sign", "verify", "wrapKey"]).id


def no_policy(service: Service, vault: str, principal: str) -> str:
    identifier = fit(service, vault, principal)
    service.revoke(principal, vault)
    return identifier


def half_a_policy(service: Service, vault: str, principal: str) -> str:
    identifier = fit(service, vault, principal)
    service.set_policy("replace", service.policy(principal, "get", "wrapKey"), vault=vault)
    return identifier


def no_role(service: Service, vault: str, principal: str) -> str:
    service.make_vault(vault, rbac=True)
    return service.make_key("key1", vault).id


def closed_to_azure(service: Service, vault: str, principal: str) -> str:
    # The firewall allows the caller's address.
    rules = {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "127.0.0.1/32"}]}
    return fit(service, vault, principal, networkAcls=rules)


def everything_at_once(service: Service, vault: str, principal: str) -> str:
    service.make_vault(vault, properties={"enablePurgeProtection": None})
    past = datetime.now(UTC) - timedelta(days=1)
    identifier = service.keys(vault).create_ec_key("curve", expires_on=past, enabled=False).id
    assert identifier
    return identifier


def fit(service: Service, vault: str, principal: str, **properties: Any) -> str:
    service.make_vault(vault, properties=properties)
    service.grant(principal, vault)
    return service.make_key("key1", vault).id


CASES: tuple[tuple[Callable[[Service, str, str], str], set[str]], ...] = (
    (no_vault, {"vault_reachable"}),
    (vault_without_soft_delete, {"vault_soft_delete"}),
    (vault_without_purge_protection, {"vault_purge_protection"}),
    (vault_of_another_tenant, {"same_tenant"}),
    (no_key, {"key_exists"}),
    (no_such_version, {"key_exists"}),
    (disabled_version, {"key_enabled"}),
    (disabled_newest_version, {"key_enabled"}),
    (expired, {"key_not_expired"}),
    (not_yet_valid, {"key_not_expired"}),
    (elliptic_curve, {"key_type_rsa", "key_size_supported", "key_ops_wrap_unwrap"}),
    (too_small, {"key_size_supported"}),
    (for_signing, {"key_ops_wrap_unwrap"}),
    (no_policy, {"access_granted"}),
    (half_a_policy, {"access_granted"}),
    (no_role, {"access_granted"}),
    (closed_to_azure, {"network_open_to_batch"}),
    (
        everything_at_once,
        {
            "vault_purge_protection",
            "key_enabled",
            "key_not_expired",
            "key_type_rsa",
            "key_size_supported",
            "key_ops_wrap_unwrap",
            "access_granted",
        },
    ),
)


def test_each_failed_check_is_reported(ansible: Ansible, service: Service, way: str) -> None:
    """Each key has one problem or all problems. They are reported before the first write, also in check mode."""
    principal = service.make_account()["identity"]["principalId"]
    before = service.account()
    tasks = []
    for number, (make, _failing) in enumerate(CASES):
        identifier = make(service, f"vault{number}", principal)
        one = to_key(make.__name__, identifier, vault_resource_group=GROUP)
        # Only three cases run both ways, because the checks are the same code both ways.
        both_ways = make in (no_vault, no_policy, everything_at_once)
        tasks += [fails(one), fails(checked(one))] if both_ways else [here(fails(one))]
    service.make_account("nobody", identity={"type": "None"})
    good = fit(service, "vault-good", principal)
    tasks.append(fails(to_key("no_identity", good, "nobody")))

    run = ansible.play(tasks, way=way)
    ran = {one.name for one in run}
    for make, failing in CASES:
        if make.__name__ not in ran:
            assert way == "module"
            continue
        one = run[make.__name__].refused("preflight_failed")
        status = status_of(one)
        assert status == dict.fromkeys(failing, "failed"), one
        # The message has all failed checks, each with its remedy.
        for check in one["preflight"]:
            assert f"{check['name']}: {check['evidence']} {check['remedy']}" in one["msg"]
    for name in ("no_vault (check)", "no_policy (check)", "everything_at_once (check)"):
        assert run[name].refused("preflight_failed")["msg"] == run[name.removesuffix(" (check)")]["msg"]
    one = run["no_identity"].refused("preflight_failed")
    assert one["failed_checks"] == ["identity_present"]
    assert status_of(one) == {"identity_present": "failed"}
    assert service.account() == before
    assert service.encryption("nobody") is None


def test_the_firewall_keeps_the_caller_out(ansible: Ansible, service: Service, way: str) -> None:
    """The caller cannot read the key, so only the settings of the vault decide."""
    principal = service.make_account()["identity"]["principalId"]
    open_to_azure = fit(service, "vault-one", principal)
    service.change_vault(properties={"networkAcls": {"bypass": "AzureServices", "defaultAction": "Deny"}})
    shut = fit(service, "vault-two", principal)
    service.change_vault("vault-two", properties={"networkAcls": {"bypass": "None", "defaultAction": "Deny"}})
    run = ansible.play([fails(to_key("shut", shut)), to_key("open to Azure", open_to_azure)], way=way)
    one = run["shut"].refused("preflight_failed")
    assert one["failed_checks"] == ["network_open_to_batch"]
    assert status_of(one) == {"network_open_to_batch": "failed"}
    one = run["open to Azure"]
    assert one["changed"] is True
    assert {name for name, status in status_of(one).items() if status == "unknown"} == {
        name for name in CHECKS if name.startswith("key_")
    }
    assert len(one.warnings) == 6
    assert service.encryption() == open_to_azure
    assert service.is_available()


KEYS = {name for name in CHECKS if name.startswith("key_")}


@pytest.mark.parametrize("rbac", [False, True])
def test_checks_that_the_caller_cannot_make_are_unknown(
    ansible: Ansible, service: Service, way: str, rbac: bool
) -> None:
    """If the caller lacks the permission for a check, its status is unknown, with a warning. If the caller cannot read
    the account's access, the change is refused, because the run could not detect a revocation afterwards. A caller that
    can read a vault can also read its access."""
    service.make_vault(rbac=rbac)
    principal = service.make_account()["identity"]["principalId"]
    service.grant(principal)
    identifier = service.make_key().id
    account = {"role": "Contributor", "scope": service.account_id()}
    vault = {"role": "Reader", "scope": service.vault_id()}
    blind = service.sandbox.control.principal("blind", roles=[account])
    half_blind = service.sandbox.control.principal("half-blind", roles=[account, vault])

    def by(who: dict[str, Any]) -> dict[str, str]:
        return {"client_id": who["client_id"], "secret": who["secret"], "vault_resource_group": GROUP}

    blindly = to_key("blindly", identifier, **by(blind))
    run = ansible.play(
        [
            fails(checked(blindly)),
            fails(blindly),
            to_key("half-blindly", identifier, **by(half_blind)),
        ],
        way=way,
    )
    for name in ("blindly (check)", "blindly"):
        assert status_of(run[name].refused("access_unknown")) == {"access_granted": "unknown"}
        assert "vaults/read" in run[name]["remedy"]
    one = run["half-blindly"]
    assert one["changed"] is True
    status = status_of(one)
    assert {check for check, result in status.items() if result == "unknown"} == KEYS
    assert {check for check, result in status.items() if result == "ok"} == CHECKS - KEYS
    unchecked = {warning.partition(": ")[0] for warning in one.warnings}
    assert unchecked == {f"Could not check {check}" for check in KEYS}
    assert service.encryption() == identifier
    assert service.is_available()


def test_the_caller_may_not_see_the_roles(ansible: Ansible, service: Service, way: str) -> None:
    service.make_vault(rbac=True)
    principal = service.make_account()["identity"]["principalId"]
    service.grant(principal)
    identifier = service.make_key().id
    service.sandbox.control.fault(
        match={"method": "GET", "path": "roleAssignments"},
        times=None,
        answer={"status": 403, "body": {"error": {"code": "AuthorizationFailed", "message": "No."}}},
    )
    run = ansible.play([fails(to_key("without roles", identifier))], way=way)
    one = run["without roles"].refused("access_unknown")
    assert status_of(one) == {"access_granted": "unknown"}
    assert "roleAssignments/read" in one["remedy"]
    assert service.encryption() is None
