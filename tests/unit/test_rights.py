# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether permissions allow an action."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._rights import allows

READ = "Microsoft.Batch/batchAccounts/read"


def permission(*actions: str, but: tuple[str, ...] = (), data: bool = False) -> dict[str, Any]:
    granted, excepted = ("dataActions", "notDataActions") if data else ("actions", "notActions")
    return {"actions": [], "notActions": [], "dataActions": [], "notDataActions": [], granted: actions, excepted: but}


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        pytest.param([], False, id="none"),
        pytest.param([permission()], False, id="empty"),
        pytest.param([permission(READ)], True, id="the action"),
        pytest.param([permission(READ.upper())], True, id="another letter case"),
        pytest.param([permission("*")], True, id="everything"),
        pytest.param([permission("*/read")], True, id="all reads"),
        pytest.param([permission("Microsoft.Batch/*/read")], True, id="all reads of a provider"),
        pytest.param([permission("Microsoft.Batch/batchAccounts/*/read")], True, id="of the resource and below"),
        pytest.param([permission("Microsoft.Batch/batchAccounts/pools/read")], False, id="below"),
        pytest.param([permission("Microsoft.Batch/batchAccounts")], False, id="a part"),
        pytest.param([permission("microsoftXbatch/batchaccounts/read")], False, id="a dot is a dot"),
        pytest.param([permission("*/write")], False, id="all writes"),
        pytest.param([permission("*", but=("Microsoft.Batch/*",))], False, id="excepted"),
        pytest.param(
            [permission("*", but=("Microsoft.Batch/*",)), permission(READ)], True, id="excepted in one of two"
        ),
        pytest.param([permission("*", data=True)], False, id="as a data action"),
        pytest.param([{"actions": None}, {"actions": [READ], "notActions": None}], True, id="nulls"),
    ],
)
def test_an_action(permissions: list[dict[str, Any]], allowed: bool) -> None:
    assert allows(permissions, READ) is allowed


def test_a_data_action() -> None:
    wrap = "Microsoft.KeyVault/vaults/keys/wrap/action"

    assert allows([permission("Microsoft.KeyVault/vaults/keys/*", data=True)], wrap, data=True)
    assert not allows([permission("*")], wrap, data=True)
    assert not allows([permission("*", but=("*/wrap/action",), data=True)], wrap, data=True)
