# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What whoever uses the sandbox is given to begin with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Operator:
    """A service principal that may do everything, and where it may do it."""

    tenant_id: str = ""
    client_id: str = ""
    secret: str = ""
    object_id: str = ""
    subscription_id: str = ""
    resource_group: str = ""
    location: str = ""
    # The system-assigned identity of the machine that 169.254.169.254 serves.
    machine_object_id: str = ""
    machine_resource_id: str = ""
