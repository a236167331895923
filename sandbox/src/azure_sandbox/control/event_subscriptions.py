# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Event Grid subscriptions over the control API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from ..event_grid import webhook
from ..event_grid.events import CLOUD_EVENTS, EVENT_GRID
from ..event_grid.subscription import Subscription
from ..faults import BadFault, read_headers
from ..sandbox import Sandbox
from ..shared.web import Call, answer
from . import reading

_MEMBERS = (
    "endpoint",
    "schema",
    "headers",
    "vault",
    "duplicates",
    "reorder",
    "certificate",
)
# The limits of Azure. Sources: https://learn.microsoft.com/azure/event-grid/delivery-properties and delivery-and-retry
MOST_HEADERS = 10
LONGEST_HEADER = 4096


def get(sandbox: Sandbox, call: Call[Any]) -> Response:
    subscriptions = sandbox.world.event_grid.subscriptions.values()
    return answer({"event_subscriptions": [subscription.document() for subscription in subscriptions]})


async def post(sandbox: Sandbox, call: Call[Any]) -> Response:
    subscription = _read(call.json)
    world = sandbox.world
    operator, vault = world.operator, world.vaults.by_name(subscription.vault)
    topic = vault.id if vault else f"/subscriptions/{operator.subscription_id}"
    try:
        await webhook.validate(subscription, topic, world.clock.time())
    except webhook.HandshakeFailed as error:
        raise reading.bad_request(f"the subscription was not created, because the handshake failed: {error}") from error
    if sandbox.world is not world:
        raise reading.bad_request("the subscription was not created, because the sandbox was reset in the meantime")
    # Events of earlier times are only for earlier subscriptions.
    await world.keys.announce()
    world.event_grid.subscriptions[subscription.id] = subscription
    return answer(subscription.document(), 201)


def delete(sandbox: Sandbox, call: Call[Any]) -> Response:
    if sandbox.world.event_grid.subscriptions.pop(call.path["id"], None) is None:
        raise reading.not_found(f"the event subscription {call.path['id']} does not exist")
    return answer({})


def _read(document: Mapping[str, Any]) -> Subscription:
    unknown = sorted(set(document) - set(_MEMBERS))
    if unknown:
        raise reading.bad_request(f"unknown name {unknown[0]}; valid names: {', '.join(_MEMBERS)}")
    subscription = Subscription(
        reading.needed(document, "endpoint"),
        reading.text(document, "schema") or EVENT_GRID,
        _headers(document),
        reading.text(document, "vault").lower(),
        _flag(document, "duplicates"),
        _flag(document, "reorder"),
        reading.text(document, "certificate"),
    )
    if subscription.schema not in (EVENT_GRID, CLOUD_EVENTS):
        raise reading.bad_request(f"schema must be {EVENT_GRID} or {CLOUD_EVENTS}")
    try:
        webhook.check_endpoint(subscription.endpoint, subscription.certificate)
    except webhook.BadEndpoint as error:
        raise reading.bad_request(str(error)) from error
    return subscription


def _headers(document: Mapping[str, Any]) -> dict[str, str]:
    """The headers of deliveries. Error messages do not contain their values, which are secret."""
    try:
        headers = read_headers(document.get("headers") or {})
    except BadFault as error:
        raise reading.bad_request(str(error)) from error
    if len(headers) > MOST_HEADERS or any(len(value) > LONGEST_HEADER for value in headers.values()):
        raise reading.bad_request(
            f"headers must have at most {MOST_HEADERS} names, and values of {LONGEST_HEADER} bytes"
        )
    if reserved := webhook.reserved_header(headers):
        raise reading.bad_request(f"headers must not contain {reserved}, which Event Grid sets")
    return headers


def _flag(document: Mapping[str, Any], name: str) -> bool:
    value = document.get(name) or False
    if not isinstance(value, bool):
        raise reading.bad_request(f"{name} must be true or false")
    return value
