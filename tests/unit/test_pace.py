# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tasks of a run together ask no faster than Azure answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from clocks import Clock, clock_of

from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import pace
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.pace import Bucket, Buckets, bucket_of
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.run_files import RunFiles

ARM = "https://management.azure.com/subscriptions/S-1"
BUCKET = Bucket(("here", "writes"), size=3, rate=2.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of(pace, monkeypatch)


@pytest.mark.parametrize(
    ("method", "url", "name", "rate"),
    [
        ("GET", f"{ARM}/providers/Microsoft.Batch/batchAccounts?api-version=1", "reads", 25),
        ("PATCH", f"{ARM}/resourceGroups/g/providers/Microsoft.Batch/batchAccounts/a", "writes", 10),
        ("PUT", f"{ARM}/resourceGroups/g", "writes", 10),
        ("POST", f"{ARM}/x/listKeys", "writes", 10),
        ("DELETE", f"{ARM}/resourceGroups/g", "deletes", 10),
        ("POST", "https://kv.vault.azure.net/keys/k/create?api-version=7.6", "create", 2),
        ("POST", "https://kv.vault.azure.net/keys/k/rotate", "create", 2),
    ],
)
def test_what_is_counted(method: str, url: str, name: str, rate: float) -> None:
    bucket = bucket_of(method, url)

    assert bucket is not None
    assert (bucket.name[-1], bucket.rate) == (name, rate)


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "https://management.azure.com/subscriptions?api-version=1"),
        ("GET", "https://kv.vault.azure.net/keys/k"),
        ("PATCH", "https://kv.vault.azure.net/keys/create/v"),
        ("POST", "https://login.microsoftonline.com/t/oauth2/v2.0/token"),
    ],
)
def test_what_is_not_counted(method: str, url: str) -> None:
    assert bucket_of(method, url) is None


def test_subscriptions_and_vaults_are_counted_apart() -> None:
    urls = [f"{ARM}/x", f"{ARM.replace('S-1', 'S-2')}/x", f"{ARM.lower()}/y"]
    one, two, one_again = (bucket_of("GET", url) for url in urls)

    assert one == one_again != two


@pytest.mark.parametrize("shared", [True, False], ids=["a run", "a process"])
def test_a_full_bucket_is_emptied_at_once_and_then_drawn_from_evenly(
    tmp_path: Path, clock: Clock, shared: bool
) -> None:
    files = RunFiles(str(tmp_path) if shared else None)

    def draw() -> float:
        return Buckets(RunFiles(str(tmp_path)) if shared else files, "me").draw(BUCKET)

    assert [draw() for _task in range(6)] == [0, 0, 0, 0.5, 1.0, 1.5]
    clock.now += 2
    assert [draw() for _task in range(2)] == [0, 0.5]
    clock.now += 60
    assert [draw() for _task in range(4)] == [0, 0, 0, 0.5]


def test_what_the_service_says_counts_if_it_is_less(tmp_path: Path, clock: Clock) -> None:
    buckets = Buckets(RunFiles(str(tmp_path)), "me")

    buckets.learn(BUCKET, 11999)
    assert buckets.draw(BUCKET) == 0
    buckets.learn(BUCKET, 0)
    assert buckets.draw(BUCKET) == 0.5
    # After a 429 with Retry-After: 3.
    buckets.learn(BUCKET, -6)
    assert buckets.draw(BUCKET) == 3.5
    assert buckets.draw(BUCKET) == 4.0


def test_callers_have_buckets_of_their_own(tmp_path: Path, clock: Clock) -> None:
    ours, theirs = (Buckets(RunFiles(str(tmp_path)), who) for who in ("me", "you"))
    ours.learn(BUCKET, 0)

    assert theirs.draw(BUCKET) == 0
