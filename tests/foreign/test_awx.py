# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook awx with the modules of awx.awx, against an emulation of AWX's REST API."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from awx_server import TOKEN, Awx, Object, serving
from harness import ended
from sandbox_client import plain_environment

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "awx"
SECRET = "secret-of-the-service-principal"
AZURE = {
    "AZURE_SUBSCRIPTION_ID": "subscription-of-the-test",
    "AZURE_TENANT": "tenant-of-the-test",
    "AZURE_CLIENT_ID": "client-of-the-test",
    "AZURE_SECRET": SECRET,
}
# AWX finds playbooks by such a line.
PLAYBOOK = re.compile(r"^\s*-?\s*(hosts|ansible\.builtin\.import_playbook):", re.MULTILINE)
NAMES = ["provision", "canary", "rotate", "clean_up", "switch", "revert", "recover", "audit", "drill"]
# Each run has about thirty tasks, each of which starts a process.
SECONDS = 300

Run = Callable[..., str]


@pytest.fixture
def awx() -> Iterator[Awx]:
    found = (file.name for file in EXAMPLE.glob("*.yml") if PLAYBOOK.search(file.read_text(encoding="utf-8")))
    with serving(frozenset(found)) as awx:
        yield awx


@pytest.fixture
def run(awx: Awx, clients: Path, tmp_path: Path) -> Run:
    """Runs the playbook with the variables of the example. It must succeed, unless `fails`. Returns the output."""

    def run(*arguments: str, fails: bool = False, environment: dict[str, str] | None = None, **variables: Any) -> str:
        command = [clients / "awx" / "bin" / "ansible-playbook", "azbatch.cmk.awx", *arguments]
        files = ["-e", f"@{EXAMPLE / 'awx_variables.yml'}", "-e", json.dumps(variables)]
        settings = {"CONTROLLER_HOST": awx.url, "CONTROLLER_OAUTH_TOKEN": TOKEN, "HOME": str(tmp_path)}
        own = {**plain_environment(), **AZURE, **settings, "ANSIBLE_NOCOLOR": "1", **(environment or {})}
        done = ended([*command, *files], own, tmp_path, SECONDS)
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    return run


def changed(output: str) -> int:
    (count,) = re.findall(r"^localhost .* changed=(\d+)", output, re.MULTILINE)
    return int(count)


def test_the_second_run_and_check_mode_write_nothing(awx: Awx, run: Run) -> None:
    output = run("--check")
    assert awx.writes == []
    # The execution environment, the credential, the project, the inventory, and the message about the other objects.
    assert changed(output) == 5, output

    output = run("-vvv")
    assert changed(output) > 5
    assert [value for value in AZURE.values() if value in output] == []

    awx.writes.clear()
    for arguments in (["--check"], []):
        output = run(*arguments)
        assert changed(output) == 0, output
        assert awx.writes == []


def test_what_is_created(awx: Awx, run: Run) -> None:
    run(cmk_awx_slices=3, cmk_awx_name="Keys", cmk_awx_key_max_version_age="P30D", cmk_awx_audit_schedule="")

    (source,) = awx.objects["inventory_sources"].values()
    assert (source["source"], source["source_path"], source["update_on_launch"]) == ("scm", "batch_accounts.yml", True)
    assert source["source_project"] == awx.named("projects", "Keys")["id"]
    credential = awx.named("credentials", "Keys")
    assert awx.inputs[credential["id"]]["secret"] == SECRET

    templates = {name: awx.named("job_templates", f"Keys: {name}") for name in NAMES}
    assert len(awx.objects["job_templates"]) == len(NAMES)
    for name, template in templates.items():
        assert template["playbook"] == f"{'rotate' if name in ('canary', 'clean_up') else name}.yml"
        assert template["job_slice_count"] == (3 if name == "rotate" else 1)
        assert awx.associated(template, "credentials") == [credential]
        assert template["survey_enabled"] == (template["id"] in awx.surveys)
    assert json.loads(templates["canary"]["extra_vars"]) == {
        "cmk_hosts": "pinned[0]",
        "cmk_left_alone_fails": False,
        "cmk_unused_versions": "keep",
        "cmk_key_max_version_age": "P30D",
    }
    questions = {one["variable"]: one.get("default") for one in awx.surveys[templates["rotate"]["id"]]["spec"]}
    assert questions["cmk_hosts"] == "pinned"
    assert questions["cmk_max_fail_percentage"] == 0

    nodes = {one["identifier"]: one for one in awx.objects["workflow_job_template_nodes"].values()}
    edges = {
        (name, kind): [one["identifier"] for one in awx.associated(node, f"{kind}_nodes")]
        for name, node in nodes.items()
        for kind in ("success", "failure")
    }
    assert {edge: to for edge, to in edges.items() if to} == {
        ("canary", "success"): ["rotate"],
        ("canary", "failure"): ["recover"],
        ("rotate", "failure"): ["recover"],
    }
    assert {name: node["unified_job_template"] for name, node in nodes.items()} == {
        name: templates[name]["id"] for name in ("canary", "rotate", "recover")
    }
    assert nodes["recover"]["extra_data"] == {"cmk_hosts": "pinned", "cmk_allowed_repairs": ["network", "access"]}

    (schedule,) = awx.objects["schedules"].values()
    workflow = awx.named("workflow_job_templates", "Keys: rotation with a canary")
    assert schedule["unified_job_template"] == workflow["id"]


def test_secrets_of_existing_objects_are_sent_on_request(awx: Awx, run: Run) -> None:
    def notification(password: str) -> dict[str, Any]:
        configuration = {"host": "smtp.example.org", "password": password}
        return {
            "cmk_awx_notification": "Failed",
            "cmk_awx_notification_type": "email",
            "cmk_awx_notification_configuration": configuration,
        }

    output = run("-vvv", **notification("first-password"))
    assert "first-password" not in output
    for name in NAMES:
        (sent,) = awx.associated(awx.named("job_templates", f"Batch keys: {name}"), "notification_templates_error")
        assert sent["name"] == "Failed"
    awx.writes.clear()

    other = {"AZURE_SECRET": "second-secret"}
    run(**notification("second-password"), environment=other)
    assert awx.writes == []

    run(**notification("second-password"), environment=other, cmk_awx_update_secrets=True)
    credential, failed = awx.named("credentials", "Batch keys"), awx.named("notification_templates", "Failed")
    assert [(method, path) for method, path, _body in awx.writes] == [
        ("PATCH", credential["url"]),
        ("PATCH", failed["url"]),
    ]
    assert awx.inputs[credential["id"]]["secret"] == "second-secret"
    assert awx.writes[1][2]["notification_configuration"]["password"] == "second-password"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"cmk_awx_organization": ""}, "cmk_awx_organization is not set. "),
        ({"cmk_awx_project_url": ""}, "cmk_awx_project_url is not set. "),
        ({"cmk_awx_projct_url": "x"}, "cmk_awx_projct_url: the playbook has no such variable. "),
        ({"cmk_awx_slices": 0}, "cmk_awx_slices is 0. Use a number of at least 1."),
        ({"cmk_awx_unused_versions": "delete"}, "cmk_awx_unused_versions is delete. Use keep or disable."),
        ({"cmk_awx_allowed_repairs": ["identity"]}, "cmk_awx_allowed_repairs is ['identity']. Use a list of vault, "),
        ({"cmk_awx_extra_vars": {"canary": {}}}, "cmk_awx_extra_vars has canary. Use the names provision, "),
        (
            {"cmk_awx_extra_vars": {"rotate": {"cmk_hosts": "all"}}},
            "cmk_awx_extra_vars.rotate has cmk_hosts, which the survey of the job overrides. Remove it.",
        ),
        ({"cmk_awx_rotation_schedule": "daily"}, "cmk_awx_rotation_schedule is not a schedule. "),
        ({"cmk_awx_eda": True}, "cmk_awx_eda_image is not set. "),
        ({"cmk_awx_eda": True, "cmk_awx_eda_image": "de:1"}, "cmk_awx_eda_credentials is empty. "),
        (
            {"cmk_awx_eda": True, "cmk_awx_eda_image": "de:1", "cmk_awx_eda_credentials": ["AWX"]},
            "cmk_awx_eda_event_stream_token is not set. ",
        ),
        (
            {"cmk_awx_organization": "Nowhere"},
            "cmk_awx_organization is 'Nowhere', but AWX has no such organization, or you may not read it.",
        ),
        (
            {"cmk_awx_credential_inputs": {}},
            "cmk_awx_credential is 'Batch keys', but AWX has no such credential, or you may not read it. "
            "To create it, set cmk_awx_credential_inputs.",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_invalid_variables(awx: Awx, run: Run, variables: dict[str, Any], message: str) -> None:
    assert message in run(fails=True, **variables)
    assert awx.writes == []


def test_secrets_that_are_not_set(awx: Awx, run: Run) -> None:
    message = "cmk_awx_credential_inputs has no value for client, secret."
    assert message in run(fails=True, environment={"AZURE_CLIENT_ID": "", "AZURE_SECRET": ""})
    assert awx.writes == []


def options(clients: Path, module: str) -> set[str]:
    """The options of a module in its documentation."""
    command = [clients / "awx" / "bin" / "ansible-doc", "--json", module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    found = json.loads(done.stdout or "{}")
    if module not in found:
        pytest.skip(f"{module} is not installed")
    return set(found[module]["doc"]["options"])


def tasks(entries: list[Object]) -> Iterator[Object]:
    for entry in entries:
        yield from tasks(entry["block"]) if "block" in entry else [entry]


CALLS = [
    (name, arguments)
    for entries in (
        yaml.safe_load((ROOT / "playbooks" / "tasks" / "awx.yml").read_text()),
        yaml.safe_load((ROOT / "playbooks" / "tasks" / "awx_eda.yml").read_text()),
    )
    for one in tasks(entries)
    for name, arguments in one.items()
    if name.startswith(("awx.awx.", "ansible.eda."))
]


@pytest.mark.parametrize(("module", "arguments"), CALLS, ids=[name for name, _arguments in CALLS])
def test_options_exist(clients: Path, module: str, arguments: Object) -> None:
    """The modules of ansible.eda are checked if the collection is installed: PyPI does not have it."""
    assert arguments.keys() <= options(clients, module)
