# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of ten thousand accounts in a subscription with Azure's rate limits, in one run and in ten slices."""

from __future__ import annotations

from contextlib import AbstractContextManager

from fleet import limit_to, message, rotate
from measuring import MOST_ACCOUNTS, Bench, Cost
from rotation import lower_bound, row, wanted
from sandbox_client import Sandbox, serving
from tables import Result, mebibytes, times

SLICES = 10
# The list of so many accounts, which is read every 20 seconds, has a hundred pages.
MOST_READS = 3.5


def main(bench: Bench) -> Result:
    accounts = bench.sized(MOST_ACCOUNTS)
    with _sandbox(accounts) as sandbox:
        whole = rotate(bench, sandbox)
        messages = {
            "only messages in one run": message(bench, sandbox),
            "only messages in one slice": message(bench, sandbox, limit_to(accounts // SLICES)),
        }
    with _sandbox(accounts) as sandbox:
        sliced = rotate(bench, sandbox, slices=SLICES)
    runs = {"one run": whole, f"{SLICES} slices, one after the other": sliced}
    bound, longest = lower_bound(accounts), whole.cost.seconds
    return Result(
        (
            f"{accounts} accounts",
            "times the bound",
            "times one run",
            "wall, s",
            "processor, s",
            "requests",
            "Resource Manager's reads an account",
            "429s",
            "peak of ansible-playbook, MiB",
        ),
        [
            *((name, *row(run, accounts, bound, longest), mebibytes(run.cost.peak)) for name, run in runs.items()),
            *((name, "", *_row(cost, longest), "", "", "", mebibytes(cost.peak)) for name, cost in messages.items()),
        ],
        [one for name, run in runs.items() for one in wanted(name, run, accounts, MOST_READS)],
    )


def _sandbox(accounts: int) -> AbstractContextManager[Sandbox]:
    return serving("--realistic", "--accounts-on-key", str(accounts), "--one-subscription")


def _row(cost: Cost, longest: float) -> tuple[str, ...]:
    return times(cost.seconds, longest), f"{cost.seconds:.0f}", f"{cost.processor_seconds:.0f}"
