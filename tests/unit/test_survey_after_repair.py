# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check after a repair: an account that follows the latest version may still need a version that was retired long
ago, and Batch may name that version only after the repair."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from clocks import clock_of
from documents import DAY, KEY, MIDDLE, NEW, NOW, OLD, account, diagnosed, key, policy, vault

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import session as session_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import diagnosis
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Rejected, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.client import Accounts
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import client as client_module

CLOSED = vault(policy(), networkAcls={"bypass": "None", "defaultAction": "Deny"})
PURGED = Unavailable("Could not connect.", code="unreachable")


def says(said: str) -> Rejected:
    return Rejected(f"Azure says: {said}", azure={"code": "Forbidden", "message": said})


NO_ACCESS, NAMED = says("The identity has no access to the key."), says(f"The key {KEY}/{OLD} is disabled.")


def versions(*disabled: str, updated: int = 8 * DAY) -> list[dict[str, Any]]:
    """Three versions of the key. The newest one was changed an hour ago."""
    ages = {OLD: 30 * DAY, MIDDLE: 20 * DAY, NEW: 10 * DAY}
    return [
        key(name, created=NOW - age, updated=NOW - (3600 if name == NEW else updated), enabled=name not in disabled)
        for name, age in ages.items()
    ]


class Azure:
    """Batch refuses to list the pools with these errors, one after another. The last one stays."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *said: CmkError | None,
        identifier: str = KEY,
        bundles: Sequence[dict[str, Any]] = (),
        wait_timeout: int = 600,
        rehearsal: Any = None,
        **observed: Any,
    ) -> None:
        self.clock = clock_of(session_module, monkeypatch)
        monkeypatch.setattr(client_module, "time", self.clock)
        self._said = list(said)
        found = list(bundles) or versions(OLD, MIDDLE)
        self._read = diagnosed(identifier, *found, bundle=found[-1], **observed)
        self.surveys = 0
        self.waits: list[str] = []
        session = Session({"wait_timeout": wait_timeout}, notify=self.waits.append)
        session.rehearsal = rehearsal
        accounts = SimpleNamespace(
            get=lambda _group, _name: account(key=identifier),
            is_confirmed=lambda _group, _name: False,
            unavailable_reason=self._unavailable_reason,
            wait_until_available=lambda *wait: Accounts.wait_until_available(SimpleNamespace(_session=session), *wait),
        )
        anything: Any = None
        reads = SimpleNamespace(read=self._diagnose, of_key_in_use=lambda *_account: dict(self._read))
        self.encryption = client_module.Encryption(session, accounts, anything, reads, anything, anything)

    def _unavailable_reason(self, _group: str, _name: str) -> CmkError | None:
        reason = self._said[0]
        if len(self._said) > 1:
            del self._said[0]
        if reason is PURGED:
            raise reason
        return reason

    def _diagnose(self, *_account: Any) -> dict[str, Any]:
        self.surveys += 1
        return dict(self._read)

    def survey(self) -> dict[str, Any]:
        return self.encryption.survey_after_repair("rg-batch", "mybatch")

    @property
    def waited(self) -> float:
        return self.clock.now - 1000.0


def needed(observed: dict[str, Any]) -> list[str]:
    """The versions that a repair has to make usable."""
    described = diagnosis.describe(observed["diagnosis"])
    return [one.rpartition("/")[2] for one in described["key_identifiers"]] if described["causes"] else []


def test_a_version_that_batch_names_after_the_repair_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    azure = Azure(monkeypatch, NO_ACCESS, NO_ACCESS, NO_ACCESS, NAMED)

    assert needed(azure.survey()) == [OLD]
    assert azure.waited == 1 + 2
    assert azure.waits[0].startswith("Waiting for the Batch account mybatch to become available (0 of 600 s)")
    # The key is read again only if Batch gives another reason.
    assert azure.surveys == 2


def test_no_version_is_needed_if_the_account_becomes_available(monkeypatch: pytest.MonkeyPatch) -> None:
    azure = Azure(monkeypatch, NO_ACCESS, NO_ACCESS, None)

    observed = azure.survey()
    assert (observed["diagnosis"]["available"], needed(observed)) == (True, [])


def test_all_retired_versions_are_needed_if_batch_names_none_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that an account needs after a repair has passed, so the repair does not explain the loss."""
    azure = Azure(monkeypatch, NO_ACCESS)

    assert needed(azure.survey()) == [MIDDLE, OLD]
    assert azure.waited >= diagnosis.RECOVERY_SECONDS


def test_a_shorter_wait_does_not_show_which_versions_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match=r"not available for 599 s: .*no access") as failed:
        Azure(monkeypatch, NO_ACCESS, wait_timeout=599).survey()
    assert failed.value.code == "account_unavailable"


def test_another_error_while_waiting_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable) as failed:
        Azure(monkeypatch, NO_ACCESS, PURGED).survey()
    assert failed.value.code == "unreachable"


@pytest.mark.parametrize(
    "azure",
    [
        pytest.param({"said": [NAMED]}, id="a version is named"),
        pytest.param({"said": [None]}, id="the account is available"),
        pytest.param({"vault": CLOSED}, id="another cause is left"),
        pytest.param({"bundles": versions()}, id="all versions are usable"),
        pytest.param({"identifier": f"{KEY}/{NEW}"}, id="the account is pinned to a version"),
        pytest.param({"rehearsal": object()}, id="check mode"),
    ],
)
def test_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch, azure: dict[str, Any]) -> None:
    said = azure.pop("said", [NO_ACCESS])
    found = Azure(monkeypatch, *said, **azure)

    assert {OLD, MIDDLE}.intersection(needed(found.survey())) == ({OLD} if said == [NAMED] else set())
    assert (found.waited, found.surveys) == (0, 1)


def test_a_repair_explains_the_loss_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a repair of this run, the retired versions are the only explanation."""
    azure = Azure(monkeypatch, NO_ACCESS)

    assert needed(azure.encryption.survey("rg-batch", "mybatch", diagnose=True)) == [MIDDLE, OLD]
    assert needed(azure.encryption.survey("rg-batch", "mybatch", diagnose=True, after_repair=True)) == []
