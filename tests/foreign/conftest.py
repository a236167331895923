# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the clients are that `scripts/foreign` installed, and a sandbox for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_client import Control, Sandbox, shared


@pytest.fixture(scope="session")
def clients() -> Path:
    """The folder with a virtual environment for each client."""
    folder = os.environ.get("FOREIGN_CLIENTS")
    if not folder:
        pytest.fail("FOREIGN_CLIENTS is not set: run these tests by `make foreign`")
    return Path(folder)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """As it is in the beginning; what was asked of it has to be something that it has."""
    sandbox = shared()
    sandbox.control.reset()
    yield sandbox
    asked = [f"{entry['method']} {entry['url']}" for entry in sandbox.control.unknown() if entry["fault"] is None]
    assert asked == []


@pytest.fixture
def control(sandbox: Sandbox) -> Control:
    return sandbox.control
