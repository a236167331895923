# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task knows about its own writes."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from azure_table import Table, task_of
from clocks import Clock, clock_of, clock_of_all
from documents import (
    KEY,
    NEW,
    OLD,
    PRINCIPAL,
    VAULT_ID,
    account,
    account_id,
    identity_id,
    system_assigned,
    user_assigned,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import journal as journal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal, WriteOutcome
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import usage
from ansible_collections.azbatch.cmk.plugins.module_utils._core import interrupts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.changes import MAX_READ_DELAY, SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._core.docs import Ref, Rule
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    NotFound,
    PlanOutdated,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import key_of, parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._core.interrupts import Interrupted
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
    # Other tasks of the run have to know only a write that may have taken effect.
    assert (journal.written_lately([ACCOUNT], time.monotonic()) != {}) is may_have_taken_effect


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
    assert list(journal.written_lately([ACCOUNT], time.monotonic())) == [ACCOUNT]


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

    assert (journal.vault_made_at("MyVault") is not None) is is_noted


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
@pytest.mark.parametrize("error", [None, Rejected("No."), LOST, KeyboardInterrupt()])
def test_what_a_write_makes_out_of_date(
    method: str, ref: str, changed: set[str], error: BaseException | None, tmp_path: Path
) -> None:
    """For all tasks of the run, whatever the outcome of the write is."""
    writer, other = (Journal(RunFiles(str(tmp_path)), SentWrites()) for _task in range(2))
    before = time.monotonic()
    with suppress(BaseException), writer.writing(method, ref, {}, undoes=False):
        if error:
            raise error

    for journal in (writer, other):
        assert {one for one in KINDS if journal.is_written_since(before, NAMES.get(one, one))} == changed
    assert {one for one in KINDS if writer.has_changed(NAMES.get(one, one))} == changed
    assert not any(other.has_changed(NAMES.get(one, one)) for one in KINDS)
    assert not writer.is_written_since(time.monotonic(), *(NAMES.get(one, one) for one in changed))


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


@pytest.mark.parametrize(
    ("ref", "written"), [(refs.dated_account(account_id()), account_id()), (refs.vault(VAULT_ID), VAULT_ID)]
)
def test_an_interrupt_is_raised_after_reads_before_the_write_are_out_of_date(
    ref: Ref[Any], written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a rollback would use the state before the change, and write nothing."""
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
        with pytest.raises(Interrupted), interrupts.raised(), task.session.journal.changing("PATCH", written):
            pass

    assert task.driver.get(ref, Rule.RECENT) == {"state": "after"}


# Writes of the run to Batch accounts


POOL, VAULT = f"{ACCOUNT}/pools/p", "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v"
TO_KEY, TO_OTHER = (
    {"properties": {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": key}}}}
    for key in (KEY, f"{KEY}2")
)
TO_BATCH = {"properties": {"encryption": {"keySource": "Microsoft.Batch"}}}
TO_IDENTITY = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {identity_id(): {}}}}


def listed(key: str | None = None, identity: dict[str, Any] | None = None) -> Any:
    return {**account("A", key=key, identity=identity or system_assigned()), "id": ACCOUNT}


def keys_in(accounts: Any) -> list[str | None]:
    keys = [key_of(one) for one in accounts]
    return [str(key) if key else None for key in keys]


def test_the_tasks_of_a_run_know_the_keys_that_the_run_has_set(tmp_path: Any) -> None:
    first, second = (Journal(RunFiles(str(tmp_path)), SentWrites()) for _task in range(2))

    write(first, body=TO_KEY)
    write(first, body={"identity": {"type": "SystemAssigned"}})

    assert {
        name: list(map(str, keys)) for name, keys in second.written_lately([ACCOUNT], time.monotonic()).items()
    } == {ACCOUNT: [KEY]}
    assert second.of(ACCOUNT) == ()


@pytest.mark.parametrize(
    ("method", "ref", "body", "is_noted"),
    [
        ("PATCH", ACCOUNT, TO_KEY, True),
        ("PATCH", ACCOUNT.upper(), TO_KEY, True),
        ("PUT", ACCOUNT, {"location": "westeurope", **TO_IDENTITY, **TO_KEY}, True),
        ("PATCH", ACCOUNT, TO_IDENTITY, True),
        ("PATCH", ACCOUNT, {"tags": {}}, False),
        ("DELETE", ACCOUNT, None, False),
        ("PATCH", POOL, TO_KEY, False),
        ("PATCH", VAULT, {"properties": {}}, False),
        ("PATCH", KEY, {"attributes": {"enabled": False}}, False),
    ],
)
def test_writes_of_keys_and_identities_of_accounts_are_noted(method: str, ref: str, body: Any, is_noted: bool) -> None:
    journal = alone()

    with journal.writing(method, ref, body, undoes=False):
        pass

    assert list(journal.written_lately([ACCOUNT], time.monotonic())) == [ACCOUNT] * is_noted
    assert len(journal.with_written([], time.monotonic())) == is_noted


@pytest.mark.parametrize(
    ("writes", "written"),
    [
        pytest.param([], [], id="none"),
        pytest.param([(TO_KEY, None)], [KEY], id="one"),
        pytest.param([(TO_KEY, None), (TO_OTHER, None)], [f"{KEY}2"], id="the last of two"),
        pytest.param([(TO_KEY, None), (TO_BATCH, None)], [None], id="moved back"),
        pytest.param([(TO_KEY, None), (TO_OTHER, LOST)], [KEY, f"{KEY}2"], id="a lost response"),
        pytest.param([(TO_KEY, LOST), (TO_OTHER, None)], [f"{KEY}2", KEY], id="a lost response before"),
        pytest.param([(TO_KEY, LOST), (TO_OTHER, LOST)], [KEY, f"{KEY}2"], id="two lost responses"),
        pytest.param([(TO_KEY, None), (TO_OTHER, Rejected("No."))], [KEY], id="a refusal"),
        pytest.param([(TO_KEY, Rejected("No."))], [], id="only a refusal"),
    ],
)
def test_an_account_is_as_listed_and_as_it_may_have_been_written(writes: list[Any], written: list[str | None]) -> None:
    journal, before = alone(), listed(f"{KEY}/{OLD}")
    for body, error in writes:
        write(journal, error, body)

    first, *more = journal.with_written([before], time.monotonic())

    assert first is before
    assert keys_in(more) == written
    assert all((one["id"], one["identity"]) == (ACCOUNT, before["identity"]) for one in more)
    # An account that was not listed is among them too.
    assert keys_in(journal.with_written([], time.monotonic())) == written


def test_an_account_is_written_with_the_identity_of_the_response() -> None:
    journal, given = alone(), user_assigned(**{"id-batch": PRINCIPAL})
    with journal.writing("PATCH", ACCOUNT, TO_IDENTITY, undoes=False) as noted:
        noted.document = listed(KEY, given)

    _listed, written = journal.with_written([listed()], time.monotonic())

    assert written["identity"] == given
    assert usage.principals(written) == (PRINCIPAL,)


@pytest.mark.parametrize("is_listed", [True, False])
def test_the_principals_of_a_lost_response_are_not_known(is_listed: bool) -> None:
    journal = alone()
    write(journal, LOST, TO_IDENTITY)

    written = journal.with_written([listed()] if is_listed else [], time.monotonic())[-1]

    assert usage.principals(written) is None
    assert usage.with_principal({"accounts": [written], "unlisted": []}, PRINCIPAL) == [written["id"]]


def test_the_document_of_a_long_running_creation_counts() -> None:
    journal, given = alone(), system_assigned()
    write(journal, body={**TO_IDENTITY, **TO_KEY})

    journal.made(ACCOUNT, listed(KEY, given))

    [written] = journal.with_written([], time.monotonic())
    assert (written["identity"], keys_in([written])) == (given, [KEY])


def test_a_deleted_account_is_not_listed_as_written() -> None:
    journal = alone()
    write(journal, body=TO_KEY)
    with journal.writing("DELETE", ACCOUNT, None, undoes=False):
        pass

    assert journal.with_written([], time.monotonic()) == []


@pytest.mark.parametrize(
    ("writes", "shown", "may_hide"),
    [
        pytest.param([], KEY, False, id="no write"),
        pytest.param([(TO_KEY, None)], KEY, False, id="shown"),
        pytest.param([(TO_KEY, None)], KEY.replace("batch", "BATCH"), False, id="shown in another letter case"),
        pytest.param([(TO_KEY, None)], f"{KEY}/{OLD}", True, id="another version"),
        pytest.param([(TO_KEY, None)], None, True, id="no key yet"),
        pytest.param([(TO_BATCH, None)], KEY, True, id="still a key"),
        pytest.param([(TO_BATCH, None)], None, False, id="no key any more"),
        pytest.param([(TO_KEY, None), (TO_OTHER, None)], KEY, True, id="the last write counts"),
        pytest.param([(TO_KEY, None), (TO_IDENTITY, None)], KEY, False, id="a write of the identity sets no key"),
        pytest.param([(TO_KEY, LOST)], None, True, id="it is not known whether the write took effect"),
        pytest.param([(TO_KEY, LOST)], KEY, False, id="it took effect"),
        pytest.param([(TO_KEY, None), (TO_OTHER, LOST)], KEY, True, id="a later write may have taken effect"),
        pytest.param([(TO_KEY, None), (TO_OTHER, LOST)], f"{KEY}2", True, id="the read may be older than the first"),
        pytest.param([(TO_KEY, LOST), (TO_OTHER, None)], f"{KEY}2", False, id="a later write was accepted"),
        pytest.param([(TO_KEY, Rejected("No."))], None, False, id="refused"),
    ],
)
def test_a_read_may_be_older_than_the_last_write_of_the_run(
    writes: list[Any], shown: str | None, may_hide: bool
) -> None:
    journal = alone()
    for body, error in writes:
        write(journal, error, body)

    assert journal.may_hide_write(listed(shown), time.monotonic()) is may_hide
    another: Any = account("another", key=shown)
    assert not journal.may_hide_write(another, time.monotonic())


def test_a_write_counts_for_the_longest_read_delay(clock: Clock) -> None:
    journal = alone()
    write(journal, body=TO_KEY)

    for age, counts in ((MAX_READ_DELAY - 1, True), (MAX_READ_DELAY, False)):
        clock.now = 1000.0 + age
        assert (journal.written_lately([ACCOUNT], clock.now) != {}) is counts
        assert (journal.with_written([], clock.now) != []) is counts
        assert journal.may_hide_write(listed(), clock.now) is counts


def test_the_delay_begins_with_the_response(clock: Clock) -> None:
    journal = alone()
    with journal.writing("PATCH", ACCOUNT, TO_KEY, undoes=False):
        clock.now += MAX_READ_DELAY / 2

    clock.now += MAX_READ_DELAY - 1
    assert journal.written_lately([ACCOUNT], clock.now) != {}


def test_the_delay_without_a_response_begins_with_the_last_try(clock: Clock) -> None:
    journal = alone()
    with suppress(Unavailable), journal.writing("PATCH", ACCOUNT, TO_KEY, undoes=False):
        clock.now += MAX_READ_DELAY - 1
        raise Unavailable("No response.")

    clock.now += MAX_READ_DELAY - 1
    assert journal.written_lately([ACCOUNT], clock.now) != {}


def test_the_delay_of_a_delayed_write_begins_when_it_is_sent(clock: Clock) -> None:
    journal = alone()
    with journal.writing("PATCH", ACCOUNT, TO_KEY, undoes=False):
        clock.now += MAX_READ_DELAY
        assert journal.with_written([], clock.now) == []
        journal.note_again(ACCOUNT)
        assert keys_in(journal.with_written([], clock.now)) == [KEY]


def test_a_write_counts_as_long_as_the_read_may_be_older(clock: Clock) -> None:
    """A task may wait for slow requests between its read of the account and its decision. Meanwhile, other tasks of the
    run note their writes."""
    journal = alone()
    write(journal, body=TO_KEY)
    read_at = clock.now + MAX_READ_DELAY - 1
    clock.now += 20 * 60
    write(journal, body={"identity": {"type": "None"}})

    assert journal.may_hide_write(listed(), read_at)
    assert not journal.may_hide_write(listed(), read_at + 1)


# What the run has disabled, deleted or revoked


NAME, OTHER_NAME = ("key", "myvault/batch", "disabled", ""), ("key", "myvault/batch", "absent", "")


def test_a_removal_is_noted_until_it_has_ended(tmp_path: Any) -> None:
    first, second = (Journal(RunFiles(str(tmp_path)), SentWrites()) for _task in range(2))
    assert first.note_removal(NAME, ["one"], 5.0)
    assert first.note_removal(NAME, ["two", "three"], 6.0)
    assert first.note_removal(OTHER_NAME, [], 7.0)

    found = second.removals(NAME)
    assert [(list(one.versions), one.at) for one in found] == [(["one"], 5.0), (["two", "three"], 6.0)]

    second.end_removals(found[:1])
    assert [one.token for one in first.removals(NAME)] == [found[1].token]
    assert len(first.removals(OTHER_NAME)) == 1
    second.end_removals([])
    assert len(first.removals(NAME)) == 1


@pytest.mark.parametrize(
    ("make", "are_kept"),
    [
        pytest.param(lambda folder: RunFiles(str(folder)), True, id="the run has a folder"),
        pytest.param(lambda folder: RunFiles(str(folder / "gone")), False, id="the folder was deleted"),
        pytest.param(lambda _folder: RunFiles(None), False, id="no folder"),
    ],
)
def test_a_task_knows_whether_later_tasks_can_read_its_notes(
    make: Callable[[Any], RunFiles], are_kept: bool, tmp_path: Any
) -> None:
    files = make(tmp_path)

    assert Journal(files, SentWrites()).note_removal(NAME, [], 5.0) is are_kept
    assert files.are_kept is are_kept


def test_notes_in_memory_can_be_passed_on() -> None:
    files = RunFiles(None)
    files.are_passed_on = True

    journal = Journal(files, SentWrites())
    assert journal.note_removal(NAME, [], 5.0)
    assert journal.handed_over()["are_kept"]


# A store that may have lost writes


@pytest.fixture
def every_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of_all(monkeypatch)


def test_reads_show_what_a_lost_store_had(every_clock: Clock, tmp_path: Any) -> None:
    clock = every_clock
    RunFiles(str(tmp_path)).begin()
    assert Journal(RunFiles(str(tmp_path)), SentWrites()).shown_at == 0.0

    shutil.rmtree(tmp_path)
    clock.now += 10
    lost_at = clock.now
    journal = Journal(RunFiles(str(tmp_path)), SentWrites())
    clock.now += 10

    # The task does not wait for longer although no value can be stored.
    assert journal.shown_at == pytest.approx(lost_at + MAX_READ_DELAY, abs=1)
    assert journal.handed_over()["lost_for"] == pytest.approx(10, abs=1)


def test_who_has_noticed_a_loss_by_a_read_waits_too(every_clock: Clock, tmp_path: Any) -> None:
    """And no kind of reads from before serves."""
    clock = every_clock
    RunFiles(str(tmp_path)).begin()
    journal = Journal(RunFiles(str(tmp_path)), SentWrites())
    for stored in tmp_path.glob("*.json"):
        stored.unlink()
    lost_at = clock.now

    assert journal.readable_since("account", 0.0) >= lost_at
    assert journal.readable_since("key", 0.0) >= lost_at
    assert journal.shown_at > clock.now


def test_a_task_in_another_process_knows_what_the_run_has_lost(clock: Clock) -> None:
    journal = alone()
    assert journal.shown_at == 0.0

    journal.merge({"lost_for": 10.0})
    assert journal.shown_at == pytest.approx(clock.now - 10 + MAX_READ_DELAY)


def test_a_store_that_was_full_for_a_moment_has_lost_writes(every_clock: Clock, tmp_path: Any) -> None:
    """A store that cannot keep a value removes all others."""
    clock = every_clock
    RunFiles(str(tmp_path)).begin()
    for stored in tmp_path.glob("*.json"):
        stored.unlink()

    assert Journal(RunFiles(str(tmp_path)), SentWrites()).shown_at > clock.now
    clock.now += MAX_READ_DELAY + 1
    assert Journal(RunFiles(str(tmp_path)), SentWrites()).shown_at < clock.now


# The identity of an account


SYSTEM: Any = {"type": "SystemAssigned"}
OF_USER: Any = {"type": "UserAssigned", "userAssignedIdentities": {"/subscriptions/s/one": {}}}


@pytest.mark.parametrize(
    ("written", "shown", "later", "is_hidden"),
    [
        pytest.param(OF_USER, SYSTEM, 0, True, id="before the write"),
        pytest.param(OF_USER, OF_USER, 0, False, id="after the write"),
        pytest.param(OF_USER, SYSTEM, MAX_READ_DELAY + 1, False, id="long after the write"),
        pytest.param(None, SYSTEM, 0, False, id="the write did not change the identity"),
    ],
)
def test_a_read_may_be_older_than_the_write_of_the_identity(
    clock: Clock, written: Any, shown: Any, later: int, is_hidden: bool
) -> None:
    journal, body = alone(), {"properties": {}, **({"identity": written} if written else {})}
    with journal.writing("PATCH", account_id(), body, undoes=False):
        pass
    clock.now += later

    assert journal.may_hide_identity(account(identity=shown), clock.now) is is_hidden


# Tasks in other processes


def test_a_task_in_another_process_knows_what_the_run_has_written(clock: Clock) -> None:
    """Clocks of machines differ, so the age of an entry is handed over."""
    here, elsewhere = alone(), alone()
    write(here, body=TO_KEY)
    here.note_removal(NAME, ["one"], clock.now)
    clock.now += 100
    handed = json.loads(json.dumps(here.handed_over()))

    clock.now += 5000
    tokens = elsewhere.merge(handed)

    assert keys_in(elsewhere.with_written([], clock.now)) == [KEY]
    assert [(list(one.versions), one.at) for one in elsewhere.removals(NAME)] == [(["one"], clock.now - 100)]
    # It returns only what it has written itself.
    returned = elsewhere.handed_over(without=tokens)
    assert (returned["writes"], returned["removals"]) == ([], [])
    clock.now += MAX_READ_DELAY - 101
    assert elsewhere.may_hide_write(listed(), clock.now)
    clock.now += 1
    assert not elsewhere.may_hide_write(listed(), clock.now)


def test_the_run_knows_what_a_task_in_another_process_has_written() -> None:
    here, elsewhere = alone(), alone()
    write(here, body=TO_KEY)
    tokens = elsewhere.merge(here.handed_over())
    write(elsewhere, body=TO_OTHER)
    elsewhere.note_removal(NAME, ["one"], time.monotonic())
    returned = elsewhere.handed_over(without=tokens)

    for _time in range(2):
        here.merge(returned)
        # The last write counts, and nothing is added twice.
        assert keys_in(here.with_written([], time.monotonic())) == [f"{KEY}2"]
        assert len(here.removals(NAME)) == 1


def test_nothing_is_merged_from_a_task_without_writes() -> None:
    journal = alone()

    assert journal.merge({}) == set()
    assert journal.merge(journal.handed_over()) == set()
    assert journal.written_lately([ACCOUNT], time.monotonic()) == {}


@pytest.mark.parametrize(("key", "expected"), [(KEY, KEY), (f"{KEY}/{OLD}", f"{KEY}/{OLD}"), (None, None)])
def test_a_task_in_another_process_is_expected_to_set_a_key(key: str | None, expected: str | None) -> None:
    """If its result is lost, both states count."""
    journal, before = alone(), listed(f"{KEY}/{NEW}")

    token = journal.expect(ACCOUNT, parse_key_identifier(key, "key_identifier") if key else None)

    assert keys_in(journal.with_written([before], time.monotonic())) == [f"{KEY}/{NEW}", expected]
    assert journal.may_hide_write(before, time.monotonic())
    journal.forget(ACCOUNT, token)
    assert journal.written_lately([ACCOUNT], time.monotonic()) == {}
