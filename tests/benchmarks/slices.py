# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of ten thousand accounts in a subscription with Azure's rate limits, in one run and in ten slices."""

from __future__ import annotations

from fleet import Rotation, rotate
from measuring import MOST_ACCOUNTS, Bench
from rotation import MOST_READS, lower_bound, ratios, wanted
from sandbox_client import serving
from tables import Result, mebibytes

SLICES = 10


def main(bench: Bench) -> Result:
    accounts = bench.sized(MOST_ACCOUNTS)
    runs = {
        "one run": _rotation(bench, accounts, 1),
        f"{SLICES} slices, one after the other": _rotation(bench, accounts, SLICES),
    }
    return Result(
        (
            f"{accounts} accounts",
            "times the bound",
            "times one run",
            "wall, s",
            "processor, s",
            "requests an account",
            "Resource Manager's reads an account",
            "peak of ansible-playbook, MiB",
            "429s",
        ),
        [(name, *_row(run, runs["one run"])) for name, run in runs.items()],
        [one for name, run in runs.items() for one in wanted(name, run, accounts, MOST_READS)],
    )


def _rotation(bench: Bench, accounts: int, slices: int) -> Rotation:
    with serving("--realistic", "--accounts-on-key", str(accounts), "--one-subscription") as sandbox:
        return rotate(bench, sandbox, slices=slices)


def _row(run: Rotation, whole: Rotation) -> tuple[str, ...]:
    cost, traffic = run.cost, run.traffic
    return (
        *ratios(cost.seconds, lower_bound(run.accounts), whole.cost.seconds),
        f"{cost.seconds:.0f}",
        f"{cost.processor_seconds:.0f}",
        f"{traffic.requests / run.accounts:.1f}",
        f"{traffic.reads / run.accounts:.2f}",
        mebibytes(cost.peak),
        str(traffic.throttled),
    )
