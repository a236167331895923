# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether permissions allow an action."""

from __future__ import annotations

from typing import Any

import pytest
from documents import VAULT_ID, policy, vault
from plain_service import Plain

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cache import Cache
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import rights
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.rights import Needed
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, NotFound
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Plan, Step, step
from ansible_collections.azbatch.cmk.plugins.module_utils._core.reconcile import converge
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import goal as access_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.client import CallerRights
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.document import allows
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.goal import AccessWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import goal as account_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.goal import AccountWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import goal as encryption_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.goal import EncryptionWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import goal as key_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.goal import KeyWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import goal as vault_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault.goal import VaultWrites

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
SET = [*rights.to_set_encryption("rg", "mybatch")]
MAKE_KEY = rights.to_use_key("create", "myvault")


class Resources:
    """The caller's permissions at each scope; an error if they cannot be read."""

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

    def __init__(self, *, predicts: bool) -> None:
        self.cache = Cache(RunFiles(None), lambda: "me")
        self.predicts = predicts


class Vaults:
    def __init__(self, found: Any = None) -> None:
        self.found = found

    def find(self, _name: str, _group: Any, _not_before: Any) -> Any:
        if isinstance(self.found, CmkError):
            raise self.found
        return self.found

    def get(self, _group: str, _name: str) -> Any:
        return self.found


def require(*needed: Needed, vault: Any = None, predicts: bool = False, **allowed: Any) -> tuple[str, ...]:
    session = Session(predicts=predicts)
    return CallerRights(session, Resources(**allowed), Vaults(vault)).require(needed)  # type: ignore[arg-type]


def lacks(action: str, *needed: Needed, **options: Any) -> None:
    with pytest.raises(Denied) as denied:
        require(*needed, **options)
    assert denied.value.code == "permission_denied"
    assert denied.value.facts["action"] == action
    assert action in str(denied.value)
    warnings = require(*needed, **options, predicts=True)
    assert any(action in warning for warning in warnings)


def test_a_missing_right_is_refused() -> None:
    lacks(WRITE, *SET)
    lacks(WRITE, *SET, group=[permission(READ)], account=[permission("*/read")])
    lacks(POOLS, *SET, group=[permission(WRITE)], account=[])
    lacks(WRITE, *SET, group=Denied("no"), account=[permission("*/read")])


def test_a_right_at_the_group_or_at_the_resource_is_enough() -> None:
    require(*SET, group=[permission(WRITE, POOLS)])
    require(*SET, account=[permission(WRITE, POOLS)])
    require(*SET, group=Denied("no"), account=[permission(WRITE, POOLS)])


def test_unreadable_permissions_do_not_refuse() -> None:
    require(*SET, group=Denied("no"), account=Denied("no"))
    require(*SET, group=[], account=NotFound("none"))
    require(MAKE_KEY, vault=Denied("no"))
    require(MAKE_KEY, vault=None)


def test_writes_of_several_resources_need_their_rights() -> None:
    lacks(CREATE, *SET, MAKE_KEY, vault=vault(rbac=True), group=[permission(WRITE, POOLS)])


def test_keys_by_role() -> None:
    lacks(CREATE, MAKE_KEY, vault=vault(rbac=True), vault_scope=[permission("*")])
    require(MAKE_KEY, vault=vault(rbac=True), vault_scope=[permission(CREATE, data=True)])


@pytest.mark.parametrize(
    ("permissions", "missing"), [(["get"], True), (["Create"], False), (["all"], False), ([], True)]
)
def test_keys_by_policy(permissions: list[str], missing: bool) -> None:
    """The entries of all principals count, because the caller may be a member of a group that has an entry."""
    document = vault(policy("a-group", keys=permissions))

    if missing:
        lacks("the key permission create", MAKE_KEY, vault=document)
    else:
        require(MAKE_KEY, vault=document)


AT = {"group": "rg", "name": "mybatch"}
KEY = {"vault": "v", "name": "key"}
ASSIGNMENTS = "Microsoft.Authorization/roleAssignments"
KEYS = "Microsoft.KeyVault/vaults/keys"
EACH_WRITE = [
    (account_goal, step(AccountWrites.create, **AT, body={"properties": {"encryption": {}}}), WRITE),
    (account_goal, step(AccountWrites.update, **AT, body={}), WRITE),
    (account_goal, step(AccountWrites.delete, **AT), "Microsoft.Batch/batchAccounts/delete"),
    (
        encryption_goal,
        step(EncryptionWrites.set_encryption, **AT, body={}, evidence=None, even_if_unavailable=False),
        WRITE,
    ),
    (vault_goal, step(VaultWrites.create, **AT, body={}), "Microsoft.KeyVault/vaults/write"),
    (vault_goal, step(VaultWrites.update, **AT, body={}), "Microsoft.KeyVault/vaults/write"),
    (vault_goal, step(VaultWrites.delete, **AT), "Microsoft.KeyVault/vaults/delete"),
    (vault_goal, step(VaultWrites.restore_access, **AT), "Microsoft.KeyVault/vaults/write"),
    (
        access_goal,
        step(AccessWrites.set_policy, vault_id=VAULT_ID, operation="add", entry={}),
        "Microsoft.KeyVault/vaults/accessPolicies/write",
    ),
    (
        access_goal,
        step(AccessWrites.assign, scope=VAULT_ID, name="", role="", principal=""),
        f"{ASSIGNMENTS}/write",
    ),
    (
        access_goal,
        step(AccessWrites.unassign, assignment_id=f"{VAULT_ID}/providers/{ASSIGNMENTS}/1"),
        f"{ASSIGNMENTS}/delete",
    ),
    (key_goal, step(KeyWrites.create, **KEY, body={}), CREATE),
    (key_goal, step(KeyWrites.update, **KEY, version="1", body={}), f"{KEYS}/update/action"),
    (key_goal, step(KeyWrites.delete, **KEY), f"{KEYS}/delete"),
    (key_goal, step(KeyWrites.recover, **KEY), f"{KEYS}/recover/action"),
    (
        key_goal,
        step(KeyWrites.set_rotation_policy, **KEY, policy={}),
        "Microsoft.KeyVault/vaults/keyrotationpolicies/write",
    ),
]
# This write needs no rights, because it only waits.
WAITS = {EncryptionWrites.wait_until_available}


def needs(action: str, *needed: Needed, found: Any = None) -> None:
    """Check that the rights require this action, and otherwise only reads."""
    lacks(action, *needed, vault=found)
    held = permission(action, data="/keys/" in action or "keyrotation" in action)
    reads = permission("*/read"), permission("*/read", data=True)
    require(*needed, vault=found, group=[held, *reads], vault_scope=[held, *reads])


@pytest.mark.parametrize(("writes", "step", "action"), EACH_WRITE, ids=lambda one: getattr(one, "name", None))
def test_each_step_requires_its_action(writes: Any, step: Step[Any], action: str) -> None:
    needs(action, *writes.NEEDED.by([step]), found=vault(rbac=True))


@pytest.mark.parametrize("protocol", [AccessWrites, AccountWrites, EncryptionWrites, KeyWrites, VaultWrites])
def test_the_rights_of_each_write_are_known(protocol: type) -> None:
    writes = {value for name, value in vars(protocol).items() if not name.startswith("_") and name != "read"}

    assert writes
    assert writes - WAITS <= {step.write for _writes, step, _action in EACH_WRITE}


def test_assigning_an_identity_requires_its_right() -> None:
    identity = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one"
    body = {"identity": {"userAssignedIdentities": {identity: {}}}}
    needed = account_goal.NEEDED.by([step(AccountWrites.update, **AT, body=body)])

    lacks("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", *needed, group=[permission(WRITE)])


def test_right_to_poll_the_creation_of_an_account_is_required() -> None:
    action = "Microsoft.Batch/batchAccounts/operationResults/read"

    lacks(action, *rights.to_create_account("rg"), group=[permission("*", but=(action,))])


SEES = [*SET, rights.to_see_access("myvault", None)]


def test_right_to_read_access_is_required_before_a_new_version() -> None:
    may = {"group": [permission(WRITE, POOLS)]}

    lacks(f"{ASSIGNMENTS}/read", *SEES, vault=vault(rbac=True), **may)
    lacks("Microsoft.KeyVault/vaults/read", *SEES, vault=vault(), **may)
    lacks("Microsoft.KeyVault/vaults/read", *SEES, vault=Denied("no"), **may)
    require(*SEES, vault=None, **may)
    with pytest.raises(Denied, match=r"KeyVault/vaults/read at the key vault \w+\. Nor may you see groups\. Grant"):
        require(*SEES, vault=Denied("Nor may you see groups."), **may)


def test_waiting_needs_no_right() -> None:
    assert [*encryption_goal.NEEDED.by([step(EncryptionWrites.wait_until_available, **AT)])] == []


# Before the first write


class Service(Plain):
    def __init__(self) -> None:
        self.written: list[str] = []

    def read(self, _goal: Any) -> Any:
        return len(self.written)

    def write(self) -> None:
        self.written.append("write")


class Planner:
    def plan(self, goal: Any, observed: Any) -> Plan:
        return Plan(goal, {}, {}, () if observed else (step(Service.write),))


def test_rights_are_checked_before_the_first_write() -> None:
    service = Service()

    def refuse(steps: Any) -> None:
        assert (list(steps), service.written) == ([step(Service.write)], [])
        raise Denied("no")

    with pytest.raises(Denied):
        converge(None, service, Planner(), rights=refuse)
    assert service.written == []
    done = converge(None, service, Planner(), rights=lambda _steps: ("it lacks",))
    assert (done.changed, done.warnings) == (True, ("it lacks",))
    assert not converge(None, service, Planner(), rights=refuse).changed
