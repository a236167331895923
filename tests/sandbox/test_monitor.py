# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The logs of vaults: from a diagnostic setting to a workspace, and queries of both tables."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from batch_calls import create, user_assigned_identity
from key_vault_calls import ENCRYPTION_USER, assign, data, make_key, make_vault, vault_path
from sandbox_client import LOGS_SCOPE, MANAGEMENT_SCOPE, Control, Sandbox

from azure_sandbox.shared import kql
from azure_sandbox.shared.kql import Language

SETTINGS, QUERY, WORKSPACES = "2021-05-01-preview", "2018-03-01-preview", "2023-09-01"
HOSTS = ("api.loganalytics.io", "api.loganalytics.azure.com")
DIAGNOSTICS, AUDIT_LOGS = "AzureDiagnostics", "AZKVAuditLogs"
AUDIT = {"category": "AuditEvent", "categoryGroup": None, "enabled": True}
LAST_USE = """
union isfuzzy=true
  (AZKVAuditLogs
    | extend key = Id, status = HttpStatusCode, who = tostring(Identity.claim.oid)),
  (AzureDiagnostics
    | where ResourceProvider == 'MICROSOFT.KEYVAULT'
    | extend key = column_ifexists('id_s', ''), status = toint(column_ifexists('httpStatusCode_d', 0)),
        who = tostring(column_ifexists('identity_claim_oid_g', '')))
| where OperationName in ('KeyWrap', 'KeyUnwrap', 'KeyGet') and status < 300
| where key startswith 'https://vault-one.vault.azure.net/keys/key1/'
| summarize last = max(TimeGenerated), uses = count() by key, OperationName, who
| order by OperationName asc
"""


def workspace_path(sandbox: Sandbox, name: str = "workspace1") -> str:
    return f"{sandbox.group}/providers/Microsoft.OperationalInsights/workspaces/{name}"


def make_workspace(sandbox: Sandbox, name: str = "workspace1", **properties: Any) -> dict[str, Any]:
    body = {"location": "westeurope", "properties": properties}
    response = sandbox.arm("PUT", workspace_path(sandbox, name), WORKSPACES, body)
    assert response.status_code in (200, 201), response.text
    workspace: dict[str, Any] = response.json()
    return workspace


def send_logs(
    sandbox: Sandbox, table: str = AUDIT_LOGS, log: Any = AUDIT, name: str = "setting1", workspace: str = "workspace1"
) -> None:
    kind = "Dedicated" if table == AUDIT_LOGS else None
    path = f"{vault_path(sandbox)}/providers/Microsoft.Insights/diagnosticSettings/{name}"
    properties = {"workspaceId": workspace_path(sandbox, workspace), "logs": [log], "logAnalyticsDestinationType": kind}
    assert sandbox.arm("PUT", path, SETTINGS, {"properties": properties}).ok


def ask(
    sandbox: Sandbox, query: str, scope: str = "", who: dict[str, Any] | None = None, **body: Any
) -> requests.Response:
    """Query the logs of the vault or another scope, by Resource Manager."""
    other = {"client_id": who["client_id"], "secret": who["secret"]} if who else {}
    path = f"{scope or vault_path(sandbox)}/providers/Microsoft.Insights/logs"
    return sandbox.arm("POST", path, QUERY, {"query": query, **body}, sandbox.bearer(MANAGEMENT_SCOPE, **other))


def ask_service(
    sandbox: Sandbox, query: str, path: str, who: dict[str, Any] | None = None, host: str = HOSTS[0]
) -> requests.Response:
    other = {"client_id": who["client_id"], "secret": who["secret"]} if who else {}
    url = f"https://{host}/v1{path}/query"
    return sandbox.bearer(LOGS_SCOPE, **other).post(url, json={"query": query, "timespan": None}, timeout=30)


def rows(response: requests.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    [table] = response.json()["tables"]
    assert table["name"] == "PrimaryResult"
    names = [column["name"] for column in table["columns"]]
    return [dict(zip(names, row, strict=True)) for row in table["rows"]]


def refusal(response: requests.Response) -> tuple[int, str, list[str]]:
    """The status, the code and the inner codes."""
    error = response.json()["error"]
    status, code, inner = response.status_code, error["code"], []
    while error := error.get("innererror", {}):
        inner.append(error["code"])
    return status, code, inner


@pytest.fixture
def logged(sandbox: Sandbox) -> Sandbox:
    """A vault with a key, whose events can be queried at once."""
    sandbox.control.behavior(log_delay="0", log_start="0")
    make_vault(sandbox)
    make_workspace(sandbox)
    return sandbox


def use(sandbox: Sandbox) -> str:
    """Use a version of a key. Returns its identifier."""
    kid: str = make_key(sandbox)["key"]["kid"]
    version = kid.rpartition("/")[2]
    assert data(sandbox, "POST", f"/keys/key1/{version}/wrapkey", {"alg": "RSA-OAEP", "value": "YWJj"}).ok
    assert data(sandbox, "GET", f"/keys/key1/{version}").ok
    assert data(sandbox, "GET", "/keys/key1").ok
    assert data(sandbox, "GET", f"/keys/key1/{'0' * 32}").status_code == 404
    return kid


@pytest.mark.parametrize("tables", [[DIAGNOSTICS], [AUDIT_LOGS], [DIAGNOSTICS, AUDIT_LOGS]])
def test_last_use_of_each_version(logged: Sandbox, tables: list[str]) -> None:
    for number, table in enumerate(tables):
        send_logs(logged, table, name=f"setting{number}")
    kid = use(logged)

    found = rows(ask(logged, LAST_USE))

    operator = logged.control.call("GET", "/principals")["principals"][0]["object_id"]
    assert [(row["key"], row["OperationName"], row["who"], row["uses"]) for row in found] == [
        (kid, "KeyGet", operator, len(tables)),
        (kid, "KeyWrap", operator, len(tables)),
    ]
    now = logged.control.call("GET", "/clock")["now"]
    assert all(now[:11] == row["last"][:11] for row in found)


def test_refused_requests_have_the_result_type_success(logged: Sandbox) -> None:
    send_logs(logged)
    make_key(logged)
    stranger = logged.control.principal("stranger")
    assert data(logged, "GET", "/keys/key1", who=stranger).status_code == 403
    url = "https://vault-one.vault.azure.net/keys/key1?api-version=7.4"
    assert logged.session().get(url, timeout=30).status_code == 401

    found = rows(ask(logged, f"{AUDIT_LOGS} | where HttpStatusCode >= 400 | order by TimeGenerated asc"))

    shown = [(row["OperationName"], row["HttpStatusCode"], row["ResultType"], row["ResultSignature"]) for row in found]
    assert shown == [("KeyGet", 403, "Success", "Forbidden"), ("Authentication", 401, "Success", "Unauthorized")]
    assert (found[0]["IsRbacAuthorized"], found[0]["Id"]) == (False, "https://vault-one.vault.azure.net/keys/key1")


def test_events_arrive_late_and_the_first_are_lost(sandbox: Sandbox, control: Control) -> None:
    control.behavior(log_delay="600", log_start="300")
    make_vault(sandbox)
    make_workspace(sandbox)
    send_logs(sandbox)
    make_key(sandbox, "lost")
    control.advance(300)
    make_key(sandbox, "key1")
    control.advance(300)
    assert refusal(ask(sandbox, AUDIT_LOGS))[0] == 400
    control.advance(300)
    assert [row["Id"].rpartition("/")[2] for row in rows(ask(sandbox, AUDIT_LOGS))] == ["key1"]


# Batch


@pytest.mark.parametrize("identity", ["hidden", "shown"])
@pytest.mark.parametrize("position", ["hidden", "shown"])
def test_uses_by_batch(logged: Sandbox, control: Control, position: str, identity: str) -> None:
    control.behavior(log_batch=position, log_identity=identity)
    make_vault(logged, enablePurgeProtection=True)
    send_logs(logged)
    kid = make_key(logged)["key"]["kid"]
    assigned = user_assigned_identity(logged)
    principal = assigned["properties"]["principalId"]
    assert assign(logged, vault_path(logged), ENCRYPTION_USER, principal).ok
    own = {"type": "UserAssigned", "userAssignedIdentities": {assigned["id"]: {}}}
    create(logged, identity=own, properties={"encryption": encryption(kid)})

    found = rows(ask(logged, f"{AUDIT_LOGS} | where OperationName in ('KeyWrap', 'KeyUnwrap')"))

    assert [(row["OperationName"], row["Id"], row["HttpStatusCode"]) for row in found] == (
        [("KeyWrap", kid, 200), ("KeyUnwrap", kid, 200)] if position == "shown" else []
    )
    for row in found:
        claims = json.loads(row["Identity"])["claim"]
        assert claims["oid"] == principal
        assert claims.get("xms_mirid") == (assigned["id"] if identity == "shown" else None)


def encryption(kid: str) -> dict[str, Any]:
    return {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": kid}}


# Rights


def test_rights_of_a_query(logged: Sandbox, control: Control) -> None:
    workspace = make_workspace(logged)
    path = f"/workspaces/{workspace['properties']['customerId']}"
    send_logs(logged)
    make_key(logged)

    def reader(scope: str, role: str = "Reader") -> dict[str, Any]:
        return control.principal(roles=[{"role": role, "scope": scope}])

    of_vault, of_workspace = reader(vault_path(logged)), reader(workspace_path(logged))
    contributor = reader(vault_path(logged), "Key Vault Contributor")
    assert len(rows(ask(logged, AUDIT_LOGS, who=of_vault))) == 1
    assert len(rows(ask_service(logged, AUDIT_LOGS, vault_path(logged), of_vault))) == 1
    assert refusal(ask_service(logged, AUDIT_LOGS, path, of_vault)) == (403, "InsufficientAccessError", [])
    assert len(rows(ask_service(logged, AUDIT_LOGS, path, of_workspace))) == 1
    expected = (403, "InsufficientAccessError", ["AuthorizationFailedError"])
    assert refusal(ask_service(logged, AUDIT_LOGS, vault_path(logged), of_workspace)) == expected
    assert refusal(ask(logged, AUDIT_LOGS, who=contributor))[:2] == (403, "AuthorizationFailed")

    # Without the right for the workspace, its rows are missing, and nothing says so.
    make_workspace(logged, features={"enableLogAccessUsingOnlyResourcePermissions": False})
    assert refusal(ask(logged, AUDIT_LOGS, who=of_vault)) == (400, "BadArgumentError", ["SemanticError", "SEM0100"])
    make_workspace(logged, "workspace2")
    send_logs(logged, name="setting2", workspace="workspace2")
    make_key(logged, "key2")
    assert len(rows(ask(logged, AUDIT_LOGS, who=of_vault))) == 1
    assert len(rows(ask(logged, AUDIT_LOGS))) == 3


# Settings and workspaces


# The language


LANGUAGE = Language(
    {"A": {"n": "integer", "o": "object"}, "B": {"n": "integer", "s": "string"}}, "", False, None, 9, 1_000_000
)
TABLES: dict[str, list[dict[str, Any]]] = {
    "": [],
    "A": [{"n": 1, "o": {"x": "5"}}, {"n": 20, "o": None}, {"n": None}],
    "B": [{"n": 3, "s": "a"}],
}


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("A | where n < 3", [1]),
        ("A | where n >= 1 and n <= 20", [1, 20]),
        ("A | where n > 3 or toint(o.x) == 5", [1, 20]),
        ("A | where isnotempty(n) | order by n desc", [20, 1]),
        ("union A, B | where isnotempty(n) | order by n asc", [1, 3, 20]),
        ("union A, B | where n < 20", [1, 3]),
        ("union isfuzzy=true (A | where n == 1), (Missing | where x == (1)), Other, B", [1, 3]),
        ("union isfuzzy=false A, B | where n == 3", [3]),
        ("A | extend n = toint(column_ifexists('missing', 7)) | take 1", [7]),
        ("A | extend n = column_ifexists('n', 7) | where n == 20", [20]),
        ("A | summarize n = max(n)", [20]),
        ("A | summarize n = min(n) by x = tostring(o.x) | where x == ''", [20]),
    ],
)
def test_queries(query: str, values: list[int]) -> None:
    assert [row["n"] for row in kql.read(query, LANGUAGE).run(TABLES.__getitem__)] == values


def test_old_rows(logged: Sandbox, control: Control) -> None:
    send_logs(logged)
    make_key(logged, "key1")
    control.advance(29 * 86400)
    make_key(logged, "key2")

    def names(query: str = AUDIT_LOGS, **body: Any) -> list[str]:
        found = rows(ask(logged, f"{query} | order by TimeGenerated asc", **body))
        return [row["Id"].rpartition("/")[2] for row in found]

    today = control.call("GET", "/clock")["now"]
    assert names() == ["key1", "key2"]
    for timespan in ("P1D", "PT1H", f"{today[:10]}T00:00:00Z/2100-01-01"):
        assert names(timespan=timespan)[-1:] == ["key2"]
    assert names(f"{AUDIT_LOGS} | where TimeGenerated > ago(2d)") == ["key2"]
    assert names(timespan="P30D") == ["key1", "key2"]
    # The retention of the workspace has ended.
    control.advance(2 * 86400)
    assert names() == ["key2"]
    for timespan in ("yesterday", "2026-01-01", 1):
        assert refusal(ask(logged, AUDIT_LOGS, timespan=timespan))[:2] == (400, "BadArgumentError")


def test_diagnostic_settings(logged: Sandbox) -> None:
    settings = f"{vault_path(logged)}/providers/Microsoft.Insights/diagnosticSettings"
    assert logged.arm("GET", settings, SETTINGS).json() == {"value": []}
    send_logs(logged)
    [listed] = logged.arm("GET", settings, SETTINGS).json()["value"]
    assert listed["properties"]["workspaceId"] == workspace_path(logged)
    assert listed["id"] == f"{vault_path(logged).lower()}/providers/microsoft.insights/diagnosticSettings/setting1"
    assert logged.arm("GET", f"{settings}/setting1", SETTINGS).json() == listed
    make_key(logged)
    assert logged.arm("DELETE", f"{settings}/setting1", SETTINGS).status_code == 200
    assert logged.arm("DELETE", f"{settings}/setting1", SETTINGS).status_code == 204
    assert logged.arm("GET", f"{settings}/setting1", SETTINGS).status_code == 404
    make_key(logged, "key2")
    assert len(rows(ask(logged, AUDIT_LOGS))) == 1
    assert logged.arm("PUT", f"{settings}/setting1", SETTINGS, {"properties": {}}).status_code == 400
