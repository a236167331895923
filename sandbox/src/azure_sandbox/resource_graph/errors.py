# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of Resource Graph. All have the same message; the details have the reason."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class Refused(Exception):
    def __init__(self, status: int, code: str, *details: dict[str, Any], retry_after: int | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.details = details
        self.headers = {} if retry_after is None else {"retry-after": str(retry_after)}

    def document(self, time: str, correlation_id: str) -> dict[str, Any]:
        message = (
            f"Please provide below info when asking for support: timestamp = {time}, correlationId = {correlation_id}."
        )
        return {"error": {"code": self.code, "message": message, "details": list(self.details)}}


def bad_request(code: str, message: str) -> Refused:
    return Refused(400, "BadRequest", {"code": code, "message": message})


def invalid_query(detail: dict[str, Any]) -> Refused:
    message = (
        "Query is invalid. Please refer to the documentation for the Azure Resource Graph service and fix the error "
        "before retrying."
    )
    return Refused(400, "BadRequest", {"code": "InvalidQuery", "message": message}, detail)


def no_valid_subscriptions(given: Collection[str]) -> Refused:
    named = ",".join(f"'{one}'" for one in given) or "''"
    return bad_request(
        "NoValidSubscriptionsInQueryRequest",
        f"There must be at least one subscription that is eligible to contain resources. Given: {named}.",
    )


def invalid_guids(given: Collection[str]) -> Refused:
    return bad_request("SubscriptionsContainInvalidGuids", f"Subscriptions contain invalid GUIDs: {', '.join(given)}.")


def too_large(size: int, limit: int) -> Refused:
    return bad_request(
        "ResponsePayloadTooLarge",
        f"Response payload size is {size}, and has exceeded the limit of {limit}. Please consider querying less data at"
        " a time and make paginated call if needed.",
    )


def throttled(retry_after: int) -> Refused:
    message = (
        "Client application has been throttled and should not attempt to repeat the request until an amount of time "
        "has elapsed. Please see https://aka.ms/resourcegraph-throttling for help."
    )
    return Refused(429, "RateLimiting", {"code": "RateLimiting", "message": message}, retry_after=retry_after)
