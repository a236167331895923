# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role assignments in check mode, and reads of Microsoft.Authorization at a resource that exists only in the picture.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from typing import Any

from .._core.ids import within
from .picture import Entry, Picture
from .rehearsed_vaults import RehearsedVaults
from .responses import Call, Response, completed

_PROVIDER = "/providers/Microsoft.Authorization"
_LIST = re.compile(rf"(/.+?){_PROVIDER}/roleAssignments", re.IGNORECASE)
_ASSIGNMENT = re.compile(rf"(/.+?){_PROVIDER}/roleAssignments/([^/]+)", re.IGNORECASE)
_OTHER = re.compile(rf"(/.+?)({_PROVIDER}/(?:permissions|roleDefinitions.*))", re.IGNORECASE)
_HOLDER = re.compile(r"(?:assignedTo\(|principalId eq )'([^']+)'", re.IGNORECASE)
_OF_VAULT = re.compile(r"(/subscriptions/[^/]+/resourceGroups/[^/]+)/providers/Microsoft.KeyVault/vaults/([^/]+)", re.I)
_OF_ACCOUNT = re.compile(
    r"((/subscriptions/[^/]+/resourceGroups/[^/]+)/providers/Microsoft.Batch/batchAccounts/[^/]+)", re.I
)
_KIND = "role assignment"


class RehearsedAccess:
    """An entry has the assignment's `document`, which is None once the assignment is deleted, and `made`, which is
    true if the assignment was created in the picture."""

    def __init__(self, picture: Picture, vaults: RehearsedVaults) -> None:
        self._picture = picture
        self._vaults = vaults

    def response(self, call: Call) -> Response | None:
        if found := _ASSIGNMENT.fullmatch(call.path):
            return self._of_assignment(call, found[1], found[2])
        if call.method != "GET":
            return None
        if found := _LIST.fullmatch(call.path):
            return self._listed(call, found[1])
        if (found := _OTHER.fullmatch(call.path)) and (parent := self._parent(found[1])):
            return self._at(call, parent, found[2])
        return None

    def _of_assignment(self, call: Call, scope: str, name: str) -> Response | None:
        current = self._read(call)
        if call.method == "GET":
            return current
        if call.method == "PUT":
            if current.status == 200:
                message = "The role assignment already exists."
                return Response(409, {"error": {"code": "RoleAssignmentExists", "message": message}})
            assignment: dict[str, Any] = {
                "properties": {"scope": scope, **call.body["properties"]},
                "id": call.path,
                "type": "Microsoft.Authorization/roleAssignments",
                "name": name,
            }
            self._put(scope, call.path, {"document": assignment, "made": True}, assignment)
            return Response(201, assignment)
        if call.method == "DELETE":
            if current.status == 200:
                self._put(scope, call.path, {"document": None, "made": False}, current.body)
            return current if current.status != 404 else Response(204)
        return None

    def _put(self, scope: str, assignment_id: str, entry: Entry, assignment: dict[str, Any]) -> None:
        self._picture.put(_KIND, assignment_id, entry, place=assignment["properties"]["principalId"])
        if found := _OF_VAULT.match(scope):
            self._vaults.touch(found[2])

    def _read(self, call: Call) -> Response:
        entry = self._picture.all(_KIND).get(call.path.lower())
        if entry is not None:
            return Response(200, entry["document"]) if entry["document"] else Response(404, _NOT_FOUND)
        return Response(404, _NOT_FOUND) if self._parent(call.path) else call.get()

    def _listed(self, call: Call, scope: str) -> Response:
        holder = _HOLDER.search(call.query)
        entries = self._picture.at(_KIND, holder[1]) if holder else self._picture.all(_KIND)
        shown = {
            name: entry
            for name, entry in entries.items()
            if entry["document"] is None or self._is_listed(entry["document"]["properties"], scope, call.query, holder)
        }
        parent = self._parent(scope)
        response = self._at(call, parent, f"{_PROVIDER}/roleAssignments") if parent else call.ask()
        return completed(response, shown, lambda item: str(item["id"]).lower())

    @staticmethod
    def _is_listed(properties: dict[str, Any], scope: str, query: str, holder: re.Match[str] | None) -> bool:
        if holder and properties["principalId"].lower() != holder[1].lower():
            return False
        below = "atscope()" not in query.lower() and within(scope, properties["scope"])
        return below or within(properties["scope"], scope)

    def _parent(self, scope: str) -> str | None:
        """The resource group of a vault or account that does not exist in Azure, or of a vault that has lost its
        role assignments; otherwise None."""
        if found := _OF_VAULT.match(scope):
            return None if self._vaults.has_roles_of_azure(found[2]) else found[1]
        if found := _OF_ACCOUNT.match(scope):
            entry = self._picture.get("account", found[1])
            return found[2] if entry and entry["made"] else None
        return None

    @staticmethod
    def _at(call: Call, scope: str, path: str) -> Response:
        return call.get(f"{scope}{path}")


_NOT_FOUND = {"error": {"code": "RoleAssignmentNotFound", "message": "The role assignment is not found."}}
