# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several hosts in one run: none loses what another one has done."""

from __future__ import annotations

from collections import Counter

from harness import Ansible, assert_one_token_for_each_audience, task
from role_runs import VARS
from service import GROUP, NEEDED, Service

HOSTS = [f"host{number}" for number in range(8)]


def test_side_by_side(ansible: Ansible, service: Service) -> None:
    """Eight hosts, each with an account, get access policies in one vault at the same time. No grant is lost."""
    service.make_vault()
    for host in HOSTS:
        service.make_account(host)
    identifier = service.make_key().id
    account = {"resource_group": GROUP, "account_name": "{{ inventory_hostname }}"}
    play = {
        "name": "Side by side",
        "hosts": "all",
        "gather_facts": False,
        "strategy": "free",
        "tasks": [
            task("look", "batch_encryption_info", "account", **account),
            task(
                "grant",
                "keyvault_cmk_access",
                vault_name="vault-one",
                principal_id="{{ account.identity.principal_id }}",
            ),
            task("switch", "batch_encryption", **account, key_source="microsoft_keyvault", key_identifier=identifier),
        ],
    }
    run = ansible.playbook(
        [play], way="in_process", arguments=["-i", f"{','.join(HOSTS)},", "--forks", str(len(HOSTS))]
    )
    assert run.rc == 0, run.output
    assert len(run.changed) == 2 * len(HOSTS)
    for host in HOSTS:
        principal = service.account(host)["identity"]["principalId"]
        assert sorted((service.permissions(principal) or {})["keys"]) == NEEDED
        assert service.encryption(host) == identifier
    assert_one_token_for_each_audience(run.requests)


def test_hosts_share_what_they_only_check(ansible: Ansible, service: Service) -> None:
    """However many accounts are moved, few requests read what is the same for all of them."""
    service.make_vault(rbac=True)
    first, other = service.make_key().id, service.make_key("other").id
    for host in HOSTS:
        service.make_account(host)
        service.assign(service.account(host)["identity"]["principalId"], service.vault_id())
        service.point(first, host)
    variables = {**VARS, "cmk_account_name": "{{ inventory_hostname }}"}

    def moved(role: str, **more: str) -> Counter[str]:
        include = {"name": f"azbatch.cmk.{role}", "tasks_from": "move"}
        moves = {"name": "Move", "ansible.builtin.import_role": include, "vars": {**variables, **more}}
        play = {"name": "Move", "hosts": "all", "gather_facts": False, "tasks": [moves]}
        run = ansible.playbook([play], arguments=["-i", f"{','.join(HOSTS)},", "--forks", "4"])
        assert run.rc == 0, run.output
        assert len(run.changed) == len(HOSTS)
        return Counter(str(one["route"]).rpartition("/")[2] for one in run.requests if one["method"] == "GET")

    # A version is wanted, but the identifier names none.
    switched = moved("switch", cmk_new_key_identifier=other.rpartition("/")[0])
    assert switched["permissions"] + switched["{vault}"] < len(HOSTS), switched
    reverted = moved("revert", cmk_key_name="other")
    assert reverted["{vault}"] == 0, reverted


def test_hosts_that_share_a_key_have_one_rotation_policy(ansible: Ansible, service: Service) -> None:
    """Otherwise the hosts would replace each other's policy in every run."""
    hosts = HOSTS[:2]
    service.make_vault(rbac=True)
    identifier = service.make_key().id
    for host in hosts:
        service.make_account(host)
        service.assign(service.account(host)["identity"]["principalId"], service.vault_id())
        service.point(identifier, host)
    policies = {hosts[0]: {"time_after_create": "P90D"}, hosts[1]: {"time_after_create": "P30D"}}
    variables = {**VARS, "cmk_account_name": "{{ inventory_hostname }}"}
    play = {
        "name": "Rotate",
        "hosts": "all",
        "serial": 1,
        "gather_facts": False,
        "vars": {"policies": policies},
        "tasks": [
            {
                "name": "Rotate",
                "ansible.builtin.import_role": {"name": "azbatch.cmk.rotate"},
                "vars": {**variables, "cmk_key_rotation_policy": "{{ policies[inventory_hostname] }}"},
            }
        ],
    }
    run = ansible.playbook([play], arguments=["-i", f"{','.join(hosts)},"])

    (failed,) = run.failed
    assert failed.host == hosts[1]
    assert (failed["code"], failed["variable"]) == ("rotation_policy_differs", "cmk_key_rotation_policy")
    named = f"is time_after_create: P30D, but the host {hosts[0]} has requested time_after_create: P90D"
    assert f"cmk_key_rotation_policy {named}" in failed["msg"]
    (action,) = service.keys().get_key_rotation_policy("key1").lifetime_actions[:1]
    assert action.time_after_create == "P90D"
