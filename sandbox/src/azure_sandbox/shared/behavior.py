# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Switches for behavior of Azure that no public source describes.

A switch has a position for each plausible behavior. The default is the position that is hardest for a client, unless
the comment on the switch says otherwise.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


def _switch(default: str, *others: str, is_time: bool = False) -> str:
    """A field with its allowed values in the metadata `positions`, the default first. A time also allows each other
    number of seconds, because experiments with Azure measure times between the positions."""
    switch: str = field(default=default, metadata={"positions": (default, *others), "is_time": is_time})
    return switch


@dataclass(frozen=True)
class Behavior:
    # The response to the list of a subscription's Batch accounts, vaults, deleted vaults or user-assigned identities if
    # the caller may not read all of them: those that the caller may read, or 403.
    subscription_list: str = _switch("filtered", "denied")
    # The subscriptions that the list of subscriptions has: those in which the caller has a role at any scope, or only
    # those that the caller may read.
    listed_subscriptions: str = _switch("any_role", "readable")
    # Whether a vault's network security perimeter (publicNetworkAccess: SecuredByPerimeter) has an access rule that
    # admits Batch. The sandbox does not emulate the rule itself.
    perimeter: str = _switch("closed", "open_to_batch")
    # Whether an API version is still accepted after its retirement date.
    retired_versions: str = _switch("refused", "taken")
    # The status of the list of pools of an account that has lost its key. Batch refuses all other operations with 409,
    # except reading and deleting the account.
    pools_without_key: str = _switch("200", "409", "403", "500")
    # How many seconds Batch continues to use the data-encryption key that it has unwrapped before, after it has lost
    # the key. If Batch can use the key again within this time, it has not noticed the loss.
    key_loss_noticed: str = _switch("3600", "600", "0", is_time=True)
    # Whether the user-assigned identities of a PUT or a PATCH replace those of the account, or are added to them.
    identities_on_put: str = _switch("replaced", "merged")
    # Whether a role assignment without principalType finds a managed identity that was created in the last 60 s.
    new_principal: str = _switch("unknown", "known")
    # Seconds until the data plane applies a new or a deleted role assignment, if the timing `role_propagation` is not
    # longer. The default is the easiest position, because with the others nearly every job takes minutes.
    role_delay: str = _switch("0", "60", "600", is_time=True)
    # How Batch refuses to create an account if it cannot use the key, or if the quota is exceeded: the operation fails
    # and leaves an account in the state Failed, the operation fails and leaves no account, or the PUT is refused.
    refused_creation: str = _switch("failed_account", "no_account", "at_once")
    # Whether an account whose creation failed can have pools. The list of its pools is refused in any case.
    failed_account_pools: str = _switch("possible", "none")
    # How many Batch accounts a subscription may have in a region.
    account_quota: str = _switch("50", "3")
    # Seconds until reads and lists show a change of an existing resource, or its deletion. Recordings show changes at
    # once, so the default is the easiest position here, as for the next two.
    value_lag: str = _switch("0", "5", "20", is_time=True)
    # The only service whose changes are shown late by `value_lag`, or all of them.
    value_lag_of: str = _switch("all", "batch", "keys", "vaults", "authorization")
    # Seconds until a read of Resource Manager finds a resource that was just created.
    name_lag: str = _switch("0", "10", "60", is_time=True)
    # Seconds until lists of Resource Manager show a resource that was just created. A role assignment is no resource.
    list_lag: str = _switch("0", "180", "1200", is_time=True)
    # Seconds until the host name of a vault resolves for callers, after the vault was created or recovered. It depends
    # on resolvers outside Azure, so the default is the easiest position.
    vault_name_delay: str = _switch("0", "10", "120", is_time=True)
    # Seconds until the data plane applies a change of the permission model. It is reported to be immediate, so the
    # default is the easiest position.
    permission_model_delay: str = _switch("0", "60", "600", is_time=True)
    # Whether a vault loses its access policies when it changes to Azure RBAC.
    policies_after_change: str = _switch("dropped", "kept")
    # Whether the access policies of a vault that uses Azure RBAC can be changed one by one.
    policies_of_rbac_vault: str = _switch("accepted", "refused")
    # The age of a key version, in seconds, at which accounts that follow the latest version start to use it.
    follower_delay: str = _switch("86400", "3600", "0", is_time=True)
    # How many seconds Batch still needs the previous version after an account changes to another version of the key.
    previous_version_needed: str = _switch("86400", "600", "0", is_time=True)
    # Seconds until Resource Graph shows a write. With a delay, a client finds nothing that was created recently, so the
    # default is the easiest position.
    graph_lag: str = _switch("0", "600", "never", is_time=True)
    # The resources that have a ReadOnly lock; `deletions`: accounts and vaults have a CanNotDelete lock. There are no
    # locks and no policies by default, because nearly all requests would fail.
    resource_lock: str = _switch("none", "accounts", "vaults", "deletions")
    # The resources whose changes an Azure Policy denies; `accounts_without_key`: only requests after which an account
    # has no customer-managed key.
    policy_denial: str = _switch("none", "accounts", "vaults", "accounts_without_key")
    # The message of a denial: with the identifiers of the policy, which the caller cannot read, with the message of the
    # assignment's owner, with neither, or the message of missing multi-factor authentication.
    policy_message: str = _switch("identifiers", "reasons", "neither", "mfa")
    # The values that an Azure Policy with the effect `modify` changes in requests for accounts and vaults: public
    # network access becomes `Disabled`, or each tag `policy`.
    policy_modify: str = _switch("none", "network", "tags")


DEFAULT = Behavior()
POSITIONS: Mapping[str, tuple[str, ...]] = {one.name: one.metadata["positions"] for one in dataclasses.fields(Behavior)}
TIMES = frozenset(one.name for one in dataclasses.fields(Behavior) if one.metadata["is_time"])
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,3})?", re.ASCII)


def changed(behavior: Behavior, wanted: Mapping[str, object]) -> Behavior:
    """`behavior` with the switches in `wanted` set. Raises ValueError if a name or a position does not exist."""
    for name, position in wanted.items():
        if name not in POSITIONS:
            raise ValueError(f"unknown name {name}; valid names: {', '.join(POSITIONS)}")
        is_time = name in TIMES and isinstance(position, str) and _SECONDS.fullmatch(position) is not None
        if position not in POSITIONS[name] and not is_time:
            also = ", or a number of seconds" if name in TIMES else ""
            raise ValueError(f"{name} must be one of {', '.join(POSITIONS[name])}{also}")
    return dataclasses.replace(behavior, **wanted)  # type: ignore[arg-type]
