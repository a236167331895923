# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of a thousand accounts in a subscription with Azure's rate limits, compared with `az` in a loop."""

from __future__ import annotations

from fleet import AGED, DAY, KEY, Rotation, Run, give_each_its_identity, play, rotate
from key_vault_calls import data
from measuring import Bench, by_xargs
from sandbox_client import Sandbox, serving
from tables import Result, Wanted, times

ACCOUNTS = 1000
BY_AZ = 50
# Resource Manager's rate limit for a principal's writes in a subscription: the bucket size, and tokens per second.
WRITES = (200, 10)
# On a slow machine, the processors limit the times, of azbatch.cmk and of `az`.
MOST_OF_AZ, THROTTLED = 0.35, 0.05
DISABLE = ("-e", "cmk_unused_versions=disable")
# Each account is read, and its pools are listed. After a move, the access to the key is read again, once for two to
# three of the five hosts that run at the same time: 2.44 to 2.51 reads an account were measured.
# Before a version is disabled, each account is read and its pools are listed; after that, and once no list can be out
# of date, the same is asked again.
MOST_READS, MOST_READS_TO_DISABLE, MOST_READS_IN_CHECK = 2.6, 6.5, 3


def main(bench: Bench) -> Result:
    accounts, by_az = bench.sized(ACCOUNTS), bench.sized(BY_AZ)
    options = ("--realistic", "--accounts-on-key", str(accounts))
    with serving(*options) as sandbox:
        plain = rotate(bench, sandbox)
        sandbox.control.advance(31 * DAY)
        predicted = play(bench, sandbox, "rotate", *AGED, "--check")
        az = _az_seconds(bench, sandbox, by_az) * accounts / by_az
    with serving(*options) as sandbox:
        # The accounts use the first version. The second version is unused, because it is not the newest version.
        for _ in range(2):
            sandbox.control.advance(1)
            response = data(sandbox, "POST", f"/keys/{KEY}/rotate", vault="kv-sandbox-1")
            assert response.ok, response.text
        disabling = rotate(bench, sandbox, *DISABLE)
        disabled = [_disabled(sandbox)]
        # For seven days after a move, an account may use any version.
        sandbox.control.advance(8 * DAY)
        night = play(bench, sandbox, "rotate", *AGED, *DISABLE)
        disabled.append(_disabled(sandbox))
    with serving(*options) as sandbox:
        give_each_its_identity(sandbox)
        own = rotate(bench, sandbox)
    rotations = {
        "azbatch.cmk": plain,
        "azbatch.cmk, unused versions are disabled": disabling,
        "azbatch.cmk, an identity for each account": own,
    }
    rows: dict[str, Run] = {
        **rotations,
        "azbatch.cmk, a week later: three versions are disabled": night,
        "azbatch.cmk --check": predicted,
    }
    bound, ours = lower_bound(accounts), plain.cost.seconds
    return Result(
        (
            f"{accounts} accounts",
            "times the bound",
            "times azbatch.cmk",
            "wall, s",
            "processor, s",
            "requests",
            "Resource Manager's reads an account",
            "429s",
        ),
        [
            ("lower bound", *_ratios(bound, bound, ours), f"{bound:.0f}", "", str(accounts), "", "0"),
            *((name, *row(run, accounts, bound, ours)) for name, run in rows.items()),
            (f"az in a loop, extrapolated from {by_az}", *_ratios(az, bound, ours), f"{az:.0f}", "", "", "", ""),
        ],
        [
            *(
                one
                for name, run in rotations.items()
                for one in (_faster(name, run, az), *wanted(name, run, accounts, MOST_READS))
            ),
            *wanted("three versions are disabled", night, accounts, MOST_READS_TO_DISABLE),
            _faster("azbatch.cmk --check", predicted, az),
            *wanted("azbatch.cmk --check", predicted, accounts, MOST_READS_IN_CHECK),
            Wanted(
                "a week after the rotation, all old versions are disabled, also those that were never used",
                f"{disabled[0]} in the night of the rotation, {disabled[1]} a week later",
                disabled == [0, 3],
            ),
        ],
    )


def lower_bound(writes: float) -> float:
    """The seconds that the writes take at least."""
    at_once, a_second = WRITES
    return max(0, writes - at_once) / a_second


def _disabled(sandbox: Sandbox) -> int:
    versions = data(sandbox, "GET", f"/keys/{KEY}/versions", vault="kv-sandbox-1").json()["value"]
    return [one["attributes"]["enabled"] for one in versions].count(False)


def row(run: Run, accounts: int, bound: float, ours: float) -> tuple[str, ...]:
    cost, traffic = run.cost, run.traffic
    return (
        *_ratios(cost.seconds, bound, ours),
        f"{cost.seconds:.0f}",
        f"{cost.processor_seconds:.0f}",
        str(traffic.requests),
        f"{traffic.reads / accounts:.2f}",
        str(traffic.throttled),
    )


def _faster(name: str, run: Run, az: float) -> Wanted:
    return Wanted(
        f"{name}: at most {MOST_OF_AZ} times the time of az",
        f"{times(run.cost.seconds, az)} times",
        run.cost.seconds <= MOST_OF_AZ * az,
    )


def wanted(name: str, run: Run, accounts: int, most_reads: float) -> list[Wanted]:
    share, reads = run.traffic.throttled / run.traffic.requests, run.traffic.reads / accounts
    failures = run.failures if isinstance(run, Rotation) else f"ansible-playbook ended with {run.cost.status}"
    failed = run.failed if isinstance(run, Rotation) else run.cost.status != 0
    return [
        Wanted(f"{name}: no failed account", failures, not failed),
        Wanted(
            f"{name}: at most {most_reads} of Resource Manager's reads an account", f"{reads:.2f}", reads <= most_reads
        ),
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
