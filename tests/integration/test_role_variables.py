# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors and warnings of roles and playbooks about their variables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Ansible, Run
from role_runs import VARS, run_role
from service import Service

GUID = "11111111-2222-3333-4444-555555555555"
ROLES = Path(__file__).resolve().parents[2] / "roles"


def test_all_invalid_variables_are_reported_before_the_first_task(ansible: Ansible, service: Service) -> None:
    """Later tasks of the role would refuse these values, after the vault is created."""
    wrong = {"cmk_identity_id": "system", "cmk_key_size": 1024, "cmk_key_expires_in": "a year"}
    run = run_role(ansible, "provision", **wrong, cmk_vaultname="vault-two")

    (failed,) = run.failed
    failed.refused("invalid_option")
    assert {one["variable"] for one in failed["problems"]} == set(wrong)
    first, *lines = failed["msg"].splitlines()
    assert first == "3 values are missing or wrong:"
    assert lines == [f"{number}. {one['msg']}" for number, one in enumerate(failed["problems"], 1)]
    assert "cmk_identity_id is 'system'" in failed["msg"]
    assert "Use its resource id (/subscriptions/" in failed["msg"]
    # A name that is wrong is often the cause of an error.
    assert [one.rpartition(". ")[2] for one in failed.warnings] == ["Did you mean cmk_vault_name?"]
    assert run.requests == []


def test_a_wrong_value_leads_to_the_variable_that_was_set(ansible: Ansible, service: Service) -> None:
    service.on_key()
    run = run_role(ansible, "provision", cmk_resource_group="rg-typo")

    (failed,) = run.failed
    failed.refused("resource_group_not_found")
    remedy = "Correct cmk_resource_group (used as cmk_vault_resource_group), or create the resource group."
    assert (failed["variable"], failed["remedy"]) == ("cmk_resource_group", remedy)
    # Only the checks that failed, and not all evidence.
    assert len(json.dumps({k: v for k, v in failed.result.items() if k != "invocation"})) < 1200, str(failed)


def of_hosts(ansible: Ansible, *names: str, **variables: Any) -> tuple[str, ...]:
    """The arguments for an inventory whose hosts have the names of these accounts."""
    hosts = {name: {"cmk_account_name": name} for name in names}
    inventory = {"accounts": {"hosts": hosts, "vars": {**VARS, **variables}}}
    return "-i", str(ansible.write("inventory.yml", yaml.safe_dump(inventory)))


def test_warnings_about_variables_are_shown_once(ansible: Ansible, service: Service) -> None:
    """For three hosts in two waves. The variables are unknown or have no effect, and none requests a rotation."""
    service.on_key()
    variables = {"cmk_key_max_ages": "P90D", "cmk_owner": "me", "cmk_left_alone_fails": False, "cmk_unused_for": "P0D"}
    arguments = of_hosts(ansible, "account1", "account8", "account9", **variables)
    wanted = {"cmk_hosts": "accounts", "cmk_serial": "[1, '100%']", "cmk_max_fail_percentage": 0}
    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=arguments)

    assert run.rc == 0, run.output
    assert run.output.count("PLAY [Move ") == 2
    shown = [warning for one in run for warning in one.warnings]
    for begin, end in (
        ("cmk_key_max_ages has no effect", "Did you mean cmk_key_max_version_age?"),
        ("cmk_owner has no effect", ""),
        ("cmk_unused_for is 'P0D', which has no effect in azbatch.cmk.rotate without cmk_unused_ver", ""),
        ("No variable requests a rotation", ""),
    ):
        (found,) = [one for one in shown if begin in one]
        assert found.endswith(end)
    assert run.output.count("cmk_key_max_ages has no effect") == 1


def test_hosts_that_do_not_exist_are_an_error(ansible: Ansible, service: Service) -> None:
    name = "azbatch.cmk.rotate"
    arguments = of_hosts(ansible, "account1", cmk_left_alone_fails=False)
    run = ansible.playbook(name, extra_vars={"cmk_hosts": "acounts"}, arguments=arguments)
    assert run.rc != 0
    assert "cmk_hosts is 'acounts', which matches no host of the inventory." in " ".join(run.output.split())
    assert (list(run), run.requests) == ([], [])

    limited = [*arguments, "--limit", "account1"]
    assert ansible.playbook(name, extra_vars={"cmk_hosts": "acounts"}, arguments=limited).rc != 0


@pytest.mark.parametrize(
    ("pattern", "required", "succeeds"),
    [("account2", "", False), ("canaries[0]", False, True)],
)
def test_run_without_hosts_is_an_error_unless_hosts_are_optional(
    ansible: Ansible, service: Service, pattern: str, required: Any, succeeds: bool
) -> None:
    """The patterns are a group that does not exist, and a host that the limit excludes."""
    arguments = [*of_hosts(ansible, "account1", "account2"), "--limit", "account1"]
    wanted = {"cmk_hosts": pattern, "cmk_hosts_required": required}
    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=arguments)

    assert (run.rc == 0) is succeeds, run.output
    assert (list(run), run.requests) == ([], [])
    message = f"cmk_hosts is '{pattern}', which matches no host of the inventory within the limit 'account1'."
    assert (message in " ".join(run.output.split())) is not succeeds


def blanks(role: str) -> dict[str, Any]:
    """The optional variables of the role with an empty value, as AWX passes a survey answer that was left empty."""
    options = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())["argument_specs"][role]
    optional = [name for name, option in options["options"].items() if not option.get("required")]
    return dict.fromkeys([*optional, "cmk_hosts", "cmk_serial", "cmk_max_fail_percentage", "cmk_in_process"], "")


def test_blank_variables_use_their_defaults(ansible: Ansible, service: Service) -> None:
    required = {name: value for name, value in VARS.items() if name != "cmk_wait_timeout"}
    for role in ("provision", "rotate", "audit", "revert"):
        run = ansible.playbook(f"azbatch.cmk.{role}", extra_vars={**required, **blanks(role)})

        assert run.rc == 0, run.output
        assert (service.encryption() is not None) == (role != "revert")
    assert len(service.versions()) == 1


def test_missing_variables_are_named(ansible: Ansible, service: Service) -> None:
    run = ansible.playbook("azbatch.cmk.switch")

    (failed,) = run.failed
    failed.refused("invalid_option")
    options = yaml.safe_load((ROLES / "switch" / "meta" / "argument_specs.yml").read_text())["argument_specs"]["switch"]
    required = {name for name, option in options["options"].items() if option.get("required")}
    assert {one["variable"] for one in failed["problems"]} == required
    assert run.requests == []


def test_a_required_variable_that_is_blank_is_missing(ansible: Ansible, service: Service) -> None:
    run = run_role(ansible, "provision", cmk_resource_group="")

    (failed,) = run.failed
    failed.refused("invalid_option")
    assert failed["msg"] == failed["remedy"].replace("Set ", "cmk_resource_group is not set. Set ", 1)
    assert failed["variable"] == "cmk_resource_group"
    assert run.requests == []


def role_in_a_play(ansible: Ansible, role: str, **wanted: Any) -> Run:
    """The role in a user's own play. Ansible checks the variables of such a role itself if it can."""
    own = {"role": f"azbatch.cmk.{role}", **VARS, **wanted}
    return ansible.playbook([{"hosts": "localhost", "gather_facts": False, "roles": [own]}])


# The role -> each variable, its wrong value, and a part of the message.
WRONG: dict[str, dict[str, tuple[Any, str]]] = {
    "rotate": {
        # The first task of the role passes on the variable to the option used_by_account.
        "cmk_account_name": (
            "{{ nobody }}",
            "'nobody' is undefined. Define that variable, or correct cmk_acc",
        ),
        "cmk_subscription_id": (f"/subscriptions/{GUID}", f"the id of a subscription is a GUID. Use {GUID}."),
        # Only the second task has this option.
        "cmk_vault_resource_group": ("rg-sandbox/", "Use rg-sandbox."),
        "cmk_wait_timeout": ("10m", "its type is wrong. Use an integer."),
        "cmk_key_expires_in": ("{{ months }}M", "'months' is undefined. Define that variable, or correct cmk_key_exp"),
        "cmk_key_new_version": ("x" * 257, "it is longer than 256 characters. Use a shorter text"),
        # Only the last task has this option.
        "cmk_users_in": (["{{ nobody }}"], "'nobody' is undefined. Define that variable, or correct cmk_users_in."),
        "cmk_unused_versions": ("delete", "it is not allowed. Use one of keep, disable."),
        "cmk_require_readable": ("perhaps", "its type is wrong. Use true or false."),
        "cmk_key_name": ("", "Set cmk_key_name: name of the key."),
        "cmk_key_rotation_policy": (90, "it is not a dictionary. Use a dictionary with"),
    },
    "provision": {
        "cmk_key_rotation_policy": (
            {"after": "P1D"},
            "it must not have the key after. Use the keys expiry_time, time_after_create, time_before_expiry.",
        ),
        "cmk_tags": (["a"], "its type is wrong. Use a dictionary."),
        "cmk_key_size": (["a"], "its type is wrong. Use an integer."),
    },
    "recover": {
        "cmk_allowed_repairs": (
            ["vault", "pools"],
            "it is not allowed. Use a list of vault, network, key, access, other_versions, ",
        ),
    },
    "audit": {
        "cmk_audit_required": (["*"], "it is not a list of dictionaries. Use a list of dictionaries with the keys sub"),
        "cmk_exceptions": (
            [{"finding": "x"}],
            "missing required arguments: accounts, expires_on, reason. Use ",
        ),
    },
}


@pytest.mark.parametrize("role", WRONG)
def test_wrong_variables_have_a_line_each(ansible: Ansible, service: Service, role: str) -> None:
    run = role_in_a_play(ansible, role, **{name: value for name, (value, _said) in WRONG[role].items()})

    (failed,) = run.failed
    failed.refused("invalid_option")
    problems = {one["variable"]: one["msg"] for one in failed.get("problems", [failed.result])}
    assert problems.keys() == WRONG[role].keys()
    for name, (_value, said) in WRONG[role].items():
        assert problems[name].startswith(name)
        assert said in problems[name]
    assert run.requests == []


def test_a_preset_cmk_result_is_rejected(ansible: Ansible, service: Service) -> None:
    """An extra variable, such as one from set_stats of a previous workflow node, has precedence over a registered
    variable."""
    run = run_role(ansible, "provision", cmk_result={"summary": "account1 uses an old key.", "changed": False})

    (failed,) = run.failed
    failed.refused("invalid_option")
    assert run.requests == []
    assert "account1 uses an old key" not in run.output


def test_an_inventory_that_is_not_used_is_a_warning(ansible: Ansible, service: Service) -> None:
    service.on_key()
    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=VARS, arguments=of_hosts(ansible, "account1"))

    output = " ".join(run.output.split())
    assert "runs only on localhost, and not on the 1 hosts of the inventory" in output
    assert "remove the extra variable cmk_account_name, and set cmk_hosts" in output


def test_a_playbook_for_the_hosts_of_the_inventory_says_that_cmk_hosts_is_not_set(
    ansible: Ansible, service: Service
) -> None:
    wanted = {"cmk_key_max_version_age": "P90D", "cmk_host": "accounts"}
    arguments = of_hosts(ansible, "account1", "account2")
    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=arguments)

    (failed,) = run.failed
    failed.refused("invalid_option")
    assert (failed["variable"], "problems" in failed.result) == ("cmk_hosts", False)
    assert failed["msg"].startswith(
        "cmk_hosts is not set, so the playbook runs only on localhost, which lacks cmk_reso"
    )
    assert "such as pinned or all" in failed["remedy"]
    assert failed.warnings[0].endswith("Did you mean cmk_hosts?")
    # Since ansible-core 2.19, in the error and in the result.
    assert run.output.count("cmk_hosts is not set") in (1, 2)
    assert run.requests == []
