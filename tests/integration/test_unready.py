# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One account's trouble is that account's (invariant I9): accounts that were not ready before the run are left alone
and reported at its end, and the others are changed."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import pytest
import yaml
from harness import Ansible, Run, task
from role_runs import QUARTER, VARS, wrote
from service import GROUP, Service

READY = ("account1", "account2", "account3")
# The account -> why it is not ready.
UNREADY = {
    "broken": "is not available",
    "creating": "is being created",
    "deleting": "is being deleted",
    "failed": "has failed (provisioning state Failed)",
    "gone": "azbatch.cmk.provision, or correct cmk_account_name, cmk_resource_group or cmk_subscription_id",
}


def furnished(service: Service) -> str:
    """Create the accounts. Returns the version that the accounts use that are ready."""
    control = service.sandbox.control
    service.make_vault()
    first, other = str(service.make_key().id), str(service.make_key("key2").id)
    for name in (*READY, "broken", "deleting"):
        service.grant(service.make_account(name)["identity"]["principalId"])
        service.point(other if name == "broken" else first, name)
    control.advance(QUARTER)
    service.disable("key2")
    control.behavior(account_quota="3", refused_creation="failed_account")
    service.make_account("failed")
    control.behavior(account_quota="50")
    control.timing(batch_create=86400, batch_delete=86400)
    service.make_account("creating")
    service.delete_account("deleting")
    return first


def play(ansible: Ansible, playbook: str, *, check: bool = False, **options: Any) -> Run:
    shared = {name: value for name, value in VARS.items() if name != "cmk_account_name"}
    # The first wave has an account that is not ready.
    hosts = {name: {"cmk_account_name": name} for name in ("broken", *READY, *UNREADY)}
    hosts["broken"]["cmk_key_name"] = "key2"
    inventory = ansible.write(
        "inventory.yml", yaml.safe_dump({"accounts": {"hosts": hosts, "vars": shared}}, sort_keys=False)
    )
    wanted = {"cmk_hosts": "accounts", "cmk_serial": [1, 2, 2, 3], **options}
    return ansible.playbook(f"azbatch.cmk.{playbook}", extra_vars=wanted, check=check, arguments=["-i", str(inventory)])


def assert_reported(
    run: Run, *, fails: bool = True, unready: Collection[str] = tuple(UNREADY), predicted: bool = False
) -> None:
    assert (run.rc != 0) is fails, run.output
    reported = {host: line for line in left_alone(run) for host in UNREADY if line.startswith(f"{host}: ")}
    assert sorted(reported) == sorted(unready), run.output
    assert len(left_alone(run)) == len(unready)
    for host, line in reported.items():
        # Check mode predicts that a creation that has begun is finished.
        assert (predicted and host == "creating") or UNREADY[host] in line
    if "broken" in reported:
        command = reported["broken"].partition("Run: ")[2]
        assert re.fullmatch(r"ansible-playbook -i \S+/inventory.yml azbatch.cmk.recover -e cmk_hosts=broken", command)
    if "gone" in reported:
        assert "update the inventory (--flush-cache)" in reported["gone"]


def left_alone(run: Run) -> list[str]:
    """The lines at the end of the run."""
    begin = "LEFT ALONE: "
    return [line.removeprefix(begin) for line in run.output.splitlines() if line.startswith(begin)]


def test_an_account_in_the_state_failed_is_reported(ansible: Ansible, service: Service) -> None:
    furnished(service)
    account = {"resource_group": GROUP, "account_name": "failed"}

    run = ansible.play(
        [
            task("audit", "batch_encryption_audit", return_accounts=True),
            task("info", "batch_encryption_info", **account),
        ]
    )

    (found,) = [one for one in run["audit"]["accounts"] if one["name"] == "failed"]
    assert found["state"] == "non_compliant"
    assert [one["id"] for one in found["findings"]] == ["account_failed"]
    assert run["info"]["provisioning_state"] == "Failed"
    assert "has failed (provisioning state Failed)" in run["info"]["summary"]


def test_accounts_that_are_not_ready_do_not_stop_a_rotation(ansible: Ansible, service: Service) -> None:
    first = furnished(service)
    predicted = play(ansible, "rotate", check=True, cmk_key_max_age="P30D")
    assert_reported(predicted, predicted=True)
    assert wrote(predicted) == []

    run = play(ansible, "rotate", cmk_key_max_age="P30D")

    assert_reported(run)
    newest = str(service.key().id)
    assert newest != first
    assert {service.encryption(name) for name in READY} == {newest}
    assert all(service.is_available(name) for name in READY)
    assert_reported(play(ansible, "rotate", cmk_key_max_age="P30D", cmk_left_alone_fails=False), fails=False)


@pytest.mark.parametrize("role", ["switch", "revert"])
def test_accounts_that_are_not_ready_do_not_stop_other_changes(ansible: Ansible, service: Service, role: str) -> None:
    furnished(service)
    wanted = {"cmk_new_key_identifier": str(service.make_key("key3").id)} if role == "switch" else {}

    run = play(ansible, role, **wanted)

    assert_reported(run)
    assert {service.encryption(name) for name in READY} == {wanted.get("cmk_new_key_identifier")}


def test_recover_repairs_an_account_without_key_and_leaves_the_others_alone(ansible: Ansible, service: Service) -> None:
    furnished(service)
    run = play(ansible, "recover")

    assert_reported(run, unready=UNREADY.keys() - {"broken"})
    assert service.is_available("broken")


def test_the_command_in_the_report_recovers_the_account(ansible: Ansible, service: Service) -> None:
    furnished(service)
    [broken] = [line for line in left_alone(play(ansible, "rotate")) if line.startswith("broken: ")]
    [inventory] = re.findall(r"-i (\S+)", broken)

    recovered = ansible.playbook("azbatch.cmk.recover", extra_vars={"cmk_hosts": "broken"}, arguments=["-i", inventory])

    assert recovered.rc == 0, recovered.output
    assert service.is_available("broken")
