# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads and lists that show writes after a delay: of values, of new names in reads, and of new names in lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from batch_calls import account_path, batch
from key_vault_calls import (
    CRYPTO_OFFICER,
    assign,
    data,
    make_key,
    make_vault,
    vault_body,
    vault_path,
    version_of,
)
from sandbox_client import VAULTS, Sandbox

ROLES = "2022-04-01"
ACCOUNTS = "2024-07-01"
BODY = {"location": "westeurope"}
Read = Callable[[], Any]


def reads(sandbox: Sandbox, path: str, above: str, version: str) -> tuple[Read, Read]:
    """A read of the resource, and a read of the resource in a list."""

    def itself() -> Any:
        response = sandbox.arm("GET", path, version)
        return response.json() if response.ok else None

    def listed() -> Any:
        values = sandbox.arm("GET", above, version).json()["value"]
        return next((one for one in values if one["id"].lower() == path.lower()), None)

    return itself, listed


def assert_shown_after(sandbox: Sandbox, lag: int, read: Read, before: Any, after: Any) -> None:
    """The read shows `before`, and `after` once the lag has passed. `after` may be any document (`...`)."""
    if lag:
        assert read() == before
        sandbox.control.advance(lag - 2)
        assert read() == before
        sandbox.control.advance(4)
    shown = read()
    assert shown is not None if after is ... else shown == after


@pytest.mark.parametrize("lag", [0, 10, 60])
@pytest.mark.parametrize("switch", ["name_lag", "list_lag"])
def test_new_names(sandbox: Sandbox, switch: str, lag: int) -> None:
    sandbox.control.behavior(**{switch: str(lag)})
    path = account_path(sandbox, "account1")
    itself, listed = reads(sandbox, path, path.rpartition("/")[0], ACCOUNTS)
    batch(sandbox, "PUT", "account1", BODY)

    late, other = (itself, listed) if switch == "name_lag" else (listed, itself)
    assert other() is not None
    assert_shown_after(sandbox, lag, late, None, ...)


@pytest.mark.parametrize("lag", [0, 5, 20])
@pytest.mark.parametrize("is_list", [False, True], ids=["itself", "list"])
def test_values(sandbox: Sandbox, lag: int, is_list: bool) -> None:
    sandbox.control.behavior(value_lag=str(lag))
    account, name = account_path(sandbox, "account1"), vault_path(sandbox, "vault1")
    batch(sandbox, "PUT", "account1", BODY)
    made = sandbox.arm("PUT", name, VAULTS, vault_body(sandbox, accessPolicies=[]))
    assert made.ok, made.text
    role = assign(sandbox, sandbox.group, CRYPTO_OFFICER, sandbox.control.principal("officer")["object_id"])
    role_path = role.json()["id"]
    of_account = reads(sandbox, account, account.rpartition("/")[0], ACCOUNTS)[is_list]
    of_vault = reads(sandbox, name, name.rpartition("/")[0], VAULTS)[is_list]
    of_role = reads(sandbox, role_path, role_path.rpartition("/")[0], ROLES)[is_list]

    old = of_account()
    new = batch(sandbox, "PATCH", "account1", {"tags": {"a": "b"}}).json()
    assert_shown_after(sandbox, lag, of_account, old, new)
    old = of_vault()
    new = sandbox.arm("PATCH", name, VAULTS, {"tags": {"a": "b"}}).json()
    assert_shown_after(sandbox, lag, of_vault, old, new)
    old = of_role()
    sandbox.arm("DELETE", role_path, ROLES)
    assert_shown_after(sandbox, lag, of_role, old, None)


@pytest.mark.parametrize("path", ["/keys/key1/", "/keys/key1/{}", "/keys/key1/versions"])
def test_versions_of_a_key(sandbox: Sandbox, path: str) -> None:
    make_vault(sandbox)
    version = version_of(make_key(sandbox))
    sandbox.control.behavior(value_lag="20")

    def is_enabled() -> bool:
        found = data(sandbox, "GET", path.format(version)).json()
        return bool(found.get("value", [found])[0]["attributes"]["enabled"])

    assert data(sandbox, "PATCH", f"/keys/key1/{version}", {"attributes": {"enabled": False}}).ok
    assert_shown_after(sandbox, 20, is_enabled, True, False)


def test_a_write_is_not_shown_before_its_time(sandbox: Sandbox) -> None:
    batch(sandbox, "PUT", "account1", BODY)
    sandbox.control.behavior(value_lag="60")
    for value in ("b", "c"):
        batch(sandbox, "PATCH", "account1", {"tags": {"a": value}})
        sandbox.control.advance(40)
    assert batch(sandbox, "GET", "account1").json()["tags"] == {"a": "b"}
    sandbox.control.advance(40)
    assert batch(sandbox, "GET", "account1").json()["tags"] == {"a": "c"}
