# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Vaults that meet the requirements of Batch."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
from azure_table import Table, listing, task_of
from documents import (
    CALLER,
    SUBSCRIPTION,
    TENANT,
    VAULT_ID,
    deleted_vault,
    vault,
)
from goals import options_of

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    InvalidOption,
    NotFound,
    PlanOutdated,
    Refused,
    TimedOut,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import vault as vault_document
from ansible_collections.azbatch.cmk.plugins.module_utils._questions.vaults import name_check
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import goal as vault_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault.decide import VaultPresent
from ansible_collections.azbatch.cmk.plugins.modules import keyvault_cmk_vault


def goal(**options: Any) -> vault_goal.VaultGoal:
    given = {"resource_group": "rg-keys", "name": "myvault", **options}
    return vault_goal.desired(options_of(keyvault_cmk_vault, **given))


def table_of(
    document: dict[str, Any] | None = None,
    *accounts: dict[str, Any],
    deleted: dict[str, Any] | None = None,
    group: str = "northeurope",
    regions: list[str] | None = None,
    hidden: tuple[str, ...] = (),
) -> Table:
    """The vault, or the deleted vault, and the accounts. `regions` are those of Key Vault, and `hidden` are
    subscriptions whose accounts the caller may not list."""
    types = [{"resourceType": "vaults", "locations": regions or []}]
    return Table(
        {
            refs.vault(VAULT_ID): document,
            name_check(SUBSCRIPTION, "myvault"): {
                "nameAvailable": not (document or deleted),
                "reason": "AlreadyExists",
            },
            refs.deleted_vaults_of(SUBSCRIPTION): [deleted] if deleted else [],
            refs.group(SUBSCRIPTION, "rg-keys"): {"location": group},
            refs.provider(SUBSCRIPTION, "Microsoft.KeyVault"): {"resourceTypes": types},
            **listing(*accounts, hidden=hidden),
        }
    )


def decided(wanted: vault_goal.VaultGoal, seen: Table) -> Change:
    task = task_of(seen)
    question = VaultPresent(wanted, Facts(task.session)).decide
    return task.driver.solve(question)


def sent(change: Change) -> list[tuple[str, Any]]:
    """The methods and bodies of the requests, which are for the vault."""
    assert {one.ref for one in change.requests} <= {VAULT_ID}
    assert all(one.rights for one in change.requests)
    assert all(bool(one.creates) is (one.method == "PUT") for one in change.requests)
    return [(one.method, one.body) for one in change.requests]


def properties_of(change: Change) -> dict[str, Any]:
    """The properties in the only request, which creates the vault."""
    [(method, body)] = sent(change)
    assert method == "PUT"
    properties: dict[str, Any] = body["properties"]
    return properties


# The goal


@pytest.mark.parametrize("tags", [{"owner": ["ops"]}, {"owner": None}, {"critical": True}])
def test_a_tag_that_is_no_text_is_refused(tags: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(tags=tags)

    assert refused.value.facts["option"] == "tags"


# A vault that does not exist


def test_only_a_new_vault_gets_the_tags() -> None:
    tagged = goal(tags={"owner": "ops"})
    change = decided(tagged, table_of())

    [(_method, body)] = sent(change)
    assert body["tags"] == change.after["tags"] == {"owner": "ops"}
    assert not decided(tagged, table_of(vault())).requests


def test_vault_is_created_with_roles_and_without_anybodys_policy() -> None:
    change = decided(goal(), table_of())

    properties = {
        "tenantId": TENANT,
        "sku": {"family": "A", "name": "standard"},
        "enableSoftDelete": True,
        "softDeleteRetentionInDays": 90,
        "enablePurgeProtection": True,
        "enableRbacAuthorization": True,
        "accessPolicies": [],
    }
    assert sent(change) == [("PUT", {"location": "northeurope", "properties": properties})]
    assert change.before == {"exists": False}
    assert change.after == {
        "exists": True,
        "name": "myvault",
        "location": "northeurope",
        "tenant_id": TENANT,
        "sku": "standard",
        "authorization": "rbac",
        "soft_delete": True,
        "purge_protection": True,
        "retention_days": 90,
        "public_network_access": "enabled",
        "trusted_services": True,
        "tags": {},
    }


@pytest.mark.parametrize(
    ("document", "is_shown"), [(None, False), (vault(provisioningState="RegisteringDns"), False), (vault(), True)]
)
def test_a_creation_ends_once_a_read_shows_the_vault(document: dict[str, Any] | None, is_shown: bool) -> None:
    change = decided(goal(), table_of())

    with nullcontext() if is_shown else pytest.raises(TimedOut):
        task_of(table_of(document), wait_timeout=0).driver.solve(partial(change.shown, request=change.requests[0]))


def test_new_vault_without_public_network_access() -> None:
    change = decided(goal(public_network_access="disabled"), table_of())

    properties = properties_of(change)
    assert properties["publicNetworkAccess"] == "Disabled"
    assert (properties["networkAcls"]["bypass"], properties["networkAcls"]["defaultAction"]) == (
        "AzureServices",
        "Deny",
    )
    assert (change.after["public_network_access"], change.after["trusted_services"]) == ("disabled", True)
    assert "network_denied" in change.warnings[0]


def test_a_standard_vault_for_keys_of_an_hsm_is_refused() -> None:
    with pytest.raises(InvalidOption) as wrong:
        goal(key_type="RSA-HSM", sku="standard")
    assert wrong.value.facts["option"] == "sku"

    unprotected = vault(enablePurgeProtection=None)
    with pytest.raises(Refused) as refused:
        decided(goal(key_type="RSA-HSM"), table_of(unprotected))
    assert (refused.value.code, refused.value.facts["option"]) == ("vault_not_premium", "key_type")
    assert decided(goal(key_type="RSA"), table_of(unprotected)).requests
    assert not decided(goal(key_type="RSA-HSM"), table_of(vault(sku={"name": "Premium"}))).requests


def test_creator_of_a_vault_with_access_policies_may_manage_its_keys_and_not_purge_them() -> None:
    properties = properties_of(decided(goal(authorization="access_policy"), table_of()))
    [entry] = properties["accessPolicies"]
    assert properties["enableRbacAuthorization"] is False
    assert entry["objectId"] == CALLER["object_id"]
    assert entry["tenantId"] == TENANT
    assert set(entry["permissions"]["keys"]) >= {"get", "list", "create", "update", "delete", "recover"}
    assert "purge" not in entry["permissions"]["keys"]
    assert entry["permissions"]["secrets"] == entry["permissions"]["certificates"] == []


# A deleted vault


def test_deleted_vault_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        decided(goal(), table_of(deleted=deleted_vault()))

    assert refused.value.code == "vault_soft_deleted"
    assert refused.value.facts["option"] == "allowed_repairs"


@pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])
def test_deleted_vault_is_recovered_where_it_was_and_protected(protected: bool) -> None:
    deleted = deleted_vault(protected=protected, tags={"owner": "me"})

    change = decided(goal(allowed_repairs=["vault"], location="westeurope"), table_of(deleted=deleted))

    properties = {
        "createMode": "recover",
        "tenantId": TENANT,
        "sku": {"family": "A", "name": "standard"},
        "accessPolicies": [],
    }
    recover = ("PUT", {"location": "northeurope", "tags": {"owner": "me"}, "properties": properties})
    protect = ("PATCH", {"properties": {"enablePurgeProtection": True}})
    assert sent(change) == [recover, *([] if protected else [protect])]
    assert change.after["purge_protection"] is True


# A vault that exists


@pytest.mark.parametrize(
    ("options", "document"),
    [
        pytest.param({}, vault(rbac=True), id="roles"),
        pytest.param(
            {"authorization": "access_policy"}, vault(enableRbacAuthorization=False), id="access policies, said aloud"
        ),
    ],
)
def test_a_vault_that_batch_accepts_is_not_changed(options: dict[str, Any], document: dict[str, Any]) -> None:
    change = decided(goal(**options), table_of(document))

    assert not change.requests
    assert change.before == change.after == vault_document.describe(document)


@pytest.mark.parametrize(
    ("document", "changes"),
    [
        pytest.param(
            vault(enablePurgeProtection=None, enableSoftDelete=False),
            {"enablePurgeProtection": True, "enableSoftDelete": True},
            id="both",
        ),
    ],
)
def test_vault_update_contains_only_missing_protection(document: dict[str, Any], changes: dict[str, Any]) -> None:
    change = decided(goal(), table_of(document))

    assert sent(change) == [("PATCH", {"properties": changes})]
    assert change.after == {**change.before, "purge_protection": True, "soft_delete": True}


@pytest.mark.parametrize("options", [{"location": "atlantis"}, {}], ids=["asked for", "of the group"])
def test_a_region_without_key_vault_is_refused(options: dict[str, Any]) -> None:
    table = table_of(group="atlantis", regions=["West Europe", "North Europe"])
    with pytest.raises(InvalidOption) as refused:
        decided(goal(**options), table)

    assert refused.value.code == "location_not_available"
    assert decided(goal(location="westeurope"), table).requests


@pytest.mark.parametrize("purge_protection", [True, None], ids=["kept", "changed"])
def test_a_vault_in_another_region_is_reported(purge_protection: bool | None) -> None:
    change = decided(goal(location="northeurope"), table_of(vault(enablePurgeProtection=purge_protection)))

    assert any("westeurope" in warning and "northeurope" in warning for warning in change.warnings)
    assert decided(goal(location="West Europe"), table_of(vault())).warnings == ()


@pytest.mark.parametrize(
    ("options", "option"),
    [
        pytest.param({"sku": "premium"}, "sku", id="SKU"),
        pytest.param({"retention_days": 7}, "retention_days", id="retention"),
        pytest.param({}, None, id="the defaults"),
    ],
)
def test_an_option_of_a_new_vault_that_an_existing_vault_does_not_have_is_reported(
    options: dict[str, Any], option: str | None
) -> None:
    warnings = decided(goal(**options), table_of(vault())).warnings

    assert [one.startswith(f"O({option}) is ") for one in warnings] == [True] * (option is not None)


# The firewall


CLOSED = {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "192.0.2.1/32"}], "virtualNetworkRules": []}


def test_trusted_services_are_allowed_and_other_rules_kept() -> None:
    document = vault(enablePurgeProtection=True, networkAcls=CLOSED)
    change = decided(goal(allowed_repairs=["network"]), table_of(document))

    assert sent(change) == [("PATCH", {"properties": {"networkAcls": {**CLOSED, "bypass": "AzureServices"}}})]
    assert (change.before["trusted_services"], change.after["trusted_services"]) == (False, True)
    assert not decided(goal(), table_of(document)).requests


@pytest.mark.parametrize(
    ("rules", "is_refused"),
    [
        pytest.param(CLOSED, False, id="as they were"),
        pytest.param({**CLOSED, "ipRules": []}, True, id="changed meanwhile"),
    ],
)
def test_rules_that_somebody_else_has_changed_are_not_replaced(rules: dict[str, Any], is_refused: bool) -> None:
    change = decided(goal(allowed_repairs=["network"]), table_of(vault(networkAcls=CLOSED)))
    assert change.requests[0].wanted_first

    with pytest.raises(PlanOutdated) if is_refused else nullcontext():
        task_of(table_of(vault(networkAcls=rules))).driver.solve(partial(change.wanted, request=change.requests[0]))


# Return values


def test_required_vault() -> None:
    document = vault()
    assert vault_document.required(document, "myvault", None) is document

    for group, identifier, option, remedy in (
        ("rg", None, "vault_name", "correct vault_name, vault_resource_group or vault_subscription_id."),
        (
            None,
            "https://myvault.vault.azure.net/keys/batch",
            "key_identifier",
            "correct key_identifier or subscription_id.",
        ),
    ):
        with pytest.raises(NotFound) as failed:
            vault_document.required(None, "myvault", group, identifier)

        assert (failed.value.code, failed.value.facts["option"]) == ("vault_not_found", option)
        assert plain(failed.value.facts["remedy"]).endswith(remedy)


# The vault, and the deleted vault.


def test_the_permission_model_of_a_deleted_vault_is_read_after_its_recovery() -> None:
    wanted = goal(authorization="rbac", allowed_repairs=["vault"])

    assert decided(wanted, table_of(deleted=deleted_vault())).requests
    with pytest.raises(Refused) as refused:
        decided(wanted, table_of(vault()))

    assert refused.value.code == "vault_authorization_differs"
