# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Members of a body of the control API, each of the kind that it has to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import errors

# A hundred years: moments that are calculated from it can still be written as dates.
LONGEST = 100 * 365 * 86400


def text(document: Mapping[str, Any], name: str) -> str:
    """Empty where there is none."""
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise errors.bad_request(f"{name} is text")
    return value or ""


def needed(document: Mapping[str, Any], name: str) -> str:
    value = text(document, name)
    if not value:
        raise errors.bad_request(f"{name} is missing")
    return value


def is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LONGEST <= value <= LONGEST


def seconds(document: Mapping[str, Any], name: str, default: float) -> float:
    value = document.get(name)
    if value is not None and not is_seconds(value):
        raise errors.bad_request(f"{name} is a number of seconds, up to {LONGEST}")
    return default if value is None else float(value)


def objects(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    values = document.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise errors.bad_request(f"{name} is a list of objects")
    return values
