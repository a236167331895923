# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts with the identity that customer-managed keys need."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import pytest
from azure_table import Table, Task, documents_of, task_of
from documents import (
    KEY,
    NEW,
    OLD,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
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
from goals import account_goal as goal

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    AccountUnavailable,
    CmkError,
    Denied,
    InvalidOption,
    PlanOutdated,
    Refused,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_user_assigned_id
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change, Request
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import account as account_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.decide import AccountAbsent, AccountPresent
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.goal import AccountGoal

ELSEWHERE = "https://vault2.vault.azure.net/keys/batch"
ACCOUNT, POOLS = refs.account(account_id()), refs.first_pools_of(account_id())
REFUSED = Rejected("Batch refuses.", azure={"code": "AccountCreationFailed"})
ON_MICROSOFT_KEY = {"properties": {"encryption": {"keySource": "Microsoft.Batch"}}}


def table_of(
    document: dict[str, Any] | None = None, *, pools: Any = None, group: str = "northeurope", **others: Any
) -> Table:
    """The account, and the first page of its pools. `others` are the regions of Batch, and the evidence on the key."""
    types = [{"resourceType": "batchAccounts", "locations": others.get("regions", [])}]
    ids = [parse_user_assigned_id(identity_id(name), "identity_id") for name in ("id-batch", "one", "two")]
    return Table(
        {
            ACCOUNT: document,
            POOLS: pools or [],
            refs.group(SUBSCRIPTION, "rg-batch"): {"location": group},
            refs.provider(SUBSCRIPTION, "Microsoft.Batch"): {"resourceTypes": types},
            **{refs.identity(one): {"properties": {"principalId": PRINCIPAL, "tenantId": TENANT}} for one in ids},
            **documents_of(others.get("evidence", evidence())),
        }
    )


def decided(wanted: AccountGoal, seen: Table | Task) -> Change:
    task = seen if isinstance(seen, Task) else task_of(seen)
    return task.driver.solve((AccountPresent if wanted.present else AccountAbsent)(wanted, Facts(task.session)).decide)


def confirmed(change: Change, seen: Table) -> Change:
    """The decision after the change."""
    return task_of(seen, wait_timeout=0).driver.solve(change.confirm)


def only(change: Change, method: str) -> Request:
    """The only request of the change, which is for the account."""
    [request] = change.requests
    assert (request.method, request.ref) == (method, account_id())
    assert request.rights
    assert request.operation is (method != "PATCH")
    # A read has to show the identity, because the next task reads it.
    assert request.shows is None
    return request


def with_ids(*names: str) -> dict[str, Any]:
    return {"type": "UserAssigned", "userAssignedIdentities": {identity_id(name): {} for name in names}}


# The goal


def test_creation_with_a_key_needs_a_user_assigned_identity() -> None:
    with pytest.raises(InvalidOption, match="a user-assigned identity") as refused:
        goal(key_identifier=KEY)

    assert refused.value.facts["option"] == "key_identifier"
    assert refused.value.facts["value"] == KEY


# Whether an account is available


@pytest.mark.parametrize(
    ("refusal", "available"),
    [
        pytest.param(None, True, id="not refused"),
        pytest.param(Rejected("No.", azure={"code": "InvalidAccountState"}), False, id="by Batch"),
        pytest.param(Denied("No.", azure={"code": "Forbidden"}), False, id="by Batch, with 403"),
        pytest.param(Denied("No.", azure={"code": "AuthorizationFailed"}), None, id="the caller"),
        pytest.param(Denied("No.", azure={"code": "DenyAssignmentAuthorizationFailed"}), None, id="denied"),
    ],
)
def test_availability(refusal: CmkError | None, available: bool | None) -> None:
    assert account_document.availability(refusal) is available


# An account that does not exist


@pytest.mark.parametrize(
    ("options", "body"),
    [
        pytest.param({}, {"location": "northeurope", "identity": {"type": "SystemAssigned"}}, id="region of the group"),
        pytest.param(
            {"location": "westeurope", "identity_id": identity_id()},
            {"location": "westeurope", "identity": with_ids("id-batch")},
            id="user-assigned",
        ),
    ],
)
def test_account_is_created(options: dict[str, Any], body: dict[str, Any]) -> None:
    change = decided(goal(**options), table_of())

    # The key source is sent, so that an account which is created at the same time does not keep a key that it
    # cannot use.
    assert only(change, "PUT").body == {**body, **ON_MICROSOFT_KEY}
    assert change.before == {"exists": False}
    assert change.after["exists"] is True
    assert change.after["name"] == "mybatch"
    assert change.after["location"] == body["location"]
    assert change.after["key_source"] == "microsoft_batch"
    assert change.after["key_identifier"] is None
    assert "id" not in change.after
    assert change.report == {}


def test_account_is_created_with_a_key_that_passed_preflight() -> None:
    identifier = f"{KEY}/{NEW}"
    wanted = goal(identity_id=identity_id(), key_identifier=identifier)

    change = decided(wanted, table_of(evidence=evidence(identifier)))

    encryption = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": identifier}}
    assert only(change, "PUT").body == {
        "location": "northeurope",
        "identity": with_ids("id-batch"),
        "properties": {"encryption": encryption},
    }
    # The caller has to find out whether the account is available.
    [pools] = set(change.rights) - set(decided(goal(identity_id=identity_id()), table_of()).rights)
    assert pools.action == "Microsoft.Batch/batchAccounts/pools/read"
    assert change.after["key_source"] == "microsoft_keyvault"
    assert change.after["key_identifier"] == identifier
    assert {check["status"] for check in change.report["preflight"]} == {"ok"}
    assert change.warnings == ()


@pytest.mark.parametrize(
    ("identifier", "mode", "created"),
    [
        (f"{KEY}/{NEW}", "follow", KEY),
        (f"{KEY}/{NEW}", "update", f"{KEY}/{NEW}"),
        (None, "follow", None),
    ],
)
def test_an_account_may_be_created_as_one_that_follows_its_key(
    identifier: str | None, mode: str, created: str | None
) -> None:
    wanted = goal(identity_id=identity_id(), key_identifier=identifier, version_mode=mode)
    change = decided(wanted, table_of(evidence=evidence(created or KEY)))

    assert change.after["key_identifier"] == created


ON_KEY = {"identity_id": identity_id(), "key_identifier": KEY}


def created(on: str | None = KEY, **others: Any) -> dict[str, Any]:
    """The account after its creation with a key. `others` are its identity, and properties."""
    identity = others.pop("identity", user_assigned(**{"id-batch": PRINCIPAL}))
    document = account(key=on, identity=identity, tags={"team": "one"})
    document["properties"].update(others)
    return document


def failed(on: str | None = KEY, **others: Any) -> dict[str, Any]:
    """The account after its last operation has failed."""
    return created(on, provisioningState="Failed", **others)


def put_back(
    document: dict[str, Any] | None, sent_in: str | None = "westeurope", error: CmkError | None = None
) -> tuple[Change, str]:
    """The rollback of a creation with a key after a request for this location, and its description. `error` is the
    response to the request."""
    table = table_of()
    task = task_of(table)
    change = decided(goal(**ON_KEY), task)
    if sent_in:
        with suppress(CmkError), task.session.journal.writing("PUT", account_id(), {"location": sent_in}, undoes=False):
            if error:
                raise error
    table[ACCOUNT] = document
    [way_back] = change.back()
    back = task.driver.solve(way_back.decide)
    assert all(one.undoes for one in back.requests)
    return back, change.undone(back.before)


def test_access_that_was_revoked_while_the_account_was_created() -> None:
    change = decided(goal(**ON_KEY), table_of())

    assert not confirmed(change, table_of(created())).requests
    with pytest.raises(Refused) as refused:
        confirmed(change, table_of(created(), evidence=evidence(vault=vault(policy(OTHER)))))
    assert refused.value.facts["failed_checks"] == ["access_granted"]


def test_an_account_that_is_not_available_after_its_creation_is_waited_for() -> None:
    change = decided(goal(**ON_KEY), table_of())

    with pytest.raises(AccountUnavailable) as unavailable:
        confirmed(change, table_of(created(), pools=REFUSED))
    assert unavailable.value.texts == REFUSED.texts


def test_the_rollback_of_a_creation_removes_the_key() -> None:
    back, said = put_back(created())

    assert only(back, "PATCH").body == ON_MICROSOFT_KEY
    assert f"uses {KEY} now" in said
    back, said = put_back(created(None))
    assert not back.requests
    assert "uses a Microsoft-managed key now" in said


@pytest.mark.parametrize("on", [KEY, None])
def test_a_creation_that_has_failed_is_repeated(on: str | None) -> None:
    change = decided(goal(**ON_KEY), table_of(failed(on), pools=REFUSED))

    body = only(change, "PUT").body
    assert body is not None
    assert body["location"] == "westeurope"
    assert body["tags"] == {"team": "one"}
    assert change.before == {"exists": False}
    assert change.after["key_identifier"] == KEY


DENIED = Denied("You may not list them.", azure={"code": "AuthorizationFailed"})


@pytest.mark.parametrize(
    ("wanted", "document", "pools"),
    [
        pytest.param(KEY, failed(), [], id="an account that Batch lists pools of"),
        pytest.param(KEY, failed(), DENIED, id="the caller may not list its pools"),
        pytest.param(KEY, created(), REFUSED, id="not failed"),
        pytest.param(KEY, failed(ELSEWHERE), REFUSED, id="on another key"),
        pytest.param(None, failed(KEY), REFUSED, id="on a key that is not requested"),
        pytest.param(KEY, failed(autoStorage={"storageAccountId": "/storage"}), REFUSED, id="with storage"),
        pytest.param(
            KEY,
            failed(identity=user_assigned(**{"id-batch": PRINCIPAL, "id-other": OTHER})),
            REFUSED,
            id="with two identities",
        ),
    ],
)
def test_a_request_that_would_replace_something_is_not_repeated(
    wanted: str | None, document: dict[str, Any], pools: Any
) -> None:
    seen = table_of(document, pools=pools)

    assert not decided(goal(identity_id=identity_id(), key_identifier=wanted), seen).requests


@pytest.mark.parametrize(("on", "code"), [(KEY, "identity_in_use"), (None, "identity_differs")])
def test_a_creation_that_has_failed_with_another_identity_is_left(on: str | None, code: str) -> None:
    with pytest.raises(Refused) as refused:
        decided(goal(key_identifier=None), table_of(failed(on), pools=REFUSED))
    assert refused.value.code == code


def test_the_rollback_of_a_creation_that_has_failed_repeats_it_without_the_key() -> None:
    back, _said = put_back(failed())

    assert only(back, "PUT").body == {"location": "westeurope", "identity": with_ids("id-batch"), **ON_MICROSOFT_KEY}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(None, id="missing"),
        pytest.param(created(ELSEWHERE), id="on another key"),
        pytest.param(created(provisioningState="Creating"), id="still being created"),
        pytest.param(created(identity=user_assigned(**{"id-other": PRINCIPAL})), id="with another identity"),
    ],
)
def test_the_rollback_of_a_creation_keeps_the_key_of_another_account(document: dict[str, Any] | None) -> None:
    back, _said = put_back(document)

    assert not back.requests


@pytest.mark.parametrize(
    ("sent_in", "error", "is_own"),
    [
        pytest.param("West Europe", None, True, id="accepted"),
        pytest.param("westeurope", Unavailable("The response was lost."), True, id="no response"),
        pytest.param("westeurope", REFUSED, False, id="refused"),
        pytest.param("westeurope", PlanOutdated("Created by somebody else."), False, id="not sent"),
        pytest.param("northeurope", None, False, id="in another location"),
        pytest.param(None, None, False, id="nothing was sent"),
    ],
)
def test_the_rollback_changes_only_an_account_that_a_request_of_the_task_may_have_created(
    sent_in: str | None, error: CmkError | None, is_own: bool
) -> None:
    back, _said = put_back(created(), sent_in, error)

    assert bool(back.requests) is is_own


def test_account_is_not_created_with_a_key_that_fails_preflight() -> None:
    with pytest.raises(Refused) as refused:
        decided(goal(**ON_KEY), table_of(evidence=evidence(bundle=key(enabled=False), vault=vault())))

    assert refused.value.code == "preflight_failed"
    assert refused.value.facts["failed_checks"] == ["key_enabled", "access_granted"]


def test_a_preflight_check_that_is_unknown_is_a_warning() -> None:
    change = decided(goal(**ON_KEY), table_of(evidence=evidence(bundle=Denied("You may not."))))

    assert change.requests
    assert any("key_enabled" in warning and "You may not." in warning for warning in change.warnings)


@pytest.mark.parametrize("hidden", ["vault", "assignments"])
def test_an_account_is_not_created_with_a_key_whose_access_cannot_be_read(hidden: str) -> None:
    read = evidence(**{"vault": vault(rbac=True), hidden: Denied("You may not.")})

    with pytest.raises(Refused) as refused:
        decided(goal(**ON_KEY), table_of(evidence=read))

    assert refused.value.code == "access_unknown"
    assert "You may not." in refused.value.facts["preflight"][0]["evidence"]


# An account that exists


@pytest.mark.parametrize(
    ("options", "identity"),
    [
        pytest.param({"identity_id": identity_id("two")}, user_assigned(one=PRINCIPAL, two=OTHER), id="one of several"),
        pytest.param(
            {"identity_id": identity_id("ONE", groups="RESOURCEGROUPS")},
            user_assigned(one=PRINCIPAL),
            id="another letter case",
        ),
        pytest.param({"allowed_repairs": ["identity"], "force": True}, system_assigned(), id="force without a change"),
    ],
)
def test_an_account_with_the_identity_is_not_changed(options: dict[str, Any], identity: dict[str, Any]) -> None:
    document = account(identity=identity, tags={"owner": "me"})

    change = decided(goal(**options), table_of(document))

    assert not change.requests
    assert change.warnings == ()
    assert change.before == change.after == account_document.describe(document)


@pytest.mark.parametrize("identity", [system_assigned(), user_assigned(one=PRINCIPAL)], ids=["kept", "changed"])
def test_an_account_in_another_region_is_reported(identity: dict[str, Any]) -> None:
    change = decided(goal(location="northeurope", allowed_repairs=["identity"]), table_of(account(identity=identity)))

    assert any("westeurope" in warning and "northeurope" in warning for warning in change.warnings)


@pytest.mark.parametrize("options", [{"location": "atlantis"}, {}], ids=["asked for", "of the group"])
def test_a_region_without_batch_is_refused(options: dict[str, Any]) -> None:
    table = table_of(group="atlantis", regions=["West Europe", "North Europe"])
    with pytest.raises(InvalidOption) as refused:
        decided(goal(**options), table)

    assert refused.value.code == "location_not_available"
    assert decided(goal(location="westeurope"), table).requests


@pytest.mark.parametrize(
    ("on", "warned"),
    [
        pytest.param(None, True, id="on a Microsoft-managed key"),
        pytest.param(f"{KEY}2/{NEW}", True, id="on another key"),
        pytest.param(f"{KEY}/{OLD}", False, id="on another version"),
        pytest.param(f"{KEY}/{NEW}".upper(), False, id="on that key"),
    ],
)
def test_the_key_of_an_existing_account_is_not_changed_and_a_warning_is_given(on: str | None, warned: bool) -> None:
    wanted = goal(identity_id=identity_id("one"), key_identifier=f"{KEY}/{NEW}")

    change = decided(wanted, table_of(account(key=on, identity=user_assigned(one=PRINCIPAL))))

    assert not change.requests
    assert any("azbatch.cmk.batch_encryption" in warning for warning in change.warnings) is warned


WITHOUT = account()
SYSTEM = account(identity=system_assigned())
USER = account(identity=user_assigned(one=PRINCIPAL))
SYSTEM_ON_KEY = account(key=KEY, identity=system_assigned())
USER_ON_KEY = account(key=KEY, identity=user_assigned(one=PRINCIPAL))


@pytest.mark.parametrize(
    ("options", "document", "code"),
    [
        pytest.param({}, WITHOUT, "account_without_identity", id="none"),
        pytest.param({}, USER, "identity_differs", id="user-assigned, not system-assigned"),
        pytest.param({"identity_id": identity_id("one")}, SYSTEM, "identity_differs", id="system- not user-assigned"),
        pytest.param({"identity_id": identity_id("two")}, USER, "identity_differs", id="another user-assigned"),
        pytest.param({"force": True}, USER, "identity_differs", id="another, force is not for that"),
        pytest.param({"identity_id": identity_id("one")}, SYSTEM_ON_KEY, "identity_in_use", id="in use"),
        pytest.param({"allowed_repairs": ["identity"]}, USER_ON_KEY, "identity_in_use", id="in use, adopted"),
    ],
)
def test_change_of_identity_is_refused(options: dict[str, Any], document: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        decided(goal(**options), table_of(document))

    assert refused.value.code == code
    assert plain(refused.value.facts["remedy"])


@pytest.mark.parametrize(
    ("options", "document", "identity"),
    [
        pytest.param({}, WITHOUT, {"type": "SystemAssigned"}, id="none to system-assigned"),
        pytest.param({"identity_id": identity_id("one")}, SYSTEM, with_ids("one"), id="system- to user-assigned"),
        pytest.param({"identity_id": identity_id("two")}, USER, with_ids("one", "two"), id="the one it has is kept"),
        pytest.param(
            {"identity_id": identity_id("two"), "force": True}, USER_ON_KEY, with_ids("one", "two"), id="in use, forced"
        ),
    ],
)
def test_identity_is_adopted(options: dict[str, Any], document: dict[str, Any], identity: dict[str, Any]) -> None:
    change = decided(goal(allowed_repairs=["identity"], **options), table_of(document))

    # If the account uses a Microsoft-managed key, the request contains the key source.
    said = {} if document is USER_ON_KEY else ON_MICROSOFT_KEY
    assert only(change, "PATCH").body == {"identity": identity, **said}
    assert {**change.before, "identity": None} == {**change.after, "identity": None}
    assert any("may lose it" in one for one in change.warnings) is (document is USER_ON_KEY)


def test_a_read_that_is_out_of_date_after_a_change_of_the_identity_is_not_refused() -> None:
    """Another run had moved the account to a key, before the change took effect."""
    change = decided(goal(identity_id=identity_id("one"), allowed_repairs=["identity"]), table_of(SYSTEM))

    assert confirmed(change, table_of(SYSTEM_ON_KEY)).requests
    assert confirmed(change, table_of(WITHOUT)).requests


@pytest.mark.parametrize(
    ("document", "now", "is_refused"),
    [
        pytest.param(SYSTEM, SYSTEM_ON_KEY, True, id="moved to a key meanwhile"),
        pytest.param(SYSTEM, SYSTEM, False, id="still on a Microsoft-managed key"),
        pytest.param(SYSTEM_ON_KEY, SYSTEM_ON_KEY, False, id="on a key already, forced"),
    ],
)
def test_a_delayed_change_of_the_identity_is_not_sent_if_the_account_was_moved_to_a_key(
    document: dict[str, Any], now: dict[str, Any], is_refused: bool
) -> None:
    wanted = goal(identity_id=identity_id("one"), allowed_repairs=["identity"], force=True)
    change = decided(wanted, table_of(document))

    with pytest.raises(PlanOutdated) if is_refused else nullcontext():
        task_of(table_of(now)).driver.solve(partial(change.wanted, request=only(change, "PATCH")))


# Deletion


def test_account_is_deleted() -> None:
    change = decided(goal(state="absent"), table_of(SYSTEM_ON_KEY))

    assert only(change, "DELETE").body is None
    assert change.before["exists"] is True
    assert change.after == {"exists": False}
