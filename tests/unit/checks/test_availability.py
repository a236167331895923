# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an account is available, according to the list of its pools and the data of its key."""

from __future__ import annotations

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, Rejected, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.account import (
    availability,
    is_refused,
    why_unavailable,
)

LISTED = None
FAILING = Unavailable("Batch fails.", azure={"status": 500, "code": "InternalServerError"})
REFUSED = Rejected("Batch refuses.", azure={"status": 409, "code": "AccountKeyInaccessible"})
NOT_ALLOWED = Denied("The caller may not.", azure={"status": 403, "code": "AuthorizationFailed"})
LOST, UNKNOWN = ["The key is disabled."], ["The key could not be read."]


@pytest.mark.parametrize(
    ("pools", "lost", "unknown", "available"),
    [
        (LISTED, [], [], True),
        (LISTED, LOST, [], False),
        (LISTED, LOST, UNKNOWN, False),
        (LISTED, [], UNKNOWN, None),
        (FAILING, [], [], None),
        (FAILING, LOST, [], False),
        (FAILING, [], UNKNOWN, None),
        (REFUSED, [], [], False),
        (REFUSED, [], UNKNOWN, False),
        (NOT_ALLOWED, [], [], None),
        (NOT_ALLOWED, LOST, [], None),
    ],
)
def test_available(pools: CmkError | None, lost: list[str], unknown: list[str], available: bool | None) -> None:
    assert availability(why_unavailable(pools, lost, unknown)) is available


@pytest.mark.parametrize(("pools", "refused"), [(LISTED, False), (FAILING, True), (REFUSED, True)])
def test_whether_batch_refuses_to_list_the_pools_of_an_account_without_its_key(
    pools: CmkError | None, refused: bool
) -> None:
    assert is_refused(why_unavailable(pools, LOST, [])) is refused


@pytest.mark.parametrize("pools", [REFUSED, NOT_ALLOWED])
def test_a_refusal_stays_the_reason(pools: CmkError) -> None:
    assert why_unavailable(pools, LOST, UNKNOWN) is pools


def test_an_error_of_the_service_is_the_reason_if_the_key_is_unknown() -> None:
    assert why_unavailable(FAILING, [], UNKNOWN) is FAILING
