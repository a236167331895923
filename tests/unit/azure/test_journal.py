# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task knows about its own writes."""

from __future__ import annotations

import json
import shutil
import signal
import time
from contextlib import suppress
from math import inf, nextafter
from pathlib import Path
from typing import Any

import pytest
from azure_table import Table, task_of
from clocks import Clock, clock_of
from documents import KEY, VAULT_ID, account_id

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import journal as journal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.driver import MaxAge
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal, WriteOutcome
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._core import interrupts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    NotFound,
    PlanOutdated,
    Refused,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.interrupts import Interrupted
from ansible_collections.azbatch.cmk.plugins.module_utils._core.sent_writes import SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs

ACCOUNT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Batch/batchAccounts/A"
LOST = Unavailable("The response was lost.")
KEY_SCOPE = f"{VAULT_ID}/keys/batch"
ON_KEY: dict[str, Any] = {"properties": {"encryption": {"keySource": "Microsoft.KeyVault"}}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of(journal_module, monkeypatch)


def alone() -> Journal:
    return Journal(RunFiles(None), SentWrites())


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
    journal = alone()

    write(journal, error)

    last = journal.last(ACCOUNT.lower())
    assert last is not None
    assert last.outcome is outcome
    assert (journal.last_effect(ACCOUNT) is last) is may_have_taken_effect
    assert last.answered_at > 0


def test_a_refused_write_leaves_the_write_before_it_in_effect() -> None:
    journal = alone()

    write(journal)
    write(journal, Rejected("Not this key."), undoes=True)

    assert journal.last_effect(ACCOUNT) is journal.of(ACCOUNT)[0]
    assert journal.of("/another") == ()


def test_a_refused_write_whose_first_try_was_lost_may_have_taken_effect() -> None:
    sent = SentWrites()
    journal = Journal(RunFiles(None), sent)

    with suppress(Rejected), journal.writing("PATCH", ACCOUNT, ON_KEY, undoes=False):
        sent.in_doubt += 1
        raise Rejected("Not this key.")

    assert journal.of(ACCOUNT)[0].outcome is WriteOutcome.UNKNOWN


@pytest.mark.parametrize(
    ("method", "error", "is_noted"),
    [
        ("PUT", None, True),
        ("PUT", Unavailable("The response was lost."), True),
        ("PUT", Rejected("Not here."), False),
        ("PATCH", None, False),
    ],
)
def test_a_vault_that_the_run_may_have_created_is_noted(
    method: str, error: BaseException | None, is_noted: bool
) -> None:
    """Its host name may not resolve yet."""
    journal = alone()

    with suppress(CmkError), journal.writing(method, VAULT_ID, {}, undoes=False):
        if error:
            raise error

    assert (journal.noted_at(refs.vault_made("MyVault")) is not None) is is_noted


# A folder that cannot be written to


def test_a_task_whose_folder_is_unusable_writes_nothing(tmp_path: Path) -> None:
    """Locks, and what the run does once for all hosts, need the folder."""
    journal, sent = Journal(RunFiles(str(tmp_path / "gone")), SentWrites()), list[str]()
    with pytest.raises(Refused) as refused, journal.writing("PATCH", ACCOUNT, ON_KEY, undoes=False):
        sent.append("PATCH")

    assert sent == []
    assert (refused.value.code, refused.value.is_of_account) == ("temporary_folder_unusable", False)
    assert refused.value.facts["details"] == str(tmp_path / "gone")
    assert journal.of(ACCOUNT) == ()


def test_a_task_that_has_written_restores_without_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    journal = Journal(RunFiles(str(folder)), SentWrites())
    write(journal)
    shutil.rmtree(folder)
    write(journal, undoes=True)

    assert [one.outcome for one in journal.of(ACCOUNT)] == [WriteOutcome.ACCEPTED] * 2


# What was read before a write is out of date


KINDS = ("account", "another account", "accounts of a group", "vault", "key", "access", "role", "permissions")
NAMES = {
    "account": refs.account_kind(ACCOUNT),
    "another account": refs.account_kind(account_id("another")),
    "accounts of a group": refs.accounts_of("s", "g").kind,
}


@pytest.mark.parametrize(
    ("method", "ref", "changed"),
    [
        pytest.param("PATCH", ACCOUNT, {"account", "accounts of a group"}, id="an account"),
        pytest.param("PATCH", ACCOUNT.upper(), {"account", "accounts of a group"}, id="in another letter case"),
        pytest.param("PUT", f"{VAULT_ID}/accessPolicies/add", {"vault"}, id="an access policy"),
        # A vault that is recovered has keys, and assigned roles.
        pytest.param("PUT", VAULT_ID, {"vault", "key", "access", "role"}, id="a vault is created"),
        # The caller may read now what the caller could not read before.
        pytest.param("PATCH", VAULT_ID, set(KINDS), id="a vault is changed"),
        pytest.param("DELETE", VAULT_ID, set(KINDS), id="a vault is deleted"),
        pytest.param("POST", f"{KEY}/create", {"key"}, id="a version"),
        pytest.param(
            "PUT",
            f"{KEY_SCOPE}/providers/Microsoft.Authorization/roleAssignments/a",
            {"access"},
            id="a role assignment",
        ),
    ],
)
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_what_a_write_makes_out_of_date(
    method: str, ref: str, changed: set[str], error: BaseException | None, tmp_path: Path
) -> None:
    """For all tasks of the run, whatever the outcome of the write is."""
    writer, other = (Journal(RunFiles(str(tmp_path)), SentWrites()) for _task in range(2))
    before = time.monotonic()
    with suppress(BaseException), writer.writing(method, ref, {}, undoes=False):
        if error:
            raise error

    def changed_since(journal: Journal, at: float) -> set[str]:
        return {one for one in KINDS if journal.readable_since(NAMES.get(one, one), at) > nextafter(at, inf)}

    for journal in (writer, other):
        assert changed_since(journal, before) == changed
    assert {one for one in KINDS if writer.has_changed(NAMES.get(one, one))} == changed
    assert not any(other.has_changed(NAMES.get(one, one)) for one in KINDS)
    assert not changed_since(writer, time.monotonic())


def test_a_read_that_began_before_the_response_is_out_of_date(clock: Clock) -> None:
    journal = alone()
    with journal.writing("POST", f"{KEY}/create", {}, undoes=False):
        clock.now += 10

    assert journal.readable_since("key", 0.0) > clock.now
    assert journal.readable_since("vault", 5.0) == pytest.approx(5.0)


def test_a_read_during_a_long_running_operation_is_out_of_date_at_its_end(clock: Clock) -> None:
    journal = alone()
    with journal.writing("PUT", VAULT_ID, {}, undoes=False):
        pass
    with suppress(Unavailable), journal.changing("PUT", VAULT_ID):
        clock.now += 600
        raise LOST

    assert journal.readable_since("vault", 0.0) > clock.now


def test_an_interrupt_is_raised_after_reads_before_the_write_are_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a rollback would use the state before the change, and write nothing."""
    ref = refs.vault(VAULT_ID)
    table = Table({ref: {"state": "before"}})
    task = task_of(table)
    task.driver.get(ref)
    table[ref] = {"state": "after"}
    locked = RunFiles.locked

    def interrupted(files: RunFiles, *name: str) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return locked(files, *name)

    with monkeypatch.context() as patch:
        patch.setattr(RunFiles, "locked", interrupted)
        with pytest.raises(Interrupted), interrupts.raised(), task.session.journal.changing("PATCH", VAULT_ID):
            pass

    assert task.driver.get(ref, MaxAge.RECENT) == {"state": "after"}


# Tasks in other processes


def test_a_task_in_another_process_knows_what_the_run_has_done_once(clock: Clock) -> None:
    """Clocks of machines differ, so the age of a note is handed over."""
    here, elsewhere = alone(), alone()
    here.note("rotated")
    clock.now += 100
    handed = json.loads(json.dumps(here.handed_over()))

    clock.now += 5000
    elsewhere.merge(handed)

    assert elsewhere.noted_at("rotated") == pytest.approx(clock.now - 100)
    assert elsewhere.noted_at("another") is None
