# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the cost of a rotation grows linearly, from ten to ten thousand accounts, a thousand in each subscription.

For comparison, the cost of a playbook whose only task prints a message.
"""

from __future__ import annotations

from fleet import Rotation, message, rotate
from measuring import Bench
from sandbox_client import serving
from tables import Result, Wanted, mebibytes, times

# The allowed cost of an additional account among thousands, relative to an additional account among hundreds.
STEEPER = 1.2


def main(bench: Bench) -> Result:
    runs, messages = [], []
    for accounts in bench.growing:
        with serving("--accounts-on-key", str(accounts)) as sandbox:
            messages.append((accounts, message(bench, sandbox).seconds))
            runs.append(rotate(bench, sandbox))
    return Result(
        (
            "accounts",
            "wall an account, times that of the largest run",
            "wall, s",
            "processor, s",
            "requests an account",
            "peak of ansible-playbook, MiB",
            "peak of the sandbox, MiB",
            "only a message, wall, s",
        ),
        [(*_row(run, runs[-1]), f"{seconds:.1f}") for run, (_, seconds) in zip(runs, messages, strict=True)],
        [
            linear([(run.accounts, run.cost.seconds) for run in runs], messages),
            Wanted("no failed account", "; ".join(run.failures for run in runs), not any(run.failed for run in runs)),
        ],
    )


def _row(run: Rotation, largest: Rotation) -> tuple[str, ...]:
    return (
        str(run.accounts),
        times(run.cost.seconds / run.accounts, largest.cost.seconds / largest.accounts),
        f"{run.cost.seconds:.1f}",
        f"{run.cost.processor_seconds:.1f}",
        f"{run.traffic.requests / run.accounts:.1f}",
        mebibytes(run.cost.peak),
        mebibytes(run.sandbox_peak),
    )


def linear(curve: list[tuple[int, float]], messages: list[tuple[int, float]]) -> Wanted:
    """Whether the wall time of a rotation grows linearly. The result also has the growth of the messages."""
    (some, _), (more, _), (most, _) = curve[-3:]
    growth = _growth(curve)
    return Wanted(
        f"linear wall time: from {more:,} to {most:,} accounts, an additional account takes at most {STEEPER} times as "
        f"long as from {some:,} to {more:,}",
        f"{growth:.2f} times as long; {_growth(messages):.2f} times if the playbook only prints a message",
        growth <= STEEPER,
    )


def _growth(curve: list[tuple[int, float]]) -> float:
    """The cost of an additional account among many, times that among few. The fixed cost of a run does not count."""
    (some, cost_of_some), (more, cost_of_more), (most, cost_of_most) = curve[-3:]
    return ((cost_of_most - cost_of_more) / (most - more)) / ((cost_of_more - cost_of_some) / (more - some))
