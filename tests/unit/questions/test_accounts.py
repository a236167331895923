# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The messages of the playbooks about many accounts."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as document
from ansible_collections.azbatch.cmk.plugins.plugin_utils._accounts import messages, shown

KEY = "https://myvault.vault.azure.net/keys/batch"
OLD, NEW = (f"{KEY}/{digit * 32}" for digit in "13")
WHERE = "of key batch in vault myvault"


def moved(name: str, used: str = OLD, *, planned: bool = False, **of: Any) -> dict[str, Any]:
    """The result of batch_encryption."""
    before, after = ({"exists": True, "name": name, "available": True, "key_identifier": one} for one in (used, NEW))
    after |= of
    outcome = Outcome(used != NEW, before, after).summarized(document.summary(name, before, after))
    return outcome.result(planned=planned)


def found(name: str, cause: str | None = None, available: bool | None = False, **of: Any) -> dict[str, Any]:
    """The result of batch_encryption_diagnosis."""
    state = {"exists": True, "name": name, "key_identifier": NEW, "provisioning_state": "Succeeded", **of}
    state |= {"available": available, "causes": [{"name": cause}] if cause else []}
    return Outcome(False, state, state).summarized(document.survey_summary(name, state)).result()


def test_accounts_that_have_to_be_repaired_are_named() -> None:
    healthy = [found(f"good{number}", available=True) for number in range(35)]
    lost = [found(f"lost{number}", "key_deleted") for number in range(5)]
    unavailable = f"use version 33333333… {WHERE} and are not available: key_deleted."
    unknown = [found(f"unknown{number}", available=None, provisioning_state="Failed") for number in range(2)]

    assert messages([*lost, *healthy, *unknown]) == [
        f"5 accounts (lost0, lost1, lost2, lost3, lost4) {unavailable}",
        f"35 accounts use version 33333333… {WHERE} and are available.",
        f"unknown0 and unknown1 use version 33333333… {WHERE} and their availability is not known. "
        "Their last operation has failed (provisioning state Failed).",
    ]
    assert messages(lost) == [f"5 accounts {unavailable}"]


def test_of_several_hosts_changes_and_unknown_accounts_are_shown() -> None:
    quiet, changed, unknown = moved("a", NEW), moved("b"), moved("c", NEW, available=None)
    available, lost = found("d", available=True), found("e", "key_deleted")
    results = [quiet, changed, unknown, available, lost, {}, {"skipped": True, "changed": False}]

    assert shown(results, 6) == [changed, unknown, lost]
    assert shown([quiet, {}], 1) == [quiet]


@pytest.mark.parametrize("names", ["a", "ab"])
def test_predictions_of_several_accounts_share_a_message(names: str) -> None:
    results = [moved(name, planned=True) for name in names]
    text = "a would use" if len(names) == 1 else "a and b would use"
    assert [message.partition(" version ")[0] for message in messages(results)] == [text]
    assert messages(results, "After the repair: ")[0].startswith("After the repair: a ")
    assert "would" not in messages(results, "After the repair: ")[0]
