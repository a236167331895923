# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's own main jobs: the integration tests with the mark `on_azure`, which also run in the sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from ..azure import NoResult
from ..experiment import Experiment, Outcome
from ..lab import Lab

_ROOT = Path(__file__).resolve().parents[3]
_FILE = "tests/integration/test_main_jobs.py"


def _tested(test: str, lab: Lab) -> Outcome:
    """Run a test in another process. Each playbook and each wait of the test has a limit."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "place.json")
        place.write_text(json.dumps(lab.document()), encoding="utf-8")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", str(Path(folder, "pytest"))),
                *("-m", "on_azure", "--on-azure", str(place), f"{_FILE}::{test}"),
            ],
            cwd=_ROOT,
            env={**os.environ, **lab.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        # The output may name resources of others, so it is only for the caller.
        log = lab.folder / f"{test}.log"
        log.touch(0o600)
        log.write_text(done.stdout, encoding="utf-8")
        raise NoResult(f"The test {test} has failed. Its output is in {log.name}.")
    return Outcome(f"The test {test} passed.")


def _experiment(name: str, test: str, question: str, minutes: float) -> Experiment:
    return Experiment(
        f"job_{name}",
        f"Does the collection {question}?",
        f"Run the integration test {test}.",
        partial(_tested, test),
        minutes=minutes,
        creates="a vault with a key",
        cents=3,
    )


EXPERIMENTS = (
    *(
        _experiment(
            f"provision_{identity}_{authorization}",
            f"test_provision[{identity}-{authorization}]",
            f"provision an account with a {identity.replace('_', '-')} identity and {title}",
            minutes=minutes,
        )
        for identity in ("system_assigned", "user_assigned")
        for authorization, title, minutes in (("access_policy", "access policies", 4), ("rbac", "Azure RBAC", 8))
    ),
    _experiment("rotate", "test_rotate", "move an account to a new version of its key", 4),
    _experiment("unused_versions", "test_unused_versions", "disable the versions that nothing uses", 8),
    _experiment("switch", "test_switch", "move an account to a key in another vault", 8),
    _experiment("recover", "test_recover", "recover an account whose key was disabled", 12),
    _experiment("revert", "test_revert", "move an account to a Microsoft-managed key", 4),
    _experiment("audit", "test_audit", "report the state of an account", 3),
)
