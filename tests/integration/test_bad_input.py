# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Invalid options and missing permissions: one error with a code, the option and the remedy, and no write request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import Ansible, Run, Task, fails, key, task
from service import GROUP, Service

NOWHERE = "11111111-2222-3333-4444-555555555555"
KEY = "https://vault-one.vault.azure.net/keys/key1"


def encryption(title: str, **options: Any) -> dict[str, Any]:
    given = {"resource_group": GROUP, "account_name": "account1", "key_source": "microsoft_keyvault"}
    return task(title, "batch_encryption", **{**given, "key_identifier": KEY, **options})


def back(title: str, **options: Any) -> dict[str, Any]:
    given = {"resource_group": GROUP, "account_name": "account1", "key_source": "microsoft_batch", **options}
    return task(title, "batch_encryption", **given)


def account(title: str, **options: Any) -> dict[str, Any]:
    return task(title, "batch_account_identity", **{"resource_group": GROUP, "name": "account1", **options})


def vault(title: str, **options: Any) -> dict[str, Any]:
    return task(title, "keyvault_cmk_vault", **{"resource_group": GROUP, "name": "vault-one", **options})


def access(title: str, **options: Any) -> dict[str, Any]:
    return task(title, "keyvault_cmk_access", **{"vault_name": "vault-one", **options})


def reported(run: Run, title: str, code: str, option: str | None = None, value: Any = None) -> Task:
    """Check that the task failed with this code, option and value, with a remedy, and with the value in its message."""
    failed = run[title].refused(code)
    assert failed["remedy"], str(failed)
    if option is not None:
        assert failed["option"] == option, str(failed)
    if value is not None:
        assert failed["value"] == value, str(failed)
        assert str(value) in failed["msg"], str(failed)
    return failed


# Tasks that fail without a request to Azure.
MALFORMED = [
    (encryption("no key", key_identifier="vault-one/key1"), "key_identifier", "vault-one/key1"),
    (account("name too long", name="a" * 25), "name", "a" * 25),
    (vault("vault's name", name="1vault"), "name", "1vault"),
    (key("key's name", name="my_key"), "name", "my_key"),
    (access("no guid", principal_id="operator"), "principal_id", "operator"),
    (account("patience", wait_timeout=-1), "wait_timeout", -1),
    (back("subscription", subscription_id=f"/subscriptions/{NOWHERE}"), "subscription_id", f"/subscriptions/{NOWHERE}"),
    (back("cloud", cloud_environment="AzureGermany"), "cloud_environment", "AzureGermany"),
]


def test_malformed_options(ansible: Ansible, service: Service, way: str) -> None:
    run = ansible.play([fails(one) for one, *_ in MALFORMED], way=way)

    for one, option, value in MALFORMED:
        failed = reported(run, one["name"], "invalid_option", option, value)
        assert failed["documentation"].endswith("/docs/errors.md#invalid_option")
        assert failed["msg"].endswith(f"See {failed['documentation']}")
    assert run.writes == []
    assert service.accounts() == []


def test_nonexistent_resources_and_credentials(ansible: Ansible, service: Service, way: str) -> None:
    """Each task uses separate credentials or a separate scope."""
    late = service.sandbox.control.principal("late", secret_lifetime=-1)
    expired = {"client_id": late["client_id"], "secret": late["secret"]}
    run = ansible.play(
        [
            fails(back("no account")),
            fails(back("no group", resource_group="rg-nowhere")),
            fails(back("no subscription", subscription_id=NOWHERE)),
            fails(access("no vault", vault_resource_group=GROUP, principal_id=NOWHERE)),
            fails(access("no identity", identity_id=service.identity_id("nobody"))),
            fails(key("no vault for a key")),
            fails(back("wrong secret", secret="not-the-secret-of-anybody")),
            fails(back("expired secret", **expired)),
            fails(back("unknown client", client_id=NOWHERE)),
            fails(back("unknown tenant", tenant=NOWHERE)),
        ],
        way=way,
    )
    reported(run, "no account", "account_not_found", "account_name", "account1")
    reported(run, "no group", "resource_group_not_found", "resource_group")
    reported(run, "no subscription", "subscription_not_found", "subscription_id")
    reported(run, "no vault", "vault_not_found", "vault_name", "vault-one")
    reported(run, "no identity", "identity_not_found", "identity_id")
    reported(run, "no vault for a key", "vault_unreachable")
    reported(run, "wrong secret", "authentication_failed", "secret")
    reported(run, "expired secret", "secret_expired", "secret")
    reported(run, "unknown client", "authentication_failed", "client_id")
    reported(run, "unknown tenant", "authentication_failed", "tenant")
    assert run.writes == []


@pytest.mark.slow
def test_missing_sdk(ansible: Ansible, tmp_path: Path, way: str) -> None:
    """If Ansible's Python lacks the SDK, the task runs as a separate process. The SDK is missing there too."""
    blocker = tmp_path / "blocked" / "sitecustomize.py"
    blocker.parent.mkdir()
    blocker.write_text("import sys\nsys.modules['azure.mgmt.batch'] = None\n")
    run = ansible.play([fails(back("no SDK"))], way=way, environment={"PYTHONPATH": str(blocker.parent)})

    failed = reported(run, "no SDK", "missing_sdk")
    assert (failed["package"], failed["floor"]) == ("azure-mgmt-batch", "17.3.0")
    assert "azure-mgmt-batch>=17.3.0" in failed["msg"]


def test_no_permission(ansible: Ansible, service: Service, way: str) -> None:
    """A principal with the role Reader is refused at the first write. A principal without roles is refused at the
    first read."""
    principal, identifier = service.on_key(rbac=True)
    service.make_vault("vault-two")
    scope = service.sandbox.subscription
    reader = service.sandbox.control.principal("reader", roles=[{"role": "Reader", "scope": scope}])
    stranger = service.sandbox.control.principal("stranger")
    officer = service.sandbox.control.principal(
        "officer", roles=[{"role": role, "scope": scope} for role in ("Reader", "Key Vault Crypto User")]
    )

    def signed_in(one: dict[str, Any], who: dict[str, Any]) -> dict[str, Any]:
        module = next(name for name in one if name.startswith("azbatch.cmk."))
        given = {**one[module], "client_id": who["client_id"], "secret": who["secret"]}
        return fails({**one, module: given})

    denied = {
        "create account": (account("create account", name="account2"), "batchAccounts/write"),
        "create vault": (vault("create vault", name="vault-three"), "vaults/write"),
        "policy": (access("policy", vault_name="vault-two", principal_id=principal), "accessPolicies/write"),
        "role": (access("role", principal_id=NOWHERE), "roleAssignments/write"),
        "revert": (back("revert"), "batchAccounts/write"),
        "see key": (key("see key"), "keys/read"),
    }
    officers = {"new version": (key("new version", new_version=True), "keys/create/action")}
    tasks = [signed_in(one, reader) for one, _ in denied.values()]
    tasks += [signed_in(one, officer) for one, _ in officers.values()]
    strangers = ("account", "vault", "info")
    tasks += [
        signed_in(account("account"), stranger),
        signed_in(vault("vault"), stranger),
        signed_in(task("info", "batch_encryption_info", resource_group=GROUP, account_name="account1"), stranger),
    ]
    run = ansible.play(tasks, way=way)

    for title, (_one, action) in {**denied, **officers}.items():
        failed = run[title]
        assert failed["code"] == "permission_denied", str(failed)
        assert action.lower() in failed["action"].lower(), str(failed)
        assert failed["remedy"], str(failed)
        assert failed["changed"] is False
    for title in strangers:
        # Azure does not reveal to a caller without access whether the subscription exists.
        assert run[title]["code"] in ("permission_denied", "subscription_not_found"), str(run[title])
    assert service.encryption() == identifier
    assert service.is_available()
    assert service.accounts() == ["account1"]
    assert len(service.versions()) == 1
