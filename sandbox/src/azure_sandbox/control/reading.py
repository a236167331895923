# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Members of a body of the control API, each of the kind that it has to be, and what is answered otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..shared.web import AzureError

# A hundred years: moments that are calculated from it can still be written as dates.
LONGEST = 100 * 365 * 86400


def text(document: Mapping[str, Any], name: str) -> str:
    """Empty where there is none."""
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_request(f"{name} is text")
    return value or ""


def needed(document: Mapping[str, Any], name: str) -> str:
    value = text(document, name)
    if not value:
        raise bad_request(f"{name} is missing")
    return value


def is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LONGEST <= value <= LONGEST


def seconds(document: Mapping[str, Any], name: str, default: float) -> float:
    value = document.get(name)
    if value is not None and not is_seconds(value):
        raise bad_request(f"{name} is a number of seconds, up to {LONGEST}")
    return default if value is None else float(value)


def objects(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    values = document.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise bad_request(f"{name} is a list of objects")
    return values


# Refusals


def bad_request(message: str) -> AzureError:
    return AzureError(400, {"error": {"code": "BadRequest", "message": message}})


def other_site(asked_by: str) -> AzureError:
    message = f"This API is for programs on this machine and for its own page, not for other web sites ({asked_by})."
    return AzureError(403, {"error": {"code": "OtherSite", "message": message}})


def not_found(message: str) -> AzureError:
    return AzureError(404, {"error": {"code": "NotFound", "message": message}})


def method_not_allowed(methods: set[str]) -> AzureError:
    allowed = ", ".join(sorted(methods))
    return AzureError(
        405, {"error": {"code": "MethodNotAllowed", "message": f"It takes {allowed}."}}, {"allow": allowed}
    )
