# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events of Key Vault that Event Grid delivers to webhooks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from key_vault_calls import (
    DAY,
    data,
    make_key,
    make_vault,
    vault_path,
    version_of,
)
from sandbox_client import Control, Sandbox
from webhook_receiver import Webhook

HOUR = 3600
TYPE = "Microsoft.KeyVault."


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    yield webhook
    webhook.close()


def subscribe(control: Control, webhook: Webhook, **members: Any) -> dict[str, Any]:
    made: dict[str, Any] = control.call(
        "POST", "/event-subscriptions", {"endpoint": webhook.url, **members}, status=201
    )
    return made


def refused(control: Control, **members: Any) -> str:
    found = control.call("POST", "/event-subscriptions", members, status=400)
    assert control.call("GET", "/event-subscriptions") == {"event_subscriptions": []}
    return str(found["error"]["message"])


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [(one.get("eventType") or one["type"]).removeprefix(TYPE) for one in events]


def versions(events: list[dict[str, Any]]) -> list[str]:
    return [one["data"]["Version"] for one in events]


def rotate_after(sandbox: Sandbox, days: int, name: str = "key1") -> None:
    rotate = {"trigger": {"timeAfterCreate": f"P{days}D"}, "action": {"type": "Rotate"}}
    assert data(sandbox, "PUT", f"/keys/{name}/rotationpolicy", {"lifetimeActions": [rotate]}).ok


def seconds(moment: str) -> float:
    found = re.fullmatch(r"(.{19}\.\d{6})\dZ", moment)
    assert found
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp()


# Handshakes


@pytest.mark.parametrize(
    ("schema", "response", "reason"),
    [
        ("event_grid", (202, {}, b""), "with 202 instead of 200"),
        ("event_grid", (200, {}, b"Hello"), "not JSON"),
        ("event_grid", (200, {}, b'{"validationResponse": "guessed"}'), "has no validationResponse"),
        ("event_grid", (302, {"location": "http://127.0.0.1:1/"}, b""), "with 302"),
        ("cloud_events", (405, {}, b""), "with 405"),
        ("cloud_events", (200, {"WebHook-Allowed-Origin": "example.com"}, b""), "no header WebHook-Allowed-Origin"),
    ],
)
def test_a_handshake_that_fails(
    sandbox: Sandbox,
    control: Control,
    webhook: Webhook,
    schema: str,
    response: tuple[int, dict[str, str], bytes],
    reason: str,
) -> None:
    webhook.handshake = lambda _received: response

    message = refused(control, endpoint=webhook.url, schema=schema)

    assert message.startswith("the subscription was not created, because the handshake failed: ")
    assert reason in message


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://example.com/events",
        "http://192.0.2.1/",
        "http://127.0.0.1.example.com/",
        "http://127.0.0.1@example.com/",
    ],
)
def test_only_the_loopback_address_is_contacted(sandbox: Sandbox, control: Control, endpoint: str) -> None:
    assert "sends requests only to the loopback address" in refused(control, endpoint=endpoint)


# Events


def test_a_new_version_in_the_event_grid_schema(sandbox: Sandbox, control: Control, webhook: Webhook) -> None:
    make_vault(sandbox)
    subscription = subscribe(control, webhook)
    expires = int(time.time()) + 90 * DAY
    kid = make_key(sandbox, "Key-One", attributes={"exp": expires})["key"]["kid"]

    [event] = webhook.wait(1)
    assert time.time() - 60 < seconds(event["eventTime"]) < time.time() + 1
    assert re.fullmatch("[0-9a-f-]{36}", event.pop("id"))
    del event["eventTime"]
    assert event == {
        "topic": vault_path(sandbox),
        "subject": "Key-One",
        "eventType": "Microsoft.KeyVault.KeyNewVersionCreated",
        "data": {
            "Id": kid,
            "VaultName": "Vault-One",
            "ObjectType": "Key",
            "ObjectName": "Key-One",
            "Version": kid.rpartition("/")[2],
            "NBF": None,
            "EXP": expires,
        },
        "dataVersion": "1",
        "metadataVersion": "1",
    }
    [request] = webhook.deliveries
    assert isinstance(request.json, list)
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    assert request.headers["aeg-subscription-name"] == subscription["id"].upper()
    assert (request.headers["aeg-delivery-count"], request.headers["aeg-data-version"]) == ("0", "1")


def test_the_rotation_policy_creates_a_version_without_a_read(
    sandbox: Sandbox, control: Control, webhook: Webhook
) -> None:
    make_vault(sandbox)
    make_key(sandbox)
    rotate_after(sandbox, 40)
    subscribe(control, webhook)
    began = time.time()
    control.advance(50 * DAY)

    [event] = webhook.wait(1)

    assert kinds([event]) == ["KeyNewVersionCreated"]
    assert abs(seconds(event["eventTime"]) - began - 40 * DAY) < 60, "the event has the time at which rotation was due"
    assert versions([event]) == [version_of(data(sandbox, "GET", "/keys/key1").json())]


def test_near_expiry_and_expiry(sandbox: Sandbox, control: Control, webhook: Webhook) -> None:
    make_vault(sandbox)
    expires = int(time.time()) + 90 * DAY
    version = version_of(make_key(sandbox, attributes={"exp": expires}))
    make_key(sandbox, "endless")
    subscribe(control, webhook)
    control.advance(59 * DAY)
    control.advance(2 * DAY)

    [near] = webhook.wait(1)
    assert (kinds([near]), versions([near])) == (["KeyNearExpiry"], [version])
    assert seconds(near["eventTime"]) == expires - 30 * DAY
    control.advance(30 * DAY)
    expired = webhook.wait(2)[1]
    assert (kinds([expired]), versions([expired])) == (["KeyExpired"], [version])
    control.advance(30 * DAY)
    # A later event shows that each of the others was sent once.
    make_key(sandbox, "endless")
    assert kinds(webhook.wait(3)) == ["KeyNearExpiry", "KeyExpired", "KeyNewVersionCreated"]


# Secrets and state


def test_secrets_are_sent_and_never_shown(sandbox: Sandbox, control: Control, webhook: Webhook) -> None:
    make_vault(sandbox)
    made = subscribe(
        control, webhook, endpoint=f"{webhook.url}?code=hidden-query", headers={"X-Secret": "hidden-header"}
    )
    make_key(sandbox)
    webhook.wait(1)

    [validation, delivery] = webhook.requests
    assert validation.path == delivery.path == "/events?code=hidden-query"
    assert delivery.headers["x-secret"] == "hidden-header"
    assert "x-secret" not in validation.headers
    listed = control.call("GET", "/event-subscriptions")
    for text in map(str, (made, listed, control.requests(), control.call("GET", "/"))):
        assert "hidden-" not in text
    assert (made["endpoint"], made["header_names"]) == (webhook.url, ["X-Secret"])
