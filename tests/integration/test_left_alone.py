# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One account's trouble is that account's: accounts that were not ready before the run are left alone
and reported at its end, and the others are changed."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import pytest
import yaml
from harness import Ansible, Run
from role_runs import QUARTER, VARS
from service import Service

READY = ("account1", "account2", "account3")
# The account -> why it is not ready.
UNREADY = {
    "broken": "is not available",
    "creating": "is being created",
    "deleting": "is being deleted",
    "failed": "has failed. If that was its creation",
    "gone": "Create it (azbatch.cmk.provision), or correct",
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


def inventory(ansible: Ansible, hosts: dict[str, dict[str, str]]) -> list[str]:
    """The arguments with an inventory of these hosts, in this order."""
    shared = {name: value for name, value in VARS.items() if name != "cmk_account_name"}
    text = yaml.safe_dump({"accounts": {"hosts": hosts, "vars": shared}}, sort_keys=False)
    return ["-i", str(ansible.write("inventory.yml", text))]


def on_an_old_version(service: Service, names: Collection[str] = READY) -> str:
    """Create accounts that use a version of a quarter ago. Returns the version."""
    service.make_vault()
    first = str(service.make_key().id)
    for name in names:
        service.grant(service.make_account(name)["identity"]["principalId"])
        service.point(first, name)
    service.sandbox.control.advance(QUARTER)
    return first


def play(ansible: Ansible, playbook: str, **options: Any) -> Run:
    # The first wave has an account that is not ready.
    hosts = {name: {"cmk_account_name": name} for name in ("broken", *READY, *UNREADY)}
    hosts["broken"]["cmk_key_name"] = "key2"
    wanted = {"cmk_hosts": "accounts", "cmk_serial": [1, 2, 2, 3], **options}
    arguments = inventory(ansible, hosts)
    return ansible.playbook(f"azbatch.cmk.{playbook}", extra_vars=wanted, arguments=arguments)


def assert_reported(run: Run, unready: Collection[str]) -> None:
    assert run.rc != 0, run.output
    reported = {host: line for line in left_alone(run) for host in UNREADY if line.startswith(f"{host}: ")}
    assert sorted(reported) == sorted(unready), run.output
    assert len(left_alone(run)) == len(unready)
    assert run.output.count("\nABOUT THESE CAUSES: https://") == 1, run.output
    for host, line in reported.items():
        assert UNREADY[host] in line
    if "broken" in reported:
        command = reported["broken"].partition("Run: ")[2]
        assert re.fullmatch(r"ansible-playbook -i \S+/inventory.yml azbatch.cmk.recover -e cmk_hosts=broken", command)
    assert "update the inventory (--flush-cache)" in reported["gone"]


def left_alone(run: Run) -> list[str]:
    """The lines at the end of the run."""
    begin = "LEFT ALONE: "
    return [line.removeprefix(begin) for line in run.output.splitlines() if line.startswith(begin)]


def test_accounts_that_are_not_ready_do_not_stop_a_rotation(ansible: Ansible, service: Service) -> None:
    first = furnished(service)

    run = play(ansible, "rotate", cmk_key_max_version_age="P30D")

    assert_reported(run, UNREADY)
    newest = str(service.key().id)
    assert newest != first
    assert {service.encryption(name) for name in READY} == {newest}
    assert all(service.is_available(name) for name in READY)


@pytest.mark.parametrize("playbook", ["switch", "revert"])
def test_an_account_that_is_missing_does_not_stop_other_changes(
    ansible: Ansible, service: Service, playbook: str
) -> None:
    on_an_old_version(service, READY[:1])
    wanted = {"cmk_new_key_identifier": str(service.make_key("key3").id)} if playbook == "switch" else {}
    arguments = inventory(ansible, {name: {"cmk_account_name": name} for name in ("gone", READY[0])})

    run = ansible.playbook(
        f"azbatch.cmk.{playbook}", extra_vars={"cmk_hosts": "accounts", **wanted}, arguments=arguments
    )

    assert_reported(run, ["gone"])
    assert service.encryption() == wanted.get("cmk_new_key_identifier")


def test_recover_repairs_an_account_without_key_and_leaves_the_others_alone(ansible: Ansible, service: Service) -> None:
    furnished(service)
    run = play(ansible, "recover")

    assert_reported(run, UNREADY.keys() - {"broken"})
    assert service.is_available("broken")


# A reason that only one account has. The account -> what was done to it.


def shut(service: Service) -> dict[str, str]:
    """The account uses a vault that does not accept connections of the caller."""
    service.make_vault("vault-two")
    service.grant(service.account("account2")["identity"]["principalId"], vault="vault-two")
    service.point(str(service.make_key("key1", "vault-two").id), "account2")
    closed = {"bypass": "AzureServices", "defaultAction": "Deny"}
    service.change_vault("vault-two", properties={"networkAcls": closed})
    return {"cmk_vault_name": "vault-two"}


def disable(service: Service) -> dict[str, str]:
    """The only version of the key is disabled, and Batch has not noticed that."""
    service.point(str(service.make_key("key2").id), "account2")
    service.sandbox.control.behavior(key_loss_noticed="3600")
    service.disable("key2")
    return {"cmk_key_name": "key2"}


def revert_and_list(service: Service) -> dict[str, str]:
    """The inventory is newer than the change, so it names no key for the account."""
    service.point(None, "account2")
    return {"cmk_vault_name": "", "cmk_key_name": ""}


TROUBLES = {"invalid_option": revert_and_list, "network_denied": shut, "account_unavailable": disable}


@pytest.mark.parametrize(
    ("code", "is_canary"), [("invalid_option", True), ("network_denied", False), ("account_unavailable", True)]
)
def test_the_trouble_of_one_account_stops_no_other(
    ansible: Ansible, service: Service, code: str, is_canary: bool
) -> None:
    first = on_an_old_version(service)
    own = TROUBLES[code](service)
    before = service.encryption("account2")
    names = ("account2", "account1", "account3") if is_canary else READY
    hosts = {name: {"cmk_account_name": name, **(own if name == "account2" else {})} for name in names}
    wanted = {"cmk_hosts": "accounts", "cmk_key_max_version_age": "P90D", "cmk_max_fail_percentage": 0}
    arguments = inventory(ansible, hosts)

    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=arguments)

    assert run.rc != 0
    [line] = left_alone(run)
    assert line.startswith("account2: "), line
    assert {one["left_alone"]["code"] for one in run if one.get("left_alone")} == {code}
    newest = str(service.key().id)
    assert newest != first
    assert {service.encryption(name) for name in ("account1", "account3")} == {newest}
    assert service.encryption("account2") == before


def test_a_lock_of_all_accounts_is_one_cause(ansible: Ansible, service: Service) -> None:
    """No read shows a lock, and Azure refuses the change. The new version is shared, so no account has changed."""
    first = on_an_old_version(service)
    service.sandbox.control.behavior(resource_lock="accounts")
    hosts = {name: {"cmk_account_name": name} for name in READY}
    wanted = {"cmk_hosts": "accounts", "cmk_key_max_version_age": "P90D"}

    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=inventory(ansible, hosts))

    assert run.rc != 0
    [line] = left_alone(run)
    assert re.match(r"3 hosts \(account\d, account\d, account\d\) for the same cause \(resource_locked\)\.", line)
    assert "Remove the lock" in line
    assert {service.encryption(name) for name in READY} == {first}


def test_accounts_whose_availability_is_not_known_share_a_warning(ansible: Ansible, service: Service) -> None:
    """They follow a key whose newest version somebody has disabled, and may use the version before it."""
    first = on_an_old_version(service)
    for name in READY:
        service.point(first.rpartition("/")[0], name)
    service.sandbox.control.behavior(follower_delay="86400", pools_without_key="200")
    service.make_key()
    service.sandbox.control.advance(60)
    service.disable()
    hosts = {name: {"cmk_account_name": name} for name in READY}
    wanted = {"cmk_hosts": "accounts", "cmk_serial": "100%"}

    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=inventory(ansible, hosts))

    assert run.rc == 0, run.output
    assert all(one["available"] is None for one in run if one.name == "Move the account to the key")
    assert run.output.count("Whether the account is available is not known. Batch lists") == 1, run.output
    assert "account1, account2 and account3 use the latest version of key key1" in run.output


# Several of the playbooks in one playbook


def imported(name: str, **variables: Any) -> dict[str, Any]:
    return {"ansible.builtin.import_playbook": f"azbatch.cmk.{name}", "vars": variables}


def test_an_account_that_was_repaired_is_rotated_by_the_next_import(ansible: Ansible, service: Service) -> None:
    first = on_an_old_version(service)
    service.revoke(service.account("account2")["identity"]["principalId"])
    hosts = {name: {"cmk_account_name": name} for name in READY}
    wanted = {"cmk_hosts": "accounts", "cmk_key_max_version_age": "P90D"}
    imports = [imported(name) for name in ("rotate", "recover", "rotate")]

    run = ansible.playbook(imports, extra_vars=wanted, arguments=inventory(ansible, hosts))

    assert run.rc == 0, run.output
    assert left_alone(run) == []
    assert {service.encryption(name) for name in READY} == {str(service.key().id)} != {first}


def test_a_night_with_accounts_that_are_left_alone_has_one_result(ansible: Ansible, service: Service) -> None:
    """Each playbook leaves an account alone, and disables unused versions in a separate play. The last play of the
    second playbook fails for both accounts."""
    names = [*READY, "account4"]
    on_an_old_version(service, names)
    for name in names[1:3]:
        service.revoke(service.account(name)["identity"]["principalId"])
    hosts = {name: {"cmk_account_name": name} for name in names}
    wanted = {"cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable"}
    imports = [imported("rotate", cmk_hosts=pattern) for pattern in ("account1:account2", "account3:account4")]
    enabled = {"ANSIBLE_CALLBACKS_ENABLED": "recorder,azbatch.cmk.progress"}

    run = ansible.playbook(imports, extra_vars=wanted, arguments=inventory(ansible, hosts), environment=enabled)

    assert sorted(one.host for one in run.failed) == ["account2", "account3"]
    assert {one.name for one in run.failed} == {"Fail for accounts that were left alone"}
    moved = f"1 rotated to version {str(service.key().id).rpartition('/')[2][:8]}… of key1"
    verdicts = [line.rpartition(", in ")[0] for line in run.output.splitlines()[-2:]]
    assert verdicts == [f"{moved}, 1 left alone ({name}: account_unavailable)" for name in ("account2", "account3")]
