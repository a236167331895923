# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nodes that Ansible Automation Platform counts by extensions/audit/event_query.yml, from the events of jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ansible_runner
import jq
import yaml
from harness import Ansible, task
from service import GROUP, Service

ROOT = Path(__file__).resolve().parents[2]
QUERIES = yaml.safe_load((ROOT / "extensions/audit/event_query.yml").read_text())
VAULT = "https://vault-one.vault.azure.net"


def job(ansible: Ansible, *tasks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run tasks as a job, also those after a failed task. Returns all events with the result of a task."""
    directory = ansible.folder / f"job{len(list(ansible.folder.glob('job*')))}"
    (directory / "project").mkdir(parents=True)
    play = {"hosts": "localhost", "gather_facts": False, "ignore_errors": True, "tasks": tasks}
    (directory / "project" / "job.yml").write_text(json.dumps([play]))
    environment = {n: v for n, v in ansible.environment().items() if not n.startswith("ANSIBLE_CALLBACK")}
    ended = ansible_runner.run(
        private_data_dir=str(directory), playbook="job.yml", inventory="localhost,", envvars=environment, quiet=True
    )
    assert ended.status == "successful", ended.stdout.read()
    return [event for event in ended.events if "res" in event.get("event_data", {})]


def nodes(events: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """The nodes of a job and the modules that managed them, as the platform stores them: build_indirect_host_data in
    awx/main/tasks/host_indirect.py, and the constraints of awx/main/models/indirect_managed_node_audit.py."""
    found: dict[str, set[str]] = {}
    facts: dict[str, Any] = {}
    for event in events:
        action = event["event_data"]["resolved_action"]
        if query := QUERIES.get(action, {}).get("query"):
            for entry in jq.compile(query).input_value(event["event_data"]["res"]).all():
                name, canonical = entry["name"], entry["canonical_facts"]
                # The platform skips null in the canonical facts. It stores no entry of the job if the name is null or
                # too long, or if another entry of the name has other canonical facts.
                assert isinstance(name, str)
                assert 0 < len(name) <= 255
                assert canonical
                assert all(isinstance(value, str) and value for value in canonical.values())
                assert all(isinstance(value, str) and value for value in entry["facts"].values())
                assert facts.setdefault(name, canonical) == canonical
                found.setdefault(name, set()).add(action.rpartition(".")[2])
    assert len({canonical["id"] for canonical in facts.values()}) == len(facts)
    return found


def statuses(events: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Whether each task failed, by its name."""
    return {event["event_data"]["task"]: event["event"] == "runner_on_failed" for event in events}


def whole_job(group: str = GROUP, account: str = "account1", vault: str = "vault-one") -> list[dict[str, Any]]:
    """A task of each module."""
    named = {"resource_group": group, "account_name": account}
    return [
        task("account", "batch_account_identity", "account", resource_group=group, name=account),
        task("vault", "keyvault_cmk_vault", resource_group=group, name=vault, authorization="access_policy"),
        task(
            "access",
            "keyvault_cmk_access",
            vault_resource_group=group,
            vault_name=vault,
            principal_id="{{ account.identity.principal_id }}",
        ),
        task("key", "keyvault_cmk_key", "key", vault_name=vault, name="key1"),
        task(
            "encryption",
            "batch_encryption",
            **named,
            key_source="microsoft_keyvault",
            key_identifier="{{ key.key_identifier }}",
        ),
        task("info", "batch_encryption_info", **named),
        task("diagnosis", "batch_encryption_diagnosis", **named),
        task("key state", "keyvault_cmk_key_state", vault_name=vault, name="key1", state="enabled"),
        task("audit", "batch_encryption_audit", pools=True),
    ]


ACCOUNT_MODULES = {
    "batch_account_identity",
    "batch_encryption",
    "batch_encryption_diagnosis",
    "batch_encryption_info",
}
REPORTS = {"batch_encryption_audit", "keyvault_cmk_users"}
VAULT_MODULES = {"keyvault_cmk_vault", "keyvault_cmk_access", "keyvault_cmk_key", "keyvault_cmk_key_state"}


def test_every_module_but_the_reports_has_a_query() -> None:
    """The audit reads all accounts of the subscriptions, and the report on the users of a vault manages none."""
    group = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]["azure"]

    assert set(QUERIES) == {f"azbatch.cmk.{module}" for module in group if module not in REPORTS}


def test_a_job_names_each_account_and_vault_once(ansible: Ansible, service: Service) -> None:
    """Whatever the letter case in the tasks, and whichever modules manage the resource."""
    service.make_account("account2")
    events = job(ansible, *whole_job(), *whole_job(GROUP.upper(), "Account1", "Vault-One"))

    assert statuses(events) == dict.fromkeys((one["name"] for one in whole_job()), False)
    assert nodes(events) == {service.account_id().lower(): ACCOUNT_MODULES, VAULT: VAULT_MODULES}


def test_an_account_with_several_identities_has_one_vault(ansible: Ansible, service: Service) -> None:
    for name in ("identity1", "identity2"):
        service.make_identity(name)
    ids = {service.identity_id(name): {} for name in ("identity1", "identity2")}
    service.make_account(identity={"type": "UserAssigned", "userAssignedIdentities": ids})
    service.make_vault()
    access = task(
        "access",
        "keyvault_cmk_access",
        vault_resource_group=GROUP,
        vault_name="vault-one",
        account_name="account1",
        account_resource_group=GROUP,
    )

    (event,) = job(ansible, access)

    assert len(event["event_data"]["res"]["principals"]) == 2
    assert nodes([event]) == {VAULT: {"keyvault_cmk_access"}}


def test_resources_that_are_missing_or_deleted_or_fail_are_no_nodes(ansible: Ansible, service: Service) -> None:
    service.make_vault()
    missing = {"resource_group": GROUP, "account_name": "missing"}
    key = {"vault_name": "vault-one", "name": "key1"}
    successful = [
        task("info", "batch_encryption_info", **missing),
        task("absent key", "keyvault_cmk_key_state", **key, state="absent"),
        {**task("secret", "keyvault_cmk_vault", resource_group=GROUP, name="vault-one"), "no_log": True},
    ]
    failed = [
        task("missing", "batch_encryption", **missing, key_source="microsoft_batch"),
        task("wrong", "batch_account_identity", resource_group=GROUP, name="not a name"),
        task("wrong option", "keyvault_cmk_vault", vault="vault-one"),
    ]
    skipped = {**task("skipped", "batch_account_identity", resource_group=GROUP, name="account1"), "when": False}

    events = job(ansible, *successful, *failed, skipped)

    assert statuses(events) == {one["name"]: one in failed for one in (*successful, *failed)}
    assert nodes(events) == {}
