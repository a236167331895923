# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Diagnostic settings, workspaces, and queries of logs, over HTTP: in Resource Manager and in Log Analytics."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any, Protocol

from starlette.responses import Response

from ..entra.rules import Directory
from ..shared import web
from ..shared.errors import invalid_request_content, location_required, resource_not_found
from ..shared.kql import Problem, Row
from ..shared.resource import read_tags
from ..shared.timing import iso
from ..shared.web import Route, answer
from . import errors, rules
from .rules import READ_LOGS, Monitor, Setting, Workspace


class World(rules.World, Protocol):
    directory: Directory
    monitor: Monitor


Call = web.Call[World]


def _properties(call: Call) -> dict[str, Any]:
    properties = call.json.get("properties") or {}
    if not isinstance(properties, dict):
        raise invalid_request_content("The value of 'properties' must be an object")
    return properties


# Diagnostic settings

_TARGETS = ("storageAccountId", "serviceBusRuleId", "workspaceId", "eventHubAuthorizationRuleId", "eventHubName")


def _resource(call: Call) -> str:
    return f"/{call.path['scope'].strip('/')}"


def _setting_document(setting: Setting) -> dict[str, Any]:
    place = f"{setting.resource_id}/providers/Microsoft.Insights".lower()
    sent = setting.properties
    return {
        "id": f"{place}/diagnosticSettings/{setting.name}",
        "type": "Microsoft.Insights/diagnosticSettings",
        "name": setting.name,
        "location": None,
        "kind": None,
        "tags": None,
        "properties": {
            **{name: sent.get(name) for name in _TARGETS},
            "metrics": sent.get("metrics") or [],
            "logs": sent.get("logs") or [],
            "logAnalyticsDestinationType": sent.get("logAnalyticsDestinationType"),
        },
        "identity": None,
    }


def list_settings(call: Call) -> Response:
    return answer({"value": [_setting_document(one) for one in call.world.monitor.settings(_resource(call))]})


def put_setting(call: Call) -> Response:
    properties = _properties(call)
    if not any(isinstance(properties.get(name), str) for name in _TARGETS):
        raise invalid_request_content("A diagnostic setting needs a destination")
    return answer(_setting_document(call.world.monitor.put_setting(_resource(call), call.path["name"], properties)))


def get_setting(call: Call) -> Response:
    setting = call.world.monitor.setting(_resource(call), call.path["name"])
    if setting is None:
        raise resource_not_found("Microsoft.Insights/diagnosticSettings", call.path["name"], _resource(call))
    return answer(_setting_document(setting))


def delete_setting(call: Call) -> Response:
    existed = call.world.monitor.delete_setting(_resource(call), call.path["name"])
    return answer(status=200 if existed else 204)


# Workspaces


def _workspace_id(call: Call) -> str:
    path = call.path
    group = f"/subscriptions/{path['subscription']}/resourceGroups/{path['group']}"
    return f"{group}/providers/Microsoft.OperationalInsights/workspaces/{path['workspace']}"


def _workspace_document(call: Call, workspace: Workspace, state: str = "Succeeded") -> dict[str, Any]:
    tomorrow = iso(call.world.clock.now() + timedelta(days=1), 0)[:10]
    return {
        "properties": {
            "customerId": workspace.customer_id,
            "provisioningState": state,
            "sku": {"name": workspace.sku, "lastSkuUpdate": workspace.created},
            "retentionInDays": workspace.retention_days,
            "features": {
                "legacy": 0,
                "searchVersion": 1,
                "enableLogAccessUsingOnlyResourcePermissions": workspace.by_resource,
            },
            "workspaceCapping": {
                "dailyQuotaGb": -1.0,
                "quotaNextResetTime": f"{tomorrow}T04:00:00Z",
                "dataIngestionStatus": "RespectQuota",
            },
            "publicNetworkAccessForIngestion": "Enabled",
            "publicNetworkAccessForQuery": "Enabled",
            "createdDate": workspace.created,
            "modifiedDate": workspace.modified,
        },
        "location": workspace.location,
        **({"tags": workspace.tags} if workspace.tags else {}),
        "id": workspace.id,
        "name": workspace.name,
        "type": rules.WORKSPACE,
    }


def put_workspace(call: Call) -> Response:
    location = call.json.get("location")
    if not isinstance(location, str) or not location:
        raise location_required()
    tags = read_tags(call.json.get("tags"))
    workspace, new = call.world.monitor.put_workspace(_workspace_id(call), location, _properties(call))
    workspace.tags = tags
    if not new:
        return answer(_workspace_document(call, workspace))
    link = f"https://{call.host}{workspace.id}?api-version={call.api_version}"
    return answer(_workspace_document(call, workspace, "Creating"), 201, {"location": link})


def _workspace(call: Call) -> Workspace:
    workspace = call.world.monitor.workspace(_workspace_id(call))
    if workspace is None:
        raise resource_not_found(rules.WORKSPACE, call.path["workspace"], call.path["group"])
    return workspace


def get_workspace(call: Call) -> Response:
    return answer(_workspace_document(call, _workspace(call)))


def delete_workspace(call: Call) -> Response:
    return answer(status=200 if call.world.monitor.delete_workspace(_workspace_id(call)) else 204)


# Queries

_OUTPUT_TYPES = {"object": "dynamic", "boolean": "bool", "integer": "long"}
_DURATION = re.compile(r"P(?:(\d{1,6})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,9})(?:\.\d+)?S)?)?")
_FIRST, _LAST = "", "9"


def query_resource_logs(call: Call) -> Response:
    """The logs of a resource, by Resource Manager."""
    return resource_logs(call, _resource(call))


def resource_logs(call: Call, resource_id: str) -> Response:
    assert call.caller is not None
    rows = call.world.monitor.of_resource(call.caller, resource_id)
    if rows is None:
        raise errors.no_access_to_logs(call.caller.object_id)
    return _results(call, rows)


def workspace_logs(call: Call, workspace: Workspace) -> Response:
    assert call.caller is not None
    rows = call.world.monitor.of_workspace(call.caller, workspace)
    if rows is None:
        raise errors.insufficient_access()
    return _results(call, rows)


def _results(call: Call, rows: list[tuple[str, Row]]) -> Response:
    text = call.json.get("query")
    if not isinstance(text, str):
        raise errors.invalid_property("query")
    since, until = _timespan(call)
    try:
        query, found = call.world.monitor.query(text, rows, since, until)
    except Problem as problem:
        raise errors.bad_query(problem) from problem
    columns = [{"name": name, "type": _OUTPUT_TYPES.get(kind, kind)} for name, kind in query.columns.items()]
    values = [[_value(value) for value in row.values()] for row in found]
    return answer({"tables": [{"name": "PrimaryResult", "columns": columns, "rows": values}]})


def _value(value: Any) -> Any:
    """A dynamic value is JSON in a string."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _timespan(call: Call) -> tuple[str, str]:
    """The first and the last time of the rows: all times, an ISO 8601 duration until now, or two times."""
    text = call.json.get("timespan")
    if text is None:
        return _FIRST, _LAST
    if not isinstance(text, str):
        raise errors.invalid_property("timespan")
    if found := _DURATION.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        now = call.world.clock.now()
        return (iso(now - span) if span < now - datetime(1970, 1, 1, tzinfo=now.tzinfo) else _FIRST), _LAST
    since, _slash, until = text.partition("/")
    try:
        return iso(datetime.fromisoformat(since)), iso(datetime.fromisoformat(until))
    except ValueError as error:
        raise errors.invalid_property("timespan") from error


PROVIDER = "Microsoft.Insights"
API_VERSIONS = frozenset({"2017-05-01-preview", "2018-03-01-preview", "2021-05-01-preview"})
_SETTINGS = "/{scope:path}/providers/Microsoft.Insights/diagnosticSettings"
_SETTING = _SETTINGS + "/{name}"
_ACTION = "Microsoft.Insights/diagnosticSettings/"

ROUTES: tuple[Route, ...] = (
    Route("GET", _SETTINGS, list_settings, _ACTION + "read"),
    Route("GET", _SETTING, get_setting, _ACTION + "read"),
    Route("PUT", _SETTING, put_setting, _ACTION + "write"),
    Route("DELETE", _SETTING, delete_setting, _ACTION + "delete"),
    Route("POST", "/{scope:path}/providers/Microsoft.Insights/logs", query_resource_logs, READ_LOGS),
)

WORKSPACE_PROVIDER = "Microsoft.OperationalInsights"
WORKSPACE_API_VERSIONS = frozenset({"2020-08-01", "2021-12-01-preview", "2022-10-01", "2023-09-01", "2025-02-01"})
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
_WORKSPACE = f"{_GROUP}/providers/{WORKSPACE_PROVIDER}/workspaces/{{workspace}}"

WORKSPACE_ROUTES: tuple[Route, ...] = (
    Route("GET", _WORKSPACE, get_workspace, f"{rules.WORKSPACE}/read"),
    Route("PUT", _WORKSPACE, put_workspace, f"{rules.WORKSPACE}/write"),
    Route("DELETE", _WORKSPACE, delete_workspace, f"{rules.WORKSPACE}/delete"),
)
