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
        assert str(value)[:50] in failed["msg"], str(failed)
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
    # A variable that is empty by mistake must not turn off a check.
    (access("nobody", principal_id=""), "principal_id", ""),
    (access("no identity", identity_id="", state="absent"), "identity_id", ""),
    (access("no account", account_name="", account_resource_group=GROUP), "account_name", ""),
    (key("no user", used_by_account="", account_resource_group=GROUP, new_version=True), "used_by_account", ""),
    (key("no margin", state="disabled", unused_for=""), "unused_for", ""),
    (back("no previous key", previous_key=""), "previous_key", ""),
]


def test_malformed_options(ansible: Ansible, service: Service, way: str) -> None:
    run = ansible.play([fails(one) for one, *_ in MALFORMED], way=way)

    for one, option, value in MALFORMED:
        failed = reported(run, one["name"], "invalid_option", option, value)
        assert failed["documentation"].endswith("/docs/errors.md#invalid_option")
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
    assert "-m pip install -U azure-core" in failed["msg"]
