# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the cost of a rotation grows linearly, from ten to ten thousand accounts, a thousand in each subscription."""

from __future__ import annotations

from fleet import Rotation, rotate
from measuring import Bench
from sandbox_client import serving
from tables import Result, Wanted, mebibytes, times

# The allowed cost of an additional account among thousands, relative to an additional account among hundreds.
STEEPER = 1.2


def main(bench: Bench) -> Result:
    runs = []
    for accounts in bench.growing:
        with serving("--accounts-on-key", str(accounts)) as sandbox:
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
        ),
        [_row(run, runs[-1]) for run in runs],
        [
            linear("wall time", [(run.accounts, run.cost.seconds) for run in runs]),
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


def linear(what: str, curve: list[tuple[int, float]]) -> Wanted:
    """Compare the costs of an additional account, so that the fixed cost of a run does not hide the growth."""
    (some, cost_of_some), (more, cost_of_more), (most, cost_of_most) = curve[-3:]
    among_few = (cost_of_more - cost_of_some) / (more - some)
    among_many = (cost_of_most - cost_of_more) / (most - more)
    return Wanted(
        f"linear {what}: from {more:,} to {most:,} accounts, an additional account takes at most {STEEPER} times as "
        f"long as from {some:,} to {more:,}",
        f"{times(among_many, among_few)} times as long",
        among_many <= STEEPER * among_few,
    )
