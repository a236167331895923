# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans for vaults that meet the requirements of Batch."""

from __future__ import annotations

from typing import Any

import pytest
from documents import CALLER, OTHER, TENANT, VAULT_ID, account, account_id, deleted_vault, policy, vault, visible
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption, NotFound, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Step
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import vault as vault_document
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import goal as vault_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import plan as vault_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault.goal import VaultWrites


def goal(**options: Any) -> vault_goal.Goal:
    params = {
        "resource_group": "rg-keys",
        "name": "myvault",
        "location": None,
        "authorization": None,
        "sku": None,
        "key_type": None,
        "public_network_access": "enabled",
        "retention_days": 90,
        "recover": False,
        "trusted_services": False,
        "state": "present",
        "force": False,
        "tags": None,
        **options,
    }
    return vault_goal.desired(params)


def seen(document: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    if document is not None:
        return {"vault": document, "deleted": None}
    return {"vault": None, "deleted": None, "caller": CALLER, "group": {"location": "northeurope"}, **others}


def step(write: Any, **body: Any) -> Step[VaultWrites]:
    return Step(write, {"group": "rg-keys", "name": "myvault", "body": body})


# The goal


@pytest.mark.parametrize("days", [7, 30, 90])
def test_retention_is_accepted(days: int) -> None:
    assert goal(retention_days=days).retention_days == days


@pytest.mark.parametrize("days", [-1, 0, 6, 91])
def test_retention_is_refused(days: int) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(retention_days=days)

    assert refused.value.facts["option"] == "retention_days"
    assert refused.value.facts["value"] == days


def test_malformed_name_is_refused() -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(name="my--vault")

    assert refused.value.code == "invalid_option"


def test_a_number_is_the_text_of_a_tag() -> None:
    assert goal(tags={"cost_center": 4711, "owner": "ops"}).tags == {"cost_center": "4711", "owner": "ops"}


@pytest.mark.parametrize("tags", [{"owner": ["ops"]}, {"owner": None}, {"critical": True}])
def test_a_tag_that_is_no_text_is_refused(tags: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(tags=tags)

    assert refused.value.facts["option"] == "tags"


# A vault that does not exist


def test_only_a_new_vault_gets_the_tags() -> None:
    tagged = goal(tags={"owner": "ops"})
    plan = vault_plan.plan(tagged, seen())

    assert plan.steps[0].arguments["body"]["tags"] == plan.after["tags"] == {"owner": "ops"}
    assert not vault_plan.plan(tagged, seen(vault())).changed


def test_vault_is_created_with_roles_and_without_anybodys_policy() -> None:
    plan = vault_plan.plan(goal(), seen())

    assert plan.steps == (
        step(
            VaultWrites.create,
            location="northeurope",
            properties={
                "tenantId": TENANT,
                "sku": {"family": "A", "name": "standard"},
                "enableSoftDelete": True,
                "softDeleteRetentionInDays": 90,
                "enablePurgeProtection": True,
                "enableRbacAuthorization": True,
                "accessPolicies": [],
            },
        ),
    )
    assert plan.before == {"exists": False}
    assert plan.after == {
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


def test_new_vault_without_public_network_access() -> None:
    plan = vault_plan.plan(goal(public_network_access="disabled"), seen())

    properties = plan.steps[0].arguments["body"]["properties"]
    assert properties["publicNetworkAccess"] == "Disabled"
    assert (properties["networkAcls"]["bypass"], properties["networkAcls"]["defaultAction"]) == (
        "AzureServices",
        "Deny",
    )
    assert (plan.after["public_network_access"], plan.after["trusted_services"]) == ("disabled", True)
    assert "network_denied" in plan.warnings[0]


def test_public_network_access_of_an_existing_vault_is_not_changed() -> None:
    assert not vault_plan.plan(goal(public_network_access="disabled"), seen(vault())).changed
    closed = vault(publicNetworkAccess="Disabled")
    assert not vault_plan.plan(goal(), seen(closed)).changed
    assert vault_plan.plan(goal(), seen(closed)).before["public_network_access"] == "disabled"


def test_new_vault_has_the_properties_of_the_task() -> None:
    wanted = goal(location="westeurope", authorization="rbac", sku="premium", retention_days=7)

    [created] = vault_plan.plan(wanted, {"vault": None, "deleted": None, "caller": CALLER}).steps

    body = created.arguments["body"]
    assert body["location"] == "westeurope"
    assert body["properties"]["sku"] == {"family": "A", "name": "premium"}
    assert body["properties"]["softDeleteRetentionInDays"] == 7


@pytest.mark.parametrize(
    ("options", "sku"),
    [
        ({}, "standard"),
        ({"key_type": "RSA"}, "standard"),
        ({"key_type": "RSA", "sku": "premium"}, "premium"),
        ({"key_type": "RSA-HSM"}, "premium"),
        ({"key_type": "RSA-HSM", "sku": "premium"}, "premium"),
    ],
)
def test_sku_of_a_new_vault(options: dict[str, Any], sku: str) -> None:
    plan = vault_plan.plan(goal(**options), seen())

    assert plan.steps[0].arguments["body"]["properties"]["sku"]["name"] == plan.after["sku"] == sku


def test_a_standard_vault_for_keys_of_an_hsm_is_refused() -> None:
    with pytest.raises(InvalidOption) as wrong:
        goal(key_type="RSA-HSM", sku="standard")
    assert wrong.value.facts["option"] == "sku"

    unprotected = vault(enablePurgeProtection=None)
    with pytest.raises(Refused) as refused:
        vault_plan.plan(goal(key_type="RSA-HSM"), seen(unprotected))
    assert (refused.value.code, refused.value.facts["option"]) == ("vault_not_premium", "key_type")
    assert vault_plan.plan(goal(key_type="RSA"), seen(unprotected)).changed
    assert not vault_plan.plan(goal(key_type="RSA-HSM"), seen(vault(sku={"name": "Premium"}))).changed


def test_the_rollback_of_a_deletion_recovers_a_standard_vault() -> None:
    back = vault_plan.deleted(goal(key_type="RSA-HSM", state="absent"), (), 0.0).back

    assert not vault_plan.plan(back, seen(vault())).changed


def test_creator_of_a_vault_with_access_policies_may_manage_its_keys_and_not_purge_them() -> None:
    [created] = vault_plan.plan(goal(authorization="access_policy"), seen()).steps

    properties = created.arguments["body"]["properties"]
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
        vault_plan.plan(goal(), seen(deleted=deleted_vault()))

    assert refused.value.code == "vault_soft_deleted"
    assert refused.value.facts["option"] == "recover"


@pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])
def test_deleted_vault_is_recovered_where_it_was_and_protected(protected: bool) -> None:
    deleted = deleted_vault(protected=protected, tags={"owner": "me"})

    plan = vault_plan.plan(goal(recover=True, location="westeurope"), seen(deleted=deleted))

    recovered = step(
        VaultWrites.create,
        location="northeurope",
        tags={"owner": "me"},
        properties={
            "createMode": "recover",
            "tenantId": TENANT,
            "sku": {"family": "A", "name": "standard"},
            "accessPolicies": [],
        },
    )
    protect = step(VaultWrites.update, properties={"enablePurgeProtection": True})
    assert plan.steps == ((recovered,) if protected else (recovered, protect))
    assert plan.after["purge_protection"] is True


def test_recover_has_no_effect_if_nothing_was_deleted() -> None:
    [created] = vault_plan.plan(goal(recover=True), seen()).steps

    assert "createMode" not in created.arguments["body"]["properties"]


# A vault that exists


@pytest.mark.parametrize(
    ("options", "document"),
    [
        pytest.param({}, vault(), id="access policies"),
        pytest.param({}, vault(rbac=True), id="roles"),
        pytest.param({"authorization": "access_policy"}, vault(), id="access policies, as asked"),
        pytest.param(
            {"authorization": "access_policy"}, vault(enableRbacAuthorization=False), id="access policies, said aloud"
        ),
        pytest.param({"authorization": "rbac"}, vault(rbac=True), id="roles, as asked"),
        pytest.param({}, vault(enableSoftDelete=None), id="soft delete left out is on"),
        pytest.param({"retention_days": 7}, vault(), id="retention cannot be changed"),
        pytest.param({"sku": "premium"}, vault(), id="sku stays"),
        pytest.param({"location": "northeurope"}, vault(), id="region stays"),
        pytest.param({"recover": True}, vault(), id="recovered already"),
    ],
)
def test_a_vault_that_batch_accepts_is_not_changed(options: dict[str, Any], document: dict[str, Any]) -> None:
    plan = vault_plan.plan(goal(**options), seen(document))

    assert not plan.changed
    assert plan.before == plan.after == vault_document.describe(document)


@pytest.mark.parametrize(
    ("document", "changes"),
    [
        pytest.param(vault(enablePurgeProtection=None), {"enablePurgeProtection": True}, id="purge protection"),
        pytest.param(
            vault(enablePurgeProtection=None, enableSoftDelete=False),
            {"enablePurgeProtection": True, "enableSoftDelete": True},
            id="both",
        ),
    ],
)
def test_vault_update_contains_only_missing_protection(document: dict[str, Any], changes: dict[str, Any]) -> None:
    plan = vault_plan.plan(goal(), seen(document))

    assert plan.steps == (step(VaultWrites.update, properties=changes),)
    assert plan.after == {**plan.before, "purge_protection": True, "soft_delete": True}


@pytest.mark.parametrize(
    ("asked", "document"),
    [
        ("rbac", vault()),
        ("rbac", vault(enablePurgeProtection=None)),
        ("access_policy", vault(rbac=True)),
    ],
)
def test_other_authorization_is_refused(asked: str, document: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        vault_plan.plan(goal(authorization=asked), seen(document))

    assert refused.value.code == "vault_authorization_differs"
    assert refused.value.facts["value"] == asked


@pytest.mark.parametrize("options", [{"location": "atlantis"}, {}], ids=["asked for", "of the group"])
def test_a_region_without_key_vault_is_refused(options: dict[str, Any]) -> None:
    observed = seen(group={"location": "atlantis"}, regions=["West Europe", "North Europe"])
    with pytest.raises(InvalidOption) as refused:
        vault_plan.plan(goal(**options), observed)

    assert refused.value.code == "location_not_available"
    assert vault_plan.plan(goal(location="westeurope"), observed).changed


@pytest.mark.parametrize("purge_protection", [True, None], ids=["kept", "changed"])
def test_a_vault_in_another_region_is_reported(purge_protection: bool | None) -> None:
    plan = vault_plan.plan(goal(location="northeurope"), seen(vault(enablePurgeProtection=purge_protection)))

    assert any("westeurope" in warning and "northeurope" in warning for warning in plan.warnings)
    assert vault_plan.plan(goal(location="West Europe"), seen(vault())).warnings == ()


# After its creation


def test_a_creation_is_done_once_accounts_on_the_vault_have_access() -> None:
    wanted = vault_plan.plan(goal(), seen()).goal
    assert wanted.created
    document = seen(vault(enablePurgeProtection=True))

    confirmed = vault_plan.plan(wanted, {**document, "restored": ["an account"], "without_access": []})
    missing = vault_plan.plan(wanted, {**document, "restored": ["an account"], "without_access": ["an account"]})
    alone = vault_plan.plan(wanted, {**document, "restored": [], "without_access": []})

    assert not confirmed.changed
    assert "an account" in confirmed.warnings[0]
    assert [one.name for one in missing.steps] == ["restore_access"]
    assert not alone.changed
    assert alone.warnings == ()


# The firewall


CLOSED = {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "192.0.2.1/32"}], "virtualNetworkRules": []}


def test_trusted_services_are_allowed_and_other_rules_kept() -> None:
    document = vault(enablePurgeProtection=True, networkAcls=CLOSED)
    plan = vault_plan.plan(goal(trusted_services=True), seen(document))

    assert plan.steps == (step(VaultWrites.update, properties={"networkAcls": {**CLOSED, "bypass": "AzureServices"}}),)
    assert (plan.before["trusted_services"], plan.after["trusted_services"]) == (False, True)
    assert not vault_plan.plan(goal(), seen(document)).changed


@pytest.mark.parametrize(
    "rules", [{}, {**CLOSED, "bypass": "AzureServices"}, {**CLOSED, "defaultAction": "Allow"}], ids=str
)
def test_an_open_firewall_is_left_alone(rules: dict[str, Any]) -> None:
    document = vault(enablePurgeProtection=True, networkAcls=rules)

    assert not vault_plan.plan(goal(trusted_services=True), seen(document)).changed


# Deleted


USER = account("user", key="https://MYVAULT.vault.azure.net/keys/any/thing")
ELSEWHERE = account("elsewhere", key="https://other.vault.azure.net/keys/batch")


def test_a_vault_is_deleted() -> None:
    plan = vault_plan.plan(goal(state="absent"), {**seen(vault()), "visible": visible(ELSEWHERE, account())})

    assert plan.steps == (Step(VaultWrites.delete, {"group": "rg-keys", "name": "myvault"}),)
    assert plan.after == {"exists": False}
    assert not vault_plan.plan(goal(state="absent"), seen()).changed


def test_a_vault_in_use_is_not_deleted_unless_by_force() -> None:
    state = {**seen(vault()), "visible": visible(USER, ELSEWHERE, unlisted=("/subscriptions/hidden",))}
    with pytest.raises(Refused) as refused:
        vault_plan.plan(goal(state="absent"), state)

    assert refused.value.code == "in_use"
    assert refused.value.facts["accounts"] == [account_id("user")]
    assert refused.value.facts["unlisted"][0]["scope"] == "/subscriptions/hidden"

    plan = vault_plan.plan(goal(state="absent", force=True), state)
    assert plan.changed
    assert account_id("user") in plan.warnings[0]


# Return values


def test_description_of_a_vault() -> None:
    document = vault(policy(OTHER), enablePurgeProtection=None, sku={"family": "A", "name": "Premium"})

    assert vault_document.describe(document) == {
        "exists": True,
        "id": VAULT_ID,
        "name": "myvault",
        "location": "westeurope",
        "vault_uri": "https://myvault.vault.azure.net",
        "tenant_id": TENANT,
        "sku": "premium",
        "authorization": "access_policy",
        "soft_delete": True,
        "purge_protection": False,
        "retention_days": 90,
        "public_network_access": "enabled",
        "trusted_services": True,
        "tags": {},
    }
    assert vault_document.describe(None) == {"exists": False}


def test_fields_that_azure_leaves_out_have_their_defaults() -> None:
    described = vault_document.describe(vault(enableSoftDelete=None, softDeleteRetentionInDays=None))

    assert (described["soft_delete"], described["retention_days"]) == (True, 90)


@pytest.mark.parametrize("uri", ["https://MyVault.vault.azure.net", "https://myvault.vault.azure.net/"])
def test_the_url_is_the_same_after_creation_and_later(uri: str) -> None:
    assert vault_document.url(vault(vaultUri=uri)) == "https://myvault.vault.azure.net"


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


# From any state


def as_azure_does(state: dict[str, Any], document: dict[str, Any] | None, done: Step) -> dict[str, Any]:
    body = done.arguments["body"]
    properties = body["properties"]
    if properties.get("createMode") == "recover":
        protected = state["deleted"]["properties"].get("purgeProtectionEnabled")
        return {**vault(enablePurgeProtection=protected), "location": body["location"], "tags": body["tags"]}
    if document is None:
        return {**vault(**properties), "location": body["location"]}
    return {**document, "properties": {**document["properties"], **properties}}


DOCUMENTS = st.builds(
    vault,
    rbac=st.booleans(),
    enablePurgeProtection=st.sampled_from([None, True]),
    enableSoftDelete=st.sampled_from([None, True, False]),
)
STATES = st.one_of(
    st.builds(seen, DOCUMENTS),
    st.just(seen()),
    st.sampled_from([seen(deleted=deleted_vault()), seen(deleted=deleted_vault(protected=False))]),
)


@given(STATES, st.sampled_from([None, "access_policy"]), st.booleans())
def test_second_plan_is_empty_and_the_first_predicted_its_state(
    state: dict[str, Any], authorization: str | None, recover: bool
) -> None:
    try:
        first = vault_plan.plan(goal(authorization=authorization, recover=recover), state)
    except Refused:
        return

    document = state["vault"]
    for done in first.steps:
        document = as_azure_does(state, document, done)
    second = vault_plan.plan(first.goal, seen(document))

    assert not second.changed
    assert {name: second.before[name] for name in first.after} == first.after


def test_the_permission_model_of_a_deleted_vault_is_read_after_its_recovery() -> None:
    first = vault_plan.plan(goal(authorization="rbac", recover=True), seen(deleted=deleted_vault()))

    with pytest.raises(Refused) as refused:
        vault_plan.plan(first.goal, seen(vault()))

    assert refused.value.code == "vault_authorization_differs"
