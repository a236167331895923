# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts as hosts: their variables, names and groups. Pure: uses neither Azure nor Ansible.

This plugin util is private to the collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypedDict

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import check_subscription, place_of
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.account import Account, key_of
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.encryption import describe_key
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.identity import (
    USER_ASSIGNED,
    Identity,
    describe_identity,
    principals_of,
)

# If an account has such a name, its host needs another name: Ansible would confuse the host with the group, or with
# the controller.
_TAKEN = ("all", "ungrouped", "localhost", "pinned", "following")


class _Always(TypedDict):
    cmk_subscription_id: str
    cmk_resource_group: str
    cmk_account_name: str
    cmk_location: str
    # For information: no role has an option of these names.
    cmk_account_id: str
    cmk_key_source: str
    cmk_key_identifier: str | None
    cmk_key_version: str | None
    cmk_principal_ids: list[str]
    cmk_provisioning_state: str | None
    cmk_tags: dict[str, str]


class HostVariables(_Always, total=False):
    """The variables of a host: what is known of its account."""

    cmk_identity_id: str
    # Set if the account uses a customer-managed key.
    cmk_vault_name: str
    cmk_key_name: str
    cmk_follows_latest: bool


class HostFilter(NamedTuple):
    """Whether a host for which the condition is true is included."""

    includes: bool
    condition: str | bool


def host_variables(account: Account) -> HostVariables:
    subscription, group, name = place_of(account["id"])
    identity = account.get("identity", {})
    key = key_of(account)
    described = describe_key(key)
    variables: HostVariables = {
        "cmk_subscription_id": subscription,
        "cmk_resource_group": group,
        "cmk_account_name": name,
        "cmk_location": account["location"],
        "cmk_account_id": account["id"],
        "cmk_key_source": described["key_source"],
        "cmk_key_identifier": described["key_identifier"],
        "cmk_key_version": described["key_version"],
        "cmk_principal_ids": list(principals_of(identity)),
        "cmk_provisioning_state": account["properties"].get("provisioningState"),
        "cmk_tags": account.get("tags") or {},
    }
    if option := _identity(identity):
        variables["cmk_identity_id"] = option
    if key:
        variables["cmk_vault_name"] = key.vault
        variables["cmk_key_name"] = key.name
        variables["cmk_follows_latest"] = described["follows_latest"]
    return variables


def _identity(identity: Identity) -> str | None:
    """A user-assigned identity of the account. The role provision keeps all identities of an account that has it."""
    described = describe_identity(identity)
    return min(described["user_assigned_identities"]) if described["type"] == USER_ASSIGNED else None


def interleaved(hosts: Iterable[HostVariables]) -> list[HostVariables]:
    """Accounts interleaved across subscriptions, because Azure limits the rate of requests by subscription."""
    by_subscription: dict[str, list[HostVariables]] = {}
    for host in hosts:
        by_subscription.setdefault(host["cmk_subscription_id"], []).append(host)
    return [host for turn in zip_longest(*by_subscription.values()) for host in turn if host is not None]


def groups(variables: HostVariables) -> Iterator[str]:
    """The names of the host's groups, before Ansible replaces characters in them."""
    # This group is first: Ansible orders the hosts of `all` by group, and in these groups the subscriptions are
    # interleaved.
    yield f"key_source_{variables['cmk_key_source']}"
    yield f"subscription_{variables['cmk_subscription_id']}"
    yield f"location_{variables['cmk_location']}"
    yield f"resource_group_{variables['cmk_resource_group']}"
    if "cmk_vault_name" in variables:
        yield f"vault_{variables['cmk_vault_name']}"
        # The name of a vault neither ends with a hyphen nor has two in a row, so the first `__` is the separator.
        yield f"key_{variables['cmk_vault_name']}__{variables['cmk_key_name']}"
        yield "following" if variables["cmk_follows_latest"] else "pinned"


def shared_names(hosts: Iterable[HostVariables]) -> set[str]:
    """The names, in lower case, that more than one account has. Names of accounts are unique only within a region."""
    counted = Counter(host["cmk_account_name"].lower() for host in hosts)
    return {name for name, accounts in counted.items() if accounts > 1}


def host_name(variables: HostVariables, shared: set[str]) -> str:
    name = variables["cmk_account_name"]
    return f"{name}.{variables['cmk_location']}" if name.lower() in {*shared, *_TAKEN} else name


def checked_subscriptions(given: Iterable[Any]) -> list[str]:
    """The ids in lower case without duplicates. Raises InvalidOption if an id is no GUID."""
    return list(dict.fromkeys(check_subscription(str(subscription), "subscriptions").lower() for subscription in given))


def host_filters(filters: Iterable[Any]) -> list[HostFilter]:
    return [_host_filter(item) for item in filters]


def _host_filter(item: Any) -> HostFilter:
    if not isinstance(item, Mapping) or len(item) != 1 or not {"include", "exclude"}.issuperset(item):
        raise _wrong_filter(item, "it is not one of include and exclude with a condition.")
    [(kind, condition)] = item.items()
    if not isinstance(condition, str | bool):
        raise _wrong_filter(item, "its condition is neither text nor a boolean.")
    return HostFilter(kind == "include", condition)


def _wrong_filter(item: Any, problem: str) -> InvalidOption:
    return InvalidOption(
        "filters",
        item,
        problem,
        "Write it as `include: CONDITION` or `exclude: CONDITION`, one to an item of the list.",
    )


def is_included(filters: Sequence[HostFilter], holds: Callable[[str | bool], bool]) -> bool:
    """Whether the host is included. The first filter whose condition is true decides. `holds` evaluates a condition."""
    return next((one.includes for one in filters if holds(one.condition)), True)
