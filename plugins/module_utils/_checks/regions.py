# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Azure's regions, by name (westeurope) or display name (West Europe).

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from .._core.errors import InvalidOption


def normalized(location: str) -> str:
    return location.replace(" ", "").lower()


def require_available(location: str, regions: Collection[str] | None, resource: str) -> None:
    """Raise InvalidOption if the resource provider is not available in the region.

    `regions` is the list of the provider. If it is empty, or the caller may not read it, Azure decides.
    """
    known = sorted({normalized(region) for region in regions or ()})
    if not known or normalized(location) in known:
        return
    # A region with a typing error, or the first regions.
    closest = get_close_matches(normalized(location), known, n=1)
    remedy = (
        f"Set O(location) to {closest[0]}."
        if closest
        else f"Set O(location) to a region such as {', '.join(known[:3])}."
    )
    raise InvalidOption(
        "location",
        location,
        f"{resource} cannot be created in this region.",
        remedy,
        code="location_not_available",
    )


def difference(resource: str, has: str, wanted: str | None) -> tuple[str, ...]:
    """The warning that an existing resource is not in the requested region; empty if no region is requested."""
    if wanted is None or normalized(wanted) == normalized(has):
        return ()
    return (f"{resource} exists in the region {has}, not in {wanted}. O(location) is used only for its creation.",)
