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
from cases import PROOF_OF_ALL
from harness import Ansible, Run, fails, task
from role_runs import VARS, run_role
from service import Service

ROLES = Path(__file__).resolve().parents[2] / "roles"


@pytest.mark.parametrize("in_process", [True, False])
@pytest.mark.slow(every=2)
def test_an_error_names_the_variable_of_the_role(ansible: Ansible, service: Service, in_process: bool) -> None:
    run = run_role(ansible, "provision", cmk_vault_name="x", cmk_in_process=in_process)

    (failed,) = run.failed
    failed.refused("invalid_option")
    assert failed["msg"].startswith("cmk_vault_name is 'x': ")
    assert (failed["option"], failed["variable"]) == ("name", "cmk_vault_name")


def test_all_invalid_variables_are_reported_before_the_first_task(ansible: Ansible, service: Service) -> None:
    """Later tasks of the role would refuse these values, after the vault is created."""
    wrong = {"cmk_identity_id": "system", "cmk_key_size": 1024, "cmk_key_expires_in": "a year"}
    run = run_role(ansible, "provision", **wrong, cmk_vaultname="vault-two")

    (failed,) = run.failed
    failed.refused("invalid_option")
    assert {one["variable"] for one in failed["problems"]} == set(wrong)
    first, *lines, _link = failed["msg"].splitlines()
    assert first == "3 values are missing or wrong:"
    assert lines == [f"{number}. {one['msg']}" for number, one in enumerate(failed["problems"], 1)]
    assert "cmk_identity_id is 'system'" in failed["msg"]
    assert "Use /subscriptions/" in failed["msg"]
    # A name that is wrong is often the cause of an error.
    assert [one.rpartition(". ")[2] for one in failed.warnings] == ["Did you mean cmk_vault_name?"]
    assert run.requests == []


@pytest.mark.parametrize(
    ("role", "wrong", "code", "variable", "remedy"),
    [
        (
            "provision",
            {"cmk_resource_group": "rg-typo"},
            "resource_group_not_found",
            "cmk_resource_group",
            "Correct cmk_resource_group (the default of cmk_vault_resource_group), or create the resource group.",
        ),
        (
            "provision",
            {"cmk_vault_resource_group": "rg-typo"},
            "resource_group_not_found",
            "cmk_vault_resource_group",
            "Correct cmk_vault_resource_group, or create the resource group.",
        ),
        (
            "switch",
            {
                "cmk_resource_group": "rg-typo",
                "cmk_new_key_identifier": "https://vault-one.vault.azure.net/keys/key1",
            },
            "resource_group_not_found",
            "cmk_resource_group",
            "Correct cmk_resource_group, or create the resource group.",
        ),
        (
            "switch",
            {"cmk_new_key_identifier": "https://nowhere.vault.azure.net/keys/key1"},
            "vault_not_found",
            "cmk_new_key_identifier",
            "Create the vault, or correct cmk_new_key_identifier or cmk_subscription_id.",
        ),
        (
            "switch",
            {"cmk_new_key_identifier": f"https://vault-one.vault.azure.net/keys/key1/{'0' * 32}"},
            "preflight_failed",
            None,
            "Correct the version in cmk_new_key_identifier, or leave it out to follow the latest version.",
        ),
        (
            "switch",
            {"cmk_new_key_identifier": "https://vault-one.vault.azure.net/keys/key2"},
            "preflight_failed",
            None,
            "Create the key with examples/switch.yml, or correct cmk_new_key_identifier. If the key was deleted, "
            "recover it.",
        ),
        (
            "provision",
            {"cmk_vault_authorization": "rbac"},
            "vault_authorization_differs",
            "cmk_vault_authorization",
            "Set cmk_vault_authorization: access_policy, or leave it out, or use another vault.",
        ),
        (
            "provision",
            {"cmk_key_size": 4096},
            "key_size_differs",
            "cmk_key_size",
            "Set cmk_key_new_version: true in azbatch.cmk.rotate, or cmk_key_size: 2048.",
        ),
    ],
)
@pytest.mark.slow(every=4)
def test_a_wrong_value_leads_to_the_variable_that_was_set(
    ansible: Ansible, service: Service, role: str, wrong: dict[str, str], code: str, variable: str | None, remedy: str
) -> None:
    service.on_key()
    run = run_role(ansible, role, **wrong)

    (failed,) = run.failed
    failed.refused(code)
    assert (failed.get("variable"), failed["remedy"]) == (variable, remedy)
    # Only the checks that failed, and not all evidence.
    assert len(json.dumps({k: v for k, v in failed.result.items() if k != "invocation"})) < 1200, str(failed)


def test_a_remedy_can_be_followed_from_the_role(ansible: Ansible, service: Service) -> None:
    service.on_key()
    service.disable()
    run = run_role(ansible, "provision")

    (failed,) = run.failed
    failed.refused("key_disabled")
    assert "Add key to cmk_allowed_repairs" in failed["remedy"]
    assert "add key to cmk_allowed_repairs" in failed["msg"]


def test_a_task_outside_of_a_role_names_options_alone(ansible: Ansible, service: Service) -> None:
    wrong = task("wrong", "keyvault_cmk_vault", resource_group="{{ group }}", name="x")
    run = ansible.play([fails(wrong)], vars={"group": "rg-sandbox", "cmk_unheard_of": 1})

    assert run["wrong"]["msg"].startswith("name is 'x': ")
    assert "variable" not in run["wrong"].result
    assert "cmk_unheard_of" not in run.output


def of_hosts(ansible: Ansible, *names: str, **variables: Any) -> tuple[str, ...]:
    """The arguments for an inventory whose hosts have the names of these accounts."""
    hosts = {name: {"cmk_account_name": name} for name in names}
    inventory = {"accounts": {"hosts": hosts, "vars": {**VARS, **variables}}}
    return "-i", str(ansible.write("inventory.yml", yaml.safe_dump(inventory)))


def test_unknown_variables_are_reported_once(ansible: Ansible, service: Service) -> None:
    left_alone = {"cmk_left_alone_fails": False}
    variables = {"cmk_key_max_ages": "P90D", "cmk_owner": "me", **left_alone}
    arguments = of_hosts(ansible, "account7", "account8", "account9", **variables)
    wanted = {"cmk_hosts": "accounts", "cmk_serial": 1, "cmk_max_fail_percentage": 0}
    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=arguments)

    assert run.rc == 0, run.output
    shown = [warning for one in run for warning in one.warnings if "has no effect" in warning]
    assert len(shown) == 2
    assert "cmk_key_max_ages" in shown[0]
    assert shown[0].endswith("Did you mean cmk_key_max_version_age?")
    assert "cmk_owner" in shown[1]
    assert run.output.count("cmk_key_max_ages has no effect") == 1


@pytest.mark.parametrize("playbook", ["provision", "recover", "revert", "rotate"])
@pytest.mark.slow(every=4)
def test_hosts_that_do_not_exist_are_an_error(ansible: Ansible, service: Service, playbook: str) -> None:
    name = f"azbatch.cmk.{playbook}"
    arguments = of_hosts(ansible, "account1", cmk_left_alone_fails=False)
    run = ansible.playbook(name, extra_vars={"cmk_hosts": "acounts"}, arguments=arguments)
    assert run.rc != 0
    assert "cmk_hosts is 'acounts', which matches no host of the inventory." in " ".join(run.output.split())
    assert (list(run), run.requests) == ([], [])

    limited = [*arguments, "--limit", "account1"]
    assert ansible.playbook(name, extra_vars={"cmk_hosts": "acounts"}, arguments=limited).rc != 0


@pytest.mark.slow(every=2)
@pytest.mark.parametrize(
    ("pattern", "required", "succeeds"),
    [("canaries[0]", None, False), ("account2", "", False), ("canaries[0]", False, True), ("account2", "false", True)],
)
def test_run_without_hosts_is_an_error_unless_hosts_are_optional(
    ansible: Ansible, service: Service, pattern: str, required: Any, succeeds: bool
) -> None:
    """The patterns are a group that does not exist, and a host that the limit excludes."""
    arguments = [
        *of_hosts(ansible, "account1", "account2", cmk_left_alone_fails=False),
        "--limit",
        "account1",
    ]
    wanted = {"cmk_hosts": pattern, **({} if required is None else {"cmk_hosts_required": required})}
    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=arguments)

    assert (run.rc == 0) is succeeds, run.output
    assert (list(run), run.requests) == ([], [])
    message = f"cmk_hosts is '{pattern}', which matches no host of the inventory within the limit 'account1'."
    assert (message in " ".join(run.output.split())) is not succeeds


@pytest.mark.parametrize("pattern", ["accounts", "account*", "accounts:!account2", "account1,account2"])
@pytest.mark.slow(every=4)
def test_hosts_may_be_any_pattern(ansible: Ansible, service: Service, pattern: str) -> None:
    arguments = of_hosts(ansible, "account1", "account2", cmk_left_alone_fails=False, cmk_key_max_version_age="P90D")
    run = ansible.playbook("azbatch.cmk.rotate", extra_vars={"cmk_hosts": pattern}, arguments=arguments)

    assert run.rc == 0, run.output
    assert "account1" in {one.host for one in run}


@pytest.mark.parametrize(("rule", "expected"), [({}, 1), ({"cmk_key_max_version_age": "P90D"}, 0)])
def test_rotate_without_a_rule_warns(ansible: Ansible, service: Service, rule: dict[str, Any], expected: int) -> None:
    service.on_key()
    arguments = of_hosts(ansible, "account1", "account8", cmk_left_alone_fails=False, **rule)
    run = ansible.playbook("azbatch.cmk.rotate", extra_vars={"cmk_hosts": "accounts"}, arguments=arguments)

    assert run.rc == 0, run.output
    warnings = [warning for one in run for warning in one.warnings if "No variable requests a rotation" in warning]
    assert len(warnings) == expected


def test_a_variable_without_effect_is_a_warning(ansible: Ansible, service: Service) -> None:
    service.on_key()
    arguments = of_hosts(ansible, "account1", "account8", cmk_left_alone_fails=False, cmk_key_max_version_age="P90D")
    wanted = {"cmk_hosts": "accounts", "cmk_unused_for": "P0D"}
    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=arguments)

    assert run.rc == 0, run.output
    (shown,) = [warning for one in run for warning in one.warnings if "has no effect" in warning]
    assert shown.startswith("cmk_unused_for is 'P0D', which has no effect in azbatch.cmk.rotate without cmk_unused_ver")


def blanks(role: str, blank: str | None) -> dict[str, Any]:
    """The optional variables of the role with an empty value, as AWX passes a survey answer that was left empty."""
    options = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())["argument_specs"][role]
    optional = [name for name, option in options["options"].items() if not option.get("required")]
    return dict.fromkeys([*optional, "cmk_hosts", "cmk_serial", "cmk_max_fail_percentage", "cmk_in_process"], blank)


@pytest.mark.parametrize("blank", ["", None], ids=["empty", "null"])
@pytest.mark.parametrize("in_process", [True, False] if PROOF_OF_ALL else [True])
@pytest.mark.slow(every=2)
def test_blank_variables_use_their_defaults(
    ansible: Ansible, service: Service, blank: str | None, in_process: bool
) -> None:
    for role, uses_key in (
        ("provision", True),
        ("rotate", True),
        ("switch", True),
        ("recover", True),
        ("audit", True),
        ("revert", False),
    ):
        required = {name: value for name, value in VARS.items() if name != "cmk_wait_timeout"}
        # For a module in a separate process, a relative folder is relative to the playbook's folder.
        folder = {} if in_process else {"cmk_audit_folder": str(ansible.folder)}
        # The role switch also requires the key to move to, here the key that the account uses.
        key = {"cmk_new_key_identifier": service.encryption()} if role == "switch" else {}
        wanted = {**required, **blanks(role, blank), **key, **folder, "cmk_in_process": in_process and blank}
        run = ansible.playbook(f"azbatch.cmk.{role}", extra_vars=wanted)

        assert run.rc == 0, run.output
        assert (service.encryption() is not None) == uses_key
    assert len(service.versions()) == 1


@pytest.mark.parametrize("role", ["provision", "rotate", "switch", "revert", "recover"])
@pytest.mark.slow(every=6)
def test_missing_variables_are_named(ansible: Ansible, service: Service, role: str) -> None:
    run = ansible.playbook(f"azbatch.cmk.{role}")

    (failed,) = run.failed
    failed.refused("invalid_option")
    options = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())["argument_specs"][role][
        "options"
    ]
    required = {name for name, option in options.items() if option.get("required")}
    assert {one["variable"] for one in failed["problems"]} == required
    assert run.requests == []


@pytest.mark.parametrize("blank", ["", None], ids=["empty", "null"])
def test_a_required_variable_that_is_blank_is_missing(ansible: Ansible, service: Service, blank: str | None) -> None:
    run = run_role(ansible, "provision", cmk_resource_group=blank)

    (failed,) = run.failed
    failed.refused("invalid_option")
    link = f" See {failed['documentation']}"
    assert failed["msg"] == failed["remedy"].replace("Set ", "cmk_resource_group is not set. Set ", 1) + link
    assert failed["variable"] == "cmk_resource_group"
    assert run.requests == []


def role_in_a_play(ansible: Ansible, role: str, **wanted: Any) -> Run:
    """The role in a user's own play. Ansible checks the variables of such a role itself if it can."""
    own = {"role": f"azbatch.cmk.{role}", **VARS, **wanted}
    return ansible.playbook([{"hosts": "localhost", "gather_facts": False, "roles": [own]}])


@pytest.mark.parametrize(
    ("role", "wrong", "said"),
    [
        # The first task of the role passes on the variable to the option used_by_account.
        (
            "rotate",
            {"cmk_account_name": "{{ nobody }}"},
            "cmk_account_name is '{{ nobody }}': 'nobody' is undefined. Define that variable, or correct cmk_account_n",
        ),
        ("revert", {"cmk_vault_name": "{{ nothing }}"}, "cmk_vault_name is '{{ nothing }}': 'nothing' is undefined."),
        # Not also the value that a task makes of this and another variable.
        ("revert", {"cmk_vault_name": "x"}, "cmk_vault_name is 'x': a vault's name has 3 to 24 letters, digits and"),
        (
            "provision",
            {"cmk_subscription_id": "/subscriptions/11111111-2222-3333-4444-555555555555"},
            "the id of a subscription is a GUID. Use 11111111-2222-3333-4444-555555555555.",
        ),
        # Only the second task has this option.
        ("rotate", {"cmk_vault_resource_group": "rg-sandbox/"}, "Use rg-sandbox."),
        ("rotate", {"cmk_key_version_mode": "keep"}, "Remove cmk_key_version_mode for this role, or set it to update."),
        ("rotate", {"cmk_wait_timeout": "10m"}, "cmk_wait_timeout is '10m': its type is wrong. Use an integer."),
        (
            "revert",
            {"cmk_unused_key": "{{ nope }}"},
            "cmk_unused_key is '{{ nope }}': 'nope' is undefined. Define that",
        ),
        (
            "rotate",
            {"cmk_key_expires_in": "{{ months }}M"},
            "cmk_key_expires_in is '{{ months }}M': 'months' is undefined. Define that variable, or correct cmk",
        ),
        (
            "rotate",
            {"cmk_unused_versions": "delete"},
            "cmk_unused_versions is 'delete': it is not allowed. Use one of keep, disable.",
        ),
        (
            "rotate",
            {"cmk_require_readable": "perhaps"},
            "cmk_require_readable is 'perhaps': its type is wrong. Use true or false.",
        ),
        (
            "revert",
            {"cmk_unused_key": "purge"},
            "cmk_unused_key is 'purge': it is not allowed. Use one of keep, disable",
        ),
        ("revert", {"cmk_key_name": ""}, "cmk_key_name is not set. Set cmk_key_name: name of the key."),
        (
            "recover",
            {"cmk_allowed_repairs": ["vault", "pools"]},
            "is ['vault', 'pools']: it is not allowed. Use a list of vault, network, key, access, other_versions, ",
        ),
        (
            "audit",
            {"cmk_audit_required": ["*"]},
            "['*']: it is not a list of dictionaries. Use a list of dictionaries with the keys subscriptions,",
        ),
        (
            "audit",
            {"cmk_exceptions": [{"finding": "x"}]},
            "cmk_exceptions[0] is {'finding': 'x'}: it lacks accounts, reason, expires_on. Use the keys finding,",
        ),
        (
            "provision",
            {"cmk_key_rotation_policy": {"after": "P1D"}},
            "it must not have the key after. Use the keys expiry_time, time_after_create, time_before_expiry.",
        ),
        (
            "rotate",
            {"cmk_key_rotation_policy": {"time_after_create": "P30D", "time_before_expiry": "P30D"}},
            "it has both time_after_create and time_before_expiry. Remove one of them.",
        ),
        (
            "provision",
            {"cmk_key_rotation_policy": ["P1D"]},
            "is ['P1D']: it is not a dictionary. Use a dictionary with",
        ),
        ("provision", {"cmk_tags": ["a"]}, "cmk_tags is ['a']: its type is wrong. Use a dictionary."),
        ("provision", {"cmk_key_size": ["a"]}, "cmk_key_size is ['a']: its type is wrong. Use an integer."),
        (
            "audit",
            {"cmk_exceptions": [{"finding": "not_reed", "accounts": [], "reason": "So", "expires_on": "2027-01-01"}]},
            "Did you mean not_read?",
        ),
        (
            "audit",
            {"cmk_exceptions": [{"finding": "not_read", "accounts": [], "reason": "So", "expires_on": "31.3.2027"}]},
            "its expires_on, '31.3.2027', is not a date.",
        ),
    ],
)
@pytest.mark.slow(every=6)
def test_a_wrong_variable_is_one_line(
    ansible: Ansible, service: Service, role: str, wrong: dict[str, Any], said: str
) -> None:
    run = role_in_a_play(ansible, role, **wrong)

    (failed,) = run.failed
    failed.refused("invalid_option")
    (variable,) = wrong
    assert failed["variable"] == variable
    assert failed["msg"].startswith(variable)
    assert said in failed["msg"]
    assert len(failed["msg"]) < 700
    assert run.requests == []


def test_a_preset_cmk_result_is_rejected(ansible: Ansible, service: Service) -> None:
    """An extra variable, such as one from set_stats of a previous workflow node, has precedence over a registered
    variable."""
    run = run_role(ansible, "provision", cmk_result={"summary": "account1 uses an old key.", "changed": False})

    (failed,) = run.failed
    failed.refused("invalid_option")
    assert run.requests == []
    assert "account1 uses an old key" not in run.output


@pytest.mark.slow
def test_cmk_serial_accepts_a_string(ansible: Ansible, service: Service) -> None:
    arguments = of_hosts(ansible, *(f"account{number}" for number in range(1, 8)), cmk_left_alone_fails=False)
    wanted = {"cmk_hosts": "accounts", "cmk_key_max_version_age": " P90D "}

    def played(serial: str) -> Run:
        return ansible.playbook("azbatch.cmk.rotate", extra_vars={**wanted, "cmk_serial": serial}, arguments=arguments)

    for serial, waves in (("[1, 2, '30%']", 4), ("50%", 3), ("", 2)):
        run = played(serial)
        assert (run.rc, run.output.count("PLAY [Move ")) == (0, waves), run.output
    for wrong in ("[1, ten]", "0"):
        run = played(wrong)
        assert run.rc != 0
        assert f"cmk_serial is '{wrong}', which is not a list of numbers" in " ".join(run.output.split())
        assert "Traceback" not in run.output


@pytest.mark.slow(every=2)
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("cmk_max_fail_percentage", "-1"),
        ("cmk_hosts_required", "perhaps"),
        ("cmk_set_stats", "perhaps"),
        ("cmk_in_process", "perhaps"),
        ("cmk_serial", "[1, 10"),
        ("cmk_report_file", "/nowhere/report.json"),
    ],
)
def test_an_invalid_value_is_reported_before_the_first_request(
    ansible: Ansible, service: Service, variable: str, value: str
) -> None:
    run = ansible.playbook(
        "azbatch.cmk.rotate", extra_vars={**VARS, "cmk_key_max_version_age": "P90D", variable: value}
    )
    assert run.rc != 0
    assert f"{variable} is '{value}', which " in " ".join(run.output.split())
    assert run.requests == []


@pytest.mark.slow
def test_playbooks_show_one_line_of_an_account(ansible: Ansible, service: Service) -> None:
    def shown(role: str, check: bool = False, **variables: Any) -> Any:
        run = run_role(ansible, role, check=check, **variables)
        assert run.rc == 0, run.output
        return [one for one in run if one.action == "ansible.builtin.debug"][-1]["msg"]

    assert shown("provision")[0].startswith("account1 uses ")
    version = f"version {service.versions()[-1].version[:8]}… of key key1 in vault vault-one"
    assert f"account1 uses {version}." in shown("rotate")
    assert shown("recover") == [f"account1 uses {version} and is available."]
    service.disable()
    before = f"account1 uses {version} and is not available: version_unusable."
    assert shown("recover", check=True) == [before, f"Predicted: account1 uses {version}."]
    assert shown("recover") == [before, f"Now: account1 uses {version}."]
    assert shown("revert") == [f"account1 uses a Microsoft-managed key (before: {version})."]
    assert shown("audit", cmk_audit_formats=["json"]) == [
        "0 of 1 Batch account at risk, 0 non-compliant, 0 unknown, 1 ok. On customer-managed keys: 0.",
        "cmk-audit/cmk-audit.json",
        "Whether Batch accounts are available was not read. To read it, set cmk_audit_pools: true.",
    ]


@pytest.mark.parametrize("hosts", [None, "all"])
def test_an_inventory_that_is_not_used_is_a_warning(ansible: Ansible, service: Service, hosts: str | None) -> None:
    service.on_key()
    wanted = {**VARS, **({"cmk_hosts": hosts} if hosts else {})}
    run = ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=of_hosts(ansible, "account1"))

    output = " ".join(run.output.split())
    assert ("runs only on localhost, and not on the 1 hosts of the inventory" in output) is (hosts is None)
    assert ("remove the extra variable cmk_account_name, and set cmk_hosts" in output) is (hosts is None)


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
