# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one-line summaries that the modules return."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, NEW, OLD

from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.summary import would
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
        (True, False, "Created a key."),
        (True, True, "Would create a key."),
        (False, True, "Created a key."),
    ],
)
def test_summary_of_an_outcome(changed: bool, planned: bool, expected: str) -> None:
    outcome = Outcome(changed, {"a": 1}, {"a": 2}, report={"preflight": []}).summarized("Created a key.")
    result = outcome.result(planned=planned)

    assert result["summary"] == expected
    assert result["preflight"] == []
    assert result["diff"] == {"before": {"a": 1}, "after": {"a": 2}}


@pytest.mark.parametrize(
    ("done", "predicted"),
    [
        (f"Created a new version {WHERE} (before: {S1}).", f"Would create a new version {WHERE} (before: {S1})."),
        ("Disabled version 1. Enabled version 2.", "Would disable version 1. Would enable version 2."),
        ("Recovered or created the key vault v.", "Would recover or create the key vault v."),
        (
            f"mybatch uses {S2} {WHERE} (before: {S1}). The account is available again.",
            f"mybatch would use {S2} {WHERE} (before: {S1}). The account would be available again.",
        ),
        ("mybatch uses a Microsoft-managed key.", "mybatch would use a Microsoft-managed key."),
        ("The principal 1 has get on key k.", "The principal 1 would have get on key k."),
        ("Drill of mybatch: the key was disabled at noon.", "Drill of mybatch: the key would be disabled at noon."),
    ],
)
def test_a_prediction_says_what_would_be_done(done: str, predicted: str) -> None:
    assert would(done) == predicted
