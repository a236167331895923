# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules for accounts, vaults and access: check, apply, check again, apply again. Azure's SDK reads the resulting
resources."""

from __future__ import annotations

from typing import Any

from harness import Ansible, checked, four_steps, task, two_steps
from service import ENCRYPTION_USER, GROUP, LOCATION, NEEDED, Service


def test_account(ansible: Ansible, service: Service, way: str) -> None:
    service.make_account("plain", identity={"type": "None"})
    service.make_account("others")
    own = service.make_identity("identity1")
    service.make_identity("identity2")

    def account(title: str, **options: Any) -> dict[str, Any]:
        return task(title, "batch_account_identity", resource_group=GROUP, **options)

    run = ansible.play(
        [
            *four_steps(account("own", name="account1")),
            *four_steps(
                account(
                    "assigned", name="account2", location="northeurope", identity_id=service.identity_id("identity1")
                )
            ),
            *two_steps(account("adopted", name="plain", allowed_repairs=["identity"])),
            *two_steps(
                account(
                    "another", name="others", identity_id=service.identity_id("identity1"), allowed_repairs=["identity"]
                )
            ),
            *two_steps(
                account(
                    "one more",
                    name="account2",
                    identity_id=service.identity_id("identity2"),
                    allowed_repairs=["identity"],
                )
            ),
            *four_steps(account("gone", name="account1", state="absent")),
        ],
        way=way,
    )

    made = run.checked_steps("own")
    assert made["location"] == LOCATION
    assert made["identity"]["type"] == "system_assigned"
    assert made["identity"]["tenant_id"] == service.sandbox.tenant_id
    assert made["key_source"] == "microsoft_batch"
    assert made["key_identifier"] is None

    made = run.checked_steps("assigned")
    found = service.account("account2")
    assert made["id"] == found["id"]
    assert made["location"] == found["location"] == "northeurope"
    assert made["identity"]["user_assigned_identities"] == {
        service.identity_id("identity1"): {
            "principal_id": own["properties"]["principalId"],
            "client_id": own["properties"]["clientId"],
        }
    }
    assert made["identity"]["principal_id"] is None

    assert run.checked_steps("adopted")["diff"]["before"]["identity"]["type"] == "none"
    assert run["adopted: apply"]["identity"]["principal_id"] == service.account("plain")["identity"]["principalId"]
    assert run.checked_steps("another")["diff"]["before"]["identity"]["type"] == "system_assigned"
    assert service.account("others")["identity"]["type"] == "UserAssigned"
    run.checked_steps("one more")
    assert set(service.account("account2")["identity"]["userAssignedIdentities"]) == {
        service.identity_id("identity1"),
        service.identity_id("identity2"),
    }

    assert run.checked_steps("gone")["exists"] is False
    assert sorted(service.accounts()) == ["account2", "others", "plain"]


def test_access_by_role(ansible: Ansible, service: Service, way: str) -> None:
    service.make_vault(rbac=True)
    principal = service.make_identity()["properties"]["principalId"]
    vault_id = service.vault_id()
    service.make_key()

    def access(title: str, **options: Any) -> list[dict[str, Any]]:
        named = {"vault_resource_group": GROUP, "vault_name": "vault-one", "principal_id": principal}
        return four_steps(task(title, "keyvault_cmk_access", **named, **options))

    run = ansible.play([*access("one key", key_name="key1"), *access("all keys")], way=way)
    assert run.checked_steps("one key")["scope"] == f"{vault_id}/keys/key1"
    assert run.checked_steps("all keys")["scope"] == vault_id
    assert run["all keys: apply"]["granted"] == NEEDED
    assert sorted(service.assignments(principal)) == [
        (vault_id, ENCRYPTION_USER),
        (f"{vault_id}/keys/key1", ENCRYPTION_USER),
    ]

    absent = access("no keys", state="absent")
    one_left = task(
        "one is left", "keyvault_cmk_access", vault_name="vault-one", key_name="key1", principal_id=principal
    )
    run = ansible.play([*absent, checked(one_left), *access("no key", key_name="key1", state="absent")], way=way)
    run.checked_steps("no keys")
    assert run["one is left (check)"]["changed"] is False
    assert run.checked_steps("no key")["granted"] == []
    assert service.assignments(principal) == []
