# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource Graph: queries, the rows that a caller can read, pages, the quota, and rows that lag behind writes."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from batch_calls import batch, create
from key_vault_calls import make_vault
from sandbox_client import Control, Sandbox

from azure_sandbox.resource_graph.query import Row, read
from azure_sandbox.resource_graph.rules import QUERIES

VERSION = "2024-04-01"
ALL = "order by id asc"


def ask(sandbox: Sandbox, query: str, session: requests.Session | None = None, **body: Any) -> requests.Response:
    path = "/providers/Microsoft.ResourceGraph/resources"
    return sandbox.arm("POST", path, VERSION, {"query": query, **body}, session)


def rows(sandbox: Sandbox, query: str, session: requests.Session | None = None, **body: Any) -> list[dict[str, Any]]:
    response = ask(sandbox, query, session, **body)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def names(sandbox: Sandbox, query: str, session: requests.Session | None = None) -> list[str]:
    return [row["name"] for row in rows(sandbox, query, session)]


def add(sandbox: Sandbox, kind: str, name: str, properties: dict[str, Any], group: str = "") -> dict[str, Any]:
    resource_id = f"{group or sandbox.group}/providers/{kind}/{name}"
    document = {"id": resource_id, "location": "westeurope", "properties": properties}
    added: dict[str, Any] = sandbox.control.call("POST", "/other-resources", document, 201)
    return added


def refusal(response: requests.Response) -> tuple[int, str, list[str]]:
    """The status, the code and the codes of the details."""
    error = response.json()["error"]
    assert f"correlationId = {response.headers['x-ms-correlation-request-id']}." in error["message"]
    return response.status_code, error["code"], [detail["code"] for detail in error["details"]]


# Quota


def test_quota(sandbox: Sandbox, control: Control) -> None:
    """The response is that of recordings/next/go-2023-02-resource-graph-throttled."""
    control.timing(throttling=True)
    responses = [ask(sandbox, "project id") for _ in range(QUERIES + 1)]
    while (refused := responses[-1]).ok:
        # The queries have taken more than five seconds.
        responses.append(ask(sandbox, "project id"))

    remaining = [response.headers["x-ms-user-quota-remaining"] for response in responses[-QUERIES - 1 :]]
    assert remaining == [*map(str, range(QUERIES - 1, -1, -1)), "0"]
    assert refusal(refused) == (429, "RateLimiting", ["RateLimiting"])
    assert refused.headers["retry-after"] == "2"
    assert refused.headers["x-ms-user-quota-remaining"] == "0"
    other = control.principal(roles=[{"role": "Reader", "scope": sandbox.subscription}])
    assert ask(sandbox, "project id", sandbox.bearer(client_id=other["client_id"], secret=other["secret"])).ok
    control.advance(5)
    assert ask(sandbox, "project id").headers["x-ms-user-quota-remaining"] == "14"


# Late rows


@pytest.mark.parametrize(("position", "shown_after"), [("600", 600), ("never", None)])
def test_rows_lag_behind_writes(sandbox: Sandbox, control: Control, position: str, shown_after: float | None) -> None:
    create(sandbox, "account1", tags={"number": "1"})
    server = add(sandbox, "Microsoft.Sql/servers", "other0", {"keyId": "1"})
    control.behavior(graph_lag=position)
    before = rows(sandbox, ALL)

    assert batch(sandbox, "PATCH", "account1", {"tags": {"number": "2"}}).ok
    create(sandbox, "account2")
    make_vault(sandbox)
    add(sandbox, "Microsoft.Sql/servers", "other0", {"keyId": "2"})
    control.advance(300)
    assert rows(sandbox, ALL) == before
    # Reads of Resource Manager do not lag.
    assert batch(sandbox, "GET", "account1").json()["tags"] == {"number": "2"}

    control.advance(600)
    after = rows(sandbox, ALL)
    if shown_after is None:
        assert after == before
        return
    assert [row["name"] for row in after] == ["account1", "account2", "Vault-One", "other0"]
    assert (after[0]["tags"], after[-1]["properties"]) == ({"number": "2"}, {"keyId": "2"})
    control.call("DELETE", f"/other-resources?id={server['id']}")
    assert "other0" in names(sandbox, "project name")
    control.advance(600)
    assert "other0" not in names(sandbox, "project name")


# The language

ROWS: list[Row] = [
    {"id": "1", "name": "One", "type": "a/b", "properties": {"x": {"y": "Deep"}, "list": ["é"]}},
    {"id": "2", "name": "Two", "type": "a/c", "properties": {}},
    {"id": "3", "name": "it's", "type": "a/c", "properties": None},
]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("resources", "123"),
        ("where name == 'One'", "1"),
        ("where name == 'one'", ""),
        ("Resources | where name =~ 'ONE'", "1"),
        ("where name != 'One' and not(type == 'a/b')", "23"),
        ("where name == 'it\\'s'", "3"),
        ("where properties contains 'deep'", "1"),
        ('where tostring(properties) contains \'{"x":{"y":"Deep"},"list":["é"]}\'', "1"),
        ("where not(tostring(properties) contains 'DEEP')", "23"),
        ("where name startswith 't' or type == 'a/b'", "12"),
        ("where (type == 'a/b' or type == 'a/c') and (name == 'Two')", "2"),
        ("extend kind = tostring(name) | where kind == 'Two' | project id, name", "2"),
        ("order by name asc", "123"),
        ("distinct id", "123"),
    ],
)
def test_queries(query: str, ids: str) -> None:
    assert "".join(row["id"] for row in read(query).run(ROWS)) == ids


def test_refused_query(sandbox: Sandbox) -> None:
    assert refusal(ask(sandbox, "project other")) == (400, "BadRequest", ["InvalidQuery", "SemanticError"])
    assert refusal(ask(sandbox, "")) == (400, "BadRequest", ["EmptyQuery"])
    for scope in ({"subscriptions": ["x"]}, {"subscriptions": [sandbox.subscription_id], "managementGroups": ["x"]}):
        assert refusal(ask(sandbox, "project id", **scope))[:2] == (400, "BadRequest")
