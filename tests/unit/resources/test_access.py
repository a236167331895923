# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is decided on the access of a principal to keys, with access policies and with Azure RBAC."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from access_table import azure, confirmed, decided
from azure_table import Table, task_of
from documents import (
    CRYPTO_OFFICER,
    DAY,
    DEFINITIONS,
    ENCRYPTION_USER,
    GROUP_OF_PEOPLE,
    KEY,
    NEEDED,
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
    user_assigned,
    vault,
)
from goals import access_goal as goal
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    Denied,
    InvalidOption,
    Refused,
    Rejected,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import VALUE_LAG_SECONDS, Change, Removal
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import goal as access_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.decide import _ALL

KEY_ID = f"{VAULT_ID}/keys/batch"
ALL_BUT_NEEDED = set(_ALL) - set(NEEDED)
HIDDEN = ("hidden",)
NOTHING_LEFT_OUT = {"subscriptions_left_out": list[str]()}


# The goal


NEW_KEY = "https://vault2.vault.azure.net/keys/batch"
OF_ACCOUNT = {"account_name": "mybatch", "account_resource_group": "rg-batch"}


@pytest.mark.parametrize(
    ("options", "option"),
    [
        pytest.param({"principal_id": None}, "principal_id", id="no principal"),
        pytest.param({"identity_id": identity_id()}, "identity_id", id="a principal and an identity"),
        pytest.param(OF_ACCOUNT, "account_name", id="a principal and an account"),
        pytest.param({"principal_id": None, "account_name": "mybatch"}, "account_resource_group", id="no group"),
        pytest.param({"principal_id": "mybatch"}, "principal_id", id="a malformed principal"),
        pytest.param({"key_name": "my_key"}, "key_name", id="a malformed key name"),
        pytest.param({"vault_name": None}, "vault_name", id="no vault"),
        pytest.param({"key_identifier": KEY}, "key_identifier", id="a vault and a key"),
        pytest.param({"vault_name": None, "key_identifier": "batch"}, "key_identifier", id="a malformed key"),
        pytest.param({"previous_key": "myvault/batch"}, "previous_key", id="a previous key without a new key"),
        # Only the new key is wrong.
        pytest.param(
            {"vault_name": None, "principal_id": None, "key_identifier": "new", "previous_key": "any", **OF_ACCOUNT},
            "key_identifier",
            id="a malformed new key",
        ),
    ],
)
def test_exactly_one_principal_and_one_vault_are_required(options: dict[str, Any], option: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(**options)

    assert refused.value.facts["option"] == option
    assert "problems" not in refused.value.facts


# The identities of an account


def of_account(identity: dict[str, Any] | None, **options: Any) -> list[access_goal.AccessGoal]:
    wanted = goal(principal_id=None, **OF_ACCOUNT, **options)
    return access_goal.of_account(wanted, account(identity=identity))


@pytest.mark.parametrize(
    ("on", "previous", "allowed"),
    [
        pytest.param(KEY, "myvault/batch", True, id="the previous key"),
        pytest.param(KEY, "any", True, id="any key"),
        pytest.param(KEY, "myvault/other", False, id="another key"),
        pytest.param(None, "myvault/batch", False, id="a Microsoft-managed key"),
        pytest.param(NEW_KEY, "myvault/batch", True, id="the new key already"),
    ],
)
def test_no_access_for_an_account_that_is_not_moved_afterwards(on: str | None, previous: str, allowed: bool) -> None:
    wanted = goal(principal_id=None, vault_name=None, key_identifier=NEW_KEY, previous_key=previous, **OF_ACCOUNT)
    mine = account(identity=system_assigned(), key=on)

    assert access_goal.allows(wanted, mine) is allowed
    if allowed:
        assert len(access_goal.of_account(wanted, mine)) == 1
        return
    with pytest.raises(Refused) as refused:
        access_goal.of_account(wanted, mine)
    assert refused.value.code == "account_on_another_key"


@pytest.mark.parametrize(
    ("identity", "principals"),
    [
        pytest.param(system_assigned(), [PRINCIPAL], id="system-assigned"),
        pytest.param(user_assigned(one=PRINCIPAL, two=OTHER), [PRINCIPAL, OTHER], id="several"),
    ],
)
def test_access_of_an_account_covers_each_identity(identity: dict[str, Any], principals: list[str]) -> None:
    wanted = of_account(identity, state="absent")

    assert [one.principal_id for one in wanted] == principals
    assert {(one.vault, one.present) for one in wanted} == {("myvault", False)}


def test_an_account_without_an_identity_cannot_be_granted_access() -> None:
    with pytest.raises(Refused) as refused:
        of_account(None)

    assert refused.value.code == "account_without_identity"
    # There is no access that could be revoked.
    assert of_account(None, state="absent") == []


# A vault that uses access policies


def written(change: Change) -> tuple[str, dict[str, Any]]:
    """The operation on the access policies of the vault, and the entry."""
    [request] = change.requests
    assert (request.name, request.method) == ("set_policy", "PUT")
    place, _separator, operation = request.ref.rpartition("/accessPolicies/")
    [entry] = (request.body or {})["properties"]["accessPolicies"]
    assert place == VAULT_ID
    return operation, entry


@pytest.mark.parametrize(
    ("entries", "permissions"),
    [
        pytest.param([policy(keys=["list", "wrapKey"])], ["list", "wrapKey", "get", "unwrapKey"], id="others kept"),
        pytest.param([policy(application=OTHER)], NEEDED, id="an application acting for it"),
        pytest.param([{"tenantId": TENANT, "objectId": PRINCIPAL, "permissions": {}}], NEEDED, id="no key permissions"),
        pytest.param(
            [{"tenantId": TENANT, "objectId": PRINCIPAL, "permissions": {"keys": None}}], NEEDED, id="null permissions"
        ),
    ],
)
def test_missing_permissions_are_added_to_its_own_entry(entries: list[dict[str, Any]], permissions: list[str]) -> None:
    change = decided(goal(), azure(vault(*entries)))

    operation, entry = written(change)
    assert (operation, entry["objectId"], entry["tenantId"]) == ("add", PRINCIPAL, TENANT)
    assert "applicationId" not in entry
    assert entry["permissions"]["keys"] == permissions
    assert change.after == {**change.before, "granted": NEEDED}


@pytest.mark.parametrize(
    "entry",
    [policy(keys=["get"]), policy(keys=NEEDED, secrets=[], certificates=[])],
)
def test_entry_that_holds_nothing_else_is_removed(entry: dict[str, Any]) -> None:
    change = decided(goal(state="absent"), azure(vault(policy(OTHER), entry)))

    assert written(change) == ("remove", entry)
    assert change.after["granted"] == []


@pytest.mark.parametrize(
    ("entry", "left"),
    [
        pytest.param(policy(keys=[*NEEDED, "list"]), ["list"], id="another key permission"),
        pytest.param(policy(storage=["get"]), [], id="storage"),
    ],
)
def test_other_permissions_of_an_entry_are_kept(entry: dict[str, Any], left: list[str]) -> None:
    change = decided(goal(state="absent"), azure(vault(entry)))

    assert written(change) == ("replace", {**entry, "permissions": {**entry["permissions"], "keys": left}})
    assert change.after["granted"] == []


def test_a_part_of_all_permissions_is_revoked() -> None:
    operation, entry = written(decided(goal(state="absent"), azure(vault(policy(keys=["All"])))))

    assert operation == "replace"
    assert set(entry["permissions"]["keys"]) == ALL_BUT_NEEDED


# A vault that uses Azure RBAC


@pytest.mark.parametrize(
    ("scope", "key_name"),
    [
        pytest.param(VAULT_ID.upper(), None, id="at the vault, in another letter case"),
        pytest.param(f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys", None, id="at the group"),
        pytest.param("/", "batch", id="at the root"),
        pytest.param(KEY_ID, "batch", id="at the key"),
        pytest.param("/providers/Microsoft.Management/managementGroups/mg", None, id="at a management group"),
    ],
)
def test_an_existing_role_is_not_assigned_again(scope: str, key_name: str | None) -> None:
    change = decided(goal(key_name=key_name), azure(vault(rbac=True), assignment(CRYPTO_OFFICER, scope)))

    assert not change.requests
    assert change.before["granted"] == NEEDED


READ, WRAP, UNWRAP = (f"Microsoft.KeyVault/vaults/keys/{name}" for name in ("read", "wrap/action", "unwrap/action"))


@pytest.mark.parametrize(
    ("roles", "granted"),
    [
        pytest.param([definition()], [], id="no permissions"),
        pytest.param([definition(([READ], [])), definition(([WRAP, UNWRAP], []))], NEEDED, id="two roles together"),
        pytest.param([definition(([READ], []), ([WRAP], []), ([UNWRAP], []))], NEEDED, id="one role in three parts"),
        pytest.param([definition((["MICROSOFT.KEYVAULT/VAULTS/KEYS/*"], []))], NEEDED, id="letter case"),
        pytest.param([definition((["Microsoft.KeyVault/vaults/*/read"], []))], ["get"], id="reading everything"),
        pytest.param([definition((["*"], ["*/unwrap/*", WRAP.upper()]))], ["get"], id="all but a pattern"),
        pytest.param([definition((["*"], [UNWRAP])), definition(([UNWRAP], []))], NEEDED, id="given by another"),
        pytest.param([definition((["*"], [UNWRAP]), ([UNWRAP], []))], NEEDED, id="given beside"),
        pytest.param([{"permissions": [{"actions": ["*"]}]}], [], id="actions are no data actions"),
    ],
)
def test_permissions_granted_by_roles(roles: list[dict[str, Any]], granted: list[str]) -> None:
    guids = [str(uuid.UUID(int=number)) for number in range(len(roles))]
    assigned = [assignment(guid.upper(), VAULT_ID) for guid in guids]

    change = decided(goal(), azure(vault(rbac=True), *assigned, definitions=dict(zip(guids, roles, strict=True))))

    assert change.before["granted"] == granted
    assert bool(change.requests) is (granted != NEEDED)


def assigned_role(change: Change) -> tuple[str, str, Any]:
    """The scope, the name and the properties of the assignment."""
    [request] = change.requests
    assert (request.name, request.method) == ("assign", "PUT")
    scope, _separator, name = request.ref.rpartition("/providers/Microsoft.Authorization/roleAssignments/")
    return scope, name, (request.body or {})["properties"]


@pytest.mark.parametrize(
    "assigned",
    [
        pytest.param([assignment(ENCRYPTION_USER, KEY_ID)], id="below the scope"),
        pytest.param([assignment(ENCRYPTION_USER, f"{VAULT_ID}2")], id="another vault"),
    ],
)
def test_role_is_assigned_at_the_vault(assigned: list[dict[str, Any]]) -> None:
    change = decided(goal(), azure(vault(rbac=True), *assigned))

    scope, _name, properties = assigned_role(change)
    assert scope == VAULT_ID
    assert properties == {
        "roleDefinitionId": f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/"
        f"{ENCRYPTION_USER}",
        "principalId": PRINCIPAL,
        "principalType": "ServicePrincipal",
    }
    assert change.before["granted"] == []
    assert change.after == {**change.before, "granted": NEEDED}


def name_of_assignment(*, vault_id: str = VAULT_ID, principal: str = PRINCIPAL, key_name: str | None = None) -> str:
    table = azure({**vault(rbac=True), "id": vault_id}, principal=principal)
    change = decided(goal(key_name=key_name, principal_id=principal), table)
    return str(uuid.UUID(assigned_role(change)[1]))


def test_name_of_an_assignment_depends_on_scope_and_principal_only() -> None:
    names = [name_of_assignment(), name_of_assignment(principal=OTHER), name_of_assignment(key_name="batch")]

    assert len(set(names)) == 3
    assert names[0] == name_of_assignment(vault_id=VAULT_ID.upper(), principal=PRINCIPAL.upper())


def unassigned(change: Change) -> list[str]:
    """The ids of the role assignments that are deleted."""
    assert all((one.name, one.method, one.body) == ("unassign", "DELETE", None) for one in change.requests)
    return [one.ref for one in change.requests]


OWN = assignment(ENCRYPTION_USER, VAULT_ID, name="own")
AT_KEY = assignment(ENCRYPTION_USER, KEY_ID, name="key")
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
OF_GROUP = assignment(ENCRYPTION_USER, VAULT_ID, principal=GROUP_OF_PEOPLE, name="group")
OFFICER = assignment(CRYPTO_OFFICER, VAULT_ID, name="officer")


@pytest.mark.parametrize(
    ("assigned", "removed", "left"),
    [
        pytest.param(
            [assignment(ENCRYPTION_USER.upper(), f"{VAULT_ID.upper()}/", name="own")], ["own"], [], id="letter case"
        ),
        pytest.param([OWN, OF_GROUP], ["own"], NEEDED, id="a role of a group"),
        pytest.param([OWN, assignment(CRYPTO_OFFICER, "/", name="high")], ["own"], NEEDED, id="another role above"),
        pytest.param([assignment(ENCRYPTION_USER, "/", name="high")], [], NEEDED, id="only above"),
    ],
)
def test_only_its_own_assignment_is_deleted(
    assigned: list[dict[str, Any]], removed: list[str], left: list[str]
) -> None:
    change = decided(goal(state="absent"), azure(vault(rbac=True), *assigned))

    ids = {item["id"] for item in assigned if item["name"] in removed}
    assert set(unassigned(change)) == ids
    assert change.after["granted"] == left
    assert [", ".join(left) in warning for warning in change.warnings] == ([True] if left else [])


# The guard

USER = account("user", key=f"{KEY}/{'d' * 32}", identity=system_assigned())
# It has the principal, and may have left a key of the vault.
LEFT = account("user", identity=system_assigned())
BY_POLICY = azure(vault(policy()), accounts=(USER,), hidden=HIDDEN)
BY_ROLE = azure(vault(rbac=True), OWN, accounts=(USER,))


def refused(options: dict[str, Any], table: Table) -> dict[str, Any]:
    """The code and the facts of the refusal to revoke the access."""
    with pytest.raises(Refused) as failed:
        decided(goal(state="absent", **options), table)
    return {"code": failed.value.code, **failed.value.facts}


@pytest.mark.parametrize(
    ("table", "options"),
    [
        pytest.param(BY_POLICY, {"key_name": "other"}, id="by policy, which knows no single key"),
        pytest.param(BY_POLICY, {"principal_id": PRINCIPAL.upper()}, id="by policy, in another letter case"),
        pytest.param(BY_ROLE, {"principal_id": PRINCIPAL.upper()}, id="by role, in another letter case"),
    ],
)
def test_access_in_use_is_not_revoked(table: Table, options: dict[str, str]) -> None:
    found = refused(options, table)

    assert (found["code"], found["accounts"]) == ("in_use", [account_id("user")])


UNDATED = {**OWN, "properties": {name: value for name, value in OWN["properties"].items() if name != "createdOn"}}
AT_KEY_ONLY: dict[str, Any] = {"state": "absent", "key_name": "batch"}


@pytest.mark.parametrize(
    ("other", "is_revoked"),
    [
        pytest.param(OFFICER, True, id="a role with more permissions"),
        pytest.param(assignment(READER, VAULT_ID), False, id="a role without the permissions"),
        pytest.param(assignment(ENCRYPTION_USER, VAULT_ID, age=599), False, id="a role that may not be in effect yet"),
        pytest.param(assignment(ENCRYPTION_USER, VAULT_ID, age=601), True, id="a role that is in effect"),
        pytest.param(UNDATED, False, id="a role of unknown age"),
        pytest.param(OF_GROUP, False, id="a role of a group"),
    ],
)
def test_a_role_in_use_is_revoked_only_if_another_role_keeps_access(other: dict[str, Any], is_revoked: bool) -> None:
    table = azure(
        vault(rbac=True),
        AT_KEY,
        other,
        definitions={**DEFINITIONS, READER: definition()},
        accounts=(USER,),
        hidden=HIDDEN,
    )

    if is_revoked:
        assert unassigned(decided(goal(**AT_KEY_ONLY), table)) == [AT_KEY["id"]]
        # The accounts do not matter.
        assert table.reads_of(refs.accounts_of(SUBSCRIPTION)) == 0
    else:
        with pytest.raises(Refused):
            decided(goal(**AT_KEY_ONLY), table)


def test_until_another_role_is_in_effect_the_access_is_kept_on_request() -> None:
    table = azure(
        vault(rbac=True), AT_KEY, assignment(ENCRYPTION_USER, VAULT_ID, age=599, name="new"), accounts=(USER,)
    )
    when = "2026-05-28T20:26:41Z"

    found = refused({"key_name": "batch"}, table)
    assert (found["code"], found["kept_until"], found["accounts"]) == ("recently_used", when, [account_id("user")])
    kept = decided(goal(**AT_KEY_ONLY, in_use="keep"), table)
    assert (kept.requests, kept.report) == (
        (),
        {"in_use_by": [account_id("user")], "kept_until": when, **NOTHING_LEFT_OUT},
    )
    assert unassigned(decided(goal(**AT_KEY_ONLY, force=True), table)) == [AT_KEY["id"]]


def test_after_a_revocation_the_role_that_keeps_access_must_still_be_assigned() -> None:
    wanted = goal(**AT_KEY_ONLY)
    first = decided(wanted, azure(vault(rbac=True), AT_KEY, OWN, accounts=(USER,)))

    assert isinstance(first, Removal)
    assert not confirmed(wanted, first, azure(vault(rbac=True), UNDATED, accounts=(USER,))).requests
    with pytest.raises(Refused):
        confirmed(wanted, first, azure(vault(rbac=True), accounts=(USER,)))


def test_forced_revocation_names_the_accounts_that_lose_the_key() -> None:
    BY_POLICY.asked.clear()
    change = decided(goal(state="absent", force=True), BY_POLICY)

    assert written(change) == ("remove", policy())
    # Users that appear later do not matter either.
    assert not isinstance(change, Removal)
    assert change.warnings[0].endswith(": user.")
    assert "/subscriptions/hidden" in change.warnings[1]
    assert BY_POLICY.reads_of(refs.dated_account(account_id("user"))) == 0


def test_access_to_an_unused_key_is_revoked() -> None:
    at_key = assignment(ENCRYPTION_USER, f"{VAULT_ID}/keys/other")

    change = decided(goal(state="absent", key_name="other"), azure(vault(rbac=True), at_key, accounts=(USER,)))

    assert unassigned(change) == [at_key["id"]]


@pytest.mark.parametrize("has_own", [False, True], ids=["user-assigned", "system-assigned"])
def test_pools_that_may_have_the_principal_are_listed(has_own: bool) -> None:
    """No pool of another account can have the system-assigned identity of an account."""
    mine = account("mine", identity=system_assigned() if has_own else user_assigned(one=PRINCIPAL))
    table = azure(vault(policy()), accounts=(mine, account("other")))

    assert decided(goal(state="absent"), table).requests
    assert (table.reads_of(refs.pools_of(mine["id"])), table.reads_of(refs.pools_of(account_id("other")))) == (
        1,
        not has_own,
    )
    table[refs.pools_of(mine["id"])] = Rejected("The key is disabled.")
    assert refused({}, table)["code"] == "in_use"
    table[refs.pools_of(mine["id"])] = Denied("You may not.", azure={"code": "AuthorizationFailed"})
    assert refused({}, table)["code"] == "users_unknown"


# With any other entries

PERMISSIONS = st.lists(st.sampled_from([*_ALL, "all", "Get", "WRAPKEY"]), unique=True, max_size=6)
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


def as_azure_does(entries: list[dict[str, Any]], operation: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
    others = [one for one in entries if not is_own(one)]
    return others if operation == "remove" else [*others, entry]


@given(ENTRIES, st.sampled_from(["present", "absent"]))
def test_only_its_own_entry_is_touched_and_the_second_run_changes_nothing(
    entries: list[dict[str, Any]], state: str
) -> None:
    before = next(filter(is_own, entries), policy(keys=[]))
    change = decided(goal(state=state), azure(vault(*entries)))

    after = entries
    if change.requests:
        operation, sent = written(change)
        assert is_own(sent)
        after = as_azure_does(entries, operation, sent)
    again = decided(goal(state=state), azure(vault(*after)))

    assert [entry for entry in after if not is_own(entry)] == [entry for entry in entries if not is_own(entry)]
    assert not again.requests
    assert again.before == change.after
    assert again.before["granted"] == (NEEDED if state == "present" else [])
    own = next(filter(is_own, after), policy(keys=[]))
    assert own["permissions"].get("secrets", []) == before["permissions"].get("secrets", [])
    kept = {name.lower() for name in before["permissions"]["keys"]} - {"all", *map(str.lower, NEEDED)}
    assert kept <= {name.lower() for name in own["permissions"]["keys"]}


# Access that is in use


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param((vault(policy()),), id="policy"),
        pytest.param((vault(rbac=True), assignment(ENCRYPTION_USER, VAULT_ID)), id="role"),
    ],
)
def test_access_in_use_is_kept_on_request(shown: Any) -> None:
    used, unused = azure(*shown, accounts=(USER,)), azure(*shown)
    wanted = goal(state="absent", in_use="keep")

    kept = decided(wanted, used)

    report = {"in_use_by": [account_id("user")], "kept_until": None, **NOTHING_LEFT_OUT}
    assert (kept.requests, kept.warnings, kept.report) == ((), (), report)
    assert kept.before == kept.after
    assert refused({}, used)["accounts"] == [account_id("user")]
    forced = decided(goal(state="absent", force=True), used)
    assert (len(forced.requests), forced.report) == (1, report)
    # Unused access is revoked. If an account starts to use it meanwhile, the task fails and restores the access.
    revoked = decided(wanted, unused)
    assert (len(revoked.requests), revoked.report) == (1, {"in_use_by": [], "kept_until": None, **NOTHING_LEFT_OUT})
    with pytest.raises(Refused) as failed:
        confirmed(wanted, revoked, used)
    assert failed.value.code == "in_use"


def test_access_that_may_be_in_use_is_an_error_also_with_keep() -> None:
    assert refused({"in_use": "keep"}, azure(vault(policy()), hidden=HIDDEN))["code"] == "users_unknown"


@pytest.mark.parametrize(
    ("accounts", "options", "is_lost"),
    [
        pytest.param((), {}, False, id="nobody uses it"),
        pytest.param((USER,), {}, True, id="in use"),
        pytest.param((USER,), {"force": True}, False, id="in use, by force"),
        pytest.param((LEFT,), {}, False, id="moved away"),
    ],
)
def test_missing_access_is_not_revoked_and_fails_if_an_account_needs_it(
    accounts: Any, options: dict[str, Any], is_lost: bool
) -> None:
    """A run may have ended after it has revoked the access, before it has asked again."""
    table, wanted = azure(vault(), accounts=accounts), goal(state="absent", **options)
    if is_lost:
        with pytest.raises(Refused) as refused:
            decided(wanted, table)
        assert (refused.value.code, refused.value.facts["accounts"]) == ("in_use", [account_id("user")])
        assert refused.value.facts["remedy"] == "Run azbatch.cmk.recover for these accounts."
        return
    change = decided(wanted, table)
    assert (change.requests, change.report) == ((), {"in_use_by": [], "kept_until": None, **NOTHING_LEFT_OUT})


def test_access_of_a_group_is_not_missing() -> None:
    assert not decided(goal(state="absent"), azure(vault(rbac=True), OF_GROUP, accounts=(USER,))).requests


def test_access_is_missing_if_another_role_grants_only_a_part() -> None:
    definitions = {**DEFINITIONS, READER: definition(([READ], []))}
    table = azure(vault(rbac=True), assignment(READER, VAULT_ID), definitions=definitions, accounts=(USER,))
    with pytest.raises(Refused, match="that is done already"):
        decided(goal(state="absent"), table)


WHEN = "2026-06-01T20:26:40Z"


@pytest.mark.parametrize(
    ("unused_for", "identity", "age", "is_kept"),
    [
        pytest.param("P7D", system_assigned(), 3 * DAY, True, id="changed inside the margin"),
        pytest.param("P7D", system_assigned(), 7 * DAY, False, id="changed outside the margin"),
        pytest.param("P7D", system_assigned(OTHER), 3 * DAY, False, id="another principal"),
        pytest.param("P0D", system_assigned(), None, False, id="at once"),
    ],
)
def test_access_of_an_account_that_may_have_left_a_key_of_the_vault(
    unused_for: str, identity: dict[str, Any], age: float | None, is_kept: bool
) -> None:
    table = azure(vault(rbac=True), OWN, accounts=(account("user", identity=identity),), user=age)
    options = {"unused_for": unused_for}

    kept = decided(goal(state="absent", **options, in_use="keep"), table)

    assert bool(kept.requests) is not is_kept
    expected = ([account_id("user")], WHEN) if is_kept else ([], None)
    assert (kept.report["in_use_by"], kept.report["kept_until"]) == expected
    if not is_kept:
        assert decided(goal(state="absent", **options), table).requests == kept.requests
        return
    found = refused(options, table)
    assert (found["code"], found["kept_until"], found["accounts"]) == ("recently_used", WHEN, [account_id("user")])


def test_a_revocation_inside_the_margin_has_one_warning() -> None:
    def warnings(unused_for: str, age: float) -> tuple[str, ...]:
        table = azure(vault(policy()), accounts=(LEFT,), user=age)
        return decided(goal(state="absent", unused_for=unused_for), table).warnings

    (warning,) = warnings("P2D", 3 * DAY)
    assert ("O(unused_for) is shorter" in warning, "lose their key: user." in warning) == (True, True)
    assert warnings("P2D", 7 * DAY) == ()
    assert warnings("P7D", 7 * DAY) == ()


@pytest.mark.parametrize(
    ("accounts", "age", "is_undone"),
    [
        pytest.param((LEFT,), 3 * DAY, False, id="changed before the margin"),
        pytest.param((LEFT,), DAY, True, id="changed meanwhile"),
        pytest.param((LEFT,), None, True, id="changed at an unknown time"),
        pytest.param((USER,), 3 * DAY, True, id="uses the access"),
        pytest.param((), None, False, id="no account has the principal"),
    ],
)
def test_after_a_revocation_the_same_is_asked(accounts: Any, age: float | None, is_undone: bool) -> None:
    """An account that was moved away meanwhile may have used the access until then."""
    wanted = goal(state="absent", unused_for="P2D")
    revoked = decided(wanted, azure(vault(policy()), accounts=(LEFT,), user=3 * DAY))
    now = azure(vault(), accounts=accounts, user=age)

    if not is_undone:
        assert not confirmed(wanted, revoked, now).requests
        return
    with pytest.raises(Refused) as failed:
        confirmed(wanted, revoked, now)
    assert (failed.value.code, failed.value.facts["accounts"]) == ("in_use", [account_id("user")])
    assert failed.value.msg.startswith(f"Refused to keep the access of {PRINCIPAL} to myvault revoked: 1 Batch account")


def test_after_a_revocation_an_account_that_was_listed_before_is_read() -> None:
    """A list may be incomplete for a moment."""
    wanted = goal(state="absent")
    revoked = decided(wanted, azure(vault(policy()), accounts=(LEFT,)))
    now = azure(vault())
    now[refs.account(USER["id"])] = USER

    with pytest.raises(Refused) as failed:
        confirmed(wanted, revoked, now)
    assert failed.value.facts["accounts"] == [account_id("user")]


def test_a_revocation_is_asked_about_after_a_delay_and_taken_back() -> None:
    """A revocation that was forced is not."""
    table = azure(vault(policy()))
    revoked = decided(goal(state="absent"), table)

    assert revoked.delay == 2 * VALUE_LAG_SECONDS
    assert written(task_of(azure(vault())).driver.solve(revoked.back()[0].decide))[0] == "add"
    of_role = decided(goal(state="absent"), azure(vault(rbac=True), OWN))
    [grant] = of_role.back()
    assert assigned_role(task_of(azure(vault(rbac=True))).driver.solve(grant.decide))[0] == VAULT_ID
    for seen in table, azure(vault(rbac=True), AT_KEY, OWN, accounts=(USER,)):
        forced = decided(goal(state="absent", force=True, key_name="batch"), seen)
        assert (bool(forced.requests), forced.delay, forced.back()) == (True, 0.0, ())
