# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The regions of a resource provider. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from typing import Any

from .._core.docs import Docs, Ref
from .._core.errors import CmkError, Denied


def of_type(docs: Docs, provider: Ref[dict[str, Any]], resource_type: str) -> list[str] | None:
    """The regions where the resource provider has the resource type; None if the caller may not read them."""
    found = docs.known(provider)
    if isinstance(found, Denied) or found is None:
        return None
    if isinstance(found, CmkError):
        raise found
    types = found["resourceTypes"]
    return next((one["locations"] for one in types if one["resourceType"].lower() == resource_type.lower()), None)
