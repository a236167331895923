# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures: the clients that `scripts/foreign` installed, and a sandbox."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure_cli import Az
from sandbox_client import Control, Sandbox, shared

# The file that the first command in a configuration folder writes after its check for a new version of `az`.
VERSION_CHECK = "versionCheck.json"


@pytest.fixture(scope="session")
def clients() -> Path:
    """The folder with a virtual environment for each client."""
    folder = os.environ.get("FOREIGN_CLIENTS")
    if not folder:
        pytest.fail("FOREIGN_CLIENTS is not set: run these tests by `make foreign`")
    return Path(folder)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox that is reset. After the test, checks that the sandbox implements every requested operation."""
    sandbox = shared()
    sandbox.control.reset()
    # Batch notices a lost key at once, and says so.
    sandbox.control.behavior(key_loss_noticed="0", pools_without_key="409", refused_creation="at_once")
    yield sandbox
    asked = [f"{entry['method']} {entry['url']}" for entry in sandbox.control.unknown() if entry["fault"] is None]
    assert asked == []


@pytest.fixture
def control(sandbox: Sandbox) -> Control:
    return sandbox.control


# The Azure CLI


@pytest.fixture(scope="session")
def command(clients: Path) -> Path:
    return clients / "azure-cli" / "bin" / "az"


@pytest.fixture(scope="session")
def signed_in(command: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration folder of `az`, signed in as the operator. The tokens stay valid after a reset of the sandbox,
    so all tests share one sign-in."""
    sandbox, folder = shared(), tmp_path_factory.mktemp("operator")
    Az(command, sandbox, folder).sign_in(sandbox.client_id, f"--password={sandbox.secret}")
    return folder


@pytest.fixture
def az(command: Path, signed_in: Path, sandbox: Sandbox, tmp_path: Path) -> Az:
    shutil.copytree(signed_in, tmp_path / "operator")
    return Az(command, sandbox, tmp_path / "operator")


@pytest.fixture
def stranger(command: Path, signed_in: Path, sandbox: Sandbox, tmp_path: Path) -> Az:
    """`az` without a sign-in. It does not check for a new version of `az`."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    shutil.copy(signed_in / VERSION_CHECK, folder)
    return Az(command, sandbox, folder)
