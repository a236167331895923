# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The events of a vault as rows of the two tables that a diagnostic setting can write to."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from ..shared.kql import Row
from ..shared.world import Principal

DIAGNOSTICS, AUDIT_LOGS = "AzureDiagnostics", "AZKVAuditLogs"
# https://learn.microsoft.com/azure/azure-monitor/reference/tables/azkvauditlogs
_TYPES = {
    "TimeGenerated": "datetime",
    "Identity": "object",
    "HttpStatusCode": "int",
    "httpStatusCode_d": "real",
    "DurationMs": "int",
    "IsRbacAuthorized": "boolean",
    "IsAccessPolicyMatch": "boolean",
    "isRbacAuthorized_b": "boolean",
    "isAccessPolicyMatch_b": "boolean",
}
_SIGNATURES = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict"}


def column_type(name: str) -> str:
    return _TYPES.get(name, "string")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One request to the data plane of a vault."""

    vault_id: str
    # As in `TimeGenerated`.
    time: str
    operation: str
    # The API version of the request.
    version: str
    status: int
    # The identifier of the key or key version in the request.
    key: str
    request_uri: str
    client: str = ""
    address: str
    correlation_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    # None: the request had no valid token.
    caller: Principal | None
    # Whether the claims show the resource of a managed identity.
    shows_resource: bool
    # Whether the vault uses Azure RBAC, and the role assignment that allowed the request.
    rbac: bool
    assignment: str = ""

    @property
    def claims(self) -> dict[str, str]:
        if self.caller is None:
            return {}
        shown = {"oid": self.caller.object_id, "appid": self.caller.app_id}
        if self.shows_resource and self.caller.resource_id:
            shown["xms_mirid"] = self.caller.resource_id
        return shown

    @property
    def _common(self) -> Row:
        return {
            "TimeGenerated": self.time,
            "OperationName": self.operation,
            "OperationVersion": self.version,
            # Also for refused requests, which differ by the status only.
            "ResultType": "Success",
            "ResultSignature": _SIGNATURES.get(self.status, str(self.status)),
            "DurationMs": 1,
            "CorrelationId": self.correlation_id,
            "_ResourceId": self.vault_id.lower(),
        }

    def audit_log(self, workspace: str) -> Row:
        allowed = 200 <= self.status < 300
        return {
            **self._common,
            "TenantId": workspace,
            "Type": AUDIT_LOGS,
            "CallerIpAddress": self.address,
            "Identity": {"claim": self.claims},
            "Id": self.key,
            "ClientInfo": self.client,
            "RequestUri": self.request_uri,
            "HttpStatusCode": self.status,
            "TlsVersion": "TLS1_3",
            "IsRbacAuthorized": allowed if self.rbac else None,
            "IsAccessPolicyMatch": None if self.rbac else allowed,
            "AppliedAssignmentId": self.assignment,
        }

    def diagnostics(self, workspace: str) -> Row:
        """A column exists only if a row has it, so nothing is empty."""
        _empty, _subscriptions, subscription, _groups, group, *_rest, name = self.vault_id.split("/")
        suffixes = {"oid": "g", "appid": "g", "xms_mirid": "s"}
        matched = "isRbacAuthorized_b" if self.rbac else "isAccessPolicyMatch_b"
        row: dict[str, Any] = {
            **self._common,
            "TenantId": workspace,
            "Type": DIAGNOSTICS,
            "ResourceId": self.vault_id.upper(),
            "Category": "AuditEvent",
            "SubscriptionId": subscription,
            "ResourceGroup": group.upper(),
            "ResourceProvider": "MICROSOFT.KEYVAULT",
            "ResourceType": "VAULTS",
            "Resource": name.upper(),
            "CallerIPAddress": self.address,
            "id_s": self.key,
            "clientInfo_s": self.client,
            "requestUri_s": self.request_uri,
            "httpStatusCode_d": float(self.status),
            "tlsVersion_s": "TLS1_3",
            matched: 200 <= self.status < 300,
            **{f"identity_claim_{name}_{suffixes[name]}": value for name, value in self.claims.items()},
        }
        return {column: value for column, value in row.items() if value != ""}
