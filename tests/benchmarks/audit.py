# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cost of an audit with all its reports, for ten to ten thousand accounts."""

from __future__ import annotations

import json

from measuring import ANSIBLE_PLAYBOOK, Bench, Cost, Traffic
from sandbox_client import Sandbox, serving
from tables import Result, Wanted, mebibytes, times

# Accounts in a page of a list.
PAGE = 100
FORMATS = {"json": "JSON", "html": "page"}


def main(bench: Bench) -> Result:
    counts = bench.growing
    runs = [_audited(bench, accounts) for accounts in counts]
    largest, requests, _sizes = runs[-1]
    subscriptions = -(-counts[-1] // 1000)
    pages = counts[-1] / PAGE
    return Result(
        (
            *("accounts", "wall, times that of the largest", "wall, s", "processor, s", "peak, MiB", "requests"),
            *(f"{name}, MiB" for name in FORMATS.values()),
        ),
        [
            (
                str(accounts),
                times(cost.seconds, largest.seconds),
                f"{cost.seconds:.1f}",
                f"{cost.processor_seconds:.1f}",
                mebibytes(cost.peak),
                str(asked),
                *(f"{size / 2**20:.1f}" for size in sizes),
            )
            for accounts, (cost, asked, sizes) in zip(counts, runs, strict=True)
        ],
        [
            Wanted(
                f"at most one request for each page of {PAGE} accounts, eight for each subscription, and a few more",
                f"{requests} requests for {pages:.0f} pages in {subscriptions} subscriptions",
                requests <= pages + 8 * subscriptions + 15,
            )
        ],
    )


def _audited(bench: Bench, accounts: int) -> tuple[Cost, int, list[int]]:
    with serving("--accounts-on-key", str(accounts)) as sandbox:
        _audit(bench, sandbox)
        before = sandbox.control.last
        cost = _audit(bench, sandbox)
        requests = Traffic.after(sandbox, before).requests
    report = json.loads((bench.folder / "audit" / "cmk-audit.json").read_text())
    compliant = report["summary"]["states"]["ok"]
    assert compliant == accounts, f"{compliant} of {accounts} accounts are compliant"
    print(f"{accounts} accounts: {cost.seconds:.1f} s", flush=True)
    return cost, requests, [(bench.folder / "audit" / f"cmk-audit.{name}").stat().st_size for name in FORMATS]


def _audit(bench: Bench, sandbox: Sandbox) -> Cost:
    variables = json.dumps({"cmk_audit_folder": str(bench.folder / "audit")})
    return bench.measured([ANSIBLE_PLAYBOOK, "azbatch.cmk.audit", "--extra-vars", variables], bench.ansible(sandbox))
