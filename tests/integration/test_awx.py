# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the steps of AWX with ansible-runner: an update of the inventory source, then jobs of the job templates.

The job templates are those of the playbook awx, with its defaults, and the project is the folder examples/awx. AWX
gives each job a private data directory, an inventory that is a script, and the credential in its environment.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
import yaml
from awx_templates import PLAYBOOKS, SETTINGS, SLICES, defined, job_template, job_variables
from harness import Ansible, writes
from role_runs import QUARTER, things
from service import GROUP, Service

from ansible_collections.azbatch.cmk.plugins.plugin_utils import _play_keywords as keywords

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "examples" / "awx"
ACCOUNTS = [f"account{number}" for number in range(1, 8)]

Inventory = dict[str, Any]
# Two of the extra variables that AWX gives to each job.
OF_A_JOB = {"awx_job_id": 1, "tower_job_id": 1}


@dataclass
class Awx:
    """Emulates the steps of AWX before and after a job."""

    folder: Path
    environment: Mapping[str, str]

    def update_inventory(self, name: str = "update") -> Inventory:
        """The hosts and groups of the inventory source, as AWX stores them until the next update."""
        found, errors = ansible_runner.get_inventory(
            action="list",
            inventories=[str(self._directory(name) / "project" / "batch_accounts.yml")],
            response_format="json",
            export=True,
            envvars=dict(self.environment),
            quiet=True,
        )
        assert "WARNING" not in errors, errors
        inventory: Inventory = found
        return inventory

    def job(
        self, template: str, inventory: Inventory, *, name: str | None = None, fails: bool = False, **given: Any
    ) -> Any:
        """Run a job with the stored inventory, and with variables that the survey or an earlier node has given. It has
        to succeed, unless `fails`."""
        ended = ansible_runner.run(**self._arguments(template, name or template, inventory, given))
        assert ended.status == ("failed" if fails else "successful"), ended.stdout.read()
        return ended

    def _arguments(self, template: str, name: str, inventory: Inventory, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a job."""
        directory, found = self._directory(name), job_template(template)
        variables = job_variables(found, given)
        required = {one["variable"] for one in found.get("survey", ()) if one["required"]}
        assert required <= {name for name, value in variables.items() if value != ""}
        script = directory / "inventory" / "hosts"
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(inventory)}\nEND\n")
        script.chmod(0o700)
        return {
            "private_data_dir": str(directory),
            "playbook": f"{found.get('playbook', template)}.yml",
            "inventory": str(script),
            "extravars": {**OF_A_JOB, **variables},
            "envvars": dict(self.environment),
            "ident": name,
            "quiet": True,
        }

    def sliced_job(self, template: str, inventory: Inventory, **given: Any) -> list[Any]:
        """Run the slices of a job concurrently."""

        def run(number: int) -> Any:
            return self.job(template, sliced(inventory, number), name=f"slice{number}", **given)

        slices = job_template(template)["slices"]
        with ThreadPoolExecutor(slices) as threads:
            return list(threads.map(run, range(slices)))

    def _directory(self, name: str) -> Path:
        directory = self.folder / name
        shutil.copytree(PROJECT, directory / "project")
        for part in ("inventory", "env"):
            (directory / part).mkdir()
        return directory


def artifacts(job: Any) -> dict[str, Any]:
    """The extra variables that AWX passes to the next nodes of the workflow: the variables that set_stats has set."""
    (stats,) = (event["event_data"] for event in job.events if event["event"] == "playbook_on_stats")
    found: dict[str, Any] = stats["artifact_data"]
    return found


def sliced(inventory: Inventory, number: int) -> Inventory:
    """A slice of the inventory: every third host in the order of the names, with its groups."""
    hosts = sorted(inventory["_meta"]["hostvars"])[number::SLICES]
    known = {name: variables for name, variables in inventory["_meta"]["hostvars"].items() if name in hosts}
    groups = {
        name: {**group, **({"hosts": [one for one in group["hosts"] if one in hosts]} if "hosts" in group else {})}
        for name, group in inventory.items()
        if name != "_meta"
    }
    return {**groups, "_meta": {"hostvars": known}}


@pytest.fixture
def awx(ansible: Ansible, tmp_path: Path) -> Awx:
    plain = {name: value for name, value in ansible.environment().items() if not name.startswith("AZURE_")}
    for name in ("ANSIBLE_CONFIG", "ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_CALLBACKS_ENABLED"):
        plain.pop(name)
    sandbox = ansible.sandbox
    # The variables of the credential type "Microsoft Azure Resource Manager", and no others.
    credential = {
        "AZURE_SUBSCRIPTION_ID": sandbox.subscription_id,
        "AZURE_TENANT": sandbox.tenant_id,
        "AZURE_CLIENT_ID": sandbox.client_id,
        "AZURE_SECRET": sandbox.secret,
    }
    return Awx(tmp_path / "awx", {**plain, **credential})


def on_an_old_version(service: Service) -> str:
    """Create all accounts, which use an old key version. Returns the version's identifier."""
    service.make_vault(rbac=True)
    identifier: str = service.make_key().id
    for name in ACCOUNTS:
        service.grant(service.make_account(name)["identity"]["principalId"])
        service.point(identifier, name)
    service.sandbox.control.advance(QUARTER)
    return identifier


def test_the_example_of_the_variables_is_valid_and_complete(tmp_path: Path) -> None:
    """With and without the lines that are comments."""
    example = (PROJECT / "awx_variables.yml").read_text()
    complete = re.sub("^# (?=cmk_awx_|  )", "", example, flags=re.MULTILINE)
    for name, content in (("example.yml", example), ("complete.yml", complete)):
        file = tmp_path / name
        # As if the environment variables of the example were set.
        file.write_text(content.replace("lookup('ansible.builtin.env', ", "('set' ~ "))
        assert [one for one in defined("__problems", f"@{file}") if one] == []

    public = set(re.findall(r"^(cmk_awx_\w+):", (PLAYBOOKS / "vars" / "awx.yml").read_text(), re.MULTILINE))
    assert set(re.findall(r"^(cmk_awx_\w+):", complete, re.MULTILINE)) == public


@pytest.mark.parametrize(
    "name", [file.stem for file in sorted(PROJECT.glob("*.yml")) if "import_pl" in file.read_text()]
)
def test_jobs_set_variables_of_their_role(name: str) -> None:
    """With the choices of the role. A misspelled variable would have no effect."""
    specs = yaml.safe_load((ROOT / "roles" / name / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    options = {**specs[name]["options"], **{variable: {} for variable in keywords.VARIABLES}}
    templates = [one for one in defined("__job_templates") if one.get("playbook", one["name"]) == name]
    assert templates
    for template in templates:
        asked = {one["variable"]: one for one in template.get("survey", ())}
        assert {*asked, *template["extra_vars"]} <= options.keys()
        for variable, question in asked.items():
            known = options[variable].get("choices")
            is_flag = options[variable].get("type") == "bool"
            assert set(question.get("choices", ())) <= ({"false", "true"} if is_flag else {*(known or ())})
            assert ("choices" in question) == bool(known or is_flag)


@pytest.mark.parametrize(
    "given", [{}, {"cmk_key_new_version": "true"}], ids=["due", "forced by the survey of the workflow"]
)
@pytest.mark.slow(every=2)
def test_a_canary_and_slices_rotate_each_account_once(awx: Awx, service: Service, given: dict[str, Any]) -> None:
    """The slices are in a nested workflow job, which is a node of the workflow that contains the canary."""
    identifier, control = on_an_old_version(service), service.sandbox.control
    inventory = awx.update_inventory()
    assert sorted(inventory["_meta"]["hostvars"]) == ACCOUNTS
    assert given.keys() <= {one["variable"] for one in defined("__workflow_survey")}

    since = control.last
    canary = awx.job("canary", inventory, **given, awx_workflow_job_id=1)
    newest = service.key().id
    assert [service.encryption(name) for name in ACCOUNTS] == [newest, *[identifier] * 6]

    jobs = awx.sliced_job("rotate", inventory, **{"awx_workflow_job_id": 2, **artifacts(canary), **given})
    assert {name: service.encryption(name) for name in ACCOUNTS} == dict.fromkeys(ACCOUNTS, newest)
    assert all(service.is_available(name) for name in ACCOUNTS)
    assert Counter(things(writes(control.requests(since)))) == {
        "POST key vault-one key1": 1,
        **{f"PATCH account {name}": 1 for name in ACCOUNTS},
    }
    assert sorted(host for job in jobs for host in job.stats["ok"]) == ACCOUNTS
    for job in jobs:
        assert "failures" not in job.stats or not job.stats["failures"]
        output = job.stdout.read()
        assert re.search(r"(Rotated \d of \d account|\d rotated|Nothing to change: \d account).* in \d+ s\.", output)
        assert service.sandbox.secret not in output


def test_the_clean_up_is_a_node_after_the_rotation() -> None:
    disable = json.dumps({**SETTINGS, "cmk_awx_unused_versions": "disable"})
    nodes = {one["identifier"]: one for one in defined("__nodes", disable)}
    assert nodes["rotate"]["related"]["success_nodes"] == [{"identifier": "clean_up"}]
    assert "related" not in nodes["clean_up"]
    assert "clean_up" not in {one["identifier"] for one in defined("__nodes")}
    unused = {one["name"]: one["extra_vars"].get("cmk_unused_versions") for one in defined("__job_templates", disable)}
    assert [unused[name] for name in ("canary", "rotate", "clean_up")] == ["keep", "keep", "disable"]


@pytest.mark.slow
def test_the_other_job_templates(awx: Awx, service: Service) -> None:
    place = {"cmk_resource_group": GROUP, "cmk_account_name": "account1"}
    others: Inventory = {"ungrouped": {"hosts": ["account2"]}, "_meta": {"hostvars": {"account2": {}}}}
    job = awx.job("provision", others, **place, cmk_location="", cmk_vault_name="vault-one", cmk_key_name="key1")
    assert "WARNING" not in job.stdout.read()
    assert service.encryption() == service.key().id
    inventory = awx.update_inventory()

    result = artifacts(awx.job("audit", inventory))["cmk_audit_result"]
    assert sorted(result["files"]) == ["csv", "html", "json", "junit", "sarif"]

    awx.job("clean_up", inventory)
    other = service.make_key("key2").id
    awx.job("switch", inventory, cmk_hosts="pinned", cmk_new_key_identifier=other)
    assert service.encryption() == other

    # The form of AWX has selected all repairs.
    awx.job("recover", inventory, cmk_allowed_repairs=["vault", "network", "key", "access"])
    awx.job("revert", awx.update_inventory("second"), cmk_hosts="all")
    assert service.encryption() is None
    assert service.enabled("key2") == [True]
