# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one-line summaries that the modules return."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, NEW, NOW, OLD, key, listed

from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import key as key_document

V1, V2 = f"{KEY}/{OLD}", f"{KEY}/{NEW}"
S1, S2 = f"version {OLD[:8]}…", f"version {NEW[:8]}…"
WHERE = "of key batch in vault myvault"


@pytest.mark.parametrize(
    ("used", "uses", "available", "expected"),
    [
        (V1, V2, (True, True), f"mybatch uses {S2} {WHERE} (before: {S1})."),
        (None, None, (True, True), "mybatch uses a Microsoft-managed key."),
        (V2, KEY, (True, True), f"mybatch uses the latest version {WHERE} (before: {S2})."),
        (V2, V2, (False, True), f"mybatch uses {S2} {WHERE}. The account is available again."),
        (V2, V2, (None, None), f"mybatch uses {S2} {WHERE}. Whether the account is available is not known."),
    ],
)
def test_encryption(used: str | None, uses: str | None, available: tuple[Any, Any], expected: str) -> None:
    before, after = (
        {"exists": True, "name": "mybatch", "key_identifier": identifier, "available": one}
        for identifier, one in zip((used, uses), available, strict=True)
    )

    assert encryption_document.summary("mybatch", before, after) == expected


NO_KEY = {"exists": False, "soft_deleted": False}
DELETED_KEY = {"exists": False, "soft_deleted": True}
KEY_1, KEY_2 = (key_document.describe(one, [listed(one)], None, NOW) for one in (key(OLD), key(NEW)))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (NO_KEY, KEY_1, f"Created key batch in vault myvault, {S1}."),
        (KEY_1, KEY_2, f"Created {S2} {WHERE} (before: {S1})."),
        (KEY_1, KEY_1, f"The newest version {WHERE} is enabled: {S1}."),
        (
            {**KEY_1, "enabled": False, "expires_on": "x"},
            KEY_1,
            f"Changed key batch in vault myvault, {S1}: expires_on (x -> none).",
        ),
        (
            {**KEY_2, "enabled_versions": [NEW, OLD]},
            {**KEY_2, "enabled": False, "enabled_versions": []},
            f"Disabled {S2} and {S1} {WHERE}.",
        ),
        (DELETED_KEY, KEY_1, f"Recovered key batch in vault myvault, {S1}."),
    ],
)
def test_key(before: dict[str, Any], after: dict[str, Any], expected: str) -> None:
    assert key_document.summary("myvault", "batch", before, after) == expected


@pytest.mark.parametrize(
    ("changed", "planned", "expected"),
    [
        (True, False, "It is so."),
        (True, True, "Predicted: It is so."),
        (False, True, "It is so."),
    ],
)
def test_summary_of_an_outcome(changed: bool, planned: bool, expected: str) -> None:
    outcome = Outcome(changed, {"a": 1}, {"a": 2}, report={"preflight": []}).summarized("It is so.")
    result = outcome.result(planned=planned)

    assert result["summary"] == expected
    assert result["preflight"] == []
    assert result["diff"] == {"before": {"a": 1}, "after": {"a": 2}}
