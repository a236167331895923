# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of the emulated Azure."""

from __future__ import annotations

from .authorization.governance import Governance
from .authorization.rules import Authorization
from .batch.rules import BatchAccounts
from .entra.rules import Directory
from .environment import Operator
from .event_grid.rules import EventGrid
from .key_vault.rules import Vaults
from .key_vault_keys.rules import Keys
from .key_vault_keys.throttling import Throttle as KeyVaultThrottle
from .managed_identity.rules import Identities
from .resource_graph.rules import ResourceGraph
from .resource_manager.rules import Resources
from .resource_manager.throttling import Throttle
from .shared.behavior import DEFAULT, Behavior
from .shared.timing import QUICK, Clock, Timing

# While the clock advances, Batch checks its keys at most once in this time. This limits the checks if there are
# thousands of accounts.
_STEP_SECONDS = 60


class World:
    """The state of all services. A service uses the state of another service by the name of its attribute here."""

    def __init__(self, timing: Timing = QUICK, behavior: Behavior = DEFAULT) -> None:
        self.clock = Clock()
        self.timing = timing
        self.behavior = behavior
        # Set by `seed`.
        self.operator = Operator()
        self.throttle = Throttle()
        self.key_vault_throttle = KeyVaultThrottle()
        self.directory = Directory(self)
        self.event_grid = EventGrid(self)
        self.resources = Resources(self)
        self.authorization = Authorization(self)
        self.governance = Governance(self)
        self.identities = Identities(self)
        self.vaults = Vaults(self)
        self.keys = Keys(self)
        self.batch = BatchAccounts(self)
        self.resource_graph = ResourceGraph(self)
        # The services whose resources are in resource groups.
        self.holders = (self.batch, self.vaults, self.identities, self.resource_graph)

    def advance(self, seconds: float) -> None:
        """Advance the clock, and let Batch and the rotation policies of its keys act at the times in between.

        The effect is that of many calls with a minute each. The clock skips the minutes in which nothing can change.
        """
        while seconds > _STEP_SECONDS:
            checked_at = self.clock.time()
            self.batch.reassess()
            wait = self.batch.next_change(checked_at) - self.clock.time()
            step = min(max(wait, _STEP_SECONDS), seconds)
            self.clock.advance(step)
            seconds -= step
        self.clock.advance(seconds)
        self.batch.reassess()
