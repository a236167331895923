# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Subscriptions, resource groups, and the registration of providers in a subscription."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..entra.rules import Directory
from ..shared import errors
from ..shared import world as shared
from ..shared.operations import Operation, Operations
from ..shared.resource import tidy_location

GROUP_NAME = re.compile(r"[\w\-.()]{1,90}")
REGISTERED, NOT_REGISTERED = "Registered", "NotRegistered"


@dataclass
class Subscription:
    id: str
    display_name: str
    tenant_id: str
    state: str = "Enabled"
    # By namespace in lower case. A provider that is not listed is registered.
    registrations: dict[str, str] = field(default_factory=dict)

    def registration(self, namespace: str) -> str:
        return self.registrations.get(namespace.lower(), REGISTERED)


@dataclass
class ResourceGroup:
    subscription: str
    name: str
    location: str
    tags: dict[str, str] = field(default_factory=dict)
    managed_by: str | None = None

    @property
    def id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.name}"


@dataclass(frozen=True)
class Resource:
    id: str
    name: str
    type: str
    location: str
    tags: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "location": self.location,
            "tags": self.tags,
        }


class Holder(Protocol):
    """A service whose resources are in resource groups."""

    def contents(self, subscription: str) -> Iterable[Resource]: ...

    def drop(self, resource: Resource) -> None:
        """Delete a resource because its group is deleted. As in Azure, a vault can be recovered afterwards."""


class World(shared.World, Protocol):
    directory: Directory

    @property
    def holders(self) -> Sequence[Holder]: ...


class Resources:
    def __init__(self, world: World) -> None:
        self._world = world
        self._subscriptions: dict[str, Subscription] = {}
        self._groups: dict[tuple[str, str], ResourceGroup] = {}
        self.operations: Operations[None] = Operations(world)

    # Subscriptions

    def add_subscription(self, tenant_id: str, display_name: str) -> Subscription:
        subscription = Subscription(str(uuid.uuid4()), display_name, tenant_id)
        self._subscriptions[subscription.id] = subscription
        return subscription

    def subscription(self, id: str) -> Subscription | None:
        return self._subscriptions.get(id.lower())

    def tenant_of(self, subscription_id: str) -> str:
        """The tenant of a subscription; the first tenant if the subscription does not exist."""
        subscription = self.subscription(subscription_id)
        return subscription.tenant_id if subscription else self._world.directory.tenant_id

    def subscriptions(self) -> list[Subscription]:
        return list(self._subscriptions.values())

    # Resource groups

    def group(self, subscription: str | Subscription, name: str) -> ResourceGroup | None:
        return self._groups.get(self._key(subscription, name))

    def groups(self, subscription: str | Subscription) -> list[ResourceGroup]:
        wanted = self._key(subscription, "")[0]
        return [group for (holder, _name), group in self._groups.items() if holder == wanted]

    def put_group(
        self, subscription: str | Subscription, name: str, location: str, tags: dict[str, str] | None = None
    ) -> tuple[ResourceGroup, bool]:
        """Create or update a resource group. Returns the group, and whether it is new. Raises AzureError."""
        if GROUP_NAME.fullmatch(name) is None or name.endswith("."):
            raise errors.invalid_resource_group_name(name)
        location = tidy_location(location)
        key = self._key(subscription, name)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = ResourceGroup(key[0], name, location, dict(tags or {}))
            return group, True
        if group.location != location:
            raise errors.resource_group_location(group.name, group.location)
        group.tags = dict(tags or {})
        return group, False

    def delete_group(self, group: ResourceGroup) -> Operation[None]:
        inside = f"{group.id}/".lower()
        for holder in self._world.holders:
            for resource in [*holder.contents(group.subscription)]:
                if resource.id.lower().startswith(inside):
                    holder.drop(resource)
        del self._groups[self._key(group.subscription, group.name)]
        return self.operations.start(None, self._world.timing.group_delete)

    @staticmethod
    def _key(subscription: str | Subscription, name: str) -> tuple[str, str]:
        holder = subscription if isinstance(subscription, str) else subscription.id
        return holder.lower(), name.lower()

    # Resources of all providers

    def all(self, subscription: str | Subscription) -> Iterator[Resource]:
        wanted = self._key(subscription, "")[0]
        return (resource for holder in self._world.holders for resource in holder.contents(wanted))

    def of_group(self, group: ResourceGroup) -> list[Resource]:
        inside = f"{group.id}/".lower()
        return [resource for resource in self.all(group.subscription) if resource.id.lower().startswith(inside)]
