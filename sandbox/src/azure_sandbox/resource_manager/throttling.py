# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rate limits of Resource Manager."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ..shared import errors, web
from ..shared import world as shared


@dataclass(frozen=True)
class Limit:
    """The size of a token bucket, and the number of tokens that are added each second."""

    size: int
    refill: float


# Per principal and subscription, as Microsoft documents them ("Understand how Azure Resource Manager throttles
# requests").
LIMITS = {"reads": Limit(250, 25), "writes": Limit(200, 10), "deletes": Limit(200, 10)}
# The limits in the recordings. Only the request itself is missing from the full number.
RECORDED_LIMITS = {"reads": 1100, "writes": 800, "deletes": 800}
# The limits of all principals in a subscription together, which the headers show. In the recordings, only the request
# itself is missing from the full number, so the buckets are refilled fast. No request was refused by these limits.
GLOBAL_LIMITS = {"reads": Limit(16500, 375), "writes": Limit(12000, 150), "deletes": Limit(12000, 150)}
EVERYBODY = ""


@dataclass
class Throttle:
    """By kind of request, subscription and principal: the remaining tokens, and the time of the last request."""

    buckets: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)

    def take(self, key: tuple[str, str, str], limit: Limit, now: float) -> float:
        """Take a token. Returns 0, or the seconds until a token is available if there is none."""
        left, since = self.buckets.get(key, (float(limit.size), now))
        left = min(float(limit.size), left + (now - since) * limit.refill)
        if left < 1:
            self.buckets[key] = (left, now)
            return (1 - left) / limit.refill
        self.buckets[key] = (left - 1, now)
        return 0

    def left(self, key: tuple[str, str, str], limit: Limit) -> int:
        """The number of tokens that remain after the last request."""
        return int(self.buckets.get(key, (limit.size, 0))[0])


class World(shared.World, Protocol):
    throttle: Throttle


Call = web.Call[World]


def _kind(call: Call) -> str:
    if call.route is not None and call.route.action.endswith("/read"):
        return "reads"
    return {"GET": "reads", "HEAD": "reads", "DELETE": "deletes"}.get(call.request.method, "writes")


def check(call: Call) -> None:
    if not call.world.timing.throttling or call.caller is None:
        return
    kind, subscription = _kind(call), call.path.get("subscription", "")
    key = (kind, subscription.lower(), call.caller.object_id)
    wait = call.world.throttle.take(key, LIMITS[kind], call.world.clock.time())
    if wait:
        raise errors.throttled(kind.removesuffix("s"), subscription, call.caller.app_id, math.ceil(wait))


def remaining(call: Call) -> Iterator[tuple[str, str]]:
    """The headers with the remaining numbers of requests, of the caller and of all callers: names and values."""
    assert call.caller is not None
    kind, subscription = _kind(call), call.path.get("subscription", "").lower()
    own, everybody = (kind, subscription, call.caller.object_id), (kind, subscription, EVERYBODY)
    throttle = call.world.throttle
    left = throttle.left(own, LIMITS[kind]) if call.world.timing.throttling else RECORDED_LIMITS[kind] - 1
    yield f"x-ms-ratelimit-remaining-subscription-{kind}", str(left)
    throttle.take(everybody, GLOBAL_LIMITS[kind], call.world.clock.time())
    yield f"x-ms-ratelimit-remaining-subscription-global-{kind}", str(throttle.left(everybody, GLOBAL_LIMITS[kind]))
