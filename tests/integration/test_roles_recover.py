# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role recover by its playbook: every way to lose access to a key, its repair, and accounts that the role cannot
recover."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cases import CLOSED
from harness import Ansible, Run
from one_process import RolesRunner
from role_runs import holdings, play_role, result, run_role, steps, unchanged, wrote
from service import DAY, GROUP, Service

WAIT = "Wait until the account is available"


def recover(roles: RolesRunner, **options: Any) -> Run:
    return play_role(roles, "recover", **options)


def principal(service: Service) -> str:
    return str(service.account()["identity"]["principalId"])


def delete_key(service: Service) -> None:
    service.keys().begin_delete_key("key1").wait()


def expire(service: Service) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    service.keys().update_key_properties("key1", expires_on=soon)
    service.sandbox.control.advance(DAY)


def take_unwrap(service: Service) -> None:
    service.keys().update_key_properties("key1", key_operations=["wrapKey"])


def revoke(service: Service) -> None:
    service.revoke(principal(service))


def close(service: Service) -> None:
    service.change_vault(properties={"networkAcls": CLOSED})


@pytest.mark.parametrize(
    ("lose", "rbac", "follow", "cause", "step"),
    [
        (Service.delete_vault, True, True, "vault_deleted", "vault"),
        (delete_key, False, False, "key_deleted", "key"),
        (Service.disable, False, True, "version_unusable", "version"),
        (take_unwrap, False, False, "operations_missing", "version"),
        (revoke, True, False, "access_missing", "access"),
        (close, False, False, "network_closed", "network"),
    ],
    ids=["vault deleted", "key deleted", "disabled", "may not unwrap", "access revoked", "firewall closed"],
)
def test_an_account_is_recovered(
    roles: RolesRunner,
    service: Service,
    lose: Callable[[Service], None],
    rbac: bool,
    follow: bool,
    cause: str,
    step: str,
) -> None:
    service.on_key(rbac=rbac, follow=follow)
    identifier = service.encryption()
    before = holdings(service)
    lose(service)
    assert not service.is_available()

    lost = holdings(service) if step != "vault" else None
    predicted = recover(roles, check=True)
    assert wrote(predicted) == []
    assert [one["name"] for one in result(predicted)["causes"]] == [cause]
    assert lost is None or holdings(service) == lost

    run = recover(roles)
    reported = result(run)
    assert [one["name"] for one in reported["causes"]] == [cause]
    # The role assignments on a vault are deleted with the vault, and its recovery does not restore them.
    assert steps(predicted) == steps(run) == (["vault", "access"] if step == "vault" else [step])
    assert (reported["answered_before"], reported["available"], reported["key_identifier"]) == (False, True, identifier)
    assert service.is_available()
    if step != "network":
        assert holdings(service) == before
    unchanged(recover(roles))


def test_an_expired_version_is_extended_by_the_configured_duration(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    expire(service)
    now = service.sandbox.control.call("GET", "/clock")["time"]
    recover(roles, cmk_recover_extend_expired_by="P2D")
    expires = service.key().properties.expires_on.timestamp()
    assert abs(expires - now - 2 * DAY) < 300


def test_a_recovery_of_ten_minutes_is_waited_for(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    service.sandbox.control.timing(batch_recovery=600)
    service.disable()
    run = run_role(roles, "recover", cmk_wait_timeout=3)
    assert run.rc != 0
    assert run[WAIT]["code"] == "account_unavailable"
    run = recover(roles, cmk_wait_timeout=900)
    assert (steps(run), result(run)["available"]) == (["answer"], True)


# Accounts that are not recovered


def test_two_accounts_of_one_host(ansible: Ansible, service: Service) -> None:
    """A loop over include_role, or the role twice in a play. The second account has other causes than the first."""
    service.on_key()
    second = service.make_account("account2")
    service.grant(second["identity"]["principalId"])
    service.point(str(service.make_key("key2").id), "account2")
    service.keys().begin_delete_key("key1").wait()
    service.disable("key2")
    recover = {
        "name": "Recover each account",
        "ansible.builtin.include_role": {"name": "azbatch.cmk.recover"},
        "vars": {"cmk_account_name": "{{ item }}", "cmk_resource_group": GROUP, "cmk_wait_timeout": 60},
        "loop": ["account1", "account2"],
    }

    run = ansible.playbook([{"name": "Test", "hosts": "localhost", "gather_facts": False, "tasks": [recover]}])

    assert run.rc == 0, run.output
    assert all(service.is_available(name) for name in ("account1", "account2"))


def test_a_disabled_version_of_another_type_stays_disabled(roles: RolesRunner, service: Service) -> None:
    """Batch has never used the EC version, which somebody created by mistake."""
    _, first = service.on_key(follow=True)
    service.sandbox.control.advance(60)
    elliptic = service.keys().create_ec_key("key1").properties.version
    assert elliptic is not None
    service.disable(version=elliptic)
    service.disable(version=first.rpartition("/")[2])
    assert not service.is_available()

    run = recover(roles)

    assert result(run)["available"] is True
    assert service.is_available()
    assert [one.version for one in service.versions() if not one.enabled] == [elliptic]
