# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples of docs/guide.md and the README have the described results."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Ansible
from role_runs import end_state, reports
from service import LOCATION, NEEDED, Service

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMES = {
    "cmk_account_name": "account1",
    "cmk_vault_name": "vault-one",
    "cmk_key_name": "key1",
    "cmk_resource_group": "rg-sandbox",
}
# Reads the resources with a Service in a separate process, which needs only the environment of the run.
PROBE = f"""
import json, os, sys
sys.path[:0] = {[str(ROOT / "tests" / "integration"), str(ROOT / "tests" / "sandbox")]!r}
from role_runs import end_state
from sandbox_client import Control, Sandbox
from service import Service
service = Service(Sandbox(dict(os.environ), Control(os.environ["AZURE_SANDBOX_URL"]), None))
print(json.dumps({{**end_state(service), "available": service.is_available()}}))
"""


def blocks(text: str) -> list[Any]:
    """The YAML blocks of a page, in order."""
    return [yaml.safe_load(block) for block in _BLOCK.findall(text)]


def sections() -> dict[str, list[dict[str, Any]]]:
    """The guide's tasks by the number of their section."""
    found = {}
    for section in re.split(r"^## ", GUIDE, flags=re.MULTILINE)[1:]:
        tasks = [task for block in blocks(section) for task in block]
        if tasks:
            found[section.partition(".")[0]] = tasks
    return found


def documented(role: str) -> set[str]:
    """The options of a role."""
    spec = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    return set(spec["argument_specs"][role]["options"])


def test_the_guide_from_its_first_task_to_its_last(ansible: Ansible, service: Service) -> None:
    found = sections()
    assert list(found) == [str(number) for number in range(1, 10)], "every section has tasks"
    assert sum(map(len, found.values())) == sum(len(block) for block in blocks(GUIDE))
    # The last section is for an account that has lost its key. Another test runs it.
    del found["9"]
    tasks = []
    for section, own in found.items():
        look = {"ansible.builtin.command": {"argv": [sys.executable, "-c", PROBE]}, "changed_when": False}
        tasks += [*own, {"name": f"Read Azure after section {section}", **look}]

    run = ansible.play(tasks, vars=NAMES)

    seen = {section: json.loads(run[f"Read Azure after section {section}"]["stdout"]) for section in found}
    assert all(one["available"] for one in seen.values())
    unchanged = ["Disable versions that nothing has used for seven days"]
    assert [one.name for one in run.changed] == [
        task["name"]
        for own in found.values()
        for task in own
        if "ansible.builtin.debug" not in task and task["name"] not in unchanged
    ]

    def encryption(section: str) -> tuple[str, str | None]:
        properties = seen[section]["accounts"]["account1"]["properties"]["encryption"]
        return properties["keySource"], (properties.get("keyVaultProperties") or {}).get("keyIdentifier")

    def versions(section: str, key: str) -> list[bool]:
        return [version["enabled"] for version in seen[section]["keys"]["vault-one"][key]]

    keys = "https://vault-one.vault.azure.net/keys"
    principal = service.account()["identity"]["principalId"]
    assert seen["1"]["accounts"]["account1"]["identity"]["type"] == "SystemAssigned"
    assert run["Show the principal that is to get access to the key"]["account.identity.principal_id"] == principal

    vault = seen["2"]["vaults"]["vault-one"]["properties"]
    assert vault["enableSoftDelete"]
    assert vault["enablePurgeProtection"]
    assert not vault["enableRbacAuthorization"]

    policies = seen["3"]["vaults"]["vault-one"]["properties"]["accessPolicies"]
    (granted,) = (one for one in policies if one["objectId"] == "<identity of account1>")
    assert granted["permissions"]["keys"] == NEEDED
    assert seen["3"]["keys"]["vault-one"] == {"deleted": []}

    assert versions("4", "key1") == [True]
    assert run["Show its identifier"]["key.key_identifier"].startswith(f"{keys}/key1/")
    assert {encryption(section) for section in "1234"} == {("Microsoft.Batch", None)}

    assert encryption("5") == ("Microsoft.KeyVault", f"{keys}/key1/<vault-one key1 1>")

    assert encryption("6") == ("Microsoft.KeyVault", f"{keys}/key1/<vault-one key1 2>")
    # Batch may need the previous version for seven days.
    assert versions("6", "key1") == [True, True]

    assert encryption("7") == ("Microsoft.KeyVault", f"{keys}/key1-2/<vault-one key1-2 1>")
    assert len(service.key("key1-2").key.n) * 8 == 4096

    assert encryption("8") == ("Microsoft.Batch", None)
    assert {name: one for name, one in seen["8"].items() if name != "available"} == end_state(service)


@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "follows"])
def test_the_last_section_of_the_guide_recovers_an_account(ansible: Ansible, service: Service, follow: bool) -> None:
    service.on_key(follow=follow)
    service.disable()
    assert not service.is_available()
    run = ansible.play(sections()["9"], vars=NAMES)
    [cause] = run["Show it"]["account.causes"]
    assert (cause["name"], cause["repair"]) == ("version_unusable", "key")
    assert [one.name for one in run.changed] == ["Make the version usable again"]
    assert service.is_available()


def test_the_readme_from_its_variables_to_its_last_play(ansible: Ansible, service: Service) -> None:
    variables, canary, plays = blocks(README)
    assert set(canary) <= documented("drill")
    assert canary["cmk_drill_canary"] == canary["cmk_account_name"]
    roles = [role if isinstance(role, dict) else {"role": role} for play in plays for role in play["roles"]]
    assert [role["role"] for role in roles] == [f"azbatch.cmk.{name}" for name in ("provision", "rotate", "revert")]
    options = {role["role"]: documented(role["role"].rpartition(".")[2]) for role in roles}
    for role in roles:
        assert set(role) - {"role"} <= options[role["role"]]
    assert set(variables) <= set.union(*options.values())

    group = f"{service.sandbox.subscription}/resourceGroups/{variables['cmk_resource_group']}"
    assert service.sandbox.arm("PUT", group, "2022-09-01", {"location": LOCATION}).ok
    run = ansible.playbook(plays, extra_vars={"cmk_wait_timeout": 30, **variables})
    assert run.rc == 0, run.output
    of_accounts = [report for _host, report in reports(run)]
    assert [one["key_source"] for one in of_accounts] == ["microsoft_keyvault", "microsoft_keyvault", "microsoft_batch"]
    assert [one["changed"] for one in of_accounts] == [True, False, True]
    key = variables["cmk_key_name"], variables["cmk_vault_name"]
    assert service.key(key[0], vault=key[1]).properties.enabled
    service.sandbox.control.advance(7 * 24 * 3600)
    run = ansible.playbook(plays[-1:], extra_vars={"cmk_wait_timeout": 30, **variables})
    assert run.rc == 0, run.output
    account = service.batch.batch_account.get(variables["cmk_resource_group"], variables["cmk_account_name"])
    assert account.encryption.key_source == "Microsoft.Batch"
    assert not service.key(key[0], vault=key[1]).properties.enabled


def test_the_readme_names_existing_playbooks() -> None:
    named = set(re.findall(r"(?:ansible-playbook|The playbook) `?azbatch\.cmk\.(\w+)", README))
    assert named == {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
