# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role rotate by its playbook: when a rotation is due, moves to a different key, and disabling of the previous
version."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from harness import Ansible, Run
from one_process import RolesRunner
from reports import CHECKS
from role_runs import QUARTER, holdings, play_role, refused, result, run_role, second_account, steps, unchanged, wrote
from service import DAY, ENCRYPTION_USER, NEEDED, Service

FOREIGN = "99999999-0000-4000-8000-000000000001"
MODES = ("access_policy", "rbac")
DUE = {"cmk_key_max_age": "P90D"}
DISABLE = {"cmk_previous_version": "disable"}
AT_ONCE = {**DISABLE, "cmk_previous_version_grace": "P0D"}
CHECK = CHECKS["rotate"]
KEY = "Ensure a current version of the key"


def rotate(roles: RolesRunner, **options: Any) -> Run:
    return play_role(roles, "rotate", **options)


def enabled(service: Service, key: str = "key1", vault: str = "vault-one") -> list[bool]:
    """Whether each version of the key is enabled, the oldest first."""
    return [version.enabled for version in service.versions(key, vault)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow(every=2)
def test_due_by_age(roles: RolesRunner, service: Service, mode: str) -> None:
    _, first = service.on_key(rbac=mode == "rbac")
    service.sandbox.control.advance(89 * DAY)
    unchanged(rotate(roles, **DUE))
    assert enabled(service) == [True]

    service.sandbox.control.advance(2 * DAY)
    before = holdings(service)
    predicted = rotate(roles, check=True, **DUE)
    assert wrote(predicted) == []
    assert holdings(service) == before

    run = rotate(roles, **DUE)
    assert steps(predicted) == steps(run)
    second = service.key()
    assert second.id != first
    assert result(run) == {
        "exists": True,
        "key_source": "microsoft_keyvault",
        "key_identifier": second.id,
        "key_version": second.properties.version,
        "follows_latest": False,
        "available": True,
        "previous_key_identifier": first,
        "previous_kept_for": [],
        "previous_kept_until": None,
        "changed": True,
        "changed_steps": {"key": True, "access": False, "encryption": True, "previous_disabled": False},
    }
    assert wrote(run) == ["POST key vault-one key1", "PATCH account account1"]
    assert service.encryption() == second.id
    assert service.is_available()
    assert enabled(service) == [True, True]

    for check in (True, False):
        unchanged(rotate(roles, check=check, **DUE))
    assert enabled(service) == [True, True]


def test_no_version_in_use_expires_earlier(roles: RolesRunner, service: Service) -> None:
    """A version in use keeps its expiry. The next version has the requested expiry."""
    service.on_key()
    wanted = {"cmk_key_expires_in": "P30D", **DUE}
    unchanged(rotate(roles, **wanted))
    assert service.key().properties.expires_on is None

    service.sandbox.control.advance(91 * DAY)
    run = rotate(roles, **wanted)
    assert steps(run) == ["key", "encryption"]
    newest = service.key().properties
    # The expiry is counted from the time of the request, which is shortly before the creation of the version.
    assert timedelta(days=30, seconds=-5) <= newest.expires_on - newest.created_on <= timedelta(days=30)
    assert service.encryption() == newest.id
    unchanged(rotate(roles, **wanted))


def test_forced(roles: RolesRunner, service: Service) -> None:
    _, first = service.on_key()
    unchanged(rotate(roles))
    run = rotate(roles, cmk_key_force_new_version=True, cmk_key_size=4096)
    assert wrote(run) == ["POST key vault-one key1", "PATCH account account1"]
    second = service.key()
    assert service.encryption() == result(run)["key_identifier"] == second.id != first
    assert len(second.key.n) * 8 == 4096
    run = rotate(roles, cmk_key_force_new_version=True)
    assert len(service.versions()) == 3
    assert service.encryption() == result(run)["key_identifier"] == service.key().id
    assert len(service.key().key.n) * 8 == 4096, "a new version is as its predecessor"


def test_diff_shows_before_and_after(ansible: Ansible, service: Service) -> None:
    _, first = service.on_key()
    run = rotate(ansible, diff=True, cmk_key_force_new_version=True)
    assert run.output.count("--- before\n") == 2, "of the key and of the account"
    assert f'-    "key_identifier": "{first}"' in run.output
    assert f'+    "key_identifier": "{service.encryption()}"' in run.output


def test_a_newer_version_of_others_is_taken(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    newer = service.make_key()
    predicted = rotate(roles, check=True)
    assert (steps(predicted), wrote(predicted)) == (["encryption"], [])
    run = rotate(roles)
    assert (steps(run), wrote(run)) == (["encryption"], ["PATCH account account1"])
    assert service.encryption() == newer.id
    unchanged(rotate(roles))


def test_the_newest_has_expired(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    service.sandbox.control.advance(DAY)
    service.make_key(expires_on=service.key().properties.created_on + timedelta(days=30))
    service.sandbox.control.advance(31 * DAY)
    run = rotate(roles, cmk_key_expires_in="P60D", **DUE)
    assert steps(run) == ["key", "encryption"]
    properties = service.key().properties
    assert len(service.versions()) == 3
    assert service.encryption() == properties.id
    assert (properties.expires_on - properties.created_on).days in (59, 60)
    assert service.is_available()


def test_a_follower_needs_no_move(roles: RolesRunner, service: Service) -> None:
    service.on_key(follow=True)
    versionless = service.encryption()
    service.sandbox.control.advance(QUARTER)
    # Without cmk_key_follow_latest, so the account still follows the key.
    wanted = {**DUE, **AT_ONCE}
    run = rotate(roles, **wanted)
    assert (steps(run), wrote(run)) == (["key"], ["POST key vault-one key1"])
    report = result(run)
    assert (report["key_identifier"], report["key_version"], report["follows_latest"]) == (versionless, None, True)
    # Azure does not show which versions a follower needs in the first two days.
    assert report["previous_kept_for"] == [service.account_id()]
    assert enabled(service) == [True, True]
    assert service.encryption() == versionless
    unchanged(rotate(roles, **wanted))

    service.sandbox.control.advance(2 * DAY + 3600)
    run = rotate(roles, **wanted)
    assert (steps(run), result(run)["previous_kept_for"]) == (["previous_disabled"], [])
    assert enabled(service) == [False, True]
    assert service.is_available()
    unchanged(rotate(roles, **wanted))


def test_a_pinned_account_becomes_a_follower(roles: RolesRunner, service: Service) -> None:
    _, first = service.on_key()
    run = rotate(roles, cmk_key_follow_latest=True)
    assert steps(run) == ["encryption"]
    assert service.encryption() == first.rpartition("/")[0]
    assert result(run)["follows_latest"] is True
    unchanged(rotate(roles, cmk_key_follow_latest=True))


def test_a_follower_is_pinned_without_follow_latest(roles: RolesRunner, service: Service) -> None:
    _, first = service.on_key(follow=True)
    run = rotate(roles, cmk_key_follow_latest=False)
    assert steps(run) == ["encryption"]
    assert service.encryption() == first


def test_a_disabled_newest_version_is_not_enabled(ansible: Ansible, service: Service) -> None:
    """The newest version leaked before any account used it."""
    service.on_key()
    service.sandbox.control.advance(DAY)
    leaked = service.make_key().properties.version
    service.disable(version=leaked)
    run = run_role(ansible, "rotate", cmk_key_max_age="P90D")
    refused(run, KEY, leaked, "cmk_key_enable")
    assert (run[KEY]["code"], run[KEY]["option"]) == ("key_disabled", "enable_key")
    run = rotate(ansible, cmk_key_force_new_version=True)
    assert steps(run) == ["key", "encryption"]
    assert enabled(service) == [True, False, True]
    assert service.is_available()


def test_the_previous_version_is_disabled(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    service.sandbox.control.advance(QUARTER)
    wanted = {**DUE, **AT_ONCE}
    predicted = rotate(roles, check=True, **wanted)
    assert wrote(predicted) == []
    run = rotate(roles, **wanted)
    assert steps(run) == ["key", "encryption", "previous_disabled"]
    assert steps(predicted) == steps(run)
    assert wrote(run) == ["POST key vault-one key1", "PATCH account account1", "PATCH key vault-one key1"]
    assert result(run)["previous_kept_for"] == []
    assert enabled(service) == [False, True]
    assert service.is_available()
    unchanged(rotate(roles, **wanted))


def test_the_previous_and_intermediate_versions_are_disabled(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    service.sandbox.control.advance(DAY)
    service.make_key()
    service.sandbox.control.advance(DAY)
    run = rotate(roles, cmk_key_force_new_version=True, **AT_ONCE)
    assert steps(run) == ["key", "encryption", "previous_disabled"]
    assert enabled(service) == [False, False, True]
    assert service.is_available()
    unchanged(rotate(roles, **AT_ONCE))


def test_the_previous_version_stays_enabled_while_in_use(roles: RolesRunner, service: Service) -> None:
    _, first = service.on_key()
    other = second_account(service, first)
    # The creation times of versions have whole seconds, so versions of the same second have no order.
    service.sandbox.control.advance(1)
    wanted = AT_ONCE
    run = rotate(roles, cmk_key_force_new_version=True, **wanted)
    assert steps(run) == ["key", "encryption"]
    assert result(run)["previous_kept_for"] == [other]
    assert enabled(service) == [True, True]
    assert service.is_available("account2")
    unchanged(rotate(roles, **wanted))

    service.point(service.key().id, "account2")
    run = rotate(roles, **wanted)
    assert (steps(run), wrote(run)) == (["previous_disabled"], ["PATCH key vault-one key1"])
    assert result(run)["previous_kept_for"] == []
    assert enabled(service) == [False, True]
    assert service.is_available()
    assert service.is_available("account2")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow(every=2)
def test_to_a_different_key_in_a_different_vault(roles: RolesRunner, service: Service, mode: str) -> None:
    principal, first = service.on_key(rbac=mode == "rbac")
    service.make_vault("vault-two", rbac=mode == "rbac", tags={"owner": "others"})
    if mode == "access_policy":
        service.set_policy("add", service.policy(FOREIGN, "get", "list"), vault="vault-two")
    other = service.make_key("other", "vault-two", size=4096).id
    wanted = {"cmk_new_key_identifier": other, **AT_ONCE}
    before = holdings(service)

    predicted = rotate(roles, check=True, **wanted)
    assert wrote(predicted) == []
    assert holdings(service) == before

    run = rotate(roles, **wanted)
    assert steps(predicted) == steps(run)
    grant = "PUT role vault-two" if mode == "rbac" else "PUT policies vault-two add"
    assert wrote(run) == [grant, "PATCH account account1", "PATCH key vault-one key1"]
    report = result(run)
    assert report["changed_steps"] == {"key": False, "access": True, "encryption": True, "previous_disabled": True}
    assert (report["previous_key_identifier"], report["previous_kept_for"]) == (first, [])
    assert service.encryption() == report["key_identifier"] == other
    assert service.is_available()
    assert enabled(service) == [False]
    if mode == "rbac":
        assert (service.vault_id("vault-two"), ENCRYPTION_USER) in service.assignments(principal)
    else:
        assert sorted((service.permissions(principal, "vault-two") or {})["keys"]) == NEEDED
        assert (service.permissions(FOREIGN, "vault-two") or {})["keys"] == ["get", "list"]
    assert service.vault("vault-two")["tags"] == {"owner": "others"}
    after = holdings(service)
    for world in (before, after):
        world["accounts"]["account1"]["properties"].pop("encryption")
    assert after["accounts"] == before["accounts"]
    assert after["vaults"]["vault-one"] == before["vaults"]["vault-one"]

    unchanged(rotate(roles, **wanted))


def test_to_a_different_key_that_another_account_shares(roles: RolesRunner, service: Service) -> None:
    _, first = service.on_key()
    other_account = second_account(service, first)
    other = service.make_key("other").id
    wanted = {"cmk_new_key_identifier": other.rpartition("/")[0], **AT_ONCE}
    run = rotate(roles, **wanted)
    assert steps(run) == ["encryption"]
    report = result(run)
    assert (report["follows_latest"], report["key_version"]) == (True, None)
    assert report["previous_kept_for"] == [other_account]
    assert enabled(service) == [True]
    assert service.is_available()
    assert service.is_available("account2")
    unchanged(rotate(roles, **wanted))


def test_a_different_key_that_batch_could_not_use(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    service.make_key("other", enabled=False)
    other = service.versions("other")[0].id
    before = holdings(service)
    for check in (True, False):
        run = run_role(roles, "rotate", check=check, cmk_new_key_identifier=other)
        refused(run, CHECK, "other")
        assert run[CHECK]["failed_checks"] == ["key_enabled"]
    assert holdings(service) == before


def test_no_account(roles: RolesRunner, service: Service) -> None:
    refused(run_role(roles, "rotate"), CHECK, "There is no Batch account account1")
    service.make_account()
    refused(
        run_role(roles, "rotate", cmk_key_force_new_version=True),
        CHECK,
        "account1",
        "Microsoft-managed",
        "azbatch.cmk.provision",
    )


def test_an_account_on_another_key_than_named(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    for wanted in ({"cmk_key_name": "key10"}, {"cmk_key_name": "ke"}, {"cmk_vault_name": "vault"}):
        run = run_role(roles, "rotate", cmk_key_force_new_version=True, **wanted)
        refused(run, CHECK, "/keys/key1/")


def test_an_unavailable_account(roles: RolesRunner, service: Service) -> None:
    principal, first = service.on_key()
    service.revoke(principal)
    run = run_role(roles, "rotate", cmk_key_force_new_version=True)
    refused(run, KEY, "account1", first)
    assert len(service.versions()) == 1


def test_names_in_another_letter_case(roles: RolesRunner, service: Service) -> None:
    """Azure accepts names in any letter case."""
    _, first = service.on_key()
    run = rotate(roles, cmk_key_force_new_version=True, cmk_vault_name="Vault-One", cmk_key_name="KEY1")
    assert steps(run) == ["key", "encryption"]
    assert str(service.encryption()).lower() == service.key().id.lower() != first.lower()
    assert service.is_available()
