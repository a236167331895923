# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reads of an account before its key is changed, and of a key before it is disabled."""

from __future__ import annotations

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
    PRINCIPAL,
    account,
    account_id,
    evidence,
    key,
    listed,
    system_assigned,
    visible,
)
from goals import encryption_goal, key_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.moved import Moved
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import preflight
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    PlanOutdated,
    Refused,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import KeyIdentifier, parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import plan as encryption_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.client import Encryption
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import plan as key_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.client import Keys
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.document import (
    FOLLOWING_LAG,
    REPLACED_BEFORE_EXPIRY,
)

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
        self.group_may_be_missing: bool | None = None

    def present(self, _group: str, _name: str, *, group_may_be_missing: bool) -> Any:
        self.group_may_be_missing = group_may_be_missing
        return self.document

    def get(self, _group: str, _name: str) -> Any:
        return self.document

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
        session: Any = SimpleNamespace()
        found = Encryption(session, services, services, services, services, Moved(RunFiles(None)))
        return found.read(encryption_goal(identifier, replace_key=True, **options))


def changed(services: Services, identifier: str | None, **options: Any) -> bool:
    read = services.read(identifier, **options)
    return encryption_plan.plan(encryption_goal(identifier, replace_key=True, **options), read).changed


@pytest.mark.parametrize(
    ("used", "hidden", "options", "stays"),
    [
        pytest.param(PINNED_NEW, (), {}, True, id="a newer version"),
        pytest.param(PINNED_NEW.upper().replace("HTTPS", "https"), (), {}, True, id="a newer version, in capitals"),
        pytest.param(PINNED_NEW, (), {"follow_latest": False}, True, id="a newer version, pinned as it is asked"),
        pytest.param(PINNED_NEW, (), {"follow_latest": True}, False, id="a newer version, and it is to follow"),
        pytest.param(f"{KEY}/{'f' * 32}", (), {}, False, id="a missing version"),
        pytest.param(PINNED_NEW, (NEW,), {}, False, id="a version that cannot be read"),
        pytest.param(PINNED_NEW, (MIDDLE,), {}, False, id="the wanted version cannot be read"),
        pytest.param(f"{KEY}2/{NEW}", (), {}, False, id="another key"),
        pytest.param(None, (), {}, False, id="a Microsoft-managed key"),
        pytest.param(KEY, (), {"follow_latest": False}, False, id="it follows the key"),
    ],
)
def test_an_account_that_somebody_else_moved_stays_only_on_a_newer_version(
    used: str | None, hidden: tuple[str, ...], options: dict[str, Any], stays: bool
) -> None:
    given = {"expected_key_identifier": f"{KEY}/{'e' * 32}", **options}
    if stays:
        assert not changed(Services(used, *hidden), PINNED_MIDDLE, **given)
        return
    with pytest.raises(Refused) as refused:
        changed(Services(used, *hidden), PINNED_MIDDLE, **given)
    assert refused.value.code == "account_moved"


def test_an_account_that_somebody_else_moved_to_an_older_version_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        changed(Services(PINNED_OLD), PINNED_MIDDLE, expected_key_identifier=f"{KEY}/{'e' * 32}")

    assert refused.value.code == "account_moved"


def test_versions_are_compared_only_for_an_account_that_was_moved() -> None:
    services = Services(PINNED_OLD)

    assert changed(services, PINNED_NEW, expected_key_identifier=PINNED_OLD)
    assert services.asked == ["unavailable_reason before a change", f"evidence of {PINNED_NEW} in None"]


def test_versions_of_the_same_second_are_equivalent() -> None:
    services = Services(f"{KEY}/{NEW}")
    CREATED_ALIKE = {**CREATED, NEW: CREATED[MIDDLE]}
    services.bundle = lambda wanted: key(str(wanted.version), created=CREATED_ALIKE[str(wanted.version)])  # type: ignore[method-assign]

    assert not changed(services, PINNED_MIDDLE, expected_key_identifier=PINNED_OLD)


@pytest.mark.parametrize(
    ("identifier", "options", "asked"),
    [
        (PINNED_NEW, {}, PINNED_NEW),
        (PINNED_NEW, {"follow_latest": True}, KEY),
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

    assert changed(services, PINNED_NEW, update_version=False) is moves


def test_after_a_refused_change_the_key_in_use_is_judged_too() -> None:
    services: Any = Services(PINNED_OLD)
    used = services.of_key_in_use(None, key_identifier(PINNED_OLD), is_report=True)
    hidden = {**used, "evidence": evidence(PINNED_OLD, vault=None)}
    services.of_key_in_use = lambda _account, _key, *, is_report: hidden
    service = Encryption(SimpleNamespace(), *[services] * 4, Moved(RunFiles(None)))  # type: ignore[arg-type, call-arg]
    service._refused.add(("rg-batch", "mybatch"))
    goal = encryption_goal(PINNED_NEW, replace_key=True)
    plan = encryption_plan.plan(goal, service.read(goal))

    assert plan.changed
    assert plan.before["available"] is None


@pytest.mark.parametrize(
    ("used", "identifier", "options"), [(PINNED_NEW, PINNED_NEW, {}), (KEY, PINNED_NEW, {}), (None, None, {})]
)
def test_availability_is_read_for_an_account_that_uses_its_key(
    used: str | None, identifier: str | None, options: dict[str, Any]
) -> None:
    services = Services(used)

    assert "evidence" not in services.read(identifier, **options)
    assert services.asked == ["unavailable_reason", *([f"evidence of {used}"] if used else [])]


@pytest.mark.parametrize(
    ("identifier", "follow", "used", "confirmed", "counts"),
    [
        (PINNED_NEW, None, PINNED_NEW, PINNED_NEW, True),
        (PINNED_NEW, True, KEY, KEY, True),
        (PINNED_NEW, None, PINNED_NEW, PINNED_OLD, False),
    ],
)
def test_confirmation_includes_the_access_read_after_the_change(
    identifier: str, follow: bool | None, used: str, confirmed: str, counts: bool
) -> None:
    services = Services(used, confirmed=evidence(confirmed))

    assert ("evidence" in services.read(identifier, follow_latest=follow)) is counts


@pytest.mark.parametrize("missing", ["fail", "skip"])
def test_no_further_reads_for_a_missing_account(missing: str) -> None:
    services = Services(None)
    services.document = None  # type: ignore[assignment]

    assert services.read(PINNED_NEW, missing=missing)["account"] is None
    assert (services.asked, services.group_may_be_missing) == ([], missing == "skip")


# The moves that the run stores


def switch(evidence_of: str | None, *, even_if_unavailable: bool = False, fails: CmkError | None = None) -> Moved:
    moved = Moved(RunFiles(None))

    def confirm_key(*_arguments: Any) -> None:
        if fails:
            raise fails

    accounts: Any = SimpleNamespace(
        retry_until_accepted=lambda write, *_more, **_look: write(), update=lambda *_body, if_late: None
    )
    accounts.confirm_key = confirm_key
    session: Any = SimpleNamespace(wait_timeout=0, rehearsal=None)
    service = Encryption(session, accounts, None, None, None, moved)  # type: ignore[arg-type]
    read = evidence(evidence_of) if evidence_of else None
    try:
        service.set_encryption(
            "rg-batch", "mybatch", {}, previous=None, evidence=read, even_if_unavailable=even_if_unavailable
        )
    except Unavailable:
        assert fails
    return moved


def key_identifier(value: str) -> KeyIdentifier:
    return parse_key_identifier(value, "key_identifier")


@pytest.mark.parametrize("fails", [None, Unavailable("No.", code="account_unavailable")])
def test_the_run_stores_the_keys_to_which_it_has_moved_accounts(fails: CmkError | None) -> None:
    """Also if the account is not available after the change, because nodes of Batch may use the key already."""
    moved = switch(PINNED_NEW, fails=fails)

    assert moved.to(key_identifier(PINNED_OLD.upper().replace("HTTPS", "https")))
    assert not moved.to(key_identifier(f"{KEY}2"))


@pytest.mark.parametrize(("used", "even_if_unavailable"), [(None, False), (PINNED_NEW, True)])
def test_a_rollback_and_a_microsoft_managed_key_are_no_moves_to_a_key(
    used: str | None, even_if_unavailable: bool
) -> None:
    assert not switch(used, even_if_unavailable=even_if_unavailable).to(key_identifier(KEY))


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

    def update(*_body: Any, if_late: Any) -> None:
        asked.append("update")
        if asked.count("update") == 1:
            raise Rejected("Azure reports: no.")

    def require_usable(_evidence: Any, *, rollback: bool) -> None:
        assert rollback is even_if_unavailable
        asked.append("evidence")
        preflight.require(refreshed)

    def get(*_place: Any) -> dict[str, Any] | None:
        # The cache of the task may be older, which does not matter for the availability. The key is read concurrently
        # with the list of the pools.
        assert asked[-1] in ("update", "unavailable_reason", "forget account")
        return account(key=moved_to, identity=system_assigned()) if shown else None

    accounts: Any = SimpleNamespace(retry_until_accepted=retry_until_accepted, update=update, get=get)
    accounts.unavailable_reason = lambda *_place: asked.append("unavailable_reason")
    accounts.is_confirmed = lambda *_place: False
    accounts.confirm_key = lambda *_arguments: None
    seen = {"evidence": evidence(PINNED_OLD), "deleted_vault": None, "versions": None, "missing_identities": []}
    diagnosis: Any = SimpleNamespace(of_key_in_use=lambda *_key, is_report: seen)
    cache = SimpleNamespace(forget=lambda kind: asked.append(f"forget {kind}"))
    session: Any = SimpleNamespace(wait_timeout=0, cache=cache, rehearsal=None)
    reader: Any = SimpleNamespace(
        require_usable=require_usable,
        bundle_now=lambda *_key: {"bundle": evidence(PINNED_OLD).bundle},
        versions_now=lambda *_key: [],
    )
    keys: Any = SimpleNamespace(now=NOW)
    service = Encryption(session, accounts, reader, diagnosis, keys, Moved(RunFiles(None)))
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
    looked = ["unavailable_reason", "evidence", "forget account"]
    assert refused_once(evidence(PINNED_NEW), **seen) == ["update", *looked, "update"]


def test_a_rollback_goes_on_although_the_account_is_not_available() -> None:
    asked = refused_once(evidence(PINNED_NEW), even_if_unavailable=True)
    assert asked == ["update", "evidence", "forget account", "update"]


def test_a_rollback_to_a_key_that_somebody_has_disabled_is_not_repeated() -> None:
    with pytest.raises(Refused):
        refused_once(evidence(PINNED_NEW, bundle=key(enabled=False)), even_if_unavailable=True)


@pytest.mark.parametrize(
    ("failure", "may_be_moved"),
    [(Unavailable("No response."), True), (PlanOutdated("It was moved."), False), (Rejected("Not this key."), False)],
)
def test_an_account_may_be_moved_unless_nothing_was_sent(failure: CmkError, may_be_moved: bool) -> None:
    """Then a rollback writes even if it reads the previous key, because the read may be older than the change."""

    def update(*_body: Any, **_options: Any) -> None:
        raise failure

    accounts: Any = SimpleNamespace(retry_until_accepted=lambda write, *_more, **_look: write(), update=update)
    session: Any = SimpleNamespace(wait_timeout=0, rehearsal=None)
    service = Encryption(session, accounts, None, None, None, Moved(RunFiles(None)))  # type: ignore[arg-type]
    with pytest.raises(type(failure)):
        service.set_encryption("rg-batch", "mybatch", {}, previous=None, evidence=None, even_if_unavailable=False)

    assert service._may_be_moved("rg-batch", "mybatch") is may_be_moved
    assert bool(service._refused) is isinstance(failure, Rejected)


# A key before it is disabled


class KeyService(Keys):
    """A key with three versions, and accounts. `ages` are the seconds since each account was changed, `usable_for` the
    seconds for which accounts that follow the key have been able to use it, `of_previous` are attributes of the version
    MIDDLE."""

    def __init__(
        self,
        *accounts: dict[str, Any],
        moved: bool = False,
        ages: Any = None,
        usable_for: float = 30 * DAY,
        **of_previous: Any,
    ) -> None:
        visible_accounts: Any = SimpleNamespace(read=self._list)
        vaults: Any = SimpleNamespace(unseen=lambda _vault: [])
        resources: Any = SimpleNamespace(age=self._age_of)
        evidence: Any = SimpleNamespace(usable_since=self._usable_since)
        moves = Moved(RunFiles(None))
        super().__init__(None, visible_accounts, resources, vaults, moves, lambda: evidence)  # type: ignore[arg-type]
        self.now = NOW
        self.usable_for = usable_for
        self.of_previous = of_previous
        self.followers: list[dict[str, Any]] = []
        self.looks = 0
        self.accounts = accounts
        self.ages = {account_id(): 30.0 * DAY, account_id("follower"): 30.0 * DAY, **(ages or {})}
        self.asked: list[str] = []
        if moved:
            self._moved.note(key_identifier(PINNED_NEW))

    def _list(self) -> dict[str, Any]:
        self.looks += 1
        return visible(*self.accounts)

    def _usable_since(self, used: KeyIdentifier, users: dict[str, Any]) -> tuple[dict[str, float], str | None]:
        assert str(used) == KEY
        self.followers.append(users)
        return dict.fromkeys(users, NOW - self.usable_for), None if self.usable_for else "The vault is hidden."

    def _age_of(self, account_id: str) -> float | None:
        self.asked.append(account_id)
        age = self.ages[account_id]
        if isinstance(age, CmkError):
            raise age
        return age  # type: ignore[no-any-return]

    def _url(self, vault: str) -> str:
        return vault

    def _read(self, url: str, name: str, version: str) -> dict[str, Any] | None:
        return key(version or NEW, created=CREATED[version or NEW])

    def _versions(self, url: str, name: str) -> list[dict[str, Any]]:
        more: dict[str, Any] = {MIDDLE: self.of_previous}
        return [listed(key(version, created=at, **more.get(version, {}))) for version, at in CREATED.items()]


def disable(keys: KeyService, version: str | None = MIDDLE, **options: Any) -> Any:
    given = {"state": "disabled", "version": version, "moved_to": PINNED_NEW, **options}
    goal = key_goal(**given)
    return key_plan.plan(goal, keys.read(goal))


def on(used: str, name: str = "mybatch") -> dict[str, Any]:
    return account(name, key=used, identity=system_assigned(PRINCIPAL))


def test_within_the_grace_period_the_accounts_are_not_even_listed() -> None:
    keys = KeyService(on(PINNED_NEW), moved=True)
    plan = disable(keys, in_use="keep")

    assert (plan.changed, keys.looks) == (False, 0)
    assert plan.report["kept_until"]
    # Without a grace period, they are listed.
    assert disable(keys, in_use="keep", grace_period="P0D").changed
    assert keys.looks == 1


@pytest.mark.parametrize(
    ("age", "is_kept"), [(60.0, True), (2.0 * DAY, False), (None, True), (Denied("You may not read it."), True)]
)
def test_accounts_that_use_the_key_are_read_for_the_time_of_their_change(age: Any, is_kept: bool) -> None:
    keys = KeyService(on(PINNED_NEW), on(f"{KEY}2", "other"), ages={account_id(): age})

    assert disable(keys, in_use="keep").changed is not is_kept
    assert keys.asked == [account_id()]


def test_accounts_are_not_read_if_no_version_would_be_disabled() -> None:
    keys = KeyService(on(PINNED_NEW), on(PINNED_MIDDLE, "user"))

    assert disable(keys, in_use="keep").report["in_use_by"] == [account_id("user")]
    assert keys.asked == []


@pytest.mark.parametrize(("age", "is_kept"), [(DAY - 1.0, True), (1.0 * DAY, False)])
def test_accounts_of_the_key_are_read_if_the_option_to_is_omitted(age: float, is_kept: bool) -> None:
    keys = KeyService(on(PINNED_NEW), on(f"{KEY}2", "other"), ages={account_id(): age})

    assert disable(keys, in_use="keep", moved_to=None).changed is not is_kept
    assert keys.asked == [account_id()]
    assert not disable(KeyService(on(PINNED_NEW), moved=True, ages={account_id(): age}), in_use="keep").changed


def test_a_forced_change_is_not_stopped_by_a_move_of_the_run() -> None:
    plan = disable(KeyService(on(PINNED_NEW), moved=True), moved_to=None, force=True)

    assert plan.changed
    assert ["force allows" in warning for warning in plan.warnings] == [True]


@pytest.mark.parametrize(("age", "is_kept"), [(FOLLOWING_LAG - 1.0, True), (1.0 * FOLLOWING_LAG, False)])
@pytest.mark.parametrize("options", [{"moved_to": None}, {}, {"grace_period": "P0D"}])
def test_a_version_is_kept_if_an_account_may_follow_the_key_only_now(
    age: float, is_kept: bool, options: dict[str, Any]
) -> None:
    """An account that was moved to the latest version needs the previous version for two days."""
    keys = KeyService(on(KEY, "follower"), ages={account_id("follower"): age})

    assert disable(keys, in_use="keep", **options).report["in_use_by"] == [account_id("follower")] * is_kept


def test_accounts_are_not_read_if_the_whole_key_is_disabled() -> None:
    keys = KeyService(on(f"{KEY}2"))

    assert disable(keys, None, moved_to=None).changed
    assert keys.asked == []


def test_the_second_check_lists_accounts_without_reading_them() -> None:
    keys = KeyService(on(PINNED_NEW), ages={account_id(): 2.0 * DAY})
    plan = disable(keys)
    keys.asked.clear()
    keys.read(plan.goal)

    assert (keys.looks, keys.asked) == (2, [])
    keys._moved.note(key_identifier(PINNED_NEW))
    keys.read(plan.goal)
    assert keys.looks == 3


@pytest.mark.parametrize(("usable_for", "is_kept"), [(FOLLOWING_LAG - 1, True), (FOLLOWING_LAG, False)])
@pytest.mark.parametrize("moved_to", [None, PINNED_NEW])
def test_a_version_is_kept_if_a_follower_could_not_use_the_key_for_some_time(
    usable_for: float, is_kept: bool, moved_to: str | None
) -> None:
    """Batch may not have moved the account to the newest version."""
    ages = {account_id("follower"): 30.0 * DAY}
    keys = KeyService(on(KEY, "follower"), on(f"{KEY}2", "other"), ages=ages, usable_for=usable_for)
    plan = disable(keys, in_use="keep", moved_to=moved_to)

    assert plan.changed is not is_kept
    assert plan.report["in_use_by"] == ([account_id("follower")] if is_kept else [])
    assert keys.followers == [{account_id("follower"): (PRINCIPAL,)}]
    if is_kept:
        assert keys.asked == []
        with pytest.raises(Refused) as refused:
            disable(keys, moved_to=None)
        assert refused.value.code == "in_use"
        assert disable(keys, moved_to=None, force=True).changed


@pytest.mark.parametrize("usable_for", [FOLLOWING_LAG - 1, FOLLOWING_LAG])
def test_the_second_check_asks_followers_again(usable_for: float) -> None:
    """After the version was disabled."""
    goal = disable(KeyService(on(KEY, "follower")), moved_to=None).goal
    after = KeyService(on(KEY, "follower"), usable_for=usable_for, enabled=False, updated=NOW)

    if usable_for < FOLLOWING_LAG:
        with pytest.raises(Refused):
            key_plan.plan(goal, after.read(goal))
    else:
        assert not key_plan.plan(goal, after.read(goal)).changed


def test_followers_are_not_checked_if_the_result_does_not_depend_on_them() -> None:
    used = KeyService(on(KEY, "follower"), on(PINNED_MIDDLE))
    assert disable(used, in_use="keep", moved_to=None).report["in_use_by"] == [account_id()]
    already = KeyService(on(KEY, "follower"), enabled=False)
    assert not disable(already, in_use="keep", moved_to=None).changed
    whole = KeyService(on(KEY, "follower"))
    assert disable(whole, None, in_use="keep", moved_to=None).report["in_use_by"] == [account_id("follower")]
    pinned = KeyService(on(PINNED_NEW))
    assert disable(pinned, moved_to=None).changed

    assert used.followers == already.followers == whole.followers == pinned.followers == []


def test_a_version_is_kept_if_it_is_not_known_since_when_a_follower_can_use_the_key() -> None:
    keys = KeyService(on(KEY, "follower"), usable_for=0)
    plan = disable(keys, in_use="keep", moved_to=None)

    assert (plan.changed, plan.report["in_use_by"]) == (False, [account_id("follower")])
    assert ["The vault is hidden." in warning for warning in plan.warnings] == [True]


@pytest.mark.parametrize("used", [KEY, PINNED_NEW])
@pytest.mark.parametrize("ago", [FOLLOWING_LAG - 1, FOLLOWING_LAG])
def test_a_version_that_was_enabled_again_is_kept_for_its_followers(ago: int, used: str) -> None:
    """An account that had lost the version is on it again."""
    keys = KeyService(on(used), updated=NOW - ago)
    is_kept = used == KEY and ago < FOLLOWING_LAG

    assert disable(keys, in_use="keep", moved_to=None).report["in_use_by"] == [account_id()] * is_kept
