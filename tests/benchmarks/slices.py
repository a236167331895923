# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of ten thousand accounts in a subscription with Azure's rate limits, in one run and in ten slices."""

from __future__ import annotations

from fleet import Rotation, rotate
from measuring import MOST_ACCOUNTS, Bench
from rotation import MOST_READS, lower_bound, row, wanted
from sandbox_client import serving
from tables import Result, mebibytes

SLICES = 10


def main(bench: Bench) -> Result:
    accounts = bench.sized(MOST_ACCOUNTS)
    runs = {
        "one run": _rotation(bench, accounts, 1),
        f"{SLICES} slices, one after the other": _rotation(bench, accounts, SLICES),
    }
    bound, whole = lower_bound(accounts), runs["one run"].cost.seconds
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
        [(name, *row(run, accounts, bound, whole), mebibytes(run.cost.peak)) for name, run in runs.items()],
        [one for name, run in runs.items() for one in wanted(name, run, accounts, MOST_READS)],
    )


def _rotation(bench: Bench, accounts: int, slices: int) -> Rotation:
    with serving("--realistic", "--accounts-on-key", str(accounts), "--one-subscription") as sandbox:
        return rotate(bench, sandbox, slices=slices)
