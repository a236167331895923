# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reads of an account before its key is changed, and after Batch has refused the change."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from documents import (
    DAY,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    account,
    diagnosed,
    evidence,
    key,
    system_assigned,
)
from goals import encryption_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cache import Cache
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import preflight
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.versions import REPLACED_BEFORE_EXPIRY
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    PlanOutdated,
    Refused,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import KeyIdentifier, parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.document import availability
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import plan as encryption_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.client import Encryption

PINNED_OLD, PINNED_MIDDLE, PINNED_NEW = (f"{KEY}/{version}" for version in (OLD, MIDDLE, NEW))
CREATED = {OLD: NOW - 200 * DAY, MIDDLE: NOW - 100 * DAY, NEW: NOW - 10 * DAY}


class Services:
    """The services of an account that uses `used`, and of the versions of its key. Versions in `hidden` cannot be
    read."""

    def __init__(self, used: str | None, *hidden: str, confirmed: Any = None) -> None:
        self.document = account(key=used, identity=system_assigned())
        self.hidden = hidden
        self.confirmed_evidence = confirmed
        self.asked: list[str] = []

    def existing(self, _group: str, _name: str) -> Any:
        return self.document

    def get(self, _group: str, _name: str) -> Any:
        return self.document

    def listed(self, _group: str, _name: str) -> Any:
        return None

    def ref(self, _group: str, _name: str) -> str:
        return "account"

    def unavailable_reason(self, _group: str, _name: str) -> None:
        self.asked.append("unavailable_reason")

    def is_confirmed(self, _group: str, _name: str) -> bool:
        return self.confirmed_evidence is not None

    def of_key_in_use(self, account: Any, used: KeyIdentifier, *, is_report: bool) -> dict[str, Any]:
        self.asked.append(f"evidence of {used}")
        return {
            "evidence": evidence(str(used)),
            "deleted_vault": None,
            "versions": None,
            "missing_identities": [],
        }

    def unavailable_reason_before_change(self, _group: str, _name: str) -> None:
        self.asked.append("unavailable_reason before a change")

    def confirmed(self, _group: str, _name: str) -> Any:
        return self.confirmed_evidence

    def of_account(self, _account: Any, wanted: KeyIdentifier, group: str | None) -> Any:
        self.asked.append(f"evidence of {wanted} in {group}")
        return evidence(str(wanted))

    def bundle(self, wanted: KeyIdentifier) -> dict[str, Any] | None:
        self.asked.append(f"version {wanted.version}")
        if wanted.version in self.hidden:
            raise Denied("You may not.")
        created = CREATED.get(str(wanted.version))
        return key(str(wanted.version), created=created) if created else None

    def read(self, identifier: str | None, **options: Any) -> dict[str, Any]:
        services: Any = self
        found = Encryption(session_of(), services, services, services, services)
        return found.read(encryption_goal(identifier, previous_key="any", **options))


def session_of(files: RunFiles | None = None, **more: Any) -> Any:
    files = files or RunFiles(None)
    given = {"wait_timeout": 0, "predicts": False, "subscription_id": "s", "fingerprint": "me", **more}
    return SimpleNamespace(files=files, journal=Journal(files, SentWrites()), **given)


def changed(services: Services, identifier: str | None, **options: Any) -> bool:
    read = services.read(identifier, **options)
    return encryption_plan.plan(encryption_goal(identifier, previous_key="any", **options), read).changed


@pytest.mark.parametrize(
    ("identifier", "options", "asked"),
    [
        (PINNED_NEW, {}, PINNED_NEW),
        (PINNED_NEW, {"version_mode": "follow"}, KEY),
        (KEY, {"vault_resource_group": "rg-keys"}, KEY),
    ],
)
def test_preflight_checks_the_key_that_is_set(identifier: str, options: dict[str, Any], asked: str) -> None:
    services = Services(None)
    services.read(identifier, **options)

    group = options.get("vault_resource_group")
    assert services.asked == ["unavailable_reason before a change", f"evidence of {asked} in {group}"]


@pytest.mark.parametrize(
    ("left", "wanted", "moves"),
    [
        pytest.param(REPLACED_BEFORE_EXPIRY, None, True, id="the wanted version does not expire"),
        pytest.param(REPLACED_BEFORE_EXPIRY + 1, None, False, id="in time"),
        pytest.param(DAY, 2 * DAY, True, id="the wanted version expires later"),
        pytest.param(DAY, DAY, False, id="the wanted version expires at the same time"),
        pytest.param(None, DAY, False, id="does not expire"),
    ],
)
def test_an_account_leaves_a_version_that_expires(left: int | None, wanted: int | None, moves: bool) -> None:
    """Also if the account is to keep its version."""
    expiry = {MIDDLE: left, NEW: wanted}
    services = Services(PINNED_MIDDLE)

    def bundle(version: KeyIdentifier) -> dict[str, Any]:
        ends = expiry[str(version.version)]
        return key(str(version.version), created=NOW - DAY, **({} if ends is None else {"exp": NOW + ends}))

    services.bundle = bundle  # type: ignore[method-assign, assignment]
    services.now = NOW  # type: ignore[attr-defined]

    assert changed(services, PINNED_NEW, version_mode="keep") is moves


@pytest.mark.parametrize(
    ("used", "identifier", "options"),
    [(PINNED_NEW, PINNED_NEW, {}), (KEY, PINNED_NEW, {"version_mode": "update"}), (None, None, {})],
)
def test_availability_is_read_for_an_account_that_uses_its_key(
    used: str | None, identifier: str | None, options: dict[str, Any]
) -> None:
    services = Services(used)

    assert "evidence" not in services.read(identifier, **options)
    assert services.asked == ["unavailable_reason", *([f"evidence of {used}"] if used else [])]


@pytest.mark.parametrize(
    ("identifier", "mode", "used", "confirmed", "counts"),
    [
        (PINNED_NEW, "update", PINNED_NEW, PINNED_NEW, True),
        (PINNED_NEW, "follow", KEY, KEY, True),
        (PINNED_NEW, "update", PINNED_NEW, PINNED_OLD, False),
    ],
)
def test_confirmation_includes_the_access_read_after_the_change(
    identifier: str, mode: str, used: str, confirmed: str, counts: bool
) -> None:
    services = Services(used, confirmed=evidence(confirmed))

    assert ("evidence" in services.read(identifier, version_mode=mode)) is counts


def test_no_further_reads_for_a_missing_account() -> None:
    services = Services(None)
    services.document = None  # type: ignore[assignment]

    assert services.read(PINNED_NEW)["account"] is None
    assert services.asked == []


def key_identifier(value: str) -> KeyIdentifier:
    return parse_key_identifier(value, "key_identifier")


# Batch refuses a key


def refused_once(
    refreshed: dict[str, Any],
    *,
    moved_to: str | None = PINNED_OLD,
    shown: bool = True,
    even_if_unavailable: bool = False,
) -> list[str]:
    """The reads of a switch after Batch has refused it, with the given state of the key and the account."""
    asked: list[str] = []

    def retry_until_accepted(write: Any, *_more: Any, look: Any) -> None:
        with pytest.raises(Rejected):
            write()
        look()
        write()

    def update(*_body: Any, if_late: Any, undoes: bool) -> None:
        assert undoes is even_if_unavailable
        asked.append("update")
        if asked.count("update") == 1:
            raise Rejected("Azure reports: no.")

    def require_usable(_evidence: Any, *, rollback: bool) -> None:
        assert rollback is even_if_unavailable
        asked.append("evidence")
        preflight.require(refreshed)

    def get(_group: str, _name: str, not_before: float | None = None) -> dict[str, Any] | None:
        # The cache of the task may be older, which does not matter for the availability.
        if not_before:
            asked.append("account")
        return account(key=moved_to, identity=system_assigned()) if shown else None

    accounts: Any = SimpleNamespace(retry_until_accepted=retry_until_accepted, update=update, get=get)
    accounts.listed = lambda *_place: None
    accounts.ref = lambda *_place: "account"
    accounts.unavailable_reason = lambda *_place: asked.append("unavailable_reason")
    accounts.is_confirmed = lambda *_place: False
    accounts.confirm_key = lambda *_arguments, **_options: None
    seen = {"evidence": evidence(PINNED_OLD), "deleted_vault": None, "versions": None, "missing_identities": []}
    diagnosis: Any = SimpleNamespace(of_key_in_use=lambda *_key, is_report: seen)
    accounts.forget_one = lambda *_place: asked.append("forget")
    session = session_of()
    reader: Any = SimpleNamespace(
        require_usable=require_usable,
    )
    keys: Any = SimpleNamespace(now=NOW, versions=lambda *_key: [])
    service = Encryption(session, accounts, reader, diagnosis, keys)
    service.set_encryption(
        "rg-batch",
        "mybatch",
        {"properties": account(key=PINNED_NEW)["properties"]},
        previous=key_identifier(PINNED_OLD),
        evidence=evidence(PINNED_NEW),
        even_if_unavailable=even_if_unavailable,
    )
    return asked


@pytest.mark.parametrize("moved_to", [None, KEY, PINNED_MIDDLE])
@pytest.mark.parametrize("even_if_unavailable", [False, True])
def test_an_account_that_others_move_while_batch_refuses_its_key_stays_there(
    moved_to: str | None, even_if_unavailable: bool
) -> None:
    with pytest.raises(PlanOutdated):
        refused_once(evidence(PINNED_NEW), moved_to=moved_to, even_if_unavailable=even_if_unavailable)


def test_a_key_that_batch_refuses_is_checked_again() -> None:
    """The key may have been disabled after a task of the run read it. In that case, retries are useless."""
    with pytest.raises(Refused) as failed:
        refused_once(evidence(PINNED_NEW, bundle=key(enabled=False)))
    assert failed.value.facts["failed_checks"] == ["key_enabled"]


@pytest.mark.parametrize("seen", [{}, {"shown": False}, {"moved_to": PINNED_NEW}], ids=str)
def test_a_key_that_is_usable_is_offered_again(seen: dict[str, Any]) -> None:
    """Also if a read does not show the account for a moment, or if an earlier request took effect."""
    looked = ["unavailable_reason", "evidence", "account"]
    assert refused_once(evidence(PINNED_NEW), **seen) == ["update", *looked, "update"]


def test_a_rollback_goes_on_although_the_account_is_not_available() -> None:
    asked = refused_once(evidence(PINNED_NEW), even_if_unavailable=True)
    assert asked == ["update", "evidence", "account", "update", "forget"]


def test_a_rollback_to_a_key_that_somebody_has_disabled_is_not_repeated() -> None:
    with pytest.raises(Refused):
        refused_once(evidence(PINNED_NEW, bundle=key(enabled=False)), even_if_unavailable=True)


def after_failure(failure: CmkError) -> tuple[Encryption, Services]:
    """A task whose change of the account to PINNED_NEW has failed, and its services. The account uses PINNED_OLD."""

    session = session_of()

    def update(*_body: Any, **_options: Any) -> None:
        with session.journal.writing("PATCH", "account", {}, undoes=False):
            raise failure

    services: Any = Services(PINNED_OLD)
    services.retry_until_accepted = lambda write, *_more, **_look: write()
    services.update = update
    service = Encryption(session, *[services] * 4)
    with pytest.raises(type(failure)):
        service.set_encryption("rg-batch", "mybatch", {}, previous=None, evidence=None, even_if_unavailable=False)
    services.asked.clear()
    return service, services


@pytest.mark.parametrize(
    ("failure", "writes"),
    [(Unavailable("No response."), True), (PlanOutdated("It was moved."), False), (Rejected("Not this key."), False)],
)
def test_a_rollback_writes_if_the_change_may_have_taken_effect(failure: CmkError, writes: bool) -> None:
    """Also if a read shows the previous key, because the read may be older than the change."""
    service, _services = after_failure(failure)
    goal = encryption_goal(PINNED_NEW, previous_key="any")
    rollback = encryption_plan.plan(goal, service.read(goal)).rollback_goal

    assert encryption_plan.plan(rollback, service.read(rollback)).changed is writes


@pytest.mark.parametrize(("failure", "judged"), [(Rejected("Not this key."), True), (Unavailable("None."), False)])
def test_after_a_refused_change_the_key_in_use_is_judged_too(failure: CmkError, judged: bool) -> None:
    """Batch may have refused the change because the account has lost its key."""
    service, services = after_failure(failure)
    service.read(encryption_goal(PINNED_NEW, previous_key="any"))

    assert (f"evidence of {PINNED_OLD}" in services.asked) is judged


# A list of the pools as a proof


@pytest.mark.parametrize(
    ("earlier", "available"),
    [
        pytest.param(None, None, id="nothing is known"),
        pytest.param(
            Rejected("No key.", azure={"code": "KeyVaultKeyNotAccessible"}), True, id="Batch refuses the list"
        ),
        pytest.param("listed", None, id="Batch lists the pools although the key is lost"),
    ],
)
def test_a_list_of_the_pools_after_a_repair(tmp_path: Path, earlier: Any, available: bool | None) -> None:
    """Somebody has enabled the version a moment ago. `earlier` is what a task of the run has seen before."""
    disabled, enabled = key(OLD, enabled=False), key(OLD, updated=NOW - 5)
    services: Any = Services(PINNED_OLD)

    def survey(bundle: dict[str, Any], pools: CmkError | None) -> bool | None:
        services.unavailable_reason = lambda *_place: pools
        read = {**diagnosed(PINNED_OLD, bundle, bundle=bundle), "account_changed_at": None}
        services.of_key_in_use = lambda *_key, is_report: read
        files = RunFiles(str(tmp_path))
        session = session_of(files, cache=Cache(files, lambda: "me"), task_began=0)
        found = Encryption(session, *[services] * 4).survey("rg-batch", "mybatch", diagnose=False)
        return availability(found["unavailable_reason"])

    if earlier is not None:
        assert survey(disabled, None if earlier == "listed" else earlier) is False
    assert survey(enabled, None) is available


@pytest.mark.parametrize("is_repaired", [False, True])
def test_batch_is_asked_again_after_a_repair(tmp_path: Path, is_repaired: bool) -> None:
    """Its refusal names one cause. After the repair of that cause, it may name another one."""
    refusals = [Rejected(name, azure={"code": "KeyVaultKeyNotAccessible"}) for name in ("first", "second")]
    services: Any = Services(PINNED_OLD)
    services.unavailable_reason = lambda *_place: refusals.pop(0)
    files = RunFiles(str(tmp_path))
    lost = diagnosed(PINNED_OLD, bundle=key(OLD, enabled=False))
    symptoms: Any = SimpleNamespace(read=lambda *_account: lost, of_key_in_use=lambda *_key, is_report: lost)

    def survey() -> tuple[str, Any]:
        """What Batch refuses, by a task of the run."""
        session = session_of(files, cache=Cache(files, lambda: "me"), task_began=0)
        found = Encryption(session, services, services, symptoms, services).survey("g", "mybatch", diagnose=True)
        reason = found["unavailable_reason"]
        assert reason is not None
        return reason.msg, reason.facts["azure"]["code"]

    assert survey() == ("first", "KeyVaultKeyNotAccessible")
    if is_repaired:
        Cache(files, lambda: "me").changed("key")

    assert survey() == ("second" if is_repaired else "first", "KeyVaultKeyNotAccessible")
