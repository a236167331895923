# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of other services that Batch accounts need."""

from __future__ import annotations

from typing import Protocol

from ..authorization.rules import Authorization
from ..entra.rules import Directory
from ..key_vault.rules import Vaults
from ..key_vault_keys.rules import Keys
from ..managed_identity.rules import Identities
from ..resource_manager.rules import Resources
from ..shared import world as shared


class World(shared.World, Protocol):
    directory: Directory
    resources: Resources
    authorization: Authorization
    identities: Identities
    vaults: Vaults
    keys: Keys
