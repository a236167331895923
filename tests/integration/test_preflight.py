# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account is never moved to a key that Batch cannot use."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import Ansible, Task, checked, fails, task
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


# Each function creates a vault or a key with a problem, and returns the key's identifier.


def no_vault(service: Service, vault: str, principal: str) -> str:
    return f"https://{vault}.vault.azure.net/keys/key1"


def too_small(service: Service, vault: str, principal: str) -> str:
    identifier = fit(service, vault, principal)
    modulus = base64.urlsafe_b64encode(b"\xff" * 128).decode().rstrip("=")
    operations = ["wrapKey", "unwrapKey"]
    jwk = {"kid": identifier, "kty": "RSA", "key_ops": operations, "n": modulus, "e": "AQAB"}
    attributes = {"enabled": True, "created": 1, "updated": 1, "recoveryLevel": "Recoverable"}
    answer = {"status": 200, "body": {"key": jwk, "attributes": attributes}}
    service.sandbox.control.fault(match={"method": "GET", "host": f"^{vault}[.]"}, times=None, answer=answer)
    return identifier


def no_policy(service: Service, vault: str, principal: str) -> str:
    identifier = fit(service, vault, principal)
    service.revoke(principal, vault)
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
    (too_small, {"key_size_supported"}),
    (no_policy, {"access_granted"}),
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
        tasks += [fails(one), fails(checked(one))]
    service.make_account("nobody", identity={"type": "None"})
    good = fit(service, "vault-good", principal)
    tasks.append(fails(to_key("no_identity", good, "nobody")))

    run = ansible.play(tasks, way=way)
    for make, failing in CASES:
        one = run[make.__name__].refused("preflight_failed")
        status = status_of(one)
        assert status == dict.fromkeys(failing, "failed"), one
        # The message has all failed checks, each with its remedy.
        for check in one["preflight"]:
            assert f"{check['name']}: {check['evidence']} {check['remedy']}" in one["msg"]
        assert run[f"{make.__name__} (check)"].refused("preflight_failed")["msg"] == one["msg"]
    one = run["no_identity"].refused("preflight_failed")
    assert one["failed_checks"] == ["identity_present"]
    assert status_of(one) == {"identity_present": "failed"}
    assert service.account() == before
    assert service.encryption("nobody") is None


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
