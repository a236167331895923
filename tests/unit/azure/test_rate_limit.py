# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tasks of a run together send requests no faster than the rate limits of Azure allow."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clocks import Clock, clock_of

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import rate_limit
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.rate_limit import Bucket, Buckets, Patience, bucket_of
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._core import interrupts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Refused, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.interrupts import Interrupted
from ansible_collections.azbatch.cmk.plugins.module_utils._core.sent_writes import SentWrites

ARM = "https://management.azure.com/subscriptions/S-1"
CHECK_NAME = f"{ARM}/providers/Microsoft.KeyVault/checkNameAvailability?api-version=1"
BUCKET = Bucket(("here", "writes"), size=3, rate=2.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of(rate_limit, monkeypatch)


@pytest.mark.parametrize(
    ("method", "url", "name", "rate"),
    [
        ("GET", f"{ARM}/providers/Microsoft.Batch/batchAccounts?api-version=1", "reads", 25),
        ("PATCH", f"{ARM}/resourceGroups/g/providers/Microsoft.Batch/batchAccounts/a", "writes", 10),
        ("DELETE", f"{ARM}/resourceGroups/g", "deletes", 10),
        ("POST", "https://kv.vault.azure.net/keys/k/create?api-version=7.6", "create", 2),
        ("POST", "https://kv.vault.azure.net/keys/k/rotate", "create", 2),
        ("GET", "https://management.azure.com/subscriptions?api-version=1", None, None),
        ("GET", "https://kv.vault.azure.net/keys/k", None, None),
        ("PATCH", "https://kv.vault.azure.net/keys/create/v", None, None),
        ("POST", "https://login.microsoftonline.com/t/oauth2/v2.0/token", None, None),
    ],
)
def test_the_bucket_of_a_request(method: str, url: str, name: str | None, rate: float | None) -> None:
    bucket = bucket_of(method, url)

    assert (bucket and bucket.name[-1], bucket and bucket.rate) == (name, rate)


def test_subscriptions_and_vaults_are_counted_apart() -> None:
    urls = [f"{ARM}/x", f"{ARM.replace('S-1', 'S-2')}/x", f"{ARM.lower()}/y"]
    one, two, one_again = (bucket_of("GET", url) for url in urls)

    assert one == one_again != two


@pytest.mark.parametrize("shared", [True, False], ids=["a run", "a process"])
def test_a_full_bucket_is_used_at_once_and_then_evenly(tmp_path: Path, clock: Clock, shared: bool) -> None:
    files = RunFiles(str(tmp_path) if shared else None)

    def draw() -> float:
        return Buckets(RunFiles(str(tmp_path)) if shared else files, "me").acquire(BUCKET)

    assert [draw() for _task in range(6)] == [0, 0, 0, 0.5, 1.0, 1.5]
    clock.now += 2
    assert [draw() for _task in range(2)] == [0, 0.5]
    clock.now += 60
    assert [draw() for _task in range(4)] == [0, 0, 0, 0.5]


def test_a_lower_remaining_number_from_azure_is_used(tmp_path: Path, clock: Clock) -> None:
    buckets = Buckets(RunFiles(str(tmp_path)), "me")

    buckets.learn(BUCKET, 11999)
    assert buckets.acquire(BUCKET) == 0
    buckets.learn(BUCKET, 0)
    assert buckets.acquire(BUCKET) == 0.5
    # After a 429 with Retry-After: 3.
    buckets.learn(BUCKET, -6)
    assert buckets.acquire(BUCKET) == 3.5
    assert buckets.acquire(BUCKET) == 4.0


# The policy

URL = f"{ARM}/resourceGroups/g/providers/Microsoft.Batch/batchAccounts/a"
READS = Bucket(("management.azure.com", "s-1", "reads"), 250, 25.0)
WRITES = Bucket(("management.azure.com", "s-1", "writes"), 200, 10.0)


class Azure:
    """Returns the given responses, each a status and headers, and records the times of the requests."""

    def __init__(self, clock: Clock, answers: Iterator[tuple[int, Mapping[str, str]]]) -> None:
        self._clock = clock
        self._answers = answers
        self.asked: list[float] = []

    def send(self, request: Any) -> Any:
        self.asked.append(self._clock.now - 1000)
        status, headers = next(self._answers, (200, {}))
        answer = SimpleNamespace(status_code=status, headers=dict(headers))
        return SimpleNamespace(http_request=request.http_request, http_response=answer)


class Context(dict[str, Any]):
    """The context of a request, which all its tries share."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options


class Paced:
    """Sends requests through the policy."""

    def __init__(self, clock: Clock, *answers: tuple[int, Mapping[str, str]], wait_timeout: float = 900) -> None:
        pytest.importorskip("azure.core")
        self.azure = Azure(clock, iter(answers))
        self.lines: list[str] = []
        self.buckets = Buckets(RunFiles(None), "me")
        self.sent = SentWrites()
        session = Session({"wait_timeout": wait_timeout}, notify=self.lines.append)
        patience = Patience(wait_timeout, session.notify, lambda: self.sent.may_have_changed)
        self._policy = rate_limit.policy(self.buckets, patience, self.sent)
        self._policy.next = self.azure

    def send(self, url: str = URL, method: str = "GET", **options: Any) -> Any:
        request = SimpleNamespace(http_request=SimpleNamespace(method=method, url=url), context=Context(options))
        return self._policy.send(request).http_response


def remaining(reads: int, kind: str = "") -> tuple[int, dict[str, str]]:
    return 200, {f"x-ms-ratelimit-remaining-subscription-{kind}reads": str(reads)}


@pytest.mark.parametrize(("before", "is_late"), [(299, False), (300, True)])
def test_a_request_that_waited_is_checked_again(clock: Clock, before: int, is_late: bool) -> None:
    """The bucket has 200 tokens for writes and gains 10 tokens a second, so the 300th write waits for ten seconds."""
    paced, asked = Paced(clock), []
    for _request in range(before):
        paced.buckets.acquire(WRITES)

    paced.send(method="PATCH", if_late=lambda: asked.append(len(paced.azure.asked)))

    assert asked == ([0] if is_late else [])
    assert len(paced.azure.asked) == 1


def test_a_request_that_must_not_be_sent_any_more_is_not_sent(clock: Clock) -> None:
    def refuse() -> None:
        raise Refused("Somebody else was here.")

    paced = Paced(clock)
    for _request in range(400):
        paced.buckets.acquire(WRITES)

    with pytest.raises(Refused):
        paced.send(method="PATCH", if_late=refuse)
    assert paced.azure.asked == []


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (remaining(10), 10),
        (remaining(5, "global-"), 5),
        ((200, {**remaining(7)[1], **remaining(3, "global-")[1]}), 3),
        # Requests of other tasks may be on their way.
        (remaining(9000), 8980),
        (remaining(260), 249),
        (remaining(9000, "global-"), 249),
        ((200, {}), 249),
    ],
    ids=str,
)
def test_the_run_uses_the_response(clock: Clock, answer: tuple[int, dict[str, str]], left: int) -> None:
    paced = Paced(clock, answer)
    paced.send()

    assert paced.buckets._level(READS).left == left


@pytest.mark.parametrize(
    ("headers", "times"),
    [
        ({"Retry-After": "1"}, range(9)),
        ({"Retry-After": "soon"}, [0, 1, 3, 7, 15, 31, 61, 91, 121]),
    ],
    ids=str,
)
def test_a_request_is_sent_until_the_service_takes_it(
    clock: Clock, headers: dict[str, str], times: Sequence[float]
) -> None:
    """An SDK gives up after three retries, whatever the service has asked for."""
    paced = Paced(clock, *[(429, headers)] * 8)

    assert paced.send().status_code == 200
    assert paced.azure.asked == pytest.approx(list(times), abs=0.5)
    assert bool(paced.lines) is (times[-1] > 5)


def test_the_waits_of_a_request_together_are_no_longer_than_the_task_may_take(clock: Clock) -> None:
    paced = Paced(clock, *[(429, {"Retry-After": "7"})] * 8, wait_timeout=20)

    with pytest.raises(Unavailable) as failed:
        paced.send()
    assert (failed.value.code, failed.value.facts["retry_after"]) == ("throttled", 21)
    assert len(paced.azure.asked) == 3
    assert len(paced.lines) == 2


@pytest.mark.parametrize(
    ("write", "seconds", "waits"),
    [(200, 3600, True), (500, 3600, True), (200, 3601, False), (403, 3600, False), (None, 3600, False)],
)
def test_after_a_write_a_task_waits_as_long_as_azure_requires(
    clock: Clock, write: int | None, seconds: int, waits: bool
) -> None:
    """Otherwise the change could be neither confirmed nor rolled back."""
    busy = (429, {"Retry-After": str(seconds)})
    paced = Paced(clock, (write or 200, {}), busy)
    # None: the check of a name, which is a POST request that only reads.
    paced.send(*((CHECK_NAME, "POST") if write is None else (URL, "PATCH")))

    if waits:
        assert paced.send().status_code == 200
        assert len(paced.lines) == 1
    else:
        with pytest.raises(Unavailable) as failed:
            paced.send()
        assert failed.value.code == "throttled"


def test_retry_after_of_a_success_is_ignored(clock: Clock) -> None:
    """For example, the response of a long-running operation. The poller uses its Retry-After."""
    paced = Paced(clock, (202, {"Retry-After": "7200"}))

    assert paced.send().status_code == 202


def test_after_a_refusal_the_other_tasks_wait_as_well(clock: Clock) -> None:
    paced = Paced(clock, (429, {"Retry-After": "30"}), wait_timeout=0)
    with pytest.raises(Unavailable):
        paced.send()
    paced.send()

    assert paced.azure.asked == [0, pytest.approx(30.04)]
    assert "30 s" in paced.lines[0]


@pytest.mark.parametrize(("seconds", "expected"), [(1, 0), (20, 1)])
def test_a_credential_sleeps_between_its_tries(seconds: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    lines: list[str] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    rate_limit.transport(Patience(30, lines.append)).sleep(seconds)

    assert slept == [seconds]
    assert len(lines) == expected
    with pytest.raises(Unavailable):
        rate_limit.transport(Patience(30, lambda _line: None)).sleep(31)
    assert slept == [seconds]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_request_follows_a_signal_that_python_dropped(clock: Clock) -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    paced = Paced(clock)
    with interrupts.raised():
        Finalized()
        with pytest.raises(Interrupted):
            paced.send()
    assert paced.azure.asked == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_rollback_sends_its_requests_after_a_signal(clock: Clock) -> None:
    paced = Paced(clock)
    with interrupts.raised():
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        with interrupts.deferred():
            paced.send()
    assert len(paced.azure.asked) == 1
