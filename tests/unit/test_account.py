# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts with the identity that customer-managed keys need."""

from __future__ import annotations

from typing import Any

import pytest
from documents import (
    KEY,
    NEW,
    OLD,
    OTHER,
    PRINCIPAL,
    TENANT,
    account,
    account_id,
    evidence,
    identity_id,
    key,
    policy,
    system_assigned,
    user_assigned,
    vault,
)
from goals import options_of
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    InvalidOption,
    NotFound,
    Refused,
    Rejected,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Step
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import account as account_document
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import goal as account_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import plan as account_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.goal import AccountWrites
from ansible_collections.azbatch.cmk.plugins.modules import batch_account_identity

ELSEWHERE = "https://vault2.vault.azure.net/keys/batch"


def goal(**options: Any) -> account_goal.Goal:
    given = {"resource_group": "rg-batch", "name": "mybatch", **options}
    return account_goal.desired(options_of(batch_account_identity, **given))


def seen(document: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    return {"account": document, "group": {"location": "northeurope"}, "creation_failed": False, **others}


def update(**body: Any) -> Step:
    return Step(AccountWrites.update, {"group": "rg-batch", "name": "mybatch", "body": body})


def create(**body: Any) -> Step:
    return Step(AccountWrites.create, {"group": "rg-batch", "name": "mybatch", "body": body})


def with_ids(*names: str) -> dict[str, Any]:
    return {"type": "UserAssigned", "userAssignedIdentities": {identity_id(name): {} for name in names}}


# The goal


def test_creation_with_a_key_needs_a_user_assigned_identity() -> None:
    with pytest.raises(InvalidOption, match="system-assigned") as refused:
        goal(key_identifier=KEY)

    assert refused.value.facts["option"] == "key_identifier"
    assert refused.value.facts["value"] == KEY


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"name": "my-batch"}, "invalid_option"),
        ({"identity_id": "id-batch"}, "invalid_option"),
        ({"identity_id": identity_id(), "key_identifier": "batch"}, "invalid_option"),
    ],
)
def test_malformed_option_is_refused(options: dict[str, str], code: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        goal(**options)

    assert refused.value.code == code


# Whether an account is available


@pytest.mark.parametrize(
    ("refusal", "available"),
    [
        pytest.param(None, True, id="not refused"),
        pytest.param(Rejected("No.", azure={"code": "InvalidAccountState"}), False, id="by Batch"),
        pytest.param(Denied("No.", azure={"code": "Forbidden"}), False, id="by Batch, with 403"),
        pytest.param(Denied("No.", azure={"code": "AuthorizationFailed"}), None, id="the caller"),
        pytest.param(Denied("No.", azure={"code": "LinkedAuthorizationFailed"}), None, id="a linked right"),
        pytest.param(Denied("No.", azure={"code": "DenyAssignmentAuthorizationFailed"}), None, id="denied"),
    ],
)
def test_availability(refusal: CmkError | None, available: bool | None) -> None:
    assert account_document.availability(refusal) is available


def test_unknown_availability_names_the_right() -> None:
    error = account_document.availability_unknown("mybatch", Denied("No.", azure={"code": "AuthorizationFailed"}))

    assert error.code == "availability_unknown"
    assert error.facts["action"] == "Microsoft.Batch/batchAccounts/pools/read"
    assert error.facts["action"] in error.facts["remedy"]
    assert error.facts["action"] in error.msg
    assert error.facts["action"] in account_document.availability_warning("mybatch", error)


# An account that does not exist


@pytest.mark.parametrize(
    ("options", "body"),
    [
        pytest.param(
            {"location": "westeurope"},
            {"location": "westeurope", "identity": {"type": "SystemAssigned"}},
            id="system-assigned",
        ),
        pytest.param({}, {"location": "northeurope", "identity": {"type": "SystemAssigned"}}, id="region of the group"),
        pytest.param(
            {"location": "westeurope", "identity_id": identity_id()},
            {"location": "westeurope", "identity": with_ids("id-batch")},
            id="user-assigned",
        ),
    ],
)
def test_account_is_created(options: dict[str, Any], body: dict[str, Any]) -> None:
    plan = account_plan.plan(goal(**options), seen())

    # The key source is sent, so that an account which is created at the same time does not keep a key that it
    # cannot use.
    assert plan.steps == (create(**body, properties={"encryption": {"keySource": "Microsoft.Batch"}}),)
    assert plan.before == {"exists": False}
    assert plan.after["exists"] is True
    assert plan.after["name"] == "mybatch"
    assert plan.after["location"] == body["location"]
    assert plan.after["key_source"] == "microsoft_batch"
    assert plan.after["key_identifier"] is None
    assert "id" not in plan.after
    assert plan.report == {}


def test_the_group_is_not_read_if_a_region_is_set() -> None:
    assert account_plan.plan(goal(location="westeurope"), {"account": None}).changed


@pytest.mark.parametrize("identifier", [KEY, f"{KEY}/{NEW}"], ids=["follows", "pinned"])
def test_account_is_created_with_a_key_that_passed_preflight(identifier: str) -> None:
    wanted = goal(identity_id=identity_id(), key_identifier=identifier)

    plan = account_plan.plan(wanted, seen(evidence=evidence()))

    encryption = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": identifier}}
    (step,) = plan.steps
    assert step.write == AccountWrites.create
    assert step.arguments["body"] == {
        "location": "northeurope",
        "identity": with_ids("id-batch"),
        "properties": {"encryption": encryption},
    }
    assert step.arguments["evidence"] == evidence()
    assert plan.after["key_source"] == "microsoft_keyvault"
    assert plan.after["key_identifier"] == identifier
    assert {check["status"] for check in plan.report["preflight"]} == {"ok"}
    assert plan.warnings == ()


@pytest.mark.parametrize(
    ("identifier", "mode", "created"),
    [
        (f"{KEY}/{NEW}", "follow", KEY),
        (KEY, "follow", KEY),
        (KEY, "update", KEY),
        (f"{KEY}/{NEW}", "update", f"{KEY}/{NEW}"),
        (None, "follow", None),
    ],
)
def test_an_account_may_be_created_as_one_that_follows_its_key(
    identifier: str | None, mode: str, created: str | None
) -> None:
    wanted = goal(identity_id=identity_id(), key_identifier=identifier, version_mode=mode)
    plan = account_plan.plan(wanted, seen(evidence=evidence()))

    assert plan.after["key_identifier"] == created


def created_account(on: str | None = KEY, **read: Any) -> dict[str, Any]:
    """The account after it was created with its key, and the state of that key at that time."""
    document = account(key=on, identity=user_assigned(**{"id-batch": PRINCIPAL}))
    return seen(document, created_in=document["location"], confirmed=evidence(**read) if read else None)


def test_access_that_was_revoked_while_the_account_was_created() -> None:
    wanted = goal(identity_id=identity_id(), key_identifier=KEY)
    rollback = account_plan.plan(wanted, seen(evidence=evidence())).rollback_goal

    with pytest.raises(Refused) as refused:
        account_plan.plan(wanted, created_account(vault=vault(policy(OTHER))))

    assert refused.value.facts["failed_checks"] == ["access_granted"]
    back = account_plan.plan(rollback, created_account())
    assert back.steps == (update(properties={"encryption": {"keySource": "Microsoft.Batch"}}),)
    assert not account_plan.plan(rollback, created_account(None)).changed
    assert "a Microsoft-managed key" in rollback.described(account_plan.plan(rollback, created_account(None)).before)


def failed(on: str | None = KEY, *, is_creation: bool = True, **properties: Any) -> dict[str, Any]:
    """An account whose last operation has failed."""
    document = account(key=on, identity=user_assigned(**{"id-batch": PRINCIPAL}), tags={"team": "one"})
    document["properties"].update({"provisioningState": "Failed", **properties})
    return seen(document, evidence=evidence(), created_in=document["location"], creation_failed=is_creation)


@pytest.mark.parametrize("on", [KEY, None])
def test_a_creation_that_has_failed_is_repeated(on: str | None) -> None:
    plan = account_plan.plan(goal(identity_id=identity_id(), key_identifier=KEY), failed(on))

    (step,) = plan.steps
    assert step.write == AccountWrites.create
    assert step.arguments["body"]["location"] == "westeurope"
    assert step.arguments["body"]["tags"] == {"team": "one"}
    assert plan.before == {"exists": False}
    assert plan.after["key_identifier"] == KEY


@pytest.mark.parametrize(
    ("wanted", "observed"),
    [
        pytest.param(KEY, failed(is_creation=False), id="an account that Batch lists pools of"),
        pytest.param(KEY, failed(ELSEWHERE), id="on another key"),
        pytest.param(None, failed(KEY), id="on a key that is not requested"),
        pytest.param(KEY, failed(autoStorage={"storageAccountId": "/storage"}), id="with storage"),
        pytest.param(KEY, failed(publicNetworkAccess="Disabled"), id="closed to the network"),
    ],
)
def test_a_request_that_would_replace_something_is_not_repeated(wanted: str | None, observed: dict[str, Any]) -> None:
    assert not account_plan.plan(goal(identity_id=identity_id(), key_identifier=wanted), observed).changed


def test_an_account_with_two_identities_keeps_both() -> None:
    observed = failed()
    observed["account"]["identity"] = user_assigned(**{"id-batch": PRINCIPAL, "id-other": OTHER})

    assert not account_plan.plan(goal(identity_id=identity_id(), key_identifier=KEY), observed).changed


def test_a_creation_that_has_failed_with_another_identity_is_left() -> None:
    with pytest.raises(Refused) as refused:
        account_plan.plan(goal(key_identifier=None), failed())
    assert refused.value.code == "identity_in_use"


def test_the_rollback_of_a_creation_that_has_failed_repeats_it_without_the_key() -> None:
    wanted = goal(identity_id=identity_id(), key_identifier=KEY)
    back = account_plan.plan(wanted, seen(evidence=evidence())).rollback_goal

    plan = account_plan.plan(back, failed())

    (step,) = plan.steps
    assert step.write == AccountWrites.create
    assert step.arguments["body"] == {
        "location": "westeurope",
        "identity": with_ids("id-batch"),
        "properties": {"encryption": {"keySource": "Microsoft.Batch"}},
    }


@pytest.mark.parametrize("on", [None, ELSEWHERE], ids=["Microsoft's", "another key"])
def test_rollback_keeps_an_account_that_was_moved_after_its_creation(on: str | None) -> None:
    rollback = account_plan.plan(
        goal(identity_id=identity_id(), key_identifier=KEY), seen(evidence=evidence())
    ).rollback_goal

    assert not account_plan.plan(rollback, created_account(on)).changed
    assert not account_plan.plan(rollback, seen(None, created_in="westeurope")).changed
    creating = created_account()
    creating["account"]["properties"]["provisioningState"] = "Creating"
    assert not account_plan.plan(rollback, creating).changed


@pytest.mark.parametrize(
    "others",
    [
        pytest.param({"created_in": None}, id="nothing was sent, or it was refused"),
        pytest.param({"created_in": "northeurope"}, id="in another location"),
        pytest.param({"identity": user_assigned(**{"id-other": PRINCIPAL})}, id="with another identity"),
        pytest.param({"identity": system_assigned(PRINCIPAL)}, id="with another kind of identity"),
    ],
)
def test_rollback_of_a_creation_keeps_the_key_of_other_accounts(others: dict[str, Any]) -> None:
    rollback = account_plan.plan(
        goal(identity_id=identity_id(), key_identifier=KEY), seen(evidence=evidence())
    ).rollback_goal
    theirs = created_account()
    theirs["account"]["identity"] = others.pop("identity", theirs["account"]["identity"])

    assert account_plan.plan(rollback, created_account()).changed
    assert not account_plan.plan(rollback, {**theirs, **others}).changed


def test_account_is_not_created_with_a_key_that_fails_preflight() -> None:
    wanted = goal(identity_id=identity_id(), key_identifier=KEY)

    with pytest.raises(Refused) as refused:
        account_plan.plan(wanted, seen(evidence=evidence(bundle=key(enabled=False), vault=vault())))

    assert refused.value.code == "preflight_failed"
    assert refused.value.facts["failed_checks"] == ["key_enabled", "access_granted"]


def test_a_preflight_check_that_is_unknown_is_a_warning() -> None:
    wanted = goal(identity_id=identity_id(), key_identifier=KEY)
    denied = CmkError("You may not.", code="permission_denied")

    plan = account_plan.plan(wanted, seen(evidence=evidence(bundle=denied)))

    assert plan.changed
    assert any("key_enabled" in warning and "You may not." in warning for warning in plan.warnings)


@pytest.mark.parametrize("hidden", ["vault", "assignments"])
def test_an_account_is_not_created_with_a_key_whose_access_cannot_be_read(hidden: str) -> None:
    denied = CmkError("You may not.", code="permission_denied")
    read = evidence(**{"vault": vault(rbac=True), hidden: denied})

    with pytest.raises(Refused) as refused:
        account_plan.plan(goal(identity_id=identity_id(), key_identifier=KEY), seen(evidence=read))

    assert refused.value.code == "access_unknown"
    assert "You may not." in str(refused.value)


# An account that exists


@pytest.mark.parametrize(
    ("options", "identity"),
    [
        pytest.param({}, system_assigned(), id="system-assigned"),
        pytest.param({"identity_id": identity_id("one")}, user_assigned(one=PRINCIPAL), id="user-assigned"),
        pytest.param({"identity_id": identity_id("two")}, user_assigned(one=PRINCIPAL, two=OTHER), id="one of several"),
        pytest.param(
            {"identity_id": identity_id("ONE", groups="RESOURCEGROUPS")},
            user_assigned(one=PRINCIPAL),
            id="another letter case",
        ),
        pytest.param({"adopt_existing": True, "force": True}, system_assigned(), id="force without a change"),
    ],
)
def test_an_account_with_the_identity_is_not_changed(options: dict[str, Any], identity: dict[str, Any]) -> None:
    document = account(identity=identity, tags={"owner": "me"})

    plan = account_plan.plan(goal(**options), seen(document))

    assert not plan.changed
    assert plan.warnings == ()
    assert plan.before == plan.after == account_document.describe(document)


@pytest.mark.parametrize("identity", [system_assigned(), user_assigned(one=PRINCIPAL)], ids=["kept", "changed"])
def test_an_account_in_another_region_is_reported(identity: dict[str, Any]) -> None:
    plan = account_plan.plan(goal(location="northeurope", adopt_existing=True), seen(account(identity=identity)))

    assert any("westeurope" in warning and "northeurope" in warning for warning in plan.warnings)


@pytest.mark.parametrize("options", [{"location": "atlantis"}, {}], ids=["asked for", "of the group"])
def test_a_region_without_batch_is_refused(options: dict[str, Any]) -> None:
    observed = seen(group={"location": "atlantis"}, regions=["West Europe", "North Europe"])
    with pytest.raises(InvalidOption) as refused:
        account_plan.plan(goal(**options), observed)

    assert refused.value.code == "location_not_available"
    assert account_plan.plan(goal(location="westeurope"), observed).changed


@pytest.mark.parametrize(
    ("on", "warned"),
    [
        pytest.param(None, True, id="on a Microsoft-managed key"),
        pytest.param(f"{KEY}2/{NEW}", True, id="on another key"),
        pytest.param(f"{KEY}/{OLD}", False, id="on another version"),
        pytest.param(KEY, False, id="follows"),
        pytest.param(f"{KEY}/{NEW}".upper(), False, id="on that key"),
    ],
)
def test_the_key_of_an_existing_account_is_not_changed_and_a_warning_is_given(on: str | None, warned: bool) -> None:
    wanted = goal(identity_id=identity_id("one"), key_identifier=f"{KEY}/{NEW}")

    plan = account_plan.plan(wanted, seen(account(key=on, identity=user_assigned(one=PRINCIPAL))))

    assert not plan.changed
    assert any("azbatch.cmk.batch_encryption" in warning for warning in plan.warnings) is warned


WITHOUT = account()
SYSTEM = account(identity=system_assigned())
USER = account(identity=user_assigned(one=PRINCIPAL))
SYSTEM_ON_KEY = account(key=KEY, identity=system_assigned())
USER_ON_KEY = account(key=KEY, identity=user_assigned(one=PRINCIPAL))


@pytest.mark.parametrize(
    ("options", "document", "code"),
    [
        pytest.param({}, WITHOUT, "account_without_identity", id="none"),
        pytest.param({"identity_id": identity_id()}, WITHOUT, "account_without_identity", id="none, user-assigned"),
        pytest.param({"force": True}, WITHOUT, "account_without_identity", id="none, force is not for that"),
        pytest.param({}, USER, "identity_differs", id="user-assigned, not system-assigned"),
        pytest.param({"identity_id": identity_id("one")}, SYSTEM, "identity_differs", id="system- not user-assigned"),
        pytest.param({"identity_id": identity_id("two")}, USER, "identity_differs", id="another user-assigned"),
        pytest.param({"force": True}, USER, "identity_differs", id="another, force is not for that"),
        pytest.param({"identity_id": identity_id("one")}, SYSTEM_ON_KEY, "identity_in_use", id="in use"),
        pytest.param({"adopt_existing": True}, USER_ON_KEY, "identity_in_use", id="in use, adopted"),
    ],
)
def test_change_of_identity_is_refused(options: dict[str, Any], document: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        account_plan.plan(goal(**options), seen(document))

    assert refused.value.code == code
    assert plain(refused.value.facts["remedy"])


def test_refusal_names_the_account_that_would_lose_its_key() -> None:
    with pytest.raises(Refused) as refused:
        account_plan.plan(goal(adopt_existing=True), seen(USER_ON_KEY))

    assert refused.value.facts["accounts"] == [account_id()]
    assert KEY in str(refused.value)


@pytest.mark.parametrize(
    ("options", "document", "advice"),
    [
        pytest.param({}, USER_ON_KEY, f"Set identity_id to {identity_id('one')} to keep it", id="user-assigned"),
        pytest.param({"identity_id": identity_id("two")}, USER, f"Set identity_id to {identity_id('one')}", id="free"),
        pytest.param({"identity_id": identity_id("one")}, SYSTEM_ON_KEY, "Leave out identity_id", id="system-assigned"),
        pytest.param(
            {},
            account(key=KEY, identity=user_assigned(one=PRINCIPAL, two=OTHER)),
            f"Set identity_id to {identity_id('one')} or {identity_id('two')} to keep it",
            id="several",
        ),
    ],
)
def test_refusal_names_the_identity_of_the_account(
    options: dict[str, Any], document: dict[str, Any], advice: str
) -> None:
    with pytest.raises(Refused) as refused:
        account_plan.plan(goal(**options), seen(document))

    assert advice in str(refused.value)
    assert plain(refused.value.facts["remedy"]).startswith(advice)
    assert refused.value.facts["option"] == "identity_id"


@pytest.mark.parametrize(
    ("options", "document", "identity"),
    [
        pytest.param({}, WITHOUT, {"type": "SystemAssigned"}, id="none to system-assigned"),
        pytest.param({"identity_id": identity_id("one")}, WITHOUT, with_ids("one"), id="none to user-assigned"),
        pytest.param({}, USER, {"type": "SystemAssigned"}, id="user- to system-assigned"),
        pytest.param({"identity_id": identity_id("one")}, SYSTEM, with_ids("one"), id="system- to user-assigned"),
        pytest.param({"identity_id": identity_id("two")}, USER, with_ids("one", "two"), id="the one it has is kept"),
        pytest.param(
            {"identity_id": identity_id("two"), "force": True}, USER_ON_KEY, with_ids("one", "two"), id="in use, forced"
        ),
    ],
)
def test_identity_is_adopted(options: dict[str, Any], document: dict[str, Any], identity: dict[str, Any]) -> None:
    plan = account_plan.plan(goal(adopt_existing=True, **options), seen(document))

    # If the account uses a Microsoft-managed key, the request contains the key source.
    said = {} if document is USER_ON_KEY else {"properties": {"encryption": {"keySource": "Microsoft.Batch"}}}
    assert plan.steps == (update(identity=identity, **said),)
    assert {**plan.before, "identity": None} == {**plan.after, "identity": None}


def test_a_read_that_is_out_of_date_after_a_change_of_the_identity_is_not_refused() -> None:
    """Another run had moved the account to a key, before the change took effect."""
    plan = account_plan.plan(goal(identity_id=identity_id("one"), adopt_existing=True), seen(SYSTEM))

    assert account_plan.plan(plan.goal, seen(SYSTEM_ON_KEY)).changed
    assert account_plan.plan(plan.goal, seen(WITHOUT)).changed


# Deletion


def test_account_is_deleted() -> None:
    plan = account_plan.plan(goal(state="absent"), seen(SYSTEM_ON_KEY))

    assert plan.steps == (Step(AccountWrites.delete, {"group": "rg-batch", "name": "mybatch"}),)
    assert plan.before["exists"] is True
    assert plan.after == {"exists": False}


def test_deleting_a_missing_account_changes_nothing() -> None:
    plan = account_plan.plan(goal(state="absent"), {"account": None})

    assert not plan.changed
    assert plan.before == plan.after == {"exists": False}


# Return values


def test_description_of_no_account() -> None:
    assert account_document.describe(None) == {"exists": False}


def test_description_of_an_account() -> None:
    document = account(key=f"{KEY}/{NEW}", identity=system_assigned(), tags={"owner": "me"})

    assert account_document.describe(document) == {
        "exists": True,
        "id": account_id(),
        "name": "mybatch",
        "location": "westeurope",
        "identity": {
            "type": "system_assigned",
            "principal_id": PRINCIPAL,
            "tenant_id": TENANT,
            "user_assigned_identities": {},
        },
        "key_source": "microsoft_keyvault",
        "key_identifier": f"{KEY}/{NEW}",
        "tags": {"owner": "me"},
    }


@pytest.mark.parametrize(
    ("identity", "kind", "principals"),
    [
        ({}, "none", {}),
        ({"type": "None"}, "none", {}),
        (user_assigned(one=PRINCIPAL), "user_assigned", {"principal_id": PRINCIPAL, "client_id": "client-of-one"}),
    ],
)
def test_description_of_an_identity(identity: dict[str, Any], kind: str, principals: dict[str, str]) -> None:
    described = account_document.describe_identity(identity)

    assert described["type"] == kind
    assert described["principal_id"] is None
    assert described["user_assigned_identities"].get(identity_id("one"), {}) == principals


def test_required_account() -> None:
    assert account_document.required(SYSTEM, "rg-batch", "mybatch") is SYSTEM

    with pytest.raises(NotFound) as failed:
        account_document.required(None, "rg-batch", "mybatch")

    assert failed.value.code == "account_not_found"
    assert failed.value.facts["value"] == "mybatch"


# From any state


def as_azure_does(document: dict[str, Any] | None, step: Step) -> dict[str, Any] | None:
    if step.write == AccountWrites.delete:
        return None
    body = step.arguments["body"]
    identity = dict(body["identity"])
    if identity["type"] == "SystemAssigned":
        identity = system_assigned()
    else:
        named = identity["userAssignedIdentities"]
        identity["userAssignedIdentities"] = {name: {"principalId": OTHER, "clientId": "c"} for name in named}
    if document is not None:
        return {**document, "identity": identity}
    new = {**account(identity=identity), "location": body["location"]}
    encryption = body.get("properties", {}).get("encryption")
    return {**new, "properties": {**new["properties"], "encryption": encryption}} if encryption else new


IDENTITIES = st.sampled_from(
    [None, system_assigned(), user_assigned(one=PRINCIPAL), user_assigned(one=OTHER, two=OTHER)]
)
DOCUMENTS = st.none() | st.builds(account, key=st.sampled_from([None, KEY, f"{KEY}/{OLD}"]), identity=IDENTITIES)
OPTIONS = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["present", "absent"]),
        "identity_id": st.sampled_from([None, identity_id("one"), identity_id("two")]),
        "key_identifier": st.sampled_from([None, KEY]),
        "adopt_existing": st.booleans(),
        "force": st.booleans(),
    }
)


@given(OPTIONS, DOCUMENTS)
def test_second_plan_is_empty_and_the_first_predicted_its_state(
    options: dict[str, Any], document: dict[str, Any] | None
) -> None:
    assume(options["identity_id"] or not options["key_identifier"])
    wanted = goal(**options)
    try:
        first = account_plan.plan(wanted, seen(document, evidence=evidence()))
    except Refused:
        assert not (options["adopt_existing"] and options["force"])
        return

    for step in first.steps:
        document = as_azure_does(document, step)
    second = account_plan.plan(first.goal, seen(document))

    assert not second.changed
    assert second.before["exists"] is (options["state"] == "present")
    for name in ("exists", "name", "location", "key_source", "key_identifier"):
        assert second.before.get(name) == first.after.get(name)
