# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role assignments in check mode, and reads of Microsoft.Authorization at a resource whose creation is predicted.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..._azure.gateway import Answer
from ..._azure.overlay import Reads, ResourceOverlay, completed, not_predicted, place, refused
from ..._azure.predictions import Entry, Predictions
from ..._core.ids import place_of, within
from ..vault.overlay import VaultsOverlay

_KIND = "role assignment"


class AccessOverlay(ResourceOverlay):
    """An entry has the assignment's `document`, which is None once the assignment is deleted, and `made`, which is
    true if its creation is predicted. `is_made` returns whether the creation of an account is predicted."""

    def __init__(
        self, azure: Reads, predictions: Predictions, vaults: VaultsOverlay, is_made: Callable[[str], bool]
    ) -> None:
        super().__init__(azure)
        self._predictions = predictions
        self._vaults = vaults
        self._is_made = is_made

    def answer(self, what: str, ref: str) -> Answer:
        at = place(ref)
        if at.types == ("roleassignments",):
            entry = self._predictions.all(_KIND).get(ref.lower())
            if entry is not None:
                return Answer(entry["document"])
            return Answer(None) if self._parent(at.scope) else self._azure.answer(what, ref)
        return self._azure.answer(what, self._in_azure(ref))

    def list(self, what: str, ref: str, filter: str | None) -> list[Any]:
        at, filter = place(ref), filter or ""
        listed = self._azure.list(what, self._in_azure(ref), filter)
        if at.types != ("roleassignments",):
            return listed
        holder = filter.partition("assignedTo('")[2].partition("'")[0].lower()
        entries = self._predictions.at(_KIND, holder) if holder else self._predictions.all(_KIND)

        def is_listed(properties: Mapping[str, Any]) -> bool:
            if holder and properties["principalId"].lower() != holder:
                return False
            below = "atscope()" not in filter.lower() and within(at.scope, properties["scope"])
            return below or within(properties["scope"], at.scope)

        shown = {
            name: entry
            for name, entry in entries.items()
            if entry["document"] is None or is_listed(entry["document"]["properties"])
        }
        return completed(listed, shown, lambda item: str(item["id"]).lower())

    def write(self, what: str, method: str, ref: str, body: Mapping[str, Any]) -> Any:
        at = place(ref)
        if at.types != ("roleassignments",) or method not in ("PUT", "DELETE"):
            raise not_predicted(method, ref)
        current = self.answer(what, ref).document
        if method == "DELETE":
            if current is not None:
                self._put(at.scope, ref, {"document": None, "made": False}, current)
            return current
        if current is not None:
            raise refused(what, "RoleAssignmentExists", "The role assignment already exists.")
        assignment = {
            "properties": {"scope": at.scope, **body["properties"]},
            "id": ref,
            "type": "Microsoft.Authorization/roleAssignments",
            "name": at.parts[1],
        }
        self._put(at.scope, ref, {"document": assignment, "made": True}, assignment)
        return assignment

    def _put(self, scope: str, ref: str, entry: Entry, assignment: Mapping[str, Any]) -> None:
        self._predictions.put(_KIND, ref, entry, place=assignment["properties"]["principalId"])
        if place(scope).namespace == "microsoft.keyvault":
            self._vaults.touch(place_of(scope)[2])

    def _in_azure(self, ref: str) -> str:
        """The same ref at a scope that exists in Azure."""
        at = place(ref)
        parent = self._parent(at.scope)
        return f"{parent}{ref[len(at.scope) :]}" if parent else ref

    def _parent(self, scope: str) -> str | None:
        """The resource group of a vault or account that does not exist in Azure, or of a vault that has lost its role
        assignments; otherwise None."""
        at, is_in_azure = place(scope), True
        if at.namespace == "microsoft.keyvault":
            is_in_azure = self._vaults.has_roles_of_azure(place_of(scope)[2])
        elif at.namespace == "microsoft.batch":
            is_in_azure = not self._is_made("/".join(scope.split("/")[:9]))
        return None if is_in_azure else at.scope
