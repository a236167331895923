# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of a thousand accounts in a subscription with Azure's rate limits, compared with `az` in a loop."""

from __future__ import annotations

from fleet import KEY, Rotation, give_each_its_identity, rotate
from key_vault_calls import data
from measuring import Bench, by_xargs
from sandbox_client import Sandbox, serving
from tables import Result, Wanted, times

ACCOUNTS = 1000
BY_AZ = 50
# Resource Manager's rate limit for writes of a principal in a subscription: the bucket size, and tokens per second.
AT_ONCE, A_SECOND = 200, 10
SLOWER, THROTTLED = 1.25, 0.05
DISABLE = ("-e", "cmk_unused_versions=disable")


def main(bench: Bench) -> Result:
    accounts, by_az = bench.sized(ACCOUNTS), bench.sized(BY_AZ)
    options = ("--realistic", "--accounts-on-key", str(accounts))
    with serving(*options) as sandbox:
        plain = rotate(bench, sandbox)
        az = _az_seconds(bench, sandbox, by_az) * accounts / by_az
    with serving(*options) as sandbox:
        # The accounts use the first version. The second version is unused, because it is not the newest version.
        for _ in range(2):
            sandbox.control.advance(1)
            response = data(sandbox, "POST", f"/keys/{KEY}/rotate", vault="kv-sandbox-1")
            assert response.ok, response.text
        disabled = rotate(bench, sandbox, *DISABLE)
        versions = data(sandbox, "GET", f"/keys/{KEY}/versions", vault="kv-sandbox-1").json()["value"]
        enabled = [one["attributes"]["enabled"] for one in versions]
    with serving(*options) as sandbox:
        give_each_its_identity(sandbox)
        own = rotate(bench, sandbox)
    runs = {
        "azbatch.cmk": plain,
        "azbatch.cmk, an unused version disabled": disabled,
        "azbatch.cmk, an identity for each account": own,
    }
    bound, ours = max(0, accounts - AT_ONCE) / A_SECOND, plain.cost.seconds
    return Result(
        (f"{accounts} accounts", "times the bound", "times azbatch.cmk", "wall, s", "processor, s", "requests", "429s"),
        [
            ("lower bound", *_ratios(bound, bound, ours), f"{bound:.0f}", "", str(accounts), "0"),
            *((name, *_row(run, bound, ours)) for name, run in runs.items()),
            (f"az in a loop, extrapolated from {by_az}", *_ratios(az, bound, ours), f"{az:.0f}", "", "", ""),
        ],
        [
            *(one for name, run in runs.items() for one in _wanted(name, run, bound)),
            Wanted("the unused version is disabled", f"{enabled.count(False)} of {len(enabled)}", sum(enabled) == 3),
        ],
    )


def _row(run: Rotation, bound: float, ours: float) -> tuple[str, ...]:
    cost, traffic = run.cost, run.traffic
    figures = f"{cost.seconds:.0f}", f"{cost.processor_seconds:.0f}", str(traffic.requests), str(traffic.throttled)
    return *_ratios(cost.seconds, bound, ours), *figures


def _wanted(name: str, run: Rotation, bound: float) -> list[Wanted]:
    share, seconds = run.traffic.throttled / run.traffic.requests, run.cost.seconds
    return [
        Wanted(
            f"{name}: at most {SLOWER} times the lower bound",
            f"{seconds:.0f} s; {SLOWER} times the lower bound is {SLOWER * bound:.0f} s",
            seconds <= SLOWER * bound,
        ),
        Wanted(f"{name}: no failed account", run.failures, not run.failed),
        Wanted(f"{name}: status 429 in fewer than {THROTTLED:.0%} of the requests", f"{share:.1%}", share < THROTTLED),
    ]


def _ratios(seconds: float, bound: float, ours: float) -> tuple[str, str]:
    # A small trial may be below the rate limit.
    return times(seconds, bound) if bound else "-", times(seconds, ours)


def _az_seconds(bench: Bench, sandbox: Sandbox, accounts: int) -> float:
    """The seconds of one command per account, one after the other. The key has a new version before the commands."""
    az = bench.az(sandbox)
    response = data(sandbox, "POST", f"/keys/{KEY}/rotate", vault="kv-sandbox-1")
    assert response.ok, response.text
    to_key = f"--encryption-key-source Microsoft.KeyVault --encryption-key-identifier {response.json()['key']['kid']}"
    lines = [f"--resource-group batch-{n // 50:03d} --name batch{n:05d}" for n in range(accounts)]
    cost = bench.measured(by_xargs(az, f"batch account set {to_key}", lines, 1, bench.folder), az.environment)
    print(f"az, {accounts} accounts: {cost.seconds:.1f} s", flush=True)
    return cost.seconds
