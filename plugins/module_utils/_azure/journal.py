# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The writes of a task, with their outcomes. What the tasks of the run have written to Batch accounts, and what they
have disabled, deleted or revoked, within the longest read delay: reads of Azure may not show that yet.

This module util is private to the collection.
"""

from __future__ import annotations

import re
import time
import uuid
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, partial
from math import inf, nextafter
from typing import Any, NamedTuple, cast

from .._core import interrupts
from .._core.changes import MAX_READ_DELAY, SentWrites
from .._core.documents import Account, Identity
from .._core.errors import Denied, NotFound, PlanOutdated, Rejected
from .._core.ids import KeyIdentifier, key_of
from .._documents.account import UNKNOWN_IDENTITY
from .._documents.refs import ANY_KIND, kinds_changed
from .run_store import RunFiles

_ACCOUNTS = "/providers/microsoft.batch/batchaccounts/"
_VAULT = re.compile(r"/providers/microsoft\.keyvault/vaults/([^/]+)$", re.IGNORECASE)
_WRITES, _REMOVALS, _NOTES = "writes to accounts", "removals", "notes"
# A task may have to wait that long between a read and its decision, because of a rate limit. In seconds.
_LONGEST_DECISION = 3600
# The writes are in several files, so that adding one does not read and write all of them.
_FILES = 64
_REFUSALS = (Denied, NotFound, PlanOutdated, Rejected)
_PROPERTIES = ("encryption", "keyVaultReference", "provisioningState")


class WriteOutcome(Enum):
    # There is no response, or a server error, so the write may have taken effect.
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    # A check just before the request has failed.
    NOT_SENT = "not sent"


@dataclass
class Write:
    method: str
    body: Mapping[str, Any]
    # Whether it restores the setting before an earlier write.
    undoes: bool
    outcome: WriteOutcome = WriteOutcome.UNKNOWN
    # When the response was received (time.monotonic()), and the document in the response.
    answered_at: float = 0.0
    document: Any = None
    # Whether a read has shown the change.
    is_shown: bool = False
    # Whether the resource was usable after the write, and what was read to confirm that.
    is_confirmed: bool = False
    evidence: Any = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def may_have_taken_effect(self) -> bool:
        return self.outcome in (WriteOutcome.ACCEPTED, WriteOutcome.UNKNOWN)


class Removal(NamedTuple):
    """Something that a task of the run has disabled, deleted or revoked, and whose users were not yet asked for again
    after the longest read delay. `at` is the time of the response (time.monotonic())."""

    token: str
    versions: Sequence[str]
    at: float


class Journal:
    def __init__(self, files: RunFiles, sent: SentWrites) -> None:
        self._files = files
        self._sent = sent
        self._writes: dict[str, list[Write]] = {}
        # When this task has last changed a kind, also if the run's store cannot be written.
        self._changed: dict[str, float] = {}
        self._era = files.era()
        # When the store was noticed to have lost writes of earlier tasks (time.monotonic()).
        self._lost_at = self._era.lost_at
        # When this task has last noticed that.
        self._noticed_at = 0.0

    def of(self, ref: str) -> Sequence[Write]:
        """The writes of this task to the resource."""
        return self._writes.get(ref.lower(), ())

    def last(self, ref: str) -> Write | None:
        return next(reversed(self.of(ref)), None)

    def is_in_doubt(self, ref: str) -> bool:
        """Whether it is not known if the last write has taken effect."""
        last = self.last(ref)
        return last is not None and last.outcome is WriteOutcome.UNKNOWN

    @property
    def may_have_changed_account(self) -> bool:
        """Whether a write of this task to a Batch account may have taken effect, also if it was undone."""
        return any(
            one.may_have_taken_effect for ref, writes in self._writes.items() if _ACCOUNTS in ref for one in writes
        )

    def last_effect(self, ref: str) -> Write | None:
        """The last write that may have taken effect."""
        return next((one for one in reversed(self.of(ref)) if one.may_have_taken_effect), None)

    @contextmanager
    def writing(self, method: str, ref: str, body: Mapping[str, Any] | None, *, undoes: bool) -> Iterator[Write]:
        """Note the write, and its outcome when the block ends. The block sets `document`."""
        write, in_doubt = Write(method, body or {}, undoes), self._sent.in_doubt
        self._writes.setdefault(ref.lower(), []).append(write)
        self._note(ref, write)
        try:
            with self.changing(method, ref):
                yield write
        except BaseException as failure:
            # An SDK sends a write again if there was no response, or a server error. The first try may have taken
            # effect, whatever the last try says.
            if isinstance(failure, _REFUSALS) and self._sent.in_doubt == in_doubt:
                is_sent = not isinstance(failure, PlanOutdated)
                write.outcome = WriteOutcome.REFUSED if is_sent else WriteOutcome.NOT_SENT
                self.forget(ref, write.token)
            else:
                # The time of the last try.
                self._note(ref, write)
            raise
        finally:
            if write.may_have_taken_effect:
                self._note_vault_of(write, ref)
        write.outcome, write.answered_at = WriteOutcome.ACCEPTED, time.monotonic()
        self._note(ref, write)

    def note_again(self, ref: str) -> None:
        """Note the last write once more, because it is sent only now: a rate limit has delayed it."""
        write = self.last(ref)
        if write is not None and write.outcome is WriteOutcome.UNKNOWN:
            self._note(ref, write)

    # What was read before a write is out of date

    @contextmanager
    def changing(self, method: str, ref: str) -> Iterator[None]:
        """At the end of the block, also if it fails, what was read before is out of date."""
        try:
            yield
        finally:
            # A rollback must not use what was read before the change, so an interrupt waits here.
            with interrupts.deferred():
                self.mark(*kinds_changed(method, ref))

    def mark(self, *kinds: str) -> None:
        """The run has changed resources of these kinds, or of all kinds: no earlier read of any task serves."""
        for kind in kinds or (ANY_KIND,):
            with self._files.locked("written", kind):
                self._changed[kind] = now = time.monotonic()
                self._files.store(now, "written", kind)

    def has_changed(self, kind: str) -> bool:
        """Whether this task has changed resources of this kind."""
        return kind in self._changed or ANY_KIND in self._changed

    def readable_since(self, kind: str, at: float) -> float:
        """The earliest time, after `at`, at which a read may have begun that the run's last write to this kind has not
        made out of date. If the times of writes may be lost, because the disk is full, that is now."""
        self._notice_loss()
        return nextafter(max(at, self._written(kind), self._noticed_at), inf)

    def _notice_loss(self) -> None:
        """Note whether the store has lost values. A store that is full removes them. Another task may have stored some
        since."""
        before, self._era = self._era, self._files.era()
        if self._era != before:
            self._noticed_at = time.monotonic()
            if self._lost_at is None:
                self._lost_at = self._era.lost_at

    @property
    def shown_at(self) -> float:
        """When reads show all that the run has written before this task (time.monotonic()). 0.0 if the journal has
        that. If the store may have lost it, because the disk was full, that is after the longest read delay."""
        self._notice_loss()
        return 0.0 if self._lost_at is None else self._lost_at + MAX_READ_DELAY

    def is_written_since(self, at: float, *kinds: str) -> bool:
        """Whether the run has changed resources of these kinds since then; without kinds, whether a task has changed
        something that is not known here."""
        return any(self._written(kind) > at for kind in kinds or (ANY_KIND,))

    def _written(self, kind: str) -> float:
        kinds = kind, ANY_KIND
        return max(max(self._files.load("written", one) or 0.0, self._changed.get(one, 0.0)) for one in kinds)

    # Writes of the run to Batch accounts. `read_since` is when the earliest read has begun that may not show them
    # (`Docs.read_since`): between a read and the question, a task may wait for slow requests.

    def made(self, ref: str, document: Mapping[str, Any]) -> None:
        """Note the document that a long-running operation of this task has made."""
        write = self.last(ref)
        if write is not None and write.outcome is WriteOutcome.ACCEPTED:
            write.document = document
            self._note(ref, write)
            self._note_vault_of(write, ref)

    def expect(self, ref: str, key: KeyIdentifier | None) -> str:
        """Note that a task in another process may set this key. Returns the token for `forget`."""
        source = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": str(key)}}
        body = {"properties": {"encryption": source if key else {"keySource": "Microsoft.Batch"}}}
        write = Write("PATCH", body, undoes=False)
        self._note(ref, write)
        return write.token

    def forget(self, ref: str, token: str) -> None:
        self._replace(ref, lambda entries: [one for one in entries if one["token"] != token])

    def with_written(self, listed: Sequence[Account], read_since: float) -> list[Account]:
        """The accounts, and each account again as the run has written it within the longest read delay: Azure may show
        the account as it was before. If it is not known whether a write has taken effect, both states are among
        them."""
        by_id = {one["id"].lower(): one for one in listed}
        more = [
            _written(by_id.get(ref), ref, entry)
            for ref, entries in self._all_lately(read_since).items()
            for entry in _possible(entries)
        ]
        return [*listed, *more]

    def written_lately(self, ids: Iterable[str], read_since: float) -> dict[str, list[KeyIdentifier]]:
        """Those of these accounts that the run has written within the longest read delay, with the keys that it has
        set."""
        load = cache(partial(self._load, read_since=read_since))
        lately = {one: load(self._file(one)).get(one.lower(), ()) for one in ids}
        return {
            one: [key for entry in entries if (key := key_of(cast(Account, entry["body"])))]
            for one, entries in lately.items()
            if entries
        }

    def may_hide_write(self, account: Account, read_since: float) -> bool:
        """Whether a read of the account may be older than the run's last write of its key: it shows another key.
        Another task or user may also have moved the account since."""
        shown = str(key_of(account) or "").lower()
        last = self._last(account["id"], "properties", read_since)
        return any(str(key_of(cast(Account, one["body"])) or "").lower() != shown for one in last)

    def may_hide_identity(self, account: Account, read_since: float) -> bool:
        """Whether a read of the account may be older than the run's last write of its identity."""
        shown = _names_in(account.get("identity", {}))
        last = self._last(account["id"], "identity", read_since)
        return any(
            _names_in((one["document"] or {}).get("identity") or one["body"]["identity"]) != shown for one in last
        )

    def _last(self, ref: str, part: str, read_since: float) -> list[dict[str, Any]]:
        """The last write of this part of the account that was accepted, and those after it that may have taken
        effect."""
        entries = self._load(self._file(ref), read_since).get(ref.lower(), [])
        writes = [one for one in entries if part in one["body"]]
        return writes[max((number for number, one in enumerate(writes) if one["is_known"]), default=0) :]

    def _note(self, ref: str, write: Write) -> None:
        if _ACCOUNTS in ref.lower() and ref.count("/") == 8:
            parts = {name: write.body[name] for name in ("identity", "properties") if name in write.body}
            if write.outcome is WriteOutcome.ACCEPTED and write.method == "DELETE":
                self._replace(ref, lambda _entries: [])
            elif parts or write.document:
                entry = {
                    "token": write.token,
                    "at": time.monotonic(),
                    "is_known": write.outcome is WriteOutcome.ACCEPTED,
                    "body": parts,
                    "document": _needed(write.document),
                }
                self._replace(ref, partial(_with, new=entry))

    def _replace(self, ref: str, change: Any) -> None:
        file = self._file(ref)
        with self._files.locked(*file):
            found = self._load(file, time.monotonic() - _LONGEST_DECISION)
            found[ref.lower()] = change(found.get(ref.lower(), []))
            self._files.store({name: entries for name, entries in found.items() if entries}, *file)

    def _all_lately(self, read_since: float) -> dict[str, list[dict[str, Any]]]:
        files = ((_WRITES, str(number)) for number in range(_FILES))
        return {ref: of for file in files for ref, of in self._load(file, read_since).items()}

    def _load(self, file: tuple[str, str], read_since: float) -> dict[str, list[dict[str, Any]]]:
        since = read_since - MAX_READ_DELAY
        found: dict[str, list[dict[str, Any]]] = self._files.load(*file) or {}
        lately = {ref: [one for one in entries if one["at"] > since] for ref, entries in found.items()}
        return {ref: entries for ref, entries in lately.items() if entries}

    @staticmethod
    def _file(ref: str) -> tuple[str, str]:
        return _WRITES, str(zlib.crc32(ref.lower().encode()) % _FILES)

    # What the run has disabled, deleted or revoked

    def note_removal(self, name: Sequence[str], versions: Sequence[str], at: float) -> bool:
        """Note a removal whose users another task will ask for again. Returns whether later tasks can read the note."""
        note = {"token": uuid.uuid4().hex, "name": list(name), "versions": list(versions), "at": at}
        with self._files.locked(_REMOVALS):
            return self._files.store([*self._removals(), note], _REMOVALS, is_note=True)

    def removals(self, name: Sequence[str]) -> list[Removal]:
        """The removals that were noted under this name and not yet ended."""
        return [
            Removal(one["token"], one["versions"], one["at"]) for one in self._removals() if one["name"] == list(name)
        ]

    def end_removals(self, removals: Iterable[Removal]) -> None:
        tokens = {one.token for one in removals}
        if tokens:
            with self._files.locked(_REMOVALS):
                left = [one for one in self._removals() if one["token"] not in tokens]
                self._files.store(left, _REMOVALS, is_note=True)

    def _removals(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._files.load(_REMOVALS, is_note=True) or []
        return found

    # What the run has done once for all tasks

    def note(self, name: str, at: float | None = None) -> None:
        """Note that the run has done this at this time (time.monotonic()), by default now."""
        with self._files.locked(_NOTES):
            self._files.store({**self._notes(), name: at or time.monotonic()}, _NOTES)

    def noted_at(self, name: str) -> float | None:
        return self._notes().get(name)

    def _notes(self) -> dict[str, float]:
        found: dict[str, float] = self._files.load(_NOTES) or {}
        return found

    def vault_made_at(self, name: str) -> float | None:
        """When the run has created or recovered the vault: its host name may not resolve yet."""
        return self.noted_at(f"made vault {name.lower()}")

    def _note_vault_of(self, write: Write, ref: str) -> None:
        if write.method == "PUT" and (vault := _VAULT.search(ref)):
            self.note(f"made vault {vault[1].lower()}")

    # Tasks in other processes

    def handed_over(self, without: Collection[str] = ()) -> dict[str, Any]:
        """What a task in another process has to know, or what it has done: the entries without those of these tokens,
        and whether notes of that task would be kept for later tasks. Times are ages in seconds, because clocks of
        machines differ."""
        now = time.monotonic()
        writes = [
            {**entry, "ref": ref, "age": now - entry["at"]}
            for ref, entries in self._all_lately(now).items()
            for entry in entries
            if entry["token"] not in without
        ]
        removals = [{**one, "age": now - one["at"]} for one in self._removals() if one["token"] not in without]
        return {
            "writes": writes,
            "removals": removals,
            "notes": [{"name": name, "age": now - at} for name, at in self._notes().items()],
            "run": self._files.run,
            "are_kept": self._files.store(True, "are kept"),
            "lost_for": None if self._lost_at is None else now - self._lost_at,
        }

    def merge(self, handed: Mapping[str, Any]) -> set[str]:
        """Add what a task in another process has handed over. Returns the tokens of the entries."""
        now, tokens = time.monotonic(), set()
        if handed.get("lost_for") is not None:
            self._lost_at = now - handed["lost_for"]
        for one in handed.get("writes", ()):
            tokens.add(one["token"])
            self._replace(one["ref"], partial(_with, new=_aged(one, now)))
        for one in handed.get("notes", ()):
            self.note(one["name"], now - one["age"])
        if handed.get("removals"):
            with self._files.locked(_REMOVALS):
                notes = self._removals()
                for one in handed["removals"]:
                    tokens.add(one["token"])
                    notes = _with(notes, _aged(one, now))
                self._files.store(notes, _REMOVALS, is_note=True)
        return tokens


def _aged(handed: Mapping[str, Any], now: float) -> dict[str, Any]:
    """An entry that was handed over, with its time on this machine's clock instead of its age."""
    entry = {name: value for name, value in handed.items() if name not in ("ref", "age")}
    return {**entry, "at": now - handed["age"]}


def _needed(document: Any) -> Any:
    """The part of an account's document that shows which keys the account may use."""
    if not isinstance(document, Mapping) or "id" not in document:
        return None
    properties = {name: document["properties"].get(name) for name in _PROPERTIES if name in document["properties"]}
    return {name: document[name] for name in ("id", "location", "identity") if name in document} | {
        "properties": properties
    }


def _names_in(identity: Identity) -> tuple[str, set[str]]:
    """The type of the identity, and the ids of the user-assigned identities."""
    return identity.get("type", "None"), {name.lower() for name in identity.get("userAssignedIdentities", {})}


def _with(entries: Sequence[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(one for one in entries if one["token"] != new["token"]), new]


def _possible(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last write that has taken effect, and all writes that may have taken effect."""
    known = [one for one in entries if one["is_known"]]
    return [*known[-1:], *(one for one in entries if not one["is_known"])]


def _written(listed: Account | None, ref: str, entry: Mapping[str, Any]) -> Account:
    """The account as the write has left it. `listed` is the account in the list, if there is one."""
    body, document = entry["body"], entry["document"]
    if document is None:
        document = listed or {"identity": {"type": UNKNOWN_IDENTITY}, "location": "", "properties": {}}
        # The response to the write may be lost. The principals of an identity that the body names are not known.
        document = {**document, **({"identity": {"type": UNKNOWN_IDENTITY}} if "identity" in body else {})}
    encryption = body.get("properties", {}).get("encryption")
    properties = {**document["properties"], **({"encryption": encryption} if encryption else {})}
    # Azure may write an id in another letter case.
    name = listed["id"] if listed else document.get("id", ref)
    return cast(Account, {**document, "id": name, "name": name.rpartition("/")[2], "properties": properties})
