# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The effects of writes in check mode, as tables of documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._core import placeholders
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.effects import account, key, role_assignment, vault
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.effects.write import (
    Effect,
    EffectContext,
    EffectInput,
    PredictedRefusal,
    Prediction,
    is_listed,
)

SUBSCRIPTION = "/subscriptions/11111111-2222-3333-4444-555555555555"
GROUP = f"{SUBSCRIPTION}/resourceGroups/Mine"
ACCOUNT = f"{GROUP}/providers/Microsoft.Batch/batchAccounts/one"
VAULT = f"{GROUP}/providers/Microsoft.KeyVault/vaults/one"
DELETED_VAULT = f"{SUBSCRIPTION}/providers/Microsoft.KeyVault/locations/westeurope/deletedVaults/one"
ASSIGNMENT = f"{VAULT}/providers/Microsoft.Authorization/roleAssignments/guid"
KEY, DELETED_KEY = "https://one.vault.azure.net/keys/Key", "https://one.vault.azure.net/deletedkeys/Key"
VERSION = "1" * 32
FIRST, SECOND = (f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{n}" for n in ("first", "second"))
NOW = 1_800_000_000

DOCUMENTS = {
    GROUP.lower(): {"id": GROUP},
    FIRST.lower(): {"properties": {"principalId": "p1", "clientId": "c1", "tenantId": "t"}},
}
FACTS = EffectContext(
    now=NOW + 0.5,
    find=lambda ref: DOCUMENTS.get(ref.lower()),
    list=lambda _ref: [],
    vault=lambda _name: None,
    caller=lambda: {"object_id": "me", "tenant_id": "mine"},
    vault_suffix=lambda: "vault.azure.net",
    number=lambda _kind: 1,
    placeholder=lambda placeholder: placeholder,
    with_policies=(),
)
Documents = dict[str, Any]


def after(effect: Effect, ref: str, before: Any, body: Mapping[str, Any], **facts: Any) -> Documents:
    """The documents after the write, by their refs. None is a deleted resource."""
    predicted = effect(EffectInput(ref, before, body, replace(FACTS, **facts)))
    return {one.ref: one.document if one.exists else None for one in predicted}


def refusal(effect: Effect, ref: str, before: Any, body: Mapping[str, Any], **facts: Any) -> tuple[int, str]:
    with pytest.raises(PredictedRefusal) as refused:
        after(effect, ref, before, body, **facts)
    return refused.value.status, refused.value.code


# Batch accounts


def batch(identity: Mapping[str, Any] | None = None, tags: Any = None, **properties: Any) -> Documents:
    properties = {"provisioningState": "Succeeded", "encryption": {"keySource": "Microsoft.Batch"}, **properties}
    document = {"id": ACCOUNT, "location": "westeurope", "identity": identity or {"type": "None"}}
    return {**document, **({"tags": tags} if tags else {}), "properties": properties}


PRINCIPAL = placeholders.principal("one", "Mine", 1)
SYSTEM = {"type": "SystemAssigned"}
ASSIGNED = {**SYSTEM, "principalId": "p", "tenantId": "t"}
ENCRYPTED = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": KEY}}


def user(*names: str, **ids: Any) -> Documents:
    return {"type": "UserAssigned", "userAssignedIdentities": dict.fromkeys(names, ids)}


@pytest.mark.parametrize(
    ("before", "body", "expected"),
    [
        (batch(tags={"a": "b"}), {"tags": {"c": "d"}}, batch(tags={"c": "d"})),
        (batch(), {"properties": {"encryption": ENCRYPTED}}, batch(encryption=ENCRYPTED)),
        (batch(provisioningState="Failed"), {}, batch()),
        # Identities
        (batch(), {"identity": SYSTEM}, batch({**SYSTEM, "principalId": PRINCIPAL, "tenantId": "mine"})),
        (batch(ASSIGNED), {"identity": SYSTEM}, batch(ASSIGNED)),
        (
            batch(user(FIRST.lower(), SECOND, principalId="p")),
            {"identity": user(FIRST)},
            batch(
                {
                    "type": "UserAssigned",
                    "userAssignedIdentities": {
                        SECOND: {"principalId": "p"},
                        FIRST: {"principalId": "p1", "clientId": "c1"},
                    },
                }
            ),
        ),
        (batch(ASSIGNED), {"identity": {"type": "None"}}, batch({"type": "None"})),
    ],
)
@pytest.mark.parametrize("effect", [account.put, account.patch])
def test_a_change_of_an_account(effect: Effect, before: Documents, body: Documents, expected: Documents) -> None:
    assert after(effect, ACCOUNT, before, body) == {ACCOUNT: expected}


def test_a_new_account_in_a_group_that_the_caller_may_not_read() -> None:
    """Otherwise, the group has Azure's letter case."""

    def denied(_ref: str) -> Any:
        raise Denied("No.")

    ref, body = ACCOUNT.replace("Mine", "MINE"), {"location": "West Europe", "identity": SYSTEM}

    assert [*after(account.put, ref, None, body, find=denied)] == [ref]
    assert [*after(account.put, ref, None, body)] == [ACCOUNT]


# Key vaults


def key_vault(policies: Any = (), **properties: Any) -> Documents:
    always = {"tenantId": "t", "sku": {"name": "standard"}, "accessPolicies": [*policies]}
    return {"id": VAULT, "name": "one", "location": "westeurope", "properties": {**always, **properties}}


NEEDED = {"tenantId": "t", "sku": {"name": "premium"}}
SENT = {"location": "West Europe", "properties": NEEDED}
RECOVER = {"location": "West Europe", "properties": {**NEEDED, "createMode": "recover"}}


def policy(holder: str, *keys: str, secrets: Any = (), application: str | None = None) -> Documents:
    permissions = {"keys": [*keys], **({"secrets": [*secrets]} if secrets else {})}
    return {"objectId": holder, "permissions": permissions, **({"applicationId": application} if application else {})}


@pytest.mark.parametrize(
    ("operation", "sent", "expected"),
    [
        ("add", [policy("ONE", "WRAPKEY", "get")], [policy("one", "get", "WRAPKEY"), policy("two", "get")]),
        (
            "add",
            [policy("one", "wrapKey", secrets=["get"])],
            [policy("one", "get", "wrapKey", secrets=["get"]), policy("two", "get")],
        ),
        (
            "add",
            [policy("one", "wrapKey", application="app")],
            [policy("one", "get"), policy("two", "get"), policy("one", "wrapKey", application="app")],
        ),
        ("replace", [policy("ONE", "list")], [policy("ONE", "list"), policy("two", "get")]),
        ("remove", [policy("one", "get", application="app")], [policy("one", "get"), policy("two", "get")]),
        ("remove", [policy("one", "list")], [policy("one", "get"), policy("two", "get")]),
        ("remove", [policy("ONE", "GET")], [policy("two", "get")]),
        ("remove", [policy("three", "get")], [policy("one", "get"), policy("two", "get")]),
        ("remove", [policy("one", "get"), policy("two", "get")], []),
    ],
)
def test_access_policies(operation: str, sent: list[Documents], expected: list[Documents]) -> None:
    before, body = key_vault([policy("one", "get"), policy("two", "get")]), {"properties": {"accessPolicies": sent}}

    assert after(partial(vault.set_policies, operation), VAULT, before, body) == {VAULT: key_vault(expected)}


# Role assignments


def assignment(scope: str = VAULT, principal: str = "p") -> Documents:
    return {"id": f"{scope}/x", "properties": {"scope": scope, "principalId": principal}}


@pytest.mark.parametrize(
    ("document", "scope", "filter", "expected"),
    [
        (assignment(), VAULT, "", True),
        (assignment(), f"{VAULT}/keys/Key", "atScope()", True),
        (assignment(), f"{VAULT}s", "atScope()", False),
        (assignment(), GROUP, "", True),
        (assignment(), GROUP, "atScope()", False),
        (assignment(principal="P"), VAULT, "atScope() and assignedTo('p')", True),
        (assignment(), VAULT, "atScope() and assignedTo('q')", False),
        (batch(), SUBSCRIPTION.upper(), "", True),
        ({"id": DELETED_VAULT, "properties": {}}, SUBSCRIPTION, "", True),
    ],
)
def test_lists_have_documents(document: Documents, scope: str, filter: str, expected: bool) -> None:
    assert is_listed(document, scope, filter) is expected


# Keys


def bundle(version: str = VERSION, *, operations: Any = ("wrapKey",), tags: Any = None, **attributes: Any) -> Documents:
    document = {
        "key": {"kid": f"{KEY}/{version}", "kty": "RSA", "key_ops": [*operations]},
        "attributes": {"enabled": True, "created": NOW - 9, **attributes},
    }
    return {**document, **({"tags": tags} if tags else {})}


@pytest.mark.parametrize(
    ("before", "created", "level"),
    [
        (None, NOW, "Recoverable"),
        (bundle(), NOW, "Recoverable"),
        (bundle(created=NOW), NOW + 1, "Recoverable"),
        (bundle(created=NOW + 5, recoveryLevel="Recoverable+Purgeable"), NOW + 6, "Recoverable+Purgeable"),
    ],
)
def test_a_new_version(before: Documents | None, created: int, level: str) -> None:
    """It is newer than the version before it."""
    attributes = {"enabled": False, "exp": NOW + 99, "nbf": None}
    body = {"kty": "RSA", "key_size": 3072, "key_ops": ["wrapKey"], "attributes": attributes, "tags": {"a": "b"}}

    [(ref, found)] = after(key.create, KEY, before, body).items()

    assert (ref, found["key"]["kid"]) == (f"{KEY}/{placeholders.version('one', 'Key', 1)}",) * 2
    assert (found["key"]["kty"], found["key"]["key_ops"], len(found["key"]["n"])) == ("RSA", ["wrapKey"], 512)
    times = {"created": created, "updated": created}
    assert found["attributes"] == {"enabled": False, "exp": NOW + 99, **times, "recoveryLevel": level}
    assert found["tags"] == {"a": "b"}


@pytest.mark.parametrize(
    ("protection", "level"), [({}, "Recoverable+Purgeable"), ({"enablePurgeProtection": True}, "Recoverable")]
)
def test_the_recovery_level_of_a_key_in_a_predicted_vault(protection: Documents, level: str) -> None:
    facts = {"vault": lambda _name: Prediction(VAULT, key_vault(**protection))}

    [found] = after(key.create, KEY, None, {"kty": "RSA"}, **facts).values()

    assert found["attributes"]["recoveryLevel"] == level
    assert "tags" not in found


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("", bundle(enabled=False)),
        (VERSION, bundle(enabled=False)),
        ("2" * 32, bundle("2" * 32, enabled=True)),
    ],
)
def test_a_version_that_azure_does_not_show(version: str, expected: Documents) -> None:
    assert key.assumed(bundle(enabled=False), version) == expected


# Refusals


@pytest.mark.parametrize(
    ("effect", "ref", "before", "body", "expected"),
    [
        (account.patch, ACCOUNT, None, {}, (404, "ResourceNotFound")),
        (account.put, ACCOUNT.replace("Mine", "gone"), None, SENT, (404, "ResourceGroupNotFound")),
        (account.patch, ACCOUNT, batch(), {"identity": user(SECOND)}, (404, "ResourceNotFound")),
        (vault.patch, VAULT, None, {}, (404, "ResourceNotFound")),
        (vault.put, VAULT, None, RECOVER, (404, "DeletedVaultNotFound")),
        (partial(vault.set_policies, "add"), VAULT, None, {}, (404, "ResourceNotFound")),
        (role_assignment.put, ASSIGNMENT, assignment(), {}, (409, "RoleAssignmentExists")),
        (key.update, f"{KEY}/{VERSION}", None, {}, (404, "KeyNotFound")),
        (key.set_rotation_policy, f"{KEY}/rotationpolicy", None, {}, (404, "KeyNotFound")),
        (key.delete, KEY, None, {}, (404, "KeyNotFound")),
        (key.recover, DELETED_KEY, None, {}, (404, "KeyNotFound")),
    ],
)
def test_requests_that_azure_refuses(
    effect: Effect, ref: str, before: Any, body: Documents, expected: tuple[int, str]
) -> None:
    assert refusal(effect, ref, before, body) == expected
