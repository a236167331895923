# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several hosts in one run: none loses what another one has done."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from harness import BIN, Ansible, assert_one_token_for_each_audience, fails, task
from role_runs import VARS
from sandbox_client import MANAGEMENT_SCOPE, VAULT_SCOPE
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


# Returns the token in the session's folder, as the Azure CLI does for the user who signed in there.
_AZ = """#!/bin/sh
case "$*" in
  *vault.azure.net*) exec cat "$AZURE_CONFIG_DIR/vault.json" ;;
  *) exec cat "$AZURE_CONFIG_DIR/management.json" ;;
esac
"""


def signed_in(ansible: Ansible, service: Service, who: dict[str, Any]) -> str:
    """Create a configuration folder of the Azure CLI in which the principal is signed in. Returns its path."""
    folder = ansible.folder / f"azure-of-{who['name']}"
    folder.mkdir()
    for name, scope in (("management", MANAGEMENT_SCOPE), ("vault", VAULT_SCOPE)):
        token = service.sandbox.token(scope, client_id=who["client_id"], secret=who["secret"])
        payload = token.split(".")[1]
        expires = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        said = {"accessToken": token, "expires_on": expires, "tokenType": "Bearer"}
        (folder / f"{name}.json").write_text(json.dumps(said))
    return str(folder)


def test_two_sessions_of_the_cli(ansible: Ansible, service: Service, tmp_path: Path, way: str) -> None:
    """Tasks of a run with different configuration folders of the Azure CLI sign in as different principals."""
    service.make_account()
    reader = [{"role": "Reader", "scope": service.sandbox.subscription}]
    one = service.sandbox.control.principal("one", roles=reader)
    other = service.sandbox.control.principal("other", roles=reader)
    az = tmp_path / "bin" / "az"
    az.parent.mkdir()
    az.write_text(_AZ)
    az.chmod(0o755)
    look = {"resource_group": GROUP, "account_name": "account1", "auth_source": "cli"}
    nobody = str(tmp_path / "nobody")
    run = ansible.play(
        [
            {
                **task("as one", "batch_encryption_info", **look),
                "environment": {"AZURE_CONFIG_DIR": signed_in(ansible, service, one)},
            },
            {
                **task("as the other", "batch_encryption_info", **look),
                "environment": {"AZURE_CONFIG_DIR": signed_in(ansible, service, other)},
            },
            fails({**task("as nobody", "batch_encryption_info", **look), "environment": {"AZURE_CONFIG_DIR": nobody}}),
        ],
        way=way,
        environment={"PATH": f"{az.parent}:{BIN}:/usr/bin:/bin"},
    )
    principals = [{r["principal"] for r in run[name].requests if r["principal"]} for name in ("as one", "as the other")]
    assert principals == [{one["object_id"]}, {other["object_id"]}]
    run["as nobody"].refused("authentication_failed")
