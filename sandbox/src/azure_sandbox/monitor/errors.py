# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of Log Analytics."""

from __future__ import annotations

import uuid
from typing import Any

from ..shared.kql import NotInSandbox, Problem, SyntaxProblem, UnknownColumn, UnknownTable
from ..shared.web import AzureError


def _error(status: int, code: str, message: str, inner: dict[str, Any] | None = None) -> AzureError:
    error: dict[str, Any] = {"message": message, "code": code, "correlationId": str(uuid.uuid4())}
    return AzureError(status, {"error": {**error, **({"innererror": inner} if inner else {})}})


def unauthenticated(code: str, message: str) -> AzureError:
    return _error(401, code, message)


def insufficient_access(inner: str = "") -> AzureError:
    message = "The provided credentials have insufficient access to perform the requested operation"
    details = {"code": "AuthorizationFailedError", "message": inner} if inner else None
    return _error(403, "InsufficientAccessError", message, details)


def no_access_to_logs(object_id: str) -> AzureError:
    return insufficient_access(f"User '{object_id}' does not have access to read logs for this resource")


def no_such_path() -> AzureError:
    return _error(404, "PathNotFoundError", "The requested path does not exist")


def no_such_resource(resource_id: str) -> AzureError:
    inner = {"code": "FailedToResolveResourceError", "message": f"Unable to resolve resource: {resource_id}"}
    return _error(404, "ItemNotFoundError", "The requested item was not found", inner)


def invalid_property(name: str) -> AzureError:
    return _bad_argument("ValidationError", f"The value of '{name}' is invalid.", {})


def bad_query(problem: Problem) -> AzureError:
    if isinstance(problem, SyntaxProblem):
        place = f"[{problem.line},{problem.column}]"
        inner = {"code": "SYN0002", "message": f"Query could not be parsed at '{problem.token}' on line {place}"}
        return _bad_argument("SyntaxError", "A recognition error occurred in the query.", inner)
    if isinstance(problem, UnknownTable):
        kind = "column or scalar" if isinstance(problem, UnknownColumn) else "table or column"
        operator = f"'{problem.operator}' operator: " if problem.operator else ""
        message = f"{operator}Failed to resolve {kind} expression named '{problem.name}'"
        return _bad_argument("SemanticError", "A semantic error occurred.", {"code": "SEM0100", "message": message})
    assert isinstance(problem, NotInSandbox)
    return _bad_argument("NotInSandbox", str(problem), {})


def _bad_argument(code: str, message: str, inner: dict[str, Any]) -> AzureError:
    details = {"code": code, "message": message, **({"innererror": inner} if inner else {})}
    return _error(400, "BadArgumentError", "The request had some invalid properties", details)
