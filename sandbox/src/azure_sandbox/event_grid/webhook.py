# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to webhooks: the handshake that proves that a webhook wants events, and the deliveries.

Source: https://learn.microsoft.com/azure/event-grid/webhook-event-delivery
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import ssl
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..shared.web import BadJson, read_json
from .events import CLOUD_EVENTS, DATA_VERSION, METADATA_VERSION, SPEC_VERSION, iso
from .subscription import Pending, Subscription

ORIGIN = "eventgrid.azure.net"
# How long Event Grid waits for a response, in seconds of real time.
RESPONSE_SECONDS = 30.0
RESPONSE_LIMIT = 1024 * 1024
VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
# These headers describe the request or the event, so a subscription cannot set them.
_RESERVED = re.compile(
    r"host|content-(length|type)|connection|transfer-encoding|expect|upgrade|webhook-request-.*|aeg-.*", re.IGNORECASE
)


class BadEndpoint(Exception):
    """The sandbox sends no request to this endpoint."""


class Unreachable(Exception):
    """The endpoint has sent no response."""


class HandshakeFailed(Exception):
    """The endpoint has not confirmed that it wants events."""


class Response(NamedTuple):
    status: int
    # The names may have any letter case.
    headers: Mapping[str, str]
    body: bytes


def check_endpoint(endpoint: str, certificate: str) -> None:
    """Raises BadEndpoint."""
    try:
        url = urlsplit(endpoint)
        host, _port = url.hostname or "", url.port
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback or url.scheme not in ("http", "https"):
        raise BadEndpoint(
            "endpoint must be an http or https URL with the host localhost, 127.0.0.1 or [::1], because the sandbox "
            "sends requests only to the loopback address"
        )
    if not re.fullmatch("[!-~]+", endpoint) or url.username is not None:
        raise BadEndpoint("endpoint must have no user name, and only printable ASCII characters without spaces")
    try:
        _context(certificate)
    except (ssl.SSLError, ValueError) as error:
        raise BadEndpoint(f"certificate must contain certificates in PEM format ({error})") from error


def reserved_header(headers: Mapping[str, str]) -> str | None:
    """The name of a header that a subscription cannot set; None if there is none."""
    return next((name for name in headers if _RESERVED.fullmatch(name)), None)


async def validate(subscription: Subscription, topic: str, moment: float) -> None:
    """Perform the handshake of the subscription's schema. Raises HandshakeFailed."""
    try:
        if subscription.schema == CLOUD_EVENTS:
            await _ask_for_permission(subscription)
        else:
            await _ask_for_code(subscription, topic, moment)
    except Unreachable as error:
        raise HandshakeFailed(str(error)) from error


async def deliver(subscription: Subscription, pending: Pending) -> int:
    """Send an event. Returns the status of the response. Raises Unreachable."""
    document = pending.event.document(subscription.schema)
    headers = {
        "aeg-event-type": "Notification",
        "aeg-subscription-name": subscription.id.upper(),
        "aeg-delivery-count": str(pending.attempts),
        "aeg-output-event-id": pending.event.id,
        "aeg-data-version": DATA_VERSION,
    }
    if subscription.schema == CLOUD_EVENTS:
        headers["content-type"] = "application/cloudevents+json; charset=utf-8"
        headers["aeg-metadata-version"] = SPEC_VERSION
        headers["webhook-request-origin"] = ORIGIN
        content: Any = document
    else:
        headers["content-type"] = "application/json; charset=utf-8"
        headers["aeg-metadata-version"] = METADATA_VERSION
        content = [document]
    response = await _send(subscription, "POST", {**headers, **subscription.headers}, _bytes(content))
    return response.status


async def _ask_for_code(subscription: Subscription, topic: str, moment: float) -> None:
    code = str(uuid.uuid4()).upper()
    event = {
        "id": str(uuid.uuid4()),
        "topic": topic,
        "subject": "",
        "data": {
            "validationCode": code,
            # The manual handshake is not emulated. As this host is not in the sandbox, a request to it is refused.
            "validationUrl": f"https://rp-westeurope.{ORIGIN}:553/eventsubscriptions/{subscription.id}/validate?id={code}",
        },
        "eventType": VALIDATION,
        "eventTime": iso(moment),
        "metadataVersion": METADATA_VERSION,
        "dataVersion": "2",
    }
    headers = {
        "content-type": "application/json; charset=utf-8",
        "aeg-event-type": "SubscriptionValidation",
        "aeg-subscription-name": subscription.id.upper(),
        "aeg-delivery-count": "0",
        "aeg-data-version": "2",
        "aeg-metadata-version": METADATA_VERSION,
    }
    response = await _send(subscription, "POST", headers, _bytes([event]))
    if response.status != 200:
        raise HandshakeFailed(f"the endpoint responded to the validation event with {response.status} instead of 200")
    try:
        document = read_json(response.body)
    except BadJson as error:
        raise HandshakeFailed(f"the response to the validation event is not JSON ({error})") from error
    found = document.get("validationResponse") if isinstance(document, dict) else None
    if not isinstance(found, str) or not hmac.compare_digest(found.encode(), code.encode()):
        raise HandshakeFailed("the response to the validation event has no validationResponse with the validation code")


async def _ask_for_permission(subscription: Subscription) -> None:
    response = await _send(subscription, "OPTIONS", {"webhook-request-origin": ORIGIN}, b"")
    if response.status != 200:
        raise HandshakeFailed(f"the endpoint responded to OPTIONS with {response.status} instead of 200")
    allowed = response.headers.get("webhook-allowed-origin", "")
    if allowed.strip().lower() not in ("*", ORIGIN):
        raise HandshakeFailed(f"the response to OPTIONS has no header WebHook-Allowed-Origin with {ORIGIN} or *")


def _bytes(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _context(certificate: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=certificate or None)


async def _send(subscription: Subscription, method: str, headers: Mapping[str, str], body: bytes) -> Response:
    """Send a request without following redirects. Raises Unreachable."""
    # The import is a sixth of the start of the sandbox, which seldom has a subscription.
    import httpx

    async def exchange() -> Response:
        client = httpx.AsyncClient(verify=_context(subscription.certificate), trust_env=False, timeout=None)
        request = client.stream(method, subscription.endpoint, headers=headers, content=body)
        async with client, request as response:
            content = b""
            async for part in response.aiter_bytes():
                content += part
                if len(content) > RESPONSE_LIMIT:
                    break
            return Response(response.status_code, response.headers, content)

    # The task that waits for the response can be canceled, so a slow webhook does not delay the end of the sandbox.
    try:
        return await asyncio.wait_for(exchange(), RESPONSE_SECONDS)
    except TimeoutError as error:
        raise Unreachable(f"the endpoint did not respond within {RESPONSE_SECONDS:g} seconds") from error
    except httpx.HTTPError as error:
        raise Unreachable(f"the request to the endpoint failed: {error}") from error
