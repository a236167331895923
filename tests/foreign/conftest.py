# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the clients are that `scripts/foreign` installed, and a sandbox for them."""

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
    """As it is in the beginning; what was asked of it has to be something that it has."""
    sandbox = shared()
    sandbox.control.reset()
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
    """The operator's configuration folder: its tokens stay valid after a reset, so one sign-in is enough for all."""
    sandbox, folder = shared(), tmp_path_factory.mktemp("operator")
    Az(command, sandbox, folder).sign_in(sandbox.client_id, f"--password={sandbox.secret}")
    return folder


@pytest.fixture
def az(command: Path, signed_in: Path, sandbox: Sandbox, tmp_path: Path) -> Az:
    shutil.copytree(signed_in, tmp_path / "operator")
    return Az(command, sandbox, tmp_path / "operator")


@pytest.fixture
def stranger(command: Path, signed_in: Path, sandbox: Sandbox, tmp_path: Path) -> Az:
    """Not signed in, and with no questions to its makers."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    shutil.copy(signed_in / VERSION_CHECK, folder)
    return Az(command, sandbox, folder)
