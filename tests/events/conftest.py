# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures: a sandbox, and the rulebook of the collection in ansible-rulebook."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rulebook import SECRET, Rulebook
from sandbox_client import Control, Sandbox, shared
from service import Service, reset


@pytest.fixture
def sandbox() -> Sandbox:
    sandbox = shared()
    reset(sandbox.control)
    return sandbox


@pytest.fixture
def control(sandbox: Sandbox) -> Control:
    return sandbox.control


@pytest.fixture
def service(sandbox: Sandbox) -> Service:
    return Service(sandbox)


@pytest.fixture
def rulebook(sandbox: Sandbox, tmp_path: Path) -> Iterator[Rulebook]:
    """Not started. After the test, checks that the secret is not in the output."""
    venv = os.environ.get("RULEBOOK")
    if not venv:
        pytest.fail("RULEBOOK is not set: run these tests by `make events`")
    rulebook = Rulebook(Path(venv), sandbox, tmp_path)
    yield rulebook
    rulebook.stop()
    assert SECRET not in rulebook.output
