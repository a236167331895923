# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cost of the inventory: `ansible-inventory --graph` for ten to ten thousand accounts."""

from __future__ import annotations

from harness import BIN
from measuring import Bench, Cost, Traffic
from sandbox_client import Sandbox, serving
from tables import Result, Wanted, mebibytes, times

# Accounts in a page of a list.
PAGE = 100
ANSIBLE_INVENTORY = BIN / "ansible-inventory"


def main(bench: Bench) -> Result:
    counts = bench.growing
    runs = [_listed(bench, accounts) for accounts in counts]
    largest, requests = runs[-1]
    # Sign-in takes two requests, and the list of subscriptions one.
    pages = counts[-1] / PAGE
    return Result(
        ("accounts", "wall, times that of the largest", "wall, s", "processor, s", "peak, MiB", "requests"),
        [
            (
                str(accounts),
                times(cost.seconds, largest.seconds),
                f"{cost.seconds:.1f}",
                f"{cost.processor_seconds:.1f}",
                mebibytes(cost.peak),
                str(asked),
            )
            for accounts, (cost, asked) in zip(counts, runs, strict=True)
        ],
        [
            Wanted(
                f"at most one request for each page of {PAGE} accounts, and a few more",
                f"{requests} requests for {pages:.0f} pages",
                requests <= pages + 15,
            )
        ],
    )


def _listed(bench: Bench, accounts: int) -> tuple[Cost, int]:
    with serving("--accounts", str(accounts)) as sandbox:
        _graph(bench, sandbox)
        before = sandbox.control.last
        cost = _graph(bench, sandbox)
        found = bench.output.read_text().count("|--batch")
        assert found >= accounts, f"{found} of {accounts} accounts are hosts"
        print(f"{accounts} accounts: {cost.seconds:.1f} s", flush=True)
        return cost, Traffic.after(sandbox, before).requests


def _graph(bench: Bench, sandbox: Sandbox) -> Cost:
    return bench.measured([ANSIBLE_INVENTORY, "--inventory", bench.inventory(), "--graph"], bench.ansible(sandbox))
