# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The recordings of the experiments with Azure: only the resource group of the experiments is in them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from live.recording import Ground, LastCheck, OwnPlaceholders

from azure_sandbox.recording.secrets import SecretFound
from azure_sandbox.redaction import HIDDEN

SUBSCRIPTION, TENANT = "5f3c1bde-3a55-4cf4-9f63-0b6e4fd7a111", "9d1c2b3a-77aa-4b4b-8c8c-1234567890ab"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/azbatch-live-x1"
OTHER_GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/contoso-prod"


@pytest.fixture
def ground() -> Ground:
    made = Ground(SUBSCRIPTION, "Create an account and read it.")
    made.group = "azbatch-live-x1"
    return made


@pytest.fixture
def placeholders(ground: Ground) -> OwnPlaceholders:
    made = OwnPlaceholders(b"key", ground)
    claims = {"upn": "jane@contoso.com", "tid": TENANT}
    made.learn(f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x")
    return made


@pytest.mark.parametrize(
    ("url", "is_recorded"),
    [
        (f"https://management.azure.com{GROUP}", True),
        (f"https://management.azure.com{GROUP}/providers/Microsoft.Batch/batchAccounts?api-version=1", True),
        (f"https://management.azure.com{GROUP}1/providers/Microsoft.Batch/batchAccounts", False),
        (f"https://management.azure.com{OTHER_GROUP}/providers/Microsoft.Batch/batchAccounts/finance", False),
        (f"https://management.azure.com/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Batch/batchAccounts", False),
        (f"https://management.azure.com/subscriptions/{TENANT}/resourceGroups/azbatch-live-x1", False),
        ("https://management.azure.com/subscriptions?api-version=2022-12-01", False),
        ("https://kvown.vault.azure.net/keys/cmk", True),
        ("https://finance-keys.vault.azure.net/keys/cmk", False),
        (f"https://management.azure.com/subscriptions/{SUBSCRIPTION}/deletedVaults/kvown", True),
        ("https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token", False),
    ],
)
def test_requests_about_the_resource_group_are_recorded(ground: Ground, url: str, is_recorded: bool) -> None:
    vault = f"https://management.azure.com{GROUP}/providers/Microsoft.KeyVault/vaults/kvown/accessPolicies/add"
    assert ground.has(vault, b"{}")
    assert ground.has(url, b"") is is_recorded


@pytest.mark.parametrize(
    ("document", "kept"),
    [
        # Role assignments of the subscription are in the list of a vault.
        (
            {"value": [{"id": f"{GROUP}/providers/a"}, {"id": f"/subscriptions/{SUBSCRIPTION}/providers/b"}]},
            {"value": [{"id": f"{GROUP}/providers/a"}]},
        ),
        ({"value": [{"id": f"{OTHER_GROUP}/providers/a"}, {"kid": "https://kv"}]}, {"value": [{"kid": "https://kv"}]}),
        # A policy has added a tag.
        ({"tags": {"probe": "1", "CostCenter": "4711"}}, {"tags": {"probe": "1"}}),
        # Rows of Resource Graph.
        (
            {"resultTruncated": "false", "data": [{"id": f"{GROUP}/a"}, {"name": "finance"}]},
            {"resultTruncated": "false", "data": [{"id": f"{GROUP}/a"}]},
        ),
        (
            {"error": {"code": "RequestDisallowedByPolicy", "message": "denied by 'Contoso: keys'"}},
            {"error": {"code": "RequestDisallowedByPolicy", "message": HIDDEN}},
        ),
    ],
)
def test_a_response_says_nothing_about_others(ground: Ground, document: Any, kept: Any) -> None:
    assert ground.has(
        f"https://management.azure.com{GROUP}/providers/Microsoft.Batch/batchAccounts/a", b'{"tags": {"probe": "1"}}'
    )
    assert ground.own(document) == kept


IN_BASE64 = base64.b64encode(json.dumps({"next": f"{OTHER_GROUP}/a", "tenant": TENANT}).encode()).decode()


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"{OTHER_GROUP}/providers/Microsoft.KeyVault/vaults/finance-keys is locked", ("contoso-prod", "finance-keys")),
        ("/providers/Microsoft.Management/managementGroups/contoso-mg/providers/x", ("contoso-mg",)),
        (
            f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/policyAssignments/deny-all",
            ("deny-all", SUBSCRIPTION),
        ),
        (f"https://management.azure.com/a?$skiptoken={IN_BASE64}", (IN_BASE64,)),
        (f"continue at page/{IN_BASE64}", (IN_BASE64,)),
        ("https://portal.Contoso.com/users/jane@contoso.com", ("contoso.com",)),
        ("from 2a02:8070:a1b2::17", ("2a02:8070:a1b2::17",)),
        (f"kv{TENANT} and {TENANT.replace('-', '')}", (TENANT.replace("-", ""),)),
    ],
)
def test_a_text_says_nothing_about_others(
    ground: Ground, placeholders: OwnPlaceholders, text: str, hidden: tuple[str, ...]
) -> None:
    kept = placeholders.text(text)
    assert [one for one in hidden if one.lower() in kept.lower()] == []
    # Without the placeholders, the last check finds it.
    check = LastCheck({}, ground)
    ground.others |= {"contoso-prod", "finance-keys", "contoso-mg", "deny-all"}
    check.require_none(kept, placeholders.replaced)
    with pytest.raises(SecretFound):
        check.require_none(text, {*placeholders.replaced, TENANT, SUBSCRIPTION})


def test_the_last_check_knows_the_names_of_others(ground: Ground) -> None:
    policy = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/policyAssignments/deny-all"
    vault = f"{OTHER_GROUP}/providers/Microsoft.KeyVault/vaults/finance-keys/privateEndpointConnections/to-hamburg"
    group = (
        "/providers/Microsoft.Management/managementGroups/contoso-mg/providers/Microsoft.Authorization/locks/nothing"
    )
    ground.note_others([{"id": policy, "displayName": "Contoso: keys only"}, {"id": vault}, {"id": group}])
    assert ground.others == {
        "deny-all", "contoso: keys only", "contoso-prod", "finance-keys", "to-hamburg", "contoso-mg", "nothing"
    }  # fmt: skip
    check = LastCheck({}, ground)
    for name in ground.others:
        for text in (f"denied by {name}.", base64.b64encode(f"the vault named {name} in a token".encode()).decode()):
            with pytest.raises(SecretFound):
                check.require_none(text)
    check.require_none("An account of the experiments, and a read of it.")
