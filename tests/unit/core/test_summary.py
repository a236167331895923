# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one-line summaries that the modules return."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, NEW, OLD

from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as encryption_document

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
