# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The experiments with Azure in a subscription as companies have them: Azure throttles and fails, policies deny, and
there are accounts of others. No position is wrong, nothing is left, and nothing about others is in any file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from estate import OTHERS, furnish
from sandbox_client import Sandbox, serving
from test_live import DAYS, JOBS, groups, live, refusal, result

from azure_sandbox.shared.behavior import POSITIONS

# One request in this many is disturbed.
DISTURBED = 20
REQUESTS = 5000
DISTURBANCES = (
    *(refusal(429, "TooManyRequests", **{"Retry-After": seconds}) for seconds in ("1", "5", "20")),
    *(refusal(503, "ServiceUnavailable") for _ in range(3)),
    # Of a policy that was assigned at that moment.
    refusal(403, "RequestDisallowedByPolicy"),
)


def disturb(azure: Sandbox, chance: random.Random) -> None:
    for skip in range(REQUESTS):
        if chance.random() < 1 / DISTURBED:
            answer = chance.choice(DISTURBANCES)
            # A policy denies changes only.
            match = {"host": "management|vault|batch"}
            if answer["status"] == 403:
                match |= {"method": chance.choice(("PUT", "PATCH")), "path": "/providers/"}
            azure.control.fault(match=match, skip=skip, answer=answer)


def others(azure: Sandbox) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = azure.control.call("GET", "/accounts")["accounts"]
    return [one for one in found if "contoso" in one["id"].lower()]


def wrong(found: dict[str, Any], hidden: dict[str, str]) -> dict[str, Any]:
    """The switches whose result does not have the position of the sandbox."""
    return {name: one for name, one in found["switches"].items() if hidden[name] not in one["consistent"]}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.slow
def test_no_position_is_wrong_and_nothing_is_left_or_published(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    hidden = {switch: chance.choice(POSITIONS[switch]) for switch in DAYS}
    # One main job is enough. `weaknesses` measures no switch, and sends thousands of requests.
    left_out = {one.name for one in JOBS} - {"job_rotate"} | {"weaknesses"}
    without = (part for one in left_out for part in ("--without", one))
    arguments = ("run", "--yes", "--class", "days", *without)
    with serving() as azure:
        furnish(azure)
        azure.control.behavior(**hidden)
        before, theirs = groups(azure), others(azure)
        azure.control.behavior(policy_denial=("none", "vaults", "accounts")[seed % 3])
        disturb(azure, chance)

        disturbed = live(azure, tmp_path, *arguments)

        faults = azure.control.call("GET", "/faults")["faults"]
        applied = sum(fault["applied"] for fault in faults)
        azure.control.call("DELETE", "/faults")
        first = result(tmp_path)
        assert wrong(first, hidden) == {}
        assert (groups(azure), others(azure)) == (before, theirs)
        assert disturbed.stderr == ""

        azure.control.behavior(policy_denial="none")
        calm = live(azure, tmp_path, *arguments)
        hosts = (azure.secret, azure.tenant_id, azure.client_id, azure.subscription_id)

    # The next run asks what has no result, and only that.
    second = result(tmp_path)
    assert calm.stderr == ""
    assert second["switches"].keys() == {*hidden}
    assert wrong(second, hidden) == {}
    assert second["without_result"] == {}
    private = ("state.json", ".placeholder-key", ".lock")
    files = [one for one in tmp_path.iterdir() if one.name not in private and one.suffix != ".log"]
    found = [(one.name, word) for one in files for word in (*OTHERS, *hosts) if word.lower() in one.read_text().lower()]
    assert found == []
    print(
        f"seed {seed}: {applied} requests disturbed; {len(first['switches'])} switches measured at once, "
        f"{len(second['switches'])} after the next run; {len(files)} files searched"
    )
