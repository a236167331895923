# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host reports of its account is true of that account: two hosts never change one account."""

from __future__ import annotations

from typing import Any

from harness import Ansible, Run, task
from role_runs import QUARTER, VARS, second_account, wrote
from service import GROUP, Service

HOSTS = ("account1", "account2")


def inventory(ansible: Ansible, **variables: Any) -> list[str]:
    hosts = {name: {"cmk_account_name": name} for name in HOSTS}
    shared = {name: value for name, value in VARS.items() if name != "cmk_account_name"}
    file = ansible.write("inventory.yml", {"accounts": {"hosts": hosts, "vars": {**shared, **variables}}})
    return ["-i", str(file)]


def two_hosts(ansible: Ansible, *tasks: dict[str, Any], serial: int = 2) -> Run:
    """The play of a user, in which an extra variable names the account of both hosts."""
    play = {"name": "Own", "hosts": "accounts", "gather_facts": False, "serial": serial, "tasks": list(tasks)}
    return ansible.playbook([play], extra_vars={"account": "account1"}, arguments=inventory(ansible))


def test_a_second_host_of_the_same_account_is_refused(ansible: Ansible, service: Service) -> None:
    _principal, first = service.on_key()
    second_account(service, first)
    wanted = {"resource_group": GROUP, "account_name": "{{ account }}", "key_source": "microsoft_batch"}
    run = two_hosts(ansible, task("revert", "batch_encryption", **wanted), serial=1)
    assert run.rc != 0
    assert wrote(run) == ["PATCH account account1"]
    (failed,) = run.failed
    assert (failed["code"], failed.host in HOSTS) == ("account_of_other_host", True)
    assert "account1" in failed["msg"]
    assert service.encryption("account2") == first


def test_several_hosts_may_report_one_account(ansible: Ansible, service: Service) -> None:
    service.on_key()
    wanted = {"resource_group": GROUP, "account_name": "{{ account }}"}
    run = two_hosts(ansible, task("info", "batch_encryption_info", **wanted), task("audit", "batch_encryption_audit"))
    assert run.rc == 0, run.output


def test_a_host_may_change_several_accounts_and_one_twice(ansible: Ansible, service: Service) -> None:
    _principal, first = service.on_key()
    second_account(service, first)
    service.sandbox.control.advance(QUARTER)
    wanted = {"resource_group": GROUP, "account_name": "{{ item }}", "key_source": "microsoft_batch"}
    run = ansible.play(
        [
            {**task("revert", "batch_encryption", **wanted), "loop": list(HOSTS)},
            task("again", "batch_encryption", **{**wanted, "account_name": "account1"}),
        ]
    )
    assert run.rc == 0, run.output
    assert [service.encryption(name) for name in HOSTS] == [None, None]
