# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Behaviour of Azure that no public source describes: a switch for each, with every plausible position.

The default of a switch is the position that is hardest for a client, if nothing else is said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field


def _switch(default: str, *others: str) -> str:
    """A field with its positions, the default first."""
    switch: str = field(default=default, metadata={"positions": (default, *others)})
    return switch


@dataclass(frozen=True)
class Behavior:
    # How a subscription's list of Batch accounts is answered if the caller may not read all of them: with those that
    # the caller may read, or with 403.
    subscription_list: str = _switch("filtered", "denied")
    # Whether the network security perimeter of a vault (publicNetworkAccess: SecuredByPerimeter) lets Batch in: by an
    # access rule, which is no part of the sandbox.
    perimeter: str = _switch("closed", "open_to_batch")
    # Whether a version of an API is still taken after the day of its retirement.
    retired_versions: str = _switch("refused", "taken")
    # The status with which Batch lists the pools of an account that has lost its key. Everything else that the account
    # is asked for is refused with 409.
    pools_without_key: str = _switch("200", "409", "403", "500")
    # Whether the user-assigned identities of a PUT or a PATCH replace those of the account, or are added to them.
    identities_on_put: str = _switch("replaced", "merged")
    # Whether a managed identity of the last 60 s is known to role assignments that do not say its principalType.
    new_principal: str = _switch("unknown", "known")
    # How a creation of a Batch account is refused whose key Batch cannot use, or that exceeds the quota: the operation
    # fails and leaves an account in the state Failed, or fails and leaves none, or the PUT itself is refused.
    refused_creation: str = _switch("failed_account", "no_account", "at_once")
    # How many Batch accounts a subscription may have in a region.
    account_quota: str = _switch("50", "3")
    # Seconds until reads and lists of Resource Manager show a write. Recordings show writes at once, so the default is
    # the easiest position here.
    read_lag: str = _switch("0", "5", "60")
    # How many seconds old a version of a key is when accounts that follow the key take it.
    follower_delay: str = _switch("86400", "3600", "0")
    # For how many seconds Batch needs the previous version too after it has moved to another version of the same key.
    previous_version_needed: str = _switch("86400", "600", "0")
    # The resources that a ReadOnly lock protects, or all of them by a CanNotDelete lock. Nobody locks anything by
    # default, nor do policies deny anything: nearly all requests would fail.
    resource_lock: str = _switch("none", "accounts", "vaults", "deletions")
    # The resources whose changes an Azure Policy denies.
    policy_denial: str = _switch("none", "accounts", "vaults")


DEFAULT = Behavior()
POSITIONS: Mapping[str, tuple[str, ...]] = {one.name: one.metadata["positions"] for one in dataclasses.fields(Behavior)}


def changed(behavior: Behavior, wanted: Mapping[str, object]) -> Behavior:
    """`behavior` with the switches in `wanted` set. Raises ValueError if a name or a position does not exist."""
    for name, position in wanted.items():
        if name not in POSITIONS:
            raise ValueError(f"there is no {name}; there is {', '.join(POSITIONS)}")
        if position not in POSITIONS[name]:
            raise ValueError(f"{name} is one of {', '.join(POSITIONS[name])}")
    return dataclasses.replace(behavior, **wanted)  # type: ignore[arg-type]
