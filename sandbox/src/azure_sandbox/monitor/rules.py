# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Diagnostic settings, workspaces with the rows that they have received, and queries of these rows."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..authorization.rules import Authorization, covers
from ..resource_manager.rules import Resource, Resources
from ..shared import kql
from ..shared import world as shared
from ..shared.kql import Language, Query, Row
from ..shared.resource import tidy_location
from ..shared.world import Principal
from .tables import AUDIT_LOGS, DIAGNOSTICS, Event, column_type

WORKSPACE = "Microsoft.OperationalInsights/workspaces"
QUERY = f"{WORKSPACE}/query/read"
READ_LOGS = "Microsoft.Insights/logs/read"
_AUDIT_CATEGORIES = {("category", "auditevent"), ("categoryGroup", "audit"), ("categoryGroup", "alllogs")}
# Of a workspace. The oldest rows are deleted first.
MOST_ROWS = 20_000
_DAY = 86400


@dataclass
class Workspace:
    id: str
    location: str
    created: str
    customer_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    sku: str = "PerGB2018"
    retention_days: int = 30
    # Whether a caller who may read a resource may read its logs without a right on the workspace.
    by_resource: bool = True
    modified: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    # Each with its table and the time of the event.
    rows: deque[tuple[str, float, Row]] = field(default_factory=lambda: deque(maxlen=MOST_ROWS))

    @property
    def name(self) -> str:
        return self.id.rpartition("/")[2]


@dataclass(frozen=True)
class Setting:
    resource_id: str
    name: str
    properties: dict[str, Any]
    created: float

    @property
    def workspace_id(self) -> str:
        return str(self.properties.get("workspaceId") or "").lower()

    @property
    def table(self) -> str:
        return AUDIT_LOGS if self.properties.get("logAnalyticsDestinationType") == "Dedicated" else DIAGNOSTICS

    @property
    def has_audit_events(self) -> bool:
        logs = self.properties.get("logs")
        return any(
            (kind, str(one.get(kind)).lower()) in _AUDIT_CATEGORIES
            for one in (logs if isinstance(logs, list) else ())
            if isinstance(one, dict) and one.get("enabled") is True
            for kind in ("category", "categoryGroup")
        )


class World(shared.World, Protocol):
    authorization: Authorization
    resources: Resources


@dataclass
class Monitor:
    world: World
    # By id in lower case.
    _workspaces: dict[str, Workspace] = field(default_factory=dict)
    # By the id of the resource and the name, in lower case.
    _settings: dict[tuple[str, str], Setting] = field(default_factory=dict)

    # Workspaces

    def put_workspace(self, resource_id: str, location: str, properties: dict[str, Any]) -> tuple[Workspace, bool]:
        """Create or change a workspace. Returns the workspace, and whether it is new."""
        now, key = self.world.clock.iso(), resource_id.lower()
        new = key not in self._workspaces
        workspace = self._workspaces.setdefault(key, Workspace(resource_id, tidy_location(location), now))
        workspace.modified = now
        features, days = properties.get("features"), properties.get("retentionInDays")
        if isinstance(features, dict):
            only = features.get("enableLogAccessUsingOnlyResourcePermissions")
            workspace.by_resource = workspace.by_resource if only is None else bool(only)
        if isinstance(days, int):
            workspace.retention_days = days
        return workspace, new

    def workspace(self, resource_id: str) -> Workspace | None:
        return self._workspaces.get(resource_id.lower())

    def by_customer_id(self, customer_id: str) -> Workspace | None:
        return next((one for one in self._workspaces.values() if one.customer_id == customer_id.lower()), None)

    def delete_workspace(self, resource_id: str) -> bool:
        """Returns whether the workspace existed."""
        return self._workspaces.pop(resource_id.lower(), None) is not None

    def contents(self, subscription: str) -> Iterator[Resource]:
        for one in self._workspaces.values():
            if one.id.split("/")[2].lower() == subscription.lower():
                yield Resource(one.id, one.name, WORKSPACE, one.location, one.tags)

    def properties(self, resource_id: str) -> dict[str, Any] | None:
        workspace = self.workspace(resource_id)
        return None if workspace is None else {"customerId": workspace.customer_id}

    def drop(self, resource: Resource) -> None:
        self.delete_workspace(resource.id)

    # Diagnostic settings

    def put_setting(self, resource_id: str, name: str, properties: dict[str, Any]) -> Setting:
        key = (resource_id.lower(), name.lower())
        setting = self._settings[key] = Setting(resource_id, name, properties, self.world.clock.time())
        return setting

    def settings(self, resource_id: str) -> list[Setting]:
        return [one for (held, _name), one in self._settings.items() if held == resource_id.lower()]

    def setting(self, resource_id: str, name: str) -> Setting | None:
        return self._settings.get((resource_id.lower(), name.lower()))

    def delete_setting(self, resource_id: str, name: str) -> bool:
        """Returns whether the setting existed."""
        return self._settings.pop((resource_id.lower(), name.lower()), None) is not None

    # Events

    def record(self, vault_id: str, event: Callable[[], Event]) -> None:
        """Send an event of a vault to the workspaces of its diagnostic settings. The event is made only if needed."""
        if not self._settings:
            return
        now = self.world.clock.time()
        for setting in self.settings(vault_id):
            workspace = self._workspaces.get(setting.workspace_id)
            # Azure does not record the events of the first minutes.
            is_active = now >= setting.created + float(self.world.behavior.log_start)
            if workspace is not None and setting.has_audit_events and is_active:
                made, table = event(), setting.table
                row = (made.audit_log if table == AUDIT_LOGS else made.diagnostics)(workspace.customer_id)
                workspace.rows.append((table, now, row))

    # Queries

    def of_workspace(self, caller: Principal, workspace: Workspace) -> list[tuple[str, Row]] | None:
        """The rows of a workspace with their tables; None if the caller may not query the workspace."""
        if not self.world.authorization.allows(caller, QUERY, workspace.id):
            return None
        return [*self._shown(workspace)]

    def of_resource(self, caller: Principal, resource_id: str) -> list[tuple[str, Row]] | None:
        """The rows of a resource, or of a scope above resources, in all workspaces; None if the caller may not read the
        logs of the resource. Workspaces that the caller may not read are omitted, as Azure does."""
        may = self.world.authorization.reader(caller)
        if not may(READ_LOGS, resource_id):
            return None
        readable = [one for one in self._workspaces.values() if one.by_resource or may(QUERY, one.id)]
        return [
            (table, row)
            for workspace in readable
            for table, row in self._shown(workspace)
            if covers(resource_id, row["_ResourceId"])
        ]

    def _shown(self, workspace: Workspace) -> Iterator[tuple[str, Row]]:
        """The rows that have arrived and that are not older than the retention period."""
        now = self.world.clock.time()
        latest, oldest = now - float(self.world.behavior.log_delay), now - workspace.retention_days * _DAY
        return ((table, row) for table, at, row in workspace.rows if oldest < at <= latest)

    def query(self, text: str, rows: Sequence[tuple[str, Row]], since: str, until: str) -> tuple[Query, list[Row]]:
        """Run a query on rows whose time is between two times. Raises Problem. A table or column without any row does
        not exist."""
        tables: dict[str, dict[str, str]] = {}
        for table, row in rows:
            tables.setdefault(table, {}).update((name, column_type(name)) for name in row)
        query = kql.read(text, Language(tables, "", False, None, len(rows) + 100, self.world.clock.time()))

        def of(name: str) -> Iterable[Row]:
            return (row for table, row in rows if table == name and since <= row["TimeGenerated"] <= until)

        return query, query.run(of)
