# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Microsoft.ManagedIdentity answers when it refuses."""

from __future__ import annotations

from ..shared.errors import location_required, resource_not_found
from ..shared.web import AzureError

__all__ = ["identity_not_found", "location_required", "other_location"]


def identity_not_found(name: str, group: str) -> AzureError:
    return resource_not_found("Microsoft.ManagedIdentity/userAssignedIdentities", name, group)


def other_location(name: str, location: str, group: str, wanted: str) -> AzureError:
    message = (
        f"The resource '{name}' already exists in location '{location}' in resource group '{group}'. A resource with"
        f" the same name cannot be created in location '{wanted}'. Please select a new resource name."
    )
    return AzureError(409, {"error": {"code": "InvalidResourceLocation", "message": message}})
