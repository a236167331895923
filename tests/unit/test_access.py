# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan for the access of a principal to a key, with access policies and with Azure RBAC."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from documents import (
    CRYPTO_OFFICER,
    DAY,
    DEFINITIONS,
    ENCRYPTION_USER,
    GROUP_OF_PEOPLE,
    KEY,
    NEEDED,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
    TENANT,
    VAULT_ID,
    account,
    account_id,
    assignment,
    definition,
    identity_id,
    policy,
    system_assigned,
    times,
    user_assigned,
    vault,
    visible,
)
from goals import access_goal as goal
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption, NotFound, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Plan, Step
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import goal as access_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import plan as access_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.goal import AccessWrites

KEY_ID = f"{VAULT_ID}/keys/batch"
ALL_BUT_NEEDED = set(access_plan._ALL) - set(NEEDED)


def seen(
    document: dict[str, Any] | None,
    *assignments: dict[str, Any],
    definitions: dict[str, Any] | None = None,
    accounts: dict[str, Any] | None = None,
    principal: str = PRINCIPAL,
    **ages: Any,
) -> dict[str, Any]:
    """`ages` are the seconds since accounts were changed (`times`)."""
    return {
        "vault": document,
        "principal_id": principal,
        "assignments": list(assignments),
        "definitions": DEFINITIONS if definitions is None else definitions,
        "visible": accounts or visible(),
        "times": times(**ages),
        "now": NOW,
    }


# The goal


OF_ACCOUNT = {"account_name": "mybatch", "account_resource_group": "rg-batch"}


@pytest.mark.parametrize(
    ("options", "option"),
    [
        pytest.param({"principal_id": None}, "principal_id", id="no principal"),
        pytest.param({"identity_id": identity_id()}, "identity_id", id="a principal and an identity"),
        pytest.param(OF_ACCOUNT, "account_name", id="a principal and an account"),
        pytest.param(
            {"principal_id": None, "identity_id": identity_id(), **OF_ACCOUNT},
            "account_name",
            id="an identity and an account",
        ),
        pytest.param({"principal_id": None, "account_name": "mybatch"}, "account_resource_group", id="no group"),
        pytest.param({"vault_name": None}, "vault_name", id="no vault"),
        pytest.param({"key_identifier": KEY}, "key_identifier", id="a vault and a key"),
        pytest.param({"vault_name": None, "key_identifier": "batch"}, "key_identifier", id="a malformed key"),
    ],
)
def test_exactly_one_principal_and_one_vault_are_required(options: dict[str, Any], option: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(**options)

    assert refused.value.facts["option"] == option


@pytest.mark.parametrize("identifier", [KEY, f"{KEY}/{OLD}", KEY.replace("myvault", "MyVault")])
def test_the_vault_can_be_named_by_a_key_identifier(identifier: str) -> None:
    """The access is to all keys of the vault."""
    wanted = goal(vault_name=None, key_identifier=identifier)

    assert (wanted.vault, wanted.key_name) == ("myvault", None)


# The identities of an account


def of_account(identity: dict[str, Any] | None, **options: Any) -> list[access_goal.Goal]:
    wanted = goal(principal_id=None, **OF_ACCOUNT, **options)
    return access_goal.of_account(wanted, account(identity=identity))


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize(
    ("identity", "principals"),
    [
        pytest.param(system_assigned(), [PRINCIPAL], id="system-assigned"),
        pytest.param(user_assigned(one=OTHER), [OTHER], id="user-assigned"),
        pytest.param(user_assigned(one=PRINCIPAL, two=OTHER), [PRINCIPAL, OTHER], id="several"),
    ],
)
def test_access_of_an_account_covers_each_identity(identity: dict[str, Any], principals: list[str], state: str) -> None:
    wanted = of_account(identity, state=state)

    assert [one.principal_id for one in wanted] == principals
    assert {(one.vault, one.present) for one in wanted} == {("myvault", state == "present")}


def test_an_account_without_an_identity_cannot_be_granted_access() -> None:
    with pytest.raises(Refused) as refused:
        of_account(None)

    assert refused.value.code == "account_without_identity"
    # There is no access that could be revoked.
    assert of_account(None, state="absent") == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"vault_name": "v"}, "invalid_option"),
        ({"principal_id": "mybatch"}, "invalid_option"),
        ({"principal_id": None, "identity_id": "id-batch"}, "invalid_option"),
        ({"key_name": "my_key"}, "invalid_option"),
    ],
)
def test_malformed_option_is_refused(options: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(**options)

    assert refused.value.code == code


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_missing_vault_is_an_error(state: str) -> None:
    with pytest.raises(NotFound) as failed:
        access_plan.plan(goal(state=state), seen(None))

    assert failed.value.code == "vault_not_found"


# A vault that uses access policies


def only_step(plan: Plan) -> dict[str, Any]:
    [step] = plan.steps
    assert step.write == AccessWrites.set_policy
    assert step.arguments["vault_id"] == VAULT_ID
    return dict(step.arguments)


@pytest.mark.parametrize(
    "permissions",
    [
        pytest.param(NEEDED, id="just these"),
        pytest.param(["WrapKey", "GET", "unwrapkey"], id="letter case"),
        pytest.param([*NEEDED, "list"], id="more than these"),
        pytest.param(["all"], id="all"),
        pytest.param(["All"], id="All"),
    ],
)
def test_existing_permissions_are_not_granted_again(permissions: list[str]) -> None:
    plan = access_plan.plan(goal(), seen(vault(policy(keys=permissions))))

    assert not plan.changed
    assert plan.after == plan.before
    assert plan.before["granted"] == NEEDED


@pytest.mark.parametrize(
    ("entries", "permissions"),
    [
        pytest.param([], NEEDED, id="no entry"),
        pytest.param([policy(keys=[])], NEEDED, id="empty entry"),
        pytest.param([policy(keys=["get"])], ["get", "unwrapKey", "wrapKey"], id="a part"),
        pytest.param([policy(keys=["list", "wrapKey"])], ["list", "wrapKey", "get", "unwrapKey"], id="others kept"),
        pytest.param([policy(OTHER)], NEEDED, id="somebody else's entry"),
        pytest.param([policy(application=OTHER)], NEEDED, id="an application acting for it"),
        pytest.param([{"tenantId": TENANT, "objectId": PRINCIPAL, "permissions": {}}], NEEDED, id="no key permissions"),
        pytest.param(
            [{"tenantId": TENANT, "objectId": PRINCIPAL, "permissions": {"keys": None}}], NEEDED, id="null permissions"
        ),
    ],
)
def test_missing_permissions_are_added_to_its_own_entry(entries: list[dict[str, Any]], permissions: list[str]) -> None:
    plan = access_plan.plan(goal(), seen(vault(*entries)))

    step = only_step(plan)
    assert step["operation"] == "add"
    assert step["entry"]["objectId"] == PRINCIPAL
    assert step["entry"]["tenantId"] == TENANT
    assert "applicationId" not in step["entry"]
    assert step["entry"]["permissions"]["keys"] == permissions
    assert plan.after == {**plan.before, "granted": NEEDED}


def test_other_kinds_of_permissions_are_kept() -> None:
    entry = policy(keys=["list"], secrets=["get"], certificates=["get", "list"], storage=["get"])

    step = only_step(access_plan.plan(goal(), seen(vault(entry))))

    assert step["entry"]["permissions"] == {**entry["permissions"], "keys": ["list", *NEEDED]}


def test_letter_case_of_the_principal_does_not_matter() -> None:
    assert not access_plan.plan(goal(), seen(vault(policy(PRINCIPAL.upper())))).changed


def test_key_name_has_no_effect() -> None:
    plan = access_plan.plan(goal(key_name="batch"), seen(vault(policy())))

    assert not plan.changed
    assert plan.before["scope"] == VAULT_ID


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([], id="no entry"),
        pytest.param([policy(keys=["list"], secrets=["get"])], id="none of the three"),
        pytest.param([policy(application=OTHER)], id="an application acting for it"),
        pytest.param([policy(OTHER)], id="somebody else's entry"),
    ],
)
def test_revoking_permissions_that_are_missing_changes_nothing(entries: list[dict[str, Any]]) -> None:
    plan = access_plan.plan(goal(state="absent"), seen(vault(*entries)))

    assert not plan.changed
    assert plan.before["granted"] == plan.after["granted"] == []


@pytest.mark.parametrize(
    "entry",
    [policy(), policy(keys=["get"]), policy(keys=["WrapKey"]), policy(keys=NEEDED, secrets=[], certificates=[])],
)
def test_entry_that_holds_nothing_else_is_removed(entry: dict[str, Any]) -> None:
    plan = access_plan.plan(goal(state="absent"), seen(vault(policy(OTHER), entry)))

    step = only_step(plan)
    assert step["operation"] == "remove"
    assert step["entry"] == entry
    assert plan.after["granted"] == []


@pytest.mark.parametrize(
    ("entry", "left"),
    [
        pytest.param(policy(keys=[*NEEDED, "list"]), ["list"], id="another key permission"),
        pytest.param(policy(secrets=["get"]), [], id="secrets"),
        pytest.param(policy(certificates=["get"]), [], id="certificates"),
        pytest.param(policy(storage=["get"]), [], id="storage"),
        pytest.param(policy(secrets=["all"], certificates=[]), [], id="all secrets"),
    ],
)
def test_other_permissions_of_an_entry_are_kept(entry: dict[str, Any], left: list[str]) -> None:
    plan = access_plan.plan(goal(state="absent"), seen(vault(entry)))

    step = only_step(plan)
    assert step["operation"] == "replace"
    assert step["entry"] == {**entry, "permissions": {**entry["permissions"], "keys": left}}
    assert plan.after["granted"] == []


@pytest.mark.parametrize("every", ["all", "All"])
def test_a_part_of_all_permissions_is_revoked(every: str) -> None:
    step = only_step(access_plan.plan(goal(state="absent"), seen(vault(policy(keys=[every])))))

    assert step["operation"] == "replace"
    assert set(step["entry"]["permissions"]["keys"]) == ALL_BUT_NEEDED


# A vault that uses Azure RBAC


@pytest.mark.parametrize(
    ("scope", "key_name"),
    [
        pytest.param(VAULT_ID, None, id="at the vault"),
        pytest.param(VAULT_ID.upper(), None, id="at the vault, in another letter case"),
        pytest.param(f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys", None, id="at the group"),
        pytest.param(f"/subscriptions/{SUBSCRIPTION}", "batch", id="at the subscription"),
        pytest.param("/", "batch", id="at the root"),
        pytest.param(VAULT_ID, "batch", id="at the vault of the key"),
        pytest.param(KEY_ID, "batch", id="at the key"),
        pytest.param("/providers/Microsoft.Management/managementGroups/mg", None, id="at a management group"),
    ],
)
@pytest.mark.parametrize("role", [ENCRYPTION_USER, CRYPTO_OFFICER])
def test_an_existing_role_is_not_assigned_again(scope: str, key_name: str | None, role: str) -> None:
    plan = access_plan.plan(goal(key_name=key_name), seen(vault(rbac=True), assignment(role, scope)))

    assert not plan.changed
    assert plan.before["granted"] == NEEDED


def test_a_role_of_a_group_of_the_principal_counts() -> None:
    inherited = assignment(ENCRYPTION_USER, VAULT_ID, principal=GROUP_OF_PEOPLE)

    assert not access_plan.plan(goal(), seen(vault(rbac=True), inherited)).changed


READ, WRAP, UNWRAP = (f"Microsoft.KeyVault/vaults/keys/{name}" for name in ("read", "wrap/action", "unwrap/action"))


@pytest.mark.parametrize(
    ("roles", "granted"),
    [
        pytest.param([definition()], [], id="no permissions"),
        pytest.param([definition(([], []))], [], id="no data actions"),
        pytest.param([definition(([READ], []))], ["get"], id="one action"),
        pytest.param([definition(([READ], [])), definition(([WRAP, UNWRAP], []))], NEEDED, id="two roles together"),
        pytest.param([definition(([READ], []), ([WRAP], []), ([UNWRAP], []))], NEEDED, id="one role in three parts"),
        pytest.param([definition((["*"], []))], NEEDED, id="everything"),
        pytest.param([definition((["Microsoft.KeyVault/*"], []))], NEEDED, id="everything in vaults"),
        pytest.param([definition((["MICROSOFT.KEYVAULT/VAULTS/KEYS/*"], []))], NEEDED, id="letter case"),
        pytest.param([definition((["Microsoft.KeyVault/vaults/*/read"], []))], ["get"], id="reading everything"),
        pytest.param([definition((["Microsoft.KeyVault/vaults/keys/*/action"], []))], NEEDED[1:], id="acts"),
        pytest.param([definition((["Microsoft.KeyVault/vaults/secrets/*"], []))], [], id="secrets only"),
        pytest.param([definition((["*"], [UNWRAP]))], ["get", "wrapKey"], id="all but one"),
        pytest.param([definition((["*"], ["*/unwrap/*", WRAP.upper()]))], ["get"], id="all but a pattern"),
        pytest.param([definition((["*"], [UNWRAP])), definition(([UNWRAP], []))], NEEDED, id="given by another"),
        pytest.param([definition((["*"], [UNWRAP]), ([UNWRAP], []))], NEEDED, id="given beside"),
        pytest.param([{"permissions": [{"actions": ["*"]}]}], [], id="actions are no data actions"),
    ],
)
def test_permissions_granted_by_roles(roles: list[dict[str, Any]], granted: list[str]) -> None:
    guids = [str(uuid.UUID(int=number)) for number in range(len(roles))]
    assigned = [assignment(guid.upper(), VAULT_ID) for guid in guids]

    plan = access_plan.plan(goal(), seen(vault(rbac=True), *assigned, definitions=dict(zip(guids, roles, strict=True))))

    assert plan.before["granted"] == granted
    assert plan.changed is (granted != NEEDED)


@pytest.mark.parametrize(
    "assigned",
    [
        pytest.param([], id="none"),
        pytest.param([assignment(ENCRYPTION_USER, KEY_ID)], id="below the scope"),
        pytest.param([assignment(ENCRYPTION_USER, f"{VAULT_ID}2")], id="another vault"),
    ],
)
def test_role_is_assigned_at_the_vault(assigned: list[dict[str, Any]]) -> None:
    plan = access_plan.plan(goal(), seen(vault(rbac=True), *assigned))

    [step] = plan.steps
    assert step.write == AccessWrites.assign
    assert step.arguments["scope"] == VAULT_ID
    assert step.arguments["role"] == ENCRYPTION_USER
    assert step.arguments["principal"] == PRINCIPAL
    assert plan.before["granted"] == []
    assert plan.after == {**plan.before, "granted": NEEDED}


def test_role_is_assigned_at_the_key() -> None:
    plan = access_plan.plan(
        goal(key_name="batch"), seen(vault(rbac=True), assignment(ENCRYPTION_USER, f"{VAULT_ID}/keys/b"))
    )

    [step] = plan.steps
    assert step.arguments["scope"] == plan.before["scope"] == KEY_ID


def name_of_assignment(*, vault_name: str = VAULT_ID, principal: str = PRINCIPAL, key_name: str | None = None) -> str:
    document = {**vault(rbac=True), "id": vault_name}
    [step] = access_plan.plan(goal(key_name=key_name), seen(document, principal=principal)).steps
    return str(uuid.UUID(step.arguments["name"]))


def test_name_of_an_assignment_depends_on_scope_and_principal_only() -> None:
    names = [name_of_assignment(), name_of_assignment(principal=OTHER), name_of_assignment(key_name="batch")]

    assert len(set(names)) == 3
    assert names[0] == name_of_assignment(vault_name=VAULT_ID.upper(), principal=PRINCIPAL.upper())


OWN = assignment(ENCRYPTION_USER, VAULT_ID, name="own")
AT_KEY = assignment(ENCRYPTION_USER, KEY_ID, name="key")
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
OF_GROUP = assignment(ENCRYPTION_USER, VAULT_ID, principal=GROUP_OF_PEOPLE, name="group")
SHOUTED = assignment(ENCRYPTION_USER.upper(), f"{VAULT_ID.upper()}/", principal=PRINCIPAL.upper(), name="own")
OFFICER = assignment(CRYPTO_OFFICER, VAULT_ID, name="officer")


@pytest.mark.parametrize(
    ("assigned", "removed", "left"),
    [
        pytest.param([OWN], ["own"], [], id="its own"),
        pytest.param(
            [assignment(ENCRYPTION_USER.upper(), f"{VAULT_ID.upper()}/", name="own")], ["own"], [], id="letter case"
        ),
        pytest.param([OWN, assignment(CRYPTO_OFFICER, "/", name="high")], ["own"], NEEDED, id="another role above"),
        pytest.param(
            [OWN, assignment(CRYPTO_OFFICER, VAULT_ID, name="officer")], ["own"], NEEDED, id="another role here"
        ),
        pytest.param([OWN, assignment(ENCRYPTION_USER, "/", name="high")], ["own"], NEEDED, id="the same role above"),
        pytest.param([assignment(ENCRYPTION_USER, "/", name="high")], [], NEEDED, id="only above"),
        pytest.param([OFFICER], [], NEEDED, id="only another role"),
        pytest.param([], [], [], id="none"),
    ],
)
def test_only_its_own_assignment_is_deleted(
    assigned: list[dict[str, Any]], removed: list[str], left: list[str]
) -> None:
    plan = access_plan.plan(goal(state="absent"), seen(vault(rbac=True), *assigned))

    ids = {item["id"] for item in assigned if item["name"] in removed}
    assert {step.arguments["assignment_id"] for step in plan.steps} == ids
    assert {step.write for step in plan.steps} <= {AccessWrites.unassign}
    assert plan.after["granted"] == left
    assert [", ".join(left) in warning for warning in plan.warnings] == ([True] if left else [])


def test_assignment_of_a_group_that_it_is_in_is_not_deleted() -> None:
    plan = access_plan.plan(goal(state="absent"), seen(vault(rbac=True), OWN, OF_GROUP))

    assert [step.arguments["assignment_id"] for step in plan.steps] == [OWN["id"]]
    assert plan.after["granted"] == NEEDED
    assert [f"role assignments at {VAULT_ID}." in warning for warning in plan.warnings] == [True]


def test_assignment_at_the_vault_is_not_deleted_for_a_key() -> None:
    plan = access_plan.plan(goal(state="absent", key_name="batch"), seen(vault(rbac=True), OWN, AT_KEY))

    assert [step.arguments["assignment_id"] for step in plan.steps] == [AT_KEY["id"]]
    assert plan.after["granted"] == NEEDED
    assert [f"role assignments at {VAULT_ID}." in warning for warning in plan.warnings] == [True]


# The guard

USER = account("user", key=f"{KEY}/{'d' * 32}", identity=system_assigned())
BY_POLICY = seen(vault(policy()), accounts=visible(USER, unlisted=("/subscriptions/hidden",)))
BY_ROLE = seen(vault(rbac=True), OWN, accounts=visible(USER))


@pytest.mark.parametrize(
    ("state", "options"),
    [
        pytest.param(BY_POLICY, {}, id="by policy"),
        pytest.param(BY_POLICY, {"key_name": "other"}, id="by policy, which knows no single key"),
        pytest.param(BY_POLICY, {"principal_id": PRINCIPAL.upper()}, id="by policy, in another letter case"),
        pytest.param(BY_ROLE, {}, id="by role"),
        pytest.param(BY_ROLE, {"principal_id": PRINCIPAL.upper()}, id="by role, in another letter case"),
    ],
)
def test_access_in_use_is_not_revoked(state: dict[str, Any], options: dict[str, str]) -> None:
    wanted = goal(state="absent", **options)

    with pytest.raises(Refused) as refused:
        access_plan.plan(wanted, {**state, "principal_id": wanted.principal_id})

    assert refused.value.code == "in_use"
    assert refused.value.facts["accounts"] == [account_id("user")]


UNDATED = {**OWN, "properties": {name: value for name, value in OWN["properties"].items() if name != "createdOn"}}


@pytest.mark.parametrize(
    ("other", "is_revoked"),
    [
        pytest.param(OWN, True, id="a role at the vault"),
        pytest.param(OFFICER, True, id="a role with more permissions"),
        pytest.param(assignment(READER, VAULT_ID), False, id="a role of which nothing is known"),
        pytest.param(assignment(ENCRYPTION_USER, VAULT_ID, age=599), False, id="a role that may not be in effect yet"),
        pytest.param(assignment(ENCRYPTION_USER, VAULT_ID, age=601), True, id="a role that is in effect"),
        pytest.param(UNDATED, False, id="a role of unknown age"),
        pytest.param(OF_GROUP, False, id="a role of a group"),
    ],
)
def test_a_role_in_use_is_revoked_only_if_another_role_keeps_access(other: dict[str, Any], is_revoked: bool) -> None:
    state = seen(vault(rbac=True), AT_KEY, other, accounts=visible(USER, unlisted=("/subscriptions/hidden",)))

    def revoke() -> Plan:
        return access_plan.plan(goal(state="absent", key_name="batch"), state)

    if is_revoked:
        assert [step.arguments["assignment_id"] for step in revoke().steps] == [AT_KEY["id"]]
    else:
        with pytest.raises(Refused):
            revoke()


def test_access_is_granted_again_if_the_role_that_kept_it_was_deleted_meanwhile() -> None:
    """The second check of a revocation."""
    first = access_plan.plan(
        goal(state="absent", key_name="batch"), seen(vault(rbac=True), AT_KEY, OWN, accounts=visible(USER))
    )

    with pytest.raises(Refused):
        access_plan.plan(first.goal, seen(vault(rbac=True), accounts=visible(USER)))
    assert first.if_refused == goal(key_name="batch")


def test_forced_revocation_names_the_accounts_that_lose_the_key() -> None:
    plan = access_plan.plan(goal(state="absent", force=True), BY_POLICY)

    assert plan.changed
    assert account_id("user") in plan.warnings[0]
    assert "/subscriptions/hidden" in plan.warnings[1]


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(seen(vault(), accounts=visible(USER)), id="nothing to revoke"),
        pytest.param(
            seen(vault(policy()), accounts=visible(account(key=KEY, identity=system_assigned(OTHER)))), id="others only"
        ),
    ],
)
def test_a_revocation_that_affects_no_account_has_no_warning(state: dict[str, Any]) -> None:
    assert access_plan.plan(goal(state="absent"), state).warnings == ()


def test_access_to_an_unused_key_is_revoked() -> None:
    at_key = assignment(ENCRYPTION_USER, f"{VAULT_ID}/keys/other")
    state = seen(vault(rbac=True), at_key, accounts=visible(USER))

    assert access_plan.plan(goal(state="absent", key_name="other"), state).changed


# Return values


def test_description() -> None:
    assert access_plan.describe(goal(key_name="batch"), vault(rbac=True), seen(vault(rbac=True), OWN)) == {
        "vault_id": VAULT_ID,
        "vault_uri": "https://myvault.vault.azure.net",
        "authorization": "rbac",
        "principal_id": PRINCIPAL,
        "scope": KEY_ID,
        "granted": NEEDED,
    }


# With any other entries

PERMISSIONS = st.lists(st.sampled_from([*access_plan._ALL, "all", "Get", "WRAPKEY"]), unique=True, max_size=6)
ENTRIES = st.lists(
    st.builds(
        policy,
        st.sampled_from([PRINCIPAL, PRINCIPAL.upper(), OTHER, GROUP_OF_PEOPLE]),
        PERMISSIONS,
        application=st.sampled_from([None, OTHER]),
        secrets=st.sampled_from([[], ["get"], ["all"]]),
    ),
    max_size=5,
    # A vault has one entry for a principal, and one more for each application that acts for it.
    unique_by=lambda entry: (entry["objectId"].lower(), entry.get("applicationId")),
)


def is_own(entry: dict[str, Any]) -> bool:
    return entry["objectId"].lower() == PRINCIPAL and "applicationId" not in entry


def as_azure_does(entries: list[dict[str, Any]], step: Step) -> list[dict[str, Any]]:
    others = [entry for entry in entries if not is_own(entry)]
    return others if step.arguments["operation"] == "remove" else [*others, step.arguments["entry"]]


@given(ENTRIES, st.sampled_from(["present", "absent"]))
def test_only_its_own_entry_is_touched_and_the_second_plan_is_empty(entries: list[dict[str, Any]], state: str) -> None:
    before = next(filter(is_own, entries), policy(keys=[]))
    plan = access_plan.plan(goal(state=state), seen(vault(*entries)))

    after = entries
    for step in plan.steps:
        assert is_own(step.arguments["entry"])
        after = as_azure_does(entries, step)
    again = access_plan.plan(plan.goal, seen(vault(*after)))

    assert [entry for entry in after if not is_own(entry)] == [entry for entry in entries if not is_own(entry)]
    assert not again.changed
    assert again.before == plan.after
    assert again.before["granted"] == (NEEDED if state == "present" else [])
    own = next(filter(is_own, after), policy(keys=[]))
    assert own["permissions"].get("secrets", []) == before["permissions"].get("secrets", [])
    kept = {name.lower() for name in before["permissions"]["keys"]} - {"all", *map(str.lower, NEEDED)}
    assert kept <= {name.lower() for name in own["permissions"]["keys"]}


# Access that is in use


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(seen(vault(policy())), id="policy"),
        pytest.param(seen(vault(rbac=True), assignment(ENCRYPTION_USER, VAULT_ID)), id="role"),
    ],
)
def test_access_in_use_is_kept_on_request(document: dict[str, Any]) -> None:
    used = {**document, "visible": visible(account("user", key=KEY, identity=system_assigned()))}
    wanted = goal(state="absent", in_use="keep")

    kept = access_plan.plan(wanted, used)

    report = {"in_use_by": [account_id("user")], "kept_until": None}
    assert (kept.changed, kept.warnings, kept.report) == (False, (), report)
    assert kept.before == kept.after
    with pytest.raises(Refused) as refused:
        access_plan.plan(goal(state="absent"), used)
    assert refused.value.facts["accounts"] == [account_id("user")]
    forced = access_plan.plan(goal(state="absent", force=True), used)
    assert (forced.changed, forced.report) == (True, report)
    # Unused access is revoked. If an account starts to use it meanwhile, the task fails and restores the access.
    revoked = access_plan.plan(wanted, document)
    assert (revoked.changed, revoked.report) == (True, {"in_use_by": [], "kept_until": None})
    with pytest.raises(Refused) as refused:
        access_plan.plan(revoked.goal, used)
    assert refused.value.code == "in_use"


def test_access_that_may_be_in_use_is_an_error_also_with_keep() -> None:
    hidden = seen(vault(policy()), accounts=visible(unlisted=("/subscriptions/hidden",)))
    with pytest.raises(Refused) as refused:
        access_plan.plan(goal(state="absent", in_use="keep"), hidden)

    assert refused.value.code == "users_unknown"


def test_revoking_missing_access_changes_nothing() -> None:
    """The accounts are not listed."""
    plan = access_plan.plan(goal(state="absent"), {**seen(vault()), "visible": None})

    assert (plan.changed, plan.report) == (False, {"in_use_by": [], "kept_until": None})


RECENT = {"left": ("user",), "user": 3 * DAY}
WHEN = "2026-06-01T20:26:40Z"


@pytest.mark.parametrize("document", [vault(policy()), vault(rbac=True)], ids=["policy", "role"])
@pytest.mark.parametrize(
    ("unused_for", "ages", "is_kept"),
    [
        pytest.param("P7D", RECENT, True, id="changed inside the margin"),
        pytest.param("P7D", {**RECENT, "user": 7 * DAY}, False, id="changed outside the margin"),
        pytest.param("P7D", {"user": 3 * DAY}, False, id="another principal"),
        pytest.param("P3D", RECENT, False, id="changed outside a shorter margin"),
        pytest.param("P0D", {**RECENT, "user": None}, False, id="at once"),
    ],
)
def test_access_of_an_account_that_may_have_left_a_key_of_the_vault(
    document: dict[str, Any], unused_for: str, ages: dict[str, Any], is_kept: bool
) -> None:
    state = seen(document, OWN, accounts=visible(account("user", identity=system_assigned())), **ages)
    options = {"state": "absent", "unused_for": unused_for}

    kept = access_plan.plan(goal(**options, in_use="keep"), state)

    assert kept.changed is not is_kept
    expected = ([account_id("user")], WHEN) if is_kept else ([], None)
    assert (kept.report["in_use_by"], kept.report["kept_until"]) == expected
    if not is_kept:
        assert access_plan.plan(goal(**options), state).steps == kept.steps
        return
    with pytest.raises(Refused) as refused:
        access_plan.plan(goal(**options), state)
    assert (refused.value.code, refused.value.facts["kept_until"]) == ("recently_used", WHEN)
    assert refused.value.facts["accounts"] == [account_id("user")]


def test_a_revocation_inside_the_margin_has_one_warning() -> None:
    def warnings(unused_for: str, **ages: Any) -> tuple[str, ...]:
        return access_plan.plan(goal(state="absent", unused_for=unused_for), seen(vault(policy()), **ages)).warnings

    (warning,) = warnings("P2D", **RECENT)
    assert ("O(unused_for) is shorter" in warning, account_id("user") in warning) == (True, True)
    assert warnings("P2D", **{**RECENT, "user": 7 * DAY}) == ()
    assert warnings("P7D", **{**RECENT, "user": 7 * DAY}) == ()


@pytest.mark.parametrize(
    ("ages", "is_undone"),
    [
        pytest.param(RECENT, False, id="changed before the margin"),
        pytest.param({"left": ("user",), "user": DAY}, True, id="changed meanwhile"),
        pytest.param({"left": ("user",), "user": None}, True, id="changed at an unknown time"),
        pytest.param({}, False, id="no account has the principal"),
    ],
)
def test_the_second_check_asks_the_same_question(ages: dict[str, Any], is_undone: bool) -> None:
    """An account that was moved away meanwhile may have used the access until then."""
    revoked = access_plan.plan(goal(state="absent", unused_for="P2D"), seen(vault(policy()), **RECENT))

    if not is_undone:
        assert not access_plan.plan(revoked.goal, seen(vault(), **ages)).changed
        return
    with pytest.raises(Refused) as refused:
        access_plan.plan(revoked.goal, seen(vault(), **ages))
    assert (refused.value.code, refused.value.facts["accounts"]) == ("in_use", [account_id("user")])


@pytest.mark.parametrize("options", [{}, {"key_name": "batch"}], ids=["vault", "key"])
def test_the_goals_after_a_revocation(options: dict[str, Any]) -> None:
    """The first requires that no account uses the access, the second grants it."""
    removed = access_plan.revoked(goal(state="absent", **options), (), 5.0)
    user = visible(account("user", key=KEY, identity=system_assigned()))

    assert removed.at == 5.0
    assert not access_plan.plan(removed.goal, seen(vault())).changed
    assert access_plan.plan(removed.back, seen(vault())).changed
    with pytest.raises(Refused):
        access_plan.plan(removed.goal, seen(vault(), accounts=user))


def test_access_that_is_granted_reports_no_users() -> None:
    assert access_plan.plan(goal(), seen(vault())).report == {}
