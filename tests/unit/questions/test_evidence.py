# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documents of a key and of an account's identities that preflight and the diagnosis read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from azure_table import Several, Table, Task, place, task_of
from documents import (
    CRYPTO_OFFICER,
    DAY,
    DEFINITIONS,
    ENCRYPTION_USER,
    KEY,
    MIDDLE,
    NEW,
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
    deleted_key,
    deleted_vault,
    identity_id,
    key,
    listed,
    policy,
    system_assigned,
    user_assigned,
    vault,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import preflight
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.diagnosis import Symptoms
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.preflight import Evidence
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    NotFound,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier, parse_user_assigned_id
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import evidence as questions
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import vaults

FOLLOWED, PINNED = (parse_key_identifier(one, "key_identifier") for one in (KEY, f"{KEY}/{NEW}"))
SCOPE = f"{VAULT_ID}/keys/batch"
VAULT, VAULTS = refs.vault(VAULT_ID), refs.vaults_of(SUBSCRIPTION)
NEARBY = refs.vault(refs.vault_id(SUBSCRIPTION, "rg-batch", "myvault"))
OF_ONE, EVERYONE = refs.assignments_of(SCOPE, PRINCIPAL), refs.assignments_at(SCOPE)
VERSIONS, DELETED_KEY = refs.versions_of(FOLLOWED), refs.deleted_key(FOLLOWED)
DELETED_VAULTS = refs.deleted_vaults_of(SUBSCRIPTION)
PERMISSIONS = refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}")
READER = [{"actions": ["*/read"]}]
MINE: Any = account(key=KEY, identity=system_assigned())
HIDDEN = Denied("You may not read it.")
NO_HOST = Unavailable("No such host.", code="vault_unreachable")


def azure(documents: Mapping[Any, Any] | None = None, *bundles: dict[str, Any], rbac: bool = False) -> Table:
    """A vault in another resource group than the account, and a key with these versions, the newest last. By default,
    Batch can use the key."""
    versions = bundles or (key(),)
    table = Table(
        {
            VAULTS: [vault(policy(), rbac=rbac)],
            VAULT: vault(policy(), rbac=rbac),
            VERSIONS: [listed(one) for one in versions],
            refs.key(FOLLOWED): versions[-1],
            refs.dated_account(account_id()): Answer(MINE, NOW, NOW - DAY),
            PERMISSIONS: READER,
        },
        now=NOW,
    )
    for one in versions:
        table[one["key"]["kid"]] = one
    for guid, role in DEFINITIONS.items():
        table[refs.role(VAULT_ID, guid)] = {"name": guid.upper(), "properties": role}
    table.update(documents or {})
    return table


def evidence(table: Table, *, owner: Any = MINE, group: str | None = None, folder: Path | None = None) -> Evidence:
    return evidence_of(task_of(table, folder), owner=owner, group=group)


def evidence_of(task: Task, *, owner: Any = MINE, used: Any = FOLLOWED, group: str | None = None) -> Evidence:
    wanted = questions.of_account(owner, used, Facts(task.session), group)
    return task.driver.check(partial(questions.certain, wanted=wanted))


# The evidence on a key


@pytest.mark.parametrize(
    ("identity", "tenant", "principals"),
    [
        pytest.param(system_assigned(), TENANT, (PRINCIPAL,), id="its own"),
        pytest.param({**system_assigned(), "tenantId": OTHER}, OTHER, (PRINCIPAL,), id="another"),
        pytest.param(user_assigned(one=OTHER), TENANT, (OTHER,), id="not returned"),
    ],
)
def test_the_tenant_and_the_principals_of_an_account(
    identity: dict[str, Any], tenant: str, principals: tuple[str, ...]
) -> None:
    found = evidence(azure(), owner=account(identity=identity))

    assert (found.tenant_id, tuple(found.principals)) == (tenant, principals)
    assert found.account == "Batch account mybatch"


@pytest.mark.parametrize(
    ("table", "group", "there"),
    [
        pytest.param(azure(), None, VAULTS, id="by a search"),
        pytest.param(azure({NEARBY: vault(policy())}), None, NEARBY, id="in the resource group of the account"),
        pytest.param(azure(), "rg-keys", VAULT, id="in the named resource group"),
    ],
)
def test_where_the_vault_is_found(table: Table, group: str | None, there: Any) -> None:
    assert evidence(table, group=group).vault == vault(policy())
    assert table.reads_of(VAULTS) == (there is VAULTS)
    assert table.reads_of(there) == 1


def test_a_vault_in_another_subscription_is_not_looked_for_in_the_resource_group_of_the_account() -> None:
    table = azure()
    elsewhere = {**MINE, "id": MINE["id"].replace(SUBSCRIPTION, "11111111-2222-3333-4444-555555555555")}

    assert evidence(table, owner=elsewhere).vault == vault(policy())
    assert table.reads_of(NEARBY) == 0


@pytest.mark.parametrize(
    ("hidden", "field"),
    [
        pytest.param(refs.key(FOLLOWED), "bundle", id="key"),
        pytest.param(VAULTS, "vault", id="vault"),
        pytest.param(OF_ONE, "assignments", id="assignments"),
        pytest.param(refs.role(VAULT_ID, CRYPTO_OFFICER), "assignments", id="role"),
    ],
)
def test_what_cannot_be_read_is_the_error(hidden: Any, field: str) -> None:
    reason = NotFound("404")
    table = azure({OF_ONE: [assignment(CRYPTO_OFFICER, VAULT_ID)]}, rbac=True)
    whole = evidence(table)
    table[hidden] = reason

    found = evidence(table)

    assert type(getattr(found, field)) is type(reason)
    assert getattr(found, field).msg.startswith(reason.msg)
    assert found.now == NOW
    if field in ("bundle", "vault"):
        fields = {"bundle": whole.bundle, "vault": whole.vault, "assignments": whole.assignments}
        others = {"bundle"} if field == "vault" else {"vault", "assignments"}
        assert {one: getattr(found, one) for one in others} == {one: fields[one] for one in others}


@pytest.mark.parametrize("hidden", [refs.key(FOLLOWED), VAULTS, OF_ONE], ids=["key", "vault", "assignments"])
def test_a_refusal_that_says_nothing_about_the_rights_is_raised(hidden: Any) -> None:
    with pytest.raises(Rejected):
        evidence(azure({hidden: Rejected("Bad request.")}, rbac=True))


@pytest.mark.parametrize("role", [ENCRYPTION_USER, CRYPTO_OFFICER])
def test_access_by_a_role(role: str) -> None:
    assigned = assignment(role, VAULT_ID)
    found = evidence(azure({OF_ONE: [assigned]}, rbac=True))

    assert found.assignments == {PRINCIPAL: [assigned]}
    assert found.definitions == ({} if role == ENCRYPTION_USER else {role: DEFINITIONS[role]})
    assert preflight.failed_checks(found) == []


@pytest.mark.parametrize(
    ("before", "fails"),
    [
        pytest.param(key(), False, id="usable"),
        pytest.param(key(enabled=False), True, id="disabled"),
        pytest.param(key(exp=NOW + 1800), True, id="expires soon"),
    ],
)
def test_what_another_task_has_read_serves_unless_a_check_fails(before: Any, fails: bool, tmp_path: Path) -> None:
    """The other task may have read it before a repair."""
    repaired = key(tags={"repaired": "true"})
    table = azure({refs.key(FOLLOWED): Several(before, repaired)})
    first, second = (evidence(table, folder=tmp_path) for _task in range(2))

    assert first.bundle == before
    assert second.bundle == (repaired if fails else before)


# The data of the diagnosis


def symptoms(table: Table, *, owner: Any = MINE, used: Any = FOLLOWED, folder: Path | None = None) -> Symptoms:
    return _symptoms(questions.symptoms, table, owner, used, folder)


def of_key_in_use(
    table: Table, *, owner: Any = MINE, used: Any = FOLLOWED, is_report: bool = False, folder: Path | None = None
) -> Symptoms:
    return _symptoms(partial(questions.of_key_in_use, is_report=is_report), table, owner, used, folder)


def _symptoms(question: Any, table: Table, owner: Any, used: Any, folder: Path | None) -> Symptoms:
    task = task_of(table, folder)
    wanted = questions.of_account(owner, used, Facts(task.session))
    found: Symptoms = task.driver.check(partial(question, account=owner, wanted=wanted))
    return found


BOTH = pytest.mark.parametrize("ask", [symptoms, of_key_in_use], ids=["diagnosis", "key in use"])


def test_the_diagnosis_of_a_usable_key_reads_nothing_else() -> None:
    table = azure()

    usable = replace(evidence(azure()), deleted=[])
    assert symptoms(table) == Symptoms(
        usable, versions=[listed(key())], unsupported=[], missing_identities=[], is_report=True
    )
    assert sorted(table.asked) == sorted(map(place, [NEARBY, VAULTS, refs.key(FOLLOWED), VERSIONS]))


@BOTH
@pytest.mark.parametrize("reason", [HIDDEN, Unavailable("500")])
def test_versions_that_cannot_be_listed(ask: Any, reason: CmkError) -> None:
    found = ask(azure({VERSIONS: reason}))

    assert found.versions.msg == reason.msg
    # The account may use a version that became unusable.
    assert found.account_changed_at == NOW - DAY


@BOTH
def test_an_error_that_says_nothing_about_the_rights_to_list_versions_is_raised(ask: Any) -> None:
    with pytest.raises(Rejected):
        ask(azure({VERSIONS: Rejected("Bad request.")}))


@BOTH
def test_a_deleted_vault_in_another_letter_case(ask: Any) -> None:
    upper = parse_key_identifier(KEY.replace("myvault", "MyVault"), "key_identifier")
    table = azure({VAULTS: [], DELETED_VAULTS: [{**deleted_vault(), "name": "MYVAULT"}]})

    assert ask(table, used=upper).deleted_vault["name"] == "MYVAULT"


@BOTH
def test_the_versions_of_a_vault_that_does_not_exist_are_not_known(ask: Any) -> None:
    gone = {VAULTS: [], refs.key(FOLLOWED): NO_HOST, VERSIONS: NO_HOST, DELETED_VAULTS: [deleted_vault()]}
    found = ask(azure(gone))

    assert found.evidence.vault is None
    assert found.versions is None
    assert found.deleted_vault == deleted_vault()


@pytest.mark.parametrize(
    ("is_free", "reason"), [(True, None), (False, Denied)], ids=["no such vault", "in another subscription"]
)
def test_an_unreachable_vault_that_is_not_listed(is_free: bool, reason: type[CmkError] | None) -> None:
    """A vault may exist in a subscription that the caller may not read. Its name is then not available."""
    check = vaults.name_check(SUBSCRIPTION, "myvault")
    taken = {"nameAvailable": is_free, "reason": None if is_free else "AlreadyExists"}
    gone = {VAULTS: [], refs.key(FOLLOWED): NO_HOST, VERSIONS: NO_HOST, check: taken}

    found = symptoms(azure(gone)).deleted_vault

    assert isinstance(found, reason or type(None))
    # A key in use is judged by its evidence.
    table = azure(gone)
    assert of_key_in_use(table).deleted_vault is None
    assert table.reads_of(check) == 0


def test_a_deleted_vault_is_looked_for_only_if_the_vault_is_not_found() -> None:
    table = azure({VAULTS: HIDDEN, DELETED_VAULTS: [deleted_vault()]})

    assert of_key_in_use(table).deleted_vault is None
    assert table.reads_of(DELETED_VAULTS) == 0
    # The vault may have been deleted, because the caller cannot read it.
    assert symptoms(table).deleted_vault == deleted_vault()


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        pytest.param(deleted_key(), deleted_key(), id="deleted"),
        pytest.param(None, None, id="no such key"),
        pytest.param(HIDDEN, None, id="not readable"),
    ],
)
def test_a_deleted_key(there: Any, expected: Any) -> None:
    gone = {refs.key(FOLLOWED): None, VERSIONS: [], DELETED_KEY: there}

    assert symptoms(azure(gone)).deleted_key == expected
    table = azure(gone)
    assert of_key_in_use(table).deleted_key is None
    assert table.reads_of(DELETED_KEY) == 0


def test_an_error_that_says_nothing_about_a_deleted_key_is_raised() -> None:
    with pytest.raises(Unavailable):
        symptoms(azure({refs.key(FOLLOWED): None, VERSIONS: [], DELETED_KEY: Unavailable("500")}))


@pytest.mark.parametrize(
    ("ended", "kty", "expected"),
    [
        pytest.param(NOW - DAY, "EC", [OLD], id="another type, ended inside the margin"),
        pytest.param(NOW - 8 * DAY, "EC", [], id="ended before the margin"),
        pytest.param(NOW - 19 * DAY, "EC", [OLD], id="ended long ago, and the account may have used it"),
        pytest.param(NOW - DAY, "RSA", [], id="RSA"),
    ],
)
def test_unusable_versions_of_a_type_that_batch_does_not_support(ended: int, kty: str, expected: list[str]) -> None:
    """A list of versions does not show their types."""
    old = key(OLD, kty=kty, created=NOW - 50 * DAY, updated=ended, enabled=False)
    table = azure(None, old, key(created=NOW - 20 * DAY, updated=NOW - 20 * DAY))

    assert symptoms(table).unsupported == expected
    assert table.reads_of(f"{KEY}/{OLD}") == (ended != NOW - 8 * DAY)


def test_an_unusable_version_that_cannot_be_read_may_be_supported() -> None:
    old = key(OLD, kty="EC", created=NOW - 50 * DAY, updated=NOW - DAY, enabled=False)

    assert symptoms(azure({f"{KEY}/{OLD}": HIDDEN}, old, key())).unsupported == []


# Deleted identities

BY_IDENTITY = user_assigned(one=PRINCIPAL, two=OTHER)
ONE, TWO = (refs.identity(parse_user_assigned_id(identity_id(name), "identity_id")) for name in ("one", "two"))


def identity(principal: str) -> dict[str, Any]:
    return {"properties": {"principalId": principal}}


@BOTH
@pytest.mark.parametrize(
    ("there", "missing"),
    [
        pytest.param(identity(PRINCIPAL.upper()), [], id="in another letter case"),
        pytest.param(None, ["one"], id="deleted"),
        pytest.param(NotFound("404"), ["one"], id="deleted with its resource group"),
        pytest.param(identity("abcdef09-7777-8888-9999-000000000000"), ["one"], id="created again"),
        pytest.param(HIDDEN, [], id="not readable"),
    ],
)
def test_deleted_identities_of_an_account(ask: Any, there: Any, missing: list[str]) -> None:
    found = ask(azure({ONE: there, TWO: identity(OTHER)}), owner=account(identity=BY_IDENTITY))

    assert found.missing_identities == [identity_id(name) for name in missing]
    assert list(found.evidence.deleted) == [PRINCIPAL] * len(missing)


@BOTH
def test_an_error_that_says_nothing_about_an_identity_is_raised(ask: Any) -> None:
    with pytest.raises(Unavailable):
        ask(azure({ONE: Unavailable("500"), TWO: identity(OTHER)}), owner=account(identity=BY_IDENTITY))


@BOTH
def test_symptoms_are_read_again_if_a_check_fails(ask: Any, tmp_path: Path) -> None:
    """Another task may have read them before a repair."""
    table = azure({refs.key(FOLLOWED): Several(key(enabled=False), key())})
    ask(table, folder=tmp_path)

    assert ask(table, folder=tmp_path).evidence.bundle == key()


# When the account was changed


@BOTH
@pytest.mark.parametrize(
    ("versions", "used", "is_read"),
    [
        pytest.param([key(MIDDLE, created=NOW - 50 * DAY), key()], FOLLOWED, False, id="all versions are usable"),
        pytest.param(
            [key(MIDDLE, created=NOW - 50 * DAY, updated=NOW - DAY, enabled=False), key()],
            PINNED,
            True,
            id="another version may have been in use",
        ),
        pytest.param(
            [key(MIDDLE, created=NOW - 50 * DAY, exp=NOW + DAY), key()], PINNED, True, id="another version expires soon"
        ),
        pytest.param([key(updated=NOW - 60)], FOLLOWED, True, id="the key was just enabled"),
    ],
)
def test_the_time_of_the_accounts_last_change_is_read_if_it_matters(
    ask: Any, versions: list[dict[str, Any]], used: Any, is_read: bool
) -> None:
    table = azure(None, *versions)
    found = ask(table, used=used)

    assert found.account_changed_at == (NOW - DAY if is_read else 0)
    assert table.reads_of(refs.dated_account(account_id())) == is_read


@BOTH
@pytest.mark.parametrize(
    "there",
    [HIDDEN, None, Answer({**MINE, "properties": account(key=f"{KEY}2")["properties"]}, NOW, NOW - DAY)],
    ids=["not readable", "deleted", "on another key"],
)
def test_a_time_of_the_accounts_last_change_that_is_not_known(ask: Any, there: Any) -> None:
    found = ask(azure({refs.dated_account(account_id()): there}, key(updated=NOW - 60)))

    assert found.account_changed_at is None


def test_the_evidence_of_a_pinned_account_is_of_its_version() -> None:
    old = key(OLD, created=NOW - 50 * DAY)
    pinned = parse_key_identifier(f"{KEY}/{OLD}", "key_identifier")
    table = azure(None, old, key())
    task = task_of(table)
    found = evidence_of(task, used=pinned)

    assert found.bundle == old
    # A newer version does not matter for that account.
    assert task.driver.now(partial(questions.with_access_now, evidence=found)) == found
    assert table.reads_of(refs.key(pinned)) == 1
