# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Invalid options and missing permissions: one error with a code, the option and the remedy, and no write request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import Ansible, Run, Task, fails, here, key, task
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
    (encryption("no vault", key_identifier="https://example.com/keys/key1"), "key_identifier", None),
    (encryption("short version", key_identifier=f"{KEY}/abc"), "key_identifier", f"{KEY}/abc"),
    (encryption("account's name", account_name="my-batch"), "account_name", "my-batch"),
    (account("name too long", name="a" * 25), "name", "a" * 25),
    (vault("vault's name", name="1vault"), "name", "1vault"),
    (vault("two hyphens", name="my--vault"), "name", "my--vault"),
    (key("key's name", name="my_key"), "name", "my_key"),
    (account("no identity's id", identity_id="batch-cmk"), "identity_id", "batch-cmk"),
    (access("no guid", principal_id="operator"), "principal_id", "operator"),
    (back("key without need", key_identifier=KEY), "key_identifier", KEY),
    (account("created without identity", key_identifier=KEY), "key_identifier", KEY),
    (vault("retention", retention_days=6), "retention_days", 6),
    (access("nobody"), "principal_id", None),
    (key("duration", expires_in="90 days"), "expires_in", "90 days"),
    (key("no time", max_version_age="P0D"), "max_version_age", "P0D"),
    (key("policy", rotation_policy={"expiry_time": "P1Y"}), "rotation_policy", None),
    (key("version", state="absent", version="0" * 32), "version", "0" * 32),
    (account("patience", wait_timeout=-1), "wait_timeout", -1),
    (key("elliptic", key_type="EC"), "key_type", "EC"),
    (key("small", key_size=1024), "key_size", 1024),
    (back("subscription", subscription_id=f"/subscriptions/{NOWHERE}"), "subscription_id", f"/subscriptions/{NOWHERE}"),
    (back("cloud", cloud_environment="AzureGermany"), "cloud_environment", "AzureGermany"),
]


def test_malformed_options(ansible: Ansible, service: Service, way: str) -> None:
    """In each way one task of each module, and the other tasks in Ansible's process."""
    everywhere = list({next(iter(one)): one for one, *_ in MALFORMED}.values())
    tasks = [one for one, *_ in MALFORMED]
    run = ansible.play([fails(one if one in everywhere else here(one)) for one in tasks], way=way)

    for one, option, value in MALFORMED:
        if way == "in_process" or one in everywhere:
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
            fails(account("no group for a new one", resource_group="rg-nowhere")),
            fails(back("no subscription", subscription_id=NOWHERE)),
            fails(access("no vault", vault_resource_group=GROUP, principal_id=NOWHERE)),
            fails(access("no vault anywhere", principal_id=NOWHERE)),
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
    reported(run, "no group for a new one", "resource_group_not_found", "resource_group")
    reported(run, "no subscription", "subscription_not_found", "subscription_id")
    reported(run, "no vault", "vault_not_found", "vault_name", "vault-one")
    reported(run, "no vault anywhere", "vault_not_found", "vault_name", "vault-one")
    reported(run, "no identity", "identity_not_found", "identity_id")
    reported(run, "no vault for a key", "vault_unreachable")
    reported(run, "wrong secret", "authentication_failed", "secret")
    reported(run, "expired secret", "secret_expired", "secret")
    reported(run, "unknown client", "authentication_failed", "client_id")
    reported(run, "unknown tenant", "authentication_failed", "tenant")
    assert run.writes == []


def test_missing_credentials(ansible: Ansible, way: str) -> None:
    nothing = dict.fromkeys(["AZURE_CLIENT_ID", "AZURE_SECRET", "AZURE_CLIENT_SECRET", "AZURE_SUBSCRIPTION_ID"])
    run = ansible.play(
        [
            fails(back("no client", auth_source="env", subscription_id=NOWHERE)),
            fails(back("no secret", auth_source="env", subscription_id=NOWHERE, client_id=NOWHERE)),
            fails(back("no subscription at all", client_id=NOWHERE, secret="a-secret-of-somebody")),
            fails(back("no profile", profile="nobody")),
            fails(
                back("no certificate", subscription_id=NOWHERE, client_id=NOWHERE, x509_certificate_path="/nowhere.pem")
            ),
        ],
        way=way,
        environment=nothing,
    )
    reported(run, "no client", "credentials_missing", "client_id")
    assert "AZURE_CLIENT_ID" in run["no client"]["msg"]
    reported(run, "no secret", "credentials_missing", "secret")
    reported(run, "no subscription at all", "invalid_option", "subscription_id")
    reported(run, "no profile", "invalid_option", "profile", "nobody")
    reported(run, "no certificate", "invalid_option", "x509_certificate_path", "/nowhere.pem")


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
        "change identity": (
            account(
                "change identity", identity_id=service.make_identity()["id"], allowed_repairs=["identity"], force=True
            ),
            "batchAccounts/write",
        ),
        "delete account": (account("delete account", state="absent"), "batchAccounts/delete"),
        "create vault": (vault("create vault", name="vault-three"), "vaults/write"),
        "policy": (access("policy", vault_name="vault-two", principal_id=principal), "accessPolicies/write"),
        "role": (access("role", principal_id=NOWHERE), "roleAssignments/write"),
        "revert": (back("revert"), "batchAccounts/write"),
        "see key": (key("see key"), "keys/read"),
        "see key by policy": (key("see key by policy", vault_name="vault-two"), "keys get"),
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
