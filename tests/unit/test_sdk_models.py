# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Threads that use the models of an SDK at the same time. Newer SDKs complete a model when it is used for the first
time, so each test needs processes in which no model has been used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import sdk as azure_sdk

pytest.importorskip("azure.keyvault.keys")

COLLECTIONS = str(azure_sdk.__file__).partition("ansible_collections")[0]
FIRST_READS = Path(__file__).with_name("first_reads.py")


def by_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": COLLECTIONS}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_threads_read_their_first_key_at_the_same_time() -> None:
    done = by_python(str(FIRST_READS))
    assert done.returncode == 0, done.stderr
