# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service of each host, and the resource providers of Resource Manager."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from .authorization import http as authorization
from .batch import data_plane
from .batch import http as batch
from .entra import http as entra
from .entra import metadata
from .key_vault import http as key_vault
from .key_vault_keys import frame as key_vault_keys
from .managed_identity import http as managed_identity
from .resource_graph import http as resource_graph
from .resource_manager import frame as resource_manager
from .resource_manager import http as resources
from .resource_manager import providers
from .shared import clouds
from .shared.web import Call

for _module in (resources, batch, managed_identity, authorization, resource_graph):
    providers.add(_module.PROVIDER, _module.API_VERSIONS, _module.ROUTES)
# On 27 February 2027, UTC (https://learn.microsoft.com/azure/key-vault/general/access-control-default).
_retirement = providers.Retirement(datetime(2027, 2, 27, tzinfo=UTC).timestamp(), "2026-02-01")
providers.add(key_vault.PROVIDER, key_vault.API_VERSIONS, key_vault.ROUTES, _retirement)


@dataclass(frozen=True)
class Service:
    name: str
    handle: Callable[[Call[Any]], Awaitable[Response]]
    scheme: str = "https"


ENTRA = Service("entra", entra.handle)
METADATA = Service("metadata", metadata.handle, "http")
RESOURCE_MANAGER = Service("resource_manager", resource_manager.handle)
KEY_VAULT_KEYS = Service("key_vault_keys", key_vault_keys.handle)
BATCH_DATA = Service("batch_data", data_plane.handle)


def service_of(host: str) -> Service | None:
    if host == metadata.HOST:
        return METADATA
    if clouds.by_management_host(host):
        return RESOURCE_MANAGER
    if clouds.by_vault_host(host):
        return KEY_VAULT_KEYS
    if clouds.is_batch_host(host):
        return BATCH_DATA
    if clouds.by_login_host(host):
        return ENTRA
    return None
