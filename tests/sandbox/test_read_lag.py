# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads and lists of Resource Manager that show writes after a delay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from batch_calls import account_path, batch
from key_vault_calls import CRYPTO_OFFICER, assign, vault_body, vault_path
from sandbox_client import VAULTS, Sandbox

from azure_sandbox.shared.behavior import POSITIONS

ROLES = "2022-04-01"
ACCOUNTS = "2024-07-01"
BODY = {"location": "westeurope"}
ANYTHING = object()
Read = Callable[[], dict[str, Any] | None]


@pytest.fixture(params=POSITIONS["read_lag"])
def lag(request: pytest.FixtureRequest, sandbox: Sandbox) -> int:
    sandbox.control.behavior(read_lag=request.param)
    return int(request.param)


def reads(sandbox: Sandbox, path: str, above: str, version: str) -> tuple[Read, Read]:
    """A read of the resource, and a read of the resource in a list."""

    def itself() -> dict[str, Any] | None:
        response = sandbox.arm("GET", path, version)
        return response.json() if response.ok else None

    def listed() -> dict[str, Any] | None:
        values = sandbox.arm("GET", above, version).json()["value"]
        return next((one for one in values if one["id"].lower() == path.lower()), None)

    return itself, listed


def assert_shown_after(sandbox: Sandbox, lag: int, both: tuple[Read, Read], before: Any, after: Any) -> None:
    if lag:
        sandbox.control.advance(lag - 2)
        assert [read() for read in both] == [before, before]
        sandbox.control.advance(4)
    for read in both:
        shown = read()
        assert shown is not None if after is ANYTHING else shown == after


def test_accounts(sandbox: Sandbox, lag: int) -> None:
    path = account_path(sandbox, "account1")
    for above in (path.rpartition("/")[0], f"{sandbox.subscription}/providers/Microsoft.Batch/batchAccounts"):
        both = reads(sandbox, path, above, ACCOUNTS)
        batch(sandbox, "PUT", "account1", BODY)
        assert_shown_after(sandbox, lag, both, None, ANYTHING)
        old = both[0]()
        new = batch(sandbox, "PATCH", "account1", {"tags": {"a": "b"}}).json()
        assert_shown_after(sandbox, lag, both, old, new)
        # Each write is shown after its own delay.
        batch(sandbox, "PATCH", "account1", {"tags": {"a": "c"}})
        batch(sandbox, "DELETE", "account1")
        assert_shown_after(sandbox, lag, both, new, None)


def test_a_write_is_not_shown_before_its_time(sandbox: Sandbox) -> None:
    batch(sandbox, "PUT", "account1", BODY)
    sandbox.control.behavior(read_lag="60")
    for value in ("b", "c"):
        batch(sandbox, "PATCH", "account1", {"tags": {"a": value}})
        sandbox.control.advance(40)
    assert batch(sandbox, "GET", "account1").json()["tags"] == {"a": "b"}
    sandbox.control.advance(40)
    assert batch(sandbox, "GET", "account1").json()["tags"] == {"a": "c"}


def test_batch_itself_uses_the_current_state(sandbox: Sandbox) -> None:
    sandbox.control.behavior(read_lag="60")
    batch(sandbox, "PUT", "account1", BODY)
    assert batch(sandbox, "GET", "account1", below="/pools").json() == {"value": []}
    # The account is not created a second time.
    assert batch(sandbox, "PUT", "account1", BODY).status_code == 200


def test_vaults(sandbox: Sandbox, lag: int) -> None:
    path = vault_path(sandbox, "vault1")
    for above in (path.rpartition("/")[0], f"{sandbox.subscription}/providers/Microsoft.KeyVault/vaults"):
        both = reads(sandbox, path, above, VAULTS)
        made = sandbox.arm("PUT", path, VAULTS, vault_body(sandbox, accessPolicies=[]))
        assert made.ok, made.text
        assert_shown_after(sandbox, lag, both, None, ANYTHING)
        old = both[0]()
        new = sandbox.arm("PATCH", path, VAULTS, {"tags": {"a": "b"}}).json()
        assert_shown_after(sandbox, lag, both, old, new)
        sandbox.arm("DELETE", path, VAULTS)
        assert_shown_after(sandbox, lag, both, new, None)
        sandbox.control.call("POST", "/reset")
        sandbox.control.behavior(read_lag=str(lag))


def test_role_assignments(sandbox: Sandbox, lag: int) -> None:
    principal = sandbox.control.principal("officer")["object_id"]
    path = assign(sandbox, sandbox.group, CRYPTO_OFFICER, principal).json()["id"]
    above = path.rpartition("/")[0]
    both = reads(sandbox, path, above, ROLES)
    assert_shown_after(sandbox, lag, both, None, ANYTHING)
    old = both[0]()
    sandbox.arm("DELETE", path, ROLES)
    assert_shown_after(sandbox, lag, both, old, None)
