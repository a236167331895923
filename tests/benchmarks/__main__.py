# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the benchmarks and writes their results into docs/developers/benchmarks.md. `make bench` starts it."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import audit
import host_task
import life
import listing
import nights
import rotation
import slices
from measuring import Bench
from tables import with_section

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "developers" / "benchmarks.md"
# The smallest fraction at which a benchmark still has different sizes to compare.
SMALLEST = 0.002
BENCHMARKS = {
    "host_task": host_task,
    "life": life,
    "rotation": rotation,
    "nights": nights,
    "slices": slices,
    "listing": listing,
    "audit": audit,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="BENCH", help=f"some of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--clients", type=Path, required=True, help="where scripts/foreign-clients installed them")
    parser.add_argument("--fraction", type=float, default=1, help="a trial of less than full size is printed only")
    parsed = parser.parse_args()
    unknown = set(parsed.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(BENCHMARKS)}")
    if not SMALLEST <= parsed.fraction <= 1:
        parser.error(f"the fraction {parsed.fraction} is not between {SMALLEST} and 1")
    made_on = _made_on(parsed.clients)
    reached = True
    for name in parsed.names or BENCHMARKS:
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="azbatch-bench-") as folder:
            result = BENCHMARKS[name].main(Bench(Path(folder), parsed.clients, parsed.fraction))
        print(f"\n{result}\n", flush=True)
        reached = reached and result.reached
        if parsed.fraction == 1:
            DOCUMENT.write_text(with_section(DOCUMENT.read_text(), name, f"{result}\n\n{made_on}"))
    return 0 if reached else 1


def _made_on(clients: Path) -> str:
    (az,), (theirs,) = ([*clients.glob(f"{name}/lib/*/site-packages")] for name in ("azure-cli", "azcollection"))
    manifest = theirs / "ansible_collections" / "azure" / "azcollection" / "MANIFEST.json"
    parts = (
        f"{datetime.date.today()}",
        f"{len(os.sched_getaffinity(0))} cores",
        f"Python {platform.python_version()}",
        f"ansible-core {importlib.metadata.version('ansible-core')}",
        f"azure-cli {_version('azure-cli', az)}",
        f"azure.azcollection {json.loads(manifest.read_text())['collection_info']['version']}",
        f"its ansible-core {_version('ansible-core', theirs)}",
    )
    return f"Measured: {', '.join(parts)}."


def _version(distribution: str, site_packages: Path) -> str:
    (found,) = importlib.metadata.distributions(name=distribution, path=[str(site_packages)])
    return found.version


if __name__ == "__main__":
    sys.exit(main())
