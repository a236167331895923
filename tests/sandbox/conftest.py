# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A running sandbox, and the environment variables with which the SDKs use the sandbox."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from encrypted_account import Vault
from sandbox_client import Control, Sandbox, point_at, shared

from azure_sandbox.key_vault_keys import material


@pytest.fixture(scope="session")
def running_sandbox() -> Sandbox:
    return shared()


@pytest.fixture
def sandbox(running_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox in its initial state, and the environment variables with which the SDKs use the sandbox."""
    running_sandbox.control.reset()
    # Older API versions are tested too, also after the date of their retirement. Tests of the loss of a key do not wait
    # until Batch notices the loss.
    running_sandbox.control.behavior(retired_versions="taken", key_loss_noticed="0")
    point_at(running_sandbox, monkeypatch)
    return running_sandbox


@pytest.fixture
def control(sandbox: Sandbox) -> Control:
    return sandbox.control


@pytest.fixture(params=["policies", "roles"])
def vault(sandbox: Sandbox, request: pytest.FixtureRequest) -> Vault:
    return Vault(sandbox, rbac=request.param == "roles").make()


@pytest.fixture
def policy_vault(sandbox: Sandbox) -> Vault:
    return Vault(sandbox).make()


@pytest.fixture
def key_operations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """The encryptions and decryptions with the keys of a world in this process, each with its data."""
    operations: list[tuple[str, bytes]] = []

    def recorded(name: str, function: Callable[[bytes, str, bytes], bytes]) -> Callable[[bytes, str, bytes], bytes]:
        def record(private_key: bytes, algorithm: str, data: bytes) -> bytes:
            operations.append((name, data))
            return function(private_key, algorithm, data)

        return record

    for name in ("encrypt", "decrypt"):
        monkeypatch.setattr(material, name, recorded(name, getattr(material, name)))
    return operations
