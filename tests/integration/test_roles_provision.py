# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role provision by its playbook: without existing resources, with every partial setup, and a second time."""

from __future__ import annotations

import re
from typing import Any

from harness import Run
from one_process import RolesRunner
from role_runs import play_role, refused, result, run_role, steps, unchanged, warnings, wrote
from service import Service

VAULT = "Ensure the vault"
KEY = "Ensure the key"
MOVE = "Move the account to the key"


def provision(roles: RolesRunner, service: Service, identity: str = "system_assigned", **options: Any) -> Run:
    if identity == "user_assigned":
        options["cmk_identity_id"] = service.identity_id()
    return play_role(roles, "provision", **options)


def test_settings_of_new_resources(roles: RolesRunner, service: Service) -> None:
    """Tag policies refuse resources without tags, and keys of an HSM need a premium vault. Existing resources keep
    their tags: several accounts share a vault."""
    wanted = {"cmk_vault_sku": "premium", "cmk_vault_retention_days": 7, "cmk_key_type": "RSA-HSM"}
    predicted = provision(roles, service, check=True, cmk_tags={"owner": "ops", "cost_center": 4711}, **wanted)
    run = provision(roles, service, cmk_tags={"owner": "ops", "cost_center": 4711}, **wanted)

    assert steps(predicted) == steps(run)
    tags = {"owner": "ops", "cost_center": "4711"}
    assert (service.vault()["tags"], service.account()["tags"]) == (tags, tags)
    assert service.vault()["properties"]["sku"]["name"] == "premium"
    assert service.vault()["properties"]["softDeleteRetentionInDays"] == 7
    assert service.key().key_type == "RSA-HSM"
    unchanged(provision(roles, service, cmk_tags={"owner": "others"}))
    assert service.account()["tags"] == tags


def test_a_vault_without_public_network_access(roles: RolesRunner, service: Service) -> None:
    closed = {"cmk_vault_public_network_access": "disabled", "cmk_vault_authorization": "access_policy"}
    predicted = play_role(roles, "provision", check=True, **closed)
    assert "network_denied" in " ".join(warnings(predicted))
    run = run_role(roles, "provision", **closed)
    # The caller has no private endpoint.
    assert [(one.name, one.result["code"]) for one in run.failed] == [(KEY, "network_denied")], run.output
    assert "network_denied" in " ".join(warnings(run))
    assert predicted[VAULT]["public_network_access"] == run[VAULT]["public_network_access"] == "disabled"
    properties = service.vault()["properties"]
    assert properties["publicNetworkAccess"] == "Disabled"
    assert (properties["networkAcls"]["bypass"], properties["networkAcls"]["defaultAction"]) == (
        "AzureServices",
        "Deny",
    )

    # As if the caller had a private endpoint until the end of the role.
    service.change_vault(properties={"publicNetworkAccess": "Enabled", "networkAcls": {"defaultAction": "Allow"}})
    provision(roles, service, **closed)
    service.change_vault(properties={"publicNetworkAccess": "Disabled", "networkAcls": properties["networkAcls"]})
    assert service.is_available()


def in_second_subscription(service: Service) -> str:
    """Create a second subscription with the resource group `rg-keys`. Returns its id."""
    made = service.sandbox.control.call("POST", "/subscriptions", {"name": "second"}, status=201)
    second = str(made["subscription_id"])
    group = f"/subscriptions/{second}/resourceGroups/rg-keys"
    assert service.sandbox.arm("PUT", group, "2021-04-01", {"location": "westeurope"}).ok
    return second


def test_a_vault_in_another_subscription(roles: RolesRunner, service: Service) -> None:
    second = in_second_subscription(service)
    there = {"cmk_vault_subscription_id": second, "cmk_vault_resource_group": "rg-keys"}
    predicted = provision(roles, service, check=True, **there)
    run = provision(roles, service, **there)
    assert steps(predicted) == steps(run)
    (vault,) = (one["url"] for one in run.writes if re.search(r"/vaults/vault-one(\?|$)", one["url"]))
    assert f"/subscriptions/{second}/resourceGroups/rg-keys/" in vault
    assert service.encryption() == service.key().id
    assert service.is_available()
    unchanged(provision(roles, service, **there))
    # Without the list of vaults, which may be out of date.
    assert not [one for one in run.requests if one["url"].partition("?")[0].endswith("/vaults")]

    rotated = play_role(roles, "rotate", cmk_key_new_version=True, cmk_unused_versions="keep", **there)
    assert steps(rotated) == ["key", "encryption"]
    leave = {"cmk_unused_access": "revoke", "cmk_unused_for": "P0D"}
    reverted = play_role(roles, "revert", **leave, **there)
    assert "access" in steps(reverted)
    assert service.encryption() is None


def test_an_account_on_another_key_is_moved_only_on_request(roles: RolesRunner, service: Service) -> None:
    """A typing error in the name of the key. The key is created before the account is refused."""
    _, first = service.on_key()
    for check in (True, False):
        run = run_role(roles, "provision", check=check, cmk_key_name="key2")
        assert [one.name for one in run.failed] == [MOVE], run.output
        assert run[MOVE]["key_identifier"] == first
        assert (run[MOVE]["code"], run[MOVE]["option"]) == ("account_on_another_key", "previous_key")
        assert wrote(run) == ([] if check else ["POST key vault-one key2"])
    assert service.encryption() == first
    run = provision(roles, service, cmk_key_name="key2", cmk_previous_key="any")
    assert steps(run) == ["encryption"]
    assert service.encryption() == service.key("key2").id
    assert result(run)["previous_key_identifier"] == first
    assert service.key("key1").properties.enabled


def test_a_deleted_vault_is_recovered_on_request(roles: RolesRunner, service: Service) -> None:
    service.make_vault()
    version = service.make_key().id
    service.delete_vault()
    refused(run_role(roles, "provision"), VAULT, "vault-one", "Add vault to")
    predicted = provision(roles, service, check=True, cmk_allowed_repairs=["vault"])
    assert wrote(predicted) == []
    # The name of the vault resolves late.
    service.sandbox.control.behavior(vault_name_delay="120")
    run = provision(roles, service, cmk_allowed_repairs=["vault"], cmk_wait_timeout=600)
    assert steps(run) == ["vault", "access", "account", "encryption"]
    assert service.encryption() == version
    assert service.is_available()
