# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rate limits for all tasks of a run together, just below the rate at which Azure responds with HTTP status 429.

Azure uses token buckets, which have a size and a refill rate. Sources: learn.microsoft.com, "Understand how Azure
Resource Manager throttles requests" (for each subscription and principal) and "Azure Key Vault service limits"
(creating RSA keys, for each vault). A header of Resource Manager has the remaining tokens of a bucket. That number
is used, because other clients also take tokens from the bucket, and because some buckets are larger than documented:
responses with 1,100 remaining reads and 800 remaining writes were recorded.

This module util is private to the collection.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from .._core import interrupts
from .._core.errors import Unavailable
from .._core.sent_writes import SentWrites
from . import sdk
from .run_store import RunFiles

T = TypeVar("T")
# The times of the requests of a read.
_times: ContextVar[list[float] | None] = ContextVar("_times", default=None)


def timed(read: Callable[[], T]) -> tuple[T, float]:
    """The value of `read`, and when its first request was sent (time.monotonic())."""
    began, times = time.monotonic(), list[float]()
    token = _times.set(times)
    try:
        value = read()
    finally:
        _times.reset(token)
    return value, min(times, default=began)


def _note(at: float) -> None:
    times = _times.get()
    if times is not None:
        times.append(at)


@dataclass(frozen=True)
class Bucket:
    name: tuple[str, ...]
    # The capacity in tokens, and the refill rate in tokens per second.
    size: int
    rate: float


class Level(NamedTuple):
    left: float
    # The capacity, as documented or as the service has shown it.
    size: float


# Requests of other tasks of the run that a reported number does not include yet.
_IN_FLIGHT = 20
_NOTIFIED_SECONDS = 5
# The longest pause after a status 429 without the header Retry-After, which Key Vault does not send, or with 0 seconds.
_LONGEST_PAUSE = 30
# An option of the SDKs' writes: a function that is called if rate limits or retries delay the request by more than
# _LATE_SECONDS. The function raises an error if the request must not be sent any more.
IF_LATE = "if_late"
_LATE_SECONDS = 10
# If the run's own rate limits delay a request by at most this time, the task does not fail, even with a shorter
# wait_timeout.
_OWN_WAIT_SECONDS = 60
# After a write, a task waits up to this time for the next request, even with a shorter wait_timeout, because without
# that request, the change can be neither confirmed nor rolled back. The longest rate limits of Azure are per hour.
_AFTER_WRITE_SECONDS = 3600
# POST requests that only read.
_ASKS = re.compile(
    r"/providers/Microsoft\.(?:(?:Batch/locations/[^/]+|KeyVault)/checkNameAvailability|ResourceGraph/resources)$",
    re.IGNORECASE,
)
_READ, _WRITE, _DELETE = (250, 25.0), (200, 10.0), (200, 10.0)
_SUBSCRIPTION = re.compile(r"^https://(management\.[^/]+)/subscriptions/([^/?]+)", re.IGNORECASE)
_NEW_VERSION = re.compile(r"^https://([^/]+)/keys/[^/]+/(?:create|rotate)\b", re.IGNORECASE)


def bucket_of(method: str, url: str) -> Bucket | None:
    """The bucket of a request; None if a run cannot reach a rate limit with such requests."""
    if found := _SUBSCRIPTION.match(url):
        kind, limits = {"GET": ("reads", _READ), "DELETE": ("deletes", _DELETE)}.get(method, ("writes", _WRITE))
        return Bucket((found[1].lower(), found[2].lower(), kind), *limits)
    if found := _NEW_VERSION.match(url):
        return Bucket((found[1].lower(), "create"), 20, 2.0)
    return None


class Buckets:
    def __init__(self, files: RunFiles, caller: str) -> None:
        self._files = files
        self._caller = caller

    def acquire(self, bucket: Bucket) -> float:
        """Take a token, and return the seconds to wait before the request. Later callers wait longer."""
        with self._files.locked(self._caller, *bucket.name):
            level = self._level(bucket)
            left = level.left - 1
            self._keep(bucket, level._replace(left=left))
        return max(0.0, -left / bucket.rate)

    def learn(self, bucket: Bucket, left: float, *, is_own: bool = False) -> None:
        """The service has reported the number of remaining tokens. If it is lower than the number here, it is used. If
        it is higher and the bucket is the caller's own, the bucket is larger than documented."""
        with self._files.locked(self._caller, *bucket.name):
            level = self._level(bucket)
            if left < level.left:
                self._keep(bucket, level._replace(left=left))
            elif is_own and left - _IN_FLIGHT > level.left:
                self._keep(bucket, Level(left - _IN_FLIGHT, max(level.size, left)))

    def _level(self, bucket: Bucket) -> Level:
        kept = self._files.load(self._caller, *bucket.name)
        if kept is None:
            return Level(bucket.size, bucket.size)
        left = float(kept["left"] + bucket.rate * (time.monotonic() - kept["at"]))
        return Level(min(kept["size"], left), kept["size"])

    def _keep(self, bucket: Bucket, level: Level) -> None:
        self._files.store({**level._asdict(), "at": time.monotonic()}, self._caller, *bucket.name)


@dataclass(frozen=True)
class Patience:
    """The maximum time in seconds that a task waits for the next request, and the function that shows the wait
    (Session.notify)."""

    wait_timeout: float
    show: Callable[[str], None]
    # Whether the task may have changed something.
    may_have_changed: Callable[[], bool] = lambda: False

    def accept(self, seconds: float, reason: str, at_least: float = 0, waited: float = 0) -> None:
        """Raise Unavailable if the wait, together with the seconds that this request has `waited`, is longer than both
        `wait_timeout` and `at_least`. Otherwise the caller waits."""
        if self.may_have_changed():
            at_least = _AFTER_WRITE_SECONDS
        if waited + seconds > max(self.wait_timeout, at_least):
            raise _throttled(waited + seconds, self.wait_timeout, reason)
        if seconds > _NOTIFIED_SECONDS or waited <= _NOTIFIED_SECONDS < waited + seconds:
            so_far = f" ({waited:.0f} s so far)" if waited else ""
            self.show(f"Waiting {seconds:.0f} s before the next request{so_far}: {reason}")


def transport(patience: Patience) -> Any:
    """A transport for credentials. Their pipelines accept no policies, but call `sleep` of the transport between
    tries."""
    pipeline: Any = sdk.load("azure-core").pipeline
    retries = pipeline.policies.RetryPolicy()
    reason = "Microsoft Entra ID is busy"

    class Patient(pipeline.transport.RequestsTransport):  # type: ignore[misc]
        def send(self, request: Any, **options: Any) -> Any:
            def ask() -> tuple[Any, float | None]:
                response = SimpleNamespace(http_response=super(Patient, self).send(request, **options))
                return response, _retry_after(retries, response)

            return _until_admitted(ask, patience, reason)[0].http_response

        def sleep(self, duration: float) -> None:
            patience.accept(duration, reason)
            super().sleep(duration)

    return Patient()


def _until_admitted(
    ask: Callable[[], tuple[Any, float | None]], patience: Patience, reason: str
) -> tuple[Any, float | None, float]:
    """The first response of `ask` that is not an HTTP status 429, with the seconds in its header Retry-After, and the
    seconds that were waited for it. `ask` is called again as soon as the service allows. The SDKs would give up after
    three retries, and show nothing."""
    waited = 0.0
    for number in itertools.count():
        response, asked = ask()
        if response.http_response.status_code != 429:
            return response, asked, waited
        # A header with 0 seconds would make the task repeat the request for ever.
        pause = asked or min(2.0 ** min(number, 5), _LONGEST_PAUSE)
        patience.accept(pause, f"{reason} (HTTP 429)", waited=waited)
        time.sleep(pause)
        waited += pause
    raise AssertionError


def is_read(method: str | None, url: str | None) -> bool:
    return method in ("GET", "HEAD") or (method == "POST" and _ASKS.search(urlsplit(url or "").path) is not None)


def policy(buckets: Buckets, patience: Patience, sent: SentWrites) -> Any:
    """A policy for the SDKs' pipelines that runs for each try, which acquires a token. Writes are counted in `sent`."""
    policies: Any = sdk.load("azure-core").pipeline.policies
    retries = policies.RetryPolicy()

    class Pace(policies.HTTPPolicy):  # type: ignore[misc]
        def send(self, request: Any) -> Any:
            reason = f"{urlsplit(request.http_request.url).hostname} is busy"
            response, asked, waited = _until_admitted(lambda: self._try(request), patience, reason)
            if asked is not None:
                # The SDK waits, and sends the request again.
                patience.accept(asked, f"{reason} (HTTP {response.http_response.status_code})", waited=waited)
            return response

        def _try(self, request: Any) -> tuple[Any, float | None]:
            """The response, and the seconds from its header Retry-After."""
            interrupts.raise_lost()
            # The retry policy sends the same request object again, with the same context.
            if_late = request.context.setdefault(IF_LATE, request.context.options.pop(IF_LATE, None))
            asked_at = request.context.setdefault("asked at", time.monotonic())
            url = request.http_request.url
            method = request.http_request.method
            bucket = bucket_of(method, url)
            if bucket is not None:
                wait = buckets.acquire(bucket)
                patience.accept(wait, f"the rate limit of {bucket.name[0]} is reached", _OWN_WAIT_SECONDS)
                time.sleep(wait)
            # The SDKs pass the options of a long-running operation also to the reads that poll its status.
            if if_late and not is_read(method, url) and time.monotonic() - asked_at > _LATE_SECONDS:
                if_late()
            _note(time.monotonic())
            response = self._send(request)
            asked = _retry_after(retries, response)
            if bucket is not None:
                for left, is_own in _left_after(bucket, response.http_response, asked):
                    buckets.learn(bucket, left, is_own=is_own)
            return response, asked

        def _send(self, request: Any) -> Any:
            if is_read(request.http_request.method, request.http_request.url):
                return self.next.send(request)
            # A rollback has to know whether a write took effect.
            with interrupts.deferred(interrupts.REQUEST_SECONDS):
                return sent.send(lambda: self.next.send(request))

    return Pace()


def _retry_after(retries: Any, response: Any) -> float | None:
    """The seconds until the SDK retries an error response, from a header with seconds or a date; None without a
    header."""
    answer = response.http_response
    if answer.status_code < 400:
        return None
    try:
        seconds: float | None = retries.get_retry_after(response)
    except ValueError:
        # The SDK would fail with this ValueError too.
        del answer.headers["Retry-After"]
        return None
    return seconds


def _left_after(bucket: Bucket, answer: Any, retry_after: float | None) -> Iterator[tuple[float, bool]]:
    """The reported numbers of remaining tokens, each with whether it is that of the caller's own bucket."""
    if answer.status_code == 429:
        # All tasks of the run wait, and continue one after the other.
        yield -bucket.rate * (1 if retry_after is None else retry_after), False
        return
    # Until 2024, responses had the number for the caller's own bucket. Since then, they have also, or only, the
    # number for all callers of the subscription.
    for which in ("", "global-"):
        name = f"x-ms-ratelimit-remaining-subscription-{which}{bucket.name[-1]}"
        if name in answer.headers:
            yield float(answer.headers[name]), not which


def _throttled(seconds: float, wait_timeout: float, reason: str) -> Unavailable:
    remedy = f"Run the task again in {seconds:.0f} s, or set O(wait_timeout) to more than that."
    return Unavailable(
        f"The next request has to wait for {seconds:.0f} s in all, and O(wait_timeout) is {wait_timeout} s: {reason}. "
        f"{remedy}",
        code="throttled",
        option="wait_timeout",
        value=wait_timeout,
        retry_after=seconds,
        remedy=remedy,
    )
