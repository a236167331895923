# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task knows about its own writes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal, WriteOutcome
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    Denied,
    NotFound,
    PlanOutdated,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import SentWrites

ACCOUNT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Batch/batchAccounts/A"
ON_KEY: dict[str, Any] = {"properties": {"encryption": {"keySource": "Microsoft.KeyVault"}}}


def write(journal: Journal, error: BaseException | None = None, body: Any = None, *, undoes: bool = False) -> None:
    with suppress(BaseException), journal.writing("PATCH", ACCOUNT, body or ON_KEY, undoes=undoes):
        if error:
            raise error


@pytest.mark.parametrize(
    ("error", "outcome", "may_have_taken_effect"),
    [
        (None, WriteOutcome.ACCEPTED, True),
        (Rejected("Not this key."), WriteOutcome.REFUSED, False),
        (Denied("You may not."), WriteOutcome.REFUSED, False),
        (NotFound("There is no such group."), WriteOutcome.REFUSED, False),
        (PlanOutdated("It was moved."), WriteOutcome.NOT_SENT, False),
        (Unavailable("The response was lost."), WriteOutcome.UNKNOWN, True),
        (KeyboardInterrupt(), WriteOutcome.UNKNOWN, True),
    ],
)
def test_outcome_of_a_write(error: BaseException | None, outcome: WriteOutcome, may_have_taken_effect: bool) -> None:
    journal = Journal(RunFiles(None), SentWrites())

    write(journal, error)

    last = journal.last(ACCOUNT.lower())
    assert last is not None
    assert last.outcome is outcome
    assert (journal.last_effect(ACCOUNT) is last) is may_have_taken_effect
    assert (journal.key_set_by_run(ACCOUNT) is not None) is (error is None)


def test_a_refused_write_leaves_the_write_before_it_in_effect() -> None:
    journal = Journal(RunFiles(None), SentWrites())

    write(journal)
    write(journal, Rejected("Not this key."), undoes=True)

    assert journal.last_effect(ACCOUNT) is journal.of(ACCOUNT)[0]
    assert journal.of("/another") == ()


def test_the_tasks_of_a_run_know_the_last_key_that_the_run_has_set(tmp_path: Any) -> None:
    first, second = (Journal(RunFiles(str(tmp_path)), SentWrites()) for _task in range(2))

    write(first)
    write(first, body={"identity": {"type": "SystemAssigned"}})

    known = second.key_set_by_run(ACCOUNT.upper())
    assert known is not None
    assert known[0] == ON_KEY
    assert second.of(ACCOUNT) == ()
