# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether permissions allow an action."""

from __future__ import annotations

from typing import Any

import pytest
from documents import VAULT_ID, policy, vault

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.rights import Rights
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, NotFound
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Plan, Step
from ansible_collections.azbatch.cmk.plugins.module_utils._core.rbac import allows
from ansible_collections.azbatch.cmk.plugins.module_utils._core.reconcile import converge

READ = "Microsoft.Batch/batchAccounts/read"


def permission(*actions: str, but: tuple[str, ...] = (), data: bool = False) -> dict[str, Any]:
    granted, excepted = ("dataActions", "notDataActions") if data else ("actions", "notActions")
    return {"actions": [], "notActions": [], "dataActions": [], "notDataActions": [], granted: actions, excepted: but}


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        pytest.param([], False, id="none"),
        pytest.param([permission()], False, id="empty"),
        pytest.param([permission(READ)], True, id="the action"),
        pytest.param([permission(READ.upper())], True, id="another letter case"),
        pytest.param([permission("*")], True, id="everything"),
        pytest.param([permission("*/read")], True, id="all reads"),
        pytest.param([permission("Microsoft.Batch/*/read")], True, id="all reads of a provider"),
        pytest.param([permission("Microsoft.Batch/batchAccounts/*/read")], True, id="of the resource and below"),
        pytest.param([permission("Microsoft.Batch/batchAccounts/pools/read")], False, id="below"),
        pytest.param([permission("Microsoft.Batch/batchAccounts")], False, id="a part"),
        pytest.param([permission("microsoftXbatch/batchaccounts/read")], False, id="a dot is a dot"),
        pytest.param([permission("*/write")], False, id="all writes"),
        pytest.param([permission("*", but=("Microsoft.Batch/*",))], False, id="excepted"),
        pytest.param(
            [permission("*", but=("Microsoft.Batch/*",)), permission(READ)], True, id="excepted in one of two"
        ),
        pytest.param([permission("*", data=True)], False, id="as a data action"),
        pytest.param([{"actions": None}, {"actions": [READ], "notActions": None}], True, id="nulls"),
    ],
)
def test_an_action(permissions: list[dict[str, Any]], allowed: bool) -> None:
    assert allows(permissions, READ) is allowed


def test_a_data_action() -> None:
    wrap = "Microsoft.KeyVault/vaults/keys/wrap/action"

    assert allows([permission("Microsoft.KeyVault/vaults/keys/*", data=True)], wrap, data=True)
    assert not allows([permission("*")], wrap, data=True)
    assert not allows([permission("*", but=("*/wrap/action",), data=True)], wrap, data=True)


# Before a plan's first step

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
ACCOUNT = f"{GROUP}/providers/Microsoft.Batch/batchAccounts/mybatch"
WRITE = "Microsoft.Batch/batchAccounts/write"
CREATE = "Microsoft.KeyVault/vaults/keys/create/action"
POOLS = "Microsoft.Batch/batchAccounts/pools/read"
SET = Step("set_encryption", {"group": "rg", "name": "mybatch"})
MAKE_KEY = Step("create", {"vault": "myvault", "name": "key"})


class Resources:
    """What the caller may do at each scope; an error where that cannot be read."""

    def __init__(self, **allowed: Any) -> None:
        self.allowed = allowed

    def permissions(self, scope: str) -> Any:
        name = {GROUP: "group", ACCOUNT: "account"}.get(scope, "vault_scope")
        found = self.allowed.get(name, [])
        if isinstance(found, CmkError):
            raise found
        return found


class Session:
    subscription_id = SUBSCRIPTION

    def __init__(self, *, is_rehearsal: bool) -> None:
        self.rehearsal = object() if is_rehearsal else None


class Vaults:
    def __init__(self, found: Any = None) -> None:
        self.found = found

    def recent(self, _name: str, _group: Any) -> Any:
        if isinstance(self.found, CmkError):
            raise self.found
        return self.found

    def get(self, _group: str, _name: str) -> Any:
        return self.found


def require(
    service: str, *steps: Step, vault: Any = None, later: Any = (), is_rehearsal: bool = False, **allowed: Any
) -> tuple[str, ...]:
    session = Session(is_rehearsal=is_rehearsal)
    rights = Rights(session, Resources(**allowed), Vaults(vault))  # type: ignore[arg-type]
    return rights.require([*((service, step) for step in steps), *later])


def lacks(action: str, service: str, *steps: Step, **options: Any) -> None:
    with pytest.raises(Denied) as denied:
        require(service, *steps, **options)
    assert denied.value.code == "permission_denied"
    assert denied.value.facts["action"] == action
    assert action in denied.value.msg
    warnings = require(service, *steps, **options, is_rehearsal=True)
    assert any(action in warning for warning in warnings)


def test_an_action_that_the_caller_is_seen_to_lack() -> None:
    lacks(WRITE, "encryption", SET)
    lacks(WRITE, "encryption", SET, group=[permission(READ)], account=[permission("*/read")])
    lacks(POOLS, "encryption", SET, group=[permission(WRITE)], account=[])
    lacks(WRITE, "encryption", SET, group=Denied("no"), account=[permission("*/read")])


def test_a_right_at_the_group_or_at_the_resource_is_enough() -> None:
    require("encryption", SET, group=[permission(WRITE, POOLS)])
    require("encryption", SET, account=[permission(WRITE, POOLS)])
    require("encryption", SET, group=Denied("no"), account=[permission(WRITE, POOLS)])


def test_what_cannot_be_read_is_no_reason_to_refuse() -> None:
    require("encryption", SET, group=Denied("no"), account=Denied("no"))
    require("encryption", SET, group=[], account=NotFound("none"))
    require("keys", MAKE_KEY, vault=Denied("no"))
    require("keys", MAKE_KEY, vault=None)


def test_steps_of_several_services_need_their_rights() -> None:
    lacks(
        CREATE, "encryption", SET, later=[("keys", MAKE_KEY)], vault=vault(rbac=True), group=[permission(WRITE, POOLS)]
    )


def test_keys_by_role() -> None:
    lacks(CREATE, "keys", MAKE_KEY, vault=vault(rbac=True), vault_scope=[permission("*")])
    require("keys", MAKE_KEY, vault=vault(rbac=True), vault_scope=[permission(CREATE, data=True)])


@pytest.mark.parametrize(
    ("permissions", "missing"), [(["get"], True), (["Create"], False), (["all"], False), ([], True)]
)
def test_keys_by_policy(permissions: list[str], missing: bool) -> None:
    """An entry may be one of a group that the caller is in."""
    document = vault(policy("a-group", keys=permissions))

    if missing:
        lacks("the key permission create", "keys", MAKE_KEY, vault=document)
    else:
        require("keys", MAKE_KEY, vault=document)


REVOKE = Step("revoke", {"vault": "myvault"})
GRANT = {"vault": "myvault", "group": "rg"}


@pytest.mark.parametrize(
    ("service", "step", "action", "found"),
    [
        ("accounts", Step("create", {"group": "rg", "name": "new", "body": {}}), WRITE, None),
        ("accounts", Step("update", {"group": "rg", "name": "mybatch", "body": {}}), WRITE, None),
        ("accounts", Step("delete", {"group": "rg", "name": "mybatch"}), "Microsoft.Batch/batchAccounts/delete", None),
        ("vaults", Step("create", {"group": "rg", "name": "v", "body": {}}), "Microsoft.KeyVault/vaults/write", None),
        ("vaults", Step("delete", {"group": "rg", "name": "v"}), "Microsoft.KeyVault/vaults/delete", None),
        (
            "access",
            Step("set_policy", {"vault_id": VAULT_ID, "operation": "add", "entry": {}}),
            "Microsoft.KeyVault/vaults/accessPolicies/write",
            None,
        ),
        ("access", Step("assign", {"scope": VAULT_ID}), "Microsoft.Authorization/roleAssignments/write", None),
        (
            "access",
            Step("unassign", {"assignment_id": f"{VAULT_ID}/providers/Microsoft.Authorization/roleAssignments/1"}),
            "Microsoft.Authorization/roleAssignments/delete",
            None,
        ),
        ("access", REVOKE, "Microsoft.Authorization/roleAssignments/delete", vault(rbac=True)),
        ("access", REVOKE, "Microsoft.KeyVault/vaults/accessPolicies/write", vault()),
        ("access", Step("grant", GRANT), "Microsoft.Authorization/roleAssignments/write", None),
        (
            "access",
            Step("grant", {**GRANT, "by_role": False}),
            "Microsoft.KeyVault/vaults/accessPolicies/write",
            None,
        ),
        ("keys", Step("create", GRANT), CREATE, None),
        ("keys", Step("update", {"vault": "v"}), "Microsoft.KeyVault/vaults/keys/update/action", vault(rbac=True)),
        ("keys", Step("delete", {"vault": "v"}), "Microsoft.KeyVault/vaults/keys/delete", vault(rbac=True)),
        ("keys", Step("recover", {"vault": "v"}), "Microsoft.KeyVault/vaults/keys/recover/action", vault(rbac=True)),
        (
            "keys",
            Step("set_rotation_policy", {"vault": "v"}),
            "Microsoft.KeyVault/vaults/keyrotationpolicies/write",
            vault(rbac=True),
        ),
    ],
)
def test_what_a_step_needs(service: str, step: Step, action: str, found: Any) -> None:
    lacks(action, service, step, vault=found)
    held = permission(action, data="/keys/" in action or "keyrotation" in action)
    reads = permission("*/read"), permission("*/read", data=True)
    require(service, step, vault=found, group=[held, *reads], vault_scope=[held])


def test_who_gives_an_account_an_identity_may_assign_it() -> None:
    identity = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one"
    body = {"identity": {"userAssignedIdentities": {identity: {}}}}
    step = Step("update", {"group": "rg", "name": "mybatch", "body": body})

    lacks("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", "accounts", step, group=[permission(WRITE)])


@pytest.mark.parametrize(
    ("service", "step", "action"),
    [
        (
            "accounts",
            Step("create", {"group": "rg", "name": "new", "body": {}}),
            "Microsoft.Batch/batchAccounts/operationResults/read",
        ),
        ("access", Step("grant", GRANT), "Microsoft.Authorization/roleAssignments/read"),
        ("access", Step("grant", {**GRANT, "by_role": False}), "Microsoft.KeyVault/vaults/read"),
        ("keys", Step("create", GRANT), "Microsoft.KeyVault/vaults/keys/read"),
        ("keys", Step("set_rotation_policy", GRANT), "Microsoft.KeyVault/vaults/keyrotationpolicies/read"),
    ],
)
def test_what_is_read_once_something_is_made(service: str, step: Step, action: str) -> None:
    everything = [permission("*", but=(action,)), permission("*", but=(action,), data=True)]

    lacks(action, service, step, group=everything)


SEES = Step("set_encryption", {"group": "rg", "name": "mybatch", "vault": "myvault", "vault_group": None})


def test_who_may_use_the_key_is_to_be_seen_before_there_is_a_new_version() -> None:
    may = {"group": [permission(WRITE, POOLS)]}

    lacks("Microsoft.Authorization/roleAssignments/read", "encryption", SEES, vault=vault(rbac=True), **may)
    lacks("Microsoft.KeyVault/vaults/read", "encryption", SEES, vault=vault(), **may)
    lacks("Microsoft.KeyVault/vaults/read", "encryption", SEES, vault=Denied("no"), **may)
    require("encryption", SEES, vault=None, **may)


def test_the_place_of_a_step_may_be_another_subscription() -> None:
    step = Step("update", {"subscription": "another", "group": "rg", "name": "v"})

    with pytest.raises(Denied, match=r"/subscriptions/another/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/v"):
        require("vaults", step)


def test_waiting_needs_no_right() -> None:
    require("encryption", Step("await_answer", {"group": "rg", "name": "mybatch"}))
    require("keys", Step("create", {**GRANT, "by_role": False}))


# Before the first write


class Service:
    def __init__(self) -> None:
        self.written: list[str] = []

    def read(self, _goal: Any) -> Any:
        return len(self.written)

    def write(self) -> None:
        self.written.append("write")


class Noun:
    def plan(self, goal: Any, observed: Any) -> Plan:
        return Plan(goal, {}, {}, () if observed else (Step("write"),))


def test_rights_are_asked_for_before_the_first_write() -> None:
    service = Service()

    def refuse(steps: Any) -> None:
        assert (list(steps), service.written) == ([Step("write")], [])
        raise Denied("no")

    with pytest.raises(Denied):
        converge(None, service, Noun(), rights=refuse)
    assert service.written == []
    done = converge(None, service, Noun(), rights=lambda _steps: ("it lacks",))
    assert (done.changed, done.warnings) == (True, ("it lacks",))
    assert not converge(None, service, Noun(), rights=refuse).changed
