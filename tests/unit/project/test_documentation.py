# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation agrees with the code: options, return values, roles, error codes."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from azure_table import Table, task_of
from documents import NOW, PRINCIPAL, VAULT_ID, account, identity_id, key, system_assigned, vault
from fleets import report
from goals import access_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._audit import audit
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.rules import MANUAL
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import sdk
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import preflight
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.diagnosis import AccountState
from ansible_collections.azbatch.cmk.plugins.module_utils._core import errors
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import account as account_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import key as key_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import vault as vault_document
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.decide import AccessGranted
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import survey as encryption_survey
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import removal as key_removal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import survey as key_survey
from ansible_collections.azbatch.cmk.plugins.modules import keyvault_cmk_unused_versions
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_names import passed_on

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = "ansible_collections.azbatch.cmk.plugins"
MODULES = sorted(file.stem for file in (ROOT / "plugins" / "modules").glob("*.py") if file.stem != "__init__")
ROLES = sorted(folder.name for folder in (ROOT / "roles").iterdir() if folder.is_dir())
# The playbook awx sets up AWX and runs no role.
PLAYBOOKS = sorted(file for file in (ROOT / "playbooks").glob("*.yml") if file.stem != "awx")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{PLUGINS}.modules.{name}")


def fragment(name: str) -> dict[str, Any]:
    """A fragment of a file, FILE.FRAGMENT, or the file's fragment DOCUMENTATION, which has no name."""
    file, _dot, own = name.partition(".")
    fragments = importlib.import_module(f"{PLUGINS}.doc_fragments.{file}").ModuleDocFragment
    return yaml.safe_load(getattr(fragments, own.upper() or "DOCUMENTATION"))


def documentation(name: str) -> dict[str, Any]:
    """The documentation of a module, with the options of its fragments."""
    own = yaml.safe_load(module(name).DOCUMENTATION)
    shared = [fragment(full.removeprefix("azbatch.cmk.")) for full in own["extends_documentation_fragment"]]
    return {**own, "options": {k: v for part in (*shared, own) for k, v in (part.get("options") or {}).items()}}


# Modules


def complete(options: dict[str, Any], inner: str) -> dict[str, Any]:
    """An argument spec, or the documented options, with its implicit values."""
    return {
        name: {
            "type": option.get("type", "str"),
            "default": option.get("default"),
            "choices": option.get("choices"),
            "required": option.get("required", False),
            "elements": option.get("elements"),
            "aliases": option.get("aliases", []),
            "options": complete(option.get(inner) or {}, inner),
        }
        for name, option in options.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_options_are_the_arguments(name: str) -> None:
    documented = complete(documentation(name)["options"], "suboptions")

    assert documented == complete({**CONNECTION, **module(name).ARGUMENTS}, "options")


STATE = AccountState(account(identity=system_assigned()))
KEY_RETURNED = key_document.describe(key(), [], None, NOW)


def access_returned() -> Mapping[str, Any]:
    task = task_of(Table({refs.vault(VAULT_ID): vault()}))
    goal = replace(access_goal(), group="rg-keys")
    return task.driver.solve(AccessGranted(goal, Facts(task.session)).decide).before


def users_returned() -> Mapping[str, Any]:
    task = task_of(Table())
    asked = key_survey.Asked("myvault", None, "batch", 0)
    return task.driver.solve(partial(key_survey.survey, asked=asked, facts=Facts(task.session)))


# The return values of a module for a resource that exists, without those of a failure.
RETURNED = {
    "batch_account_identity": {**account_document.describe(account()), "preflight": []},
    "batch_encryption": {
        **encryption_document.describe(account()),
        **{"available": True, "preflight": [], "previous_key_identifier": None},
        "available_known_from": "2026-01-31T12:10:00Z",
    },
    "batch_encryption_audit": {**audit.describe(report(), [], [], {}), "accounts": [], "vaults": []},
    "batch_encryption_diagnosis": encryption_survey.diagnosis(STATE),
    "batch_encryption_drill": {
        **{name: value for name, value in encryption_survey.survey(STATE).items() if name in ("id", "name")},
        **dict.fromkeys(("exists", "key_identifier", "vault_id", "lost", "drill", "subscriptions_left_out")),
    },
    "batch_encryption_info": encryption_survey.survey(STATE),
    "keyvault_cmk_access": {
        **access_returned(),
        **{"principals": [], "in_use_by": [], "kept_until": None, "subscriptions_left_out": []},
    },
    "keyvault_cmk_key": KEY_RETURNED,
    "keyvault_cmk_key_state": {
        **{name: value for name, value in KEY_RETURNED.items() if name != "rotation_policy"},
        **key_removal.report({}),
        **{"subscriptions_left_out": []},
    },
    "keyvault_cmk_unused_versions": {
        **dict.fromkeys(keyvault_cmk_unused_versions.SHOWN),
        **key_removal.report({}),
        **{"subscriptions_left_out": []},
    },
    "keyvault_cmk_users": {**users_returned(), "lines": [], "files": {}},
    "keyvault_cmk_vault": vault_document.describe(vault()),
}
# The roles that only report, on localhost, and the module lists the accounts.
REPORTS = ("audit", "users")
FAILURES = {"code", "accounts", "restored", "restored_versions", "applied", "current_state", "restore_failure"}


@pytest.mark.parametrize("name", MODULES)
def test_documented_return_values_are_those_that_are_returned(name: str) -> None:
    assert set(yaml.safe_load(module(name).RETURN)) - FAILURES == {*RETURNED[name], "summary"} - FAILURES


def examples(name: str) -> list[dict[str, Any]]:
    """The options of each task of the module in its examples. Templates are replaced by valid values."""
    values = {
        r"batch_identity_id": identity_id(),
        r"\w+\.identity\.principal_id": PRINCIPAL,
        r"\w+\.(previous_)?key_identifier": f"https://myvault.vault.azure.net/keys/batch/{'0123456789abcdef' * 2}",
        r"\w+\.previous_version": "0123456789abcdef" * 2,
        r"batch_secret": "secret",
        r"item(\.item)?": "batch",
    }

    def value(given: Any) -> Any:
        template = re.fullmatch(r"\{\{ (.*) \}\}", given) if isinstance(given, str) else None
        return next(one for form, one in values.items() if re.fullmatch(form, template[1])) if template else given

    listed = yaml.safe_load(module(name).EXAMPLES)
    tasks = [one for task in listed for one in (*task.get("block", [task]), *task.get("always", ()))]
    assert all(task["name"] for task in (*listed, *tasks))
    own = [task[f"azbatch.cmk.{name}"] for task in tasks if f"azbatch.cmk.{name}" in task]
    return [{option: value(given) for option, given in options.items()} for options in own]


@pytest.mark.parametrize("name", MODULES)
def test_examples_show_every_option_and_every_state(name: str) -> None:
    arguments, shown = module(name).ARGUMENTS, examples(name)

    # No example has force, because users copy examples.
    assert set(arguments) - {option for one in shown for option in one} <= {"force"}
    for option in {"state", "key_source", "confirm"} & set(arguments):
        given = {one.get(option, arguments[option].get("default")) for one in shown}
        assert set(arguments[option]["choices"]) <= given, option


# The functions that check the options of the modules of one resource.
GOALS = {
    "keyvault_cmk_key": "present",
    "keyvault_cmk_key_state": "in_state",
    "keyvault_cmk_unused_versions": "unused",
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_accepts_its_examples(name: str) -> None:
    goals = [one for attribute, one in vars(module(name)).items() if attribute.endswith("_goal")]
    for example in examples(name):
        validated = ArgumentSpecValidator({**CONNECTION, **module(name).ARGUMENTS}).validate(example)
        assert validated.error_messages == [], example
        for goal in goals:
            getattr(goal, GOALS.get(name, "desired"))(validated.validated_parameters)


def test_checks_of_preflight_are_documented_in_their_order() -> None:
    [note] = [text for text in documentation("batch_encryption")["notes"] if "The checks are" in text]

    assert tuple(re.findall(r"C\((\w+)\)", note)) == preflight.NAMES


# The connection


@pytest.mark.parametrize("name", CONNECTION)
def test_environment_variables_are_documented(name: str) -> None:
    options = fragment("azure")["options"] | fragment("azure.sign_in")["options"]
    said = [sentence for sentence in options[name]["description"] if sentence.startswith("Environment variable")]

    _fallback, variables = CONNECTION[name].get("fallback", (None, []))

    assert re.findall(r"E\((\w+)\)", " ".join(said)) == variables


def test_plugins_read_the_same_environment_variables() -> None:
    """The sign-in options are the connection options of the modules, except two that an inventory does not need."""
    options = fragment("azure.sign_in")["options"]
    read = {
        name: [one["name"] for one in said["env"]] for name, said in fragment("azure.environment")["options"].items()
    }

    assert set(CONNECTION) - set(options) == {"subscription_id", "wait_timeout"}
    # If several variables are set, the last one counts for plugins, and the first one for modules.
    assert read == {name: CONNECTION[name]["fallback"][1][::-1] for name in options}


def floors_of(lines: list[str]) -> dict[str, str]:
    found = (re.match(r"([\w-]+) ?>= ?([\d.]+)", line) for line in lines)
    return dict(match.groups() for match in found if match)


def test_oldest_sdks_are_the_same_wherever_they_are_named() -> None:
    checked = {package: floor for package, (_module, floor) in sdk.FLOORS.items()}

    assert floors_of((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()) == checked
    assert floors_of(fragment("azure.sign_in")["requirements"]) == checked


# Roles


def specification(role: str) -> dict[str, Any]:
    return load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"][role]


# A default that the playbooks of the collection replace.
OF_ROLE = re.compile(r"\{\{ __\w+ \| default\('(\w+)'\) \}\}")


def defaults(role: str) -> dict[str, Any]:
    """The defaults of the role in a user's own playbook."""
    found = load(ROOT / "roles" / role / "defaults" / "main.yml") or {}
    return {name: OF_ROLE.sub(r"\1", value) if isinstance(value, str) else value for name, value in found.items()}


def text_of(role: str) -> str:
    """The tasks and variables of the role, without comments."""
    folder = ROOT / "roles" / role
    files = [*sorted((folder / "tasks").glob("*.yml")), *sorted((folder / "vars").glob("*.yml"))]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def is_template(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


@pytest.mark.parametrize("role", ROLES)
def test_defaults_of_a_role_are_those_that_are_documented(role: str) -> None:
    options = specification(role)["options"]
    # An empty value is no default. Required variables have one, so that the role can report that they are not set.
    literal = {
        name: value for name, value in defaults(role).items() if not is_template(value) and value not in ("", [])
    }

    assert literal == {name: option["default"] for name, option in options.items() if "default" in option}
    required = {name for name, option in options.items() if option.get("required")}
    assert {name for name, value in defaults(role).items() if value == ""} == required


def passed_options(role: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The variables of the role that its tasks pass on, each with the option of the module."""
    for task in tasks_of(role):
        for action in (name for name in task if name.startswith("azbatch.cmk.")):
            options = {**CONNECTION, **module(action.rpartition(".")[2]).ARGUMENTS}
            for option, variable in passed_on(task, action).items():
                yield variable, options[option]


@pytest.mark.parametrize("role", ROLES)
def test_a_variable_accepts_what_its_option_accepts(role: str) -> None:
    variables = specification(role)["options"]
    passed = dict(passed_options(role))

    assert len(passed) > 5
    for name, option in passed.items():
        for part in ("type", "elements", "choices"):
            assert variables[name].get(part) == option.get(part), (name, part)
        assert set(variables[name].get("options", ())) == set(option.get("options", ())), name


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_of_a_role_is_documented(role: str) -> None:
    used = set(re.findall(r"(?<!\w)cmk_\w+", text_of(role))) | set(defaults(role))

    assert used - {"cmk_result", "cmk_in_process"} - set(specification(role)["options"]) == set()


@pytest.mark.parametrize("role", ROLES)
def test_every_documented_variable_of_a_role_has_an_effect(role: str) -> None:
    templates = " ".join(value for value in defaults(role).values() if is_template(value))
    used = set(re.findall(r"(?<!\w)cmk_\w+", f"{text_of(role)} {templates}"))

    assert set(specification(role)["options"]) - used == set()


def test_a_variable_means_the_same_in_every_role() -> None:
    """A role may require a variable that is optional in another role, and may add sentences to its description."""
    seen: dict[str, Any] = {}
    for role in ROLES:
        for name, option in specification(role)["options"].items():
            same = {**option, "required": None}
            if name in ("cmk_key_version_mode", "cmk_allowed_repairs"):
                # The default is what the role is for, and the description names it for each role.
                same["default"] = None
            # In each role, other variables give a variable an effect.
            same["description"] = [one for one in option["description"] if "the variable has no effect" not in one]
            first = seen.setdefault(name, same)
            same["description"] = same["description"][: len(first["description"])]
            assert first == same, f"{name} differs in {role}"


def modules_of(task: dict[str, Any]) -> list[str]:
    return [key.removeprefix("azbatch.cmk.") for key in task if key.startswith("azbatch.cmk.")]


def tasks_of(role: str) -> Iterator[dict[str, Any]]:
    """All tasks of a role, including those in blocks."""
    left = [task for file in (ROOT / "roles" / role / "tasks").glob("*.yml") for task in load(file)]
    while left:
        task = left.pop(0)
        left = [*task.get("block", []), *task.get("always", []), *left]
        yield task


@pytest.mark.parametrize("role", ROLES)
def test_role_uses_documented_options(role: str) -> None:
    """All tasks pass on the role's timeout and connection options."""
    own = [(name, task[f"azbatch.cmk.{name}"]) for task in tasks_of(role) for name in modules_of(task)]

    assert own
    for name, given in own:
        options = documentation(name)["options"]
        assert set(given) <= set(options), name
        assert {option for option, said in options.items() if said.get("required")} <= set(given), name
        assert "subscription_id" in given, name
        assert role in REPORTS or "wait_timeout" in given, name
        for option, value in given.items():
            values = value if isinstance(value, list) else [value]
            assert is_template(value) or set(values) <= set(options[option].get("choices", values)), option


def test_every_role_has_its_playbook() -> None:
    assert [file.stem for file in PLAYBOOKS] == ROLES


@pytest.mark.parametrize("file", [file for file in PLAYBOOKS if file.stem != "audit"], ids=lambda file: file.stem)
def test_playbooks_use_the_linear_strategy(file: Path) -> None:
    """With the strategy linear, a task with run_once also runs once."""
    own = [play for play in load(file) if "ansible.builtin.import_playbook" not in play]
    assert {play["strategy"] for play in own} == {"linear"}
    # A setting of ansible.cfg must not let one host stop the others.
    assert {play["any_errors_fatal"] for play in own if play["hosts"] != "localhost"} <= {False}


# Codes of errors

CODES = get_args(errors.Code)
ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
DOCUMENTED_CODES = re.findall(r"^### (\w+)$", ERRORS, re.M)
SOURCES = [file.read_text(encoding="utf-8") for file in (ROOT / "plugins").rglob("*.py")]


def test_every_code_has_its_heading() -> None:
    """mypy allows no other code than these."""
    assert tuple(DOCUMENTED_CODES) == CODES


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_used(code: str) -> None:
    """Once in the type, and in an error."""
    assert sum(source.count(f'"{code}"') for source in SOURCES) > 1


def test_errors_without_a_code_of_their_kind_always_get_one() -> None:
    bare = {"CmkError", "Refused"}
    calls = (node for source in SOURCES for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    without = [
        ast.unparse(call)
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id in bare
        and "code" not in {keyword.arg for keyword in call.keywords}
    ]

    assert without == []


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", ERRORS, re.S))
def test_examples_of_branching_parse_and_use_documented_options(example: str) -> None:
    tasks = yaml.safe_load(example)
    tasks += [inner for task in tasks for inner in task.get("block", [])]
    own = [(full, given) for task in tasks for full, given in task.items() if full.startswith("azbatch.cmk.")]

    assert own
    for full, given in own:
        assert set(given) <= set(documentation(full.removeprefix("azbatch.cmk."))["options"])


# Manuals


@pytest.mark.parametrize("manual", [MANUAL, errors.MANUAL])
def test_reports_and_failures_link_to_the_documentation_of_the_version(manual: str) -> None:
    assert f"/blob/{VERSION}/" in manual


PATTERNS = ("*.md", "docs/**/*.md", "examples/*.md", "examples/awx/**/*.yml", "roles/*/*.md")
MANUALS = [file for pattern in PATTERNS for file in ROOT.glob(pattern)]


@pytest.mark.parametrize("file", MANUALS, ids=lambda file: file.name)
def test_manuals_name_variables_that_exist(file: Path) -> None:
    parts = [ROOT / part for part in ("extensions", "plugins", "roles", "playbooks")]
    sources = [path for part in parts for path in part.rglob("*") if path.suffix in (".py", ".yml")]
    known = {name for path in sources for name in re.findall(r"\bcmk_\w+", path.read_text(encoding="utf-8"))}

    named = set(re.findall(r"(?<![\w.])cmk_[a-z_]+\b(?!\.)", file.read_text(encoding="utf-8")))

    assert named - known == set()


# The version


VERSION = load(ROOT / "galaxy.yml")["version"]


def test_sandbox_has_the_version_of_the_collection() -> None:
    said = re.search(r'^version = "(.+)"$', (ROOT / "sandbox" / "pyproject.toml").read_text(encoding="utf-8"), re.M)

    assert said is not None
    assert said[1] == VERSION


# Ways to install from the repository, each with the version in a group.
INSTALLED = (
    r"git\+https://github\.com/azbatch/azbatch\.cmk(?:\.git)?(?:[,@]([\w.-]*\w))?",
    r"https://raw\.githubusercontent\.com/azbatch/azbatch\.cmk/([^/\s]+)/",
    r"name: https://github\.com/azbatch/azbatch\.cmk(?:\.git)?\n +type: git(?:\n +version: (\S+))?$",
)


@pytest.mark.parametrize("file", MANUALS, ids=lambda file: str(file.relative_to(ROOT)))
def test_manuals_name_no_other_version_of_the_collection(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    named = re.findall(r"azbatch[-.]cmk(?:[-:]|==)(\d+\.\d+\.\d+)", text)
    named += [version for form in INSTALLED for version in re.findall(form, text, re.MULTILINE)]

    assert set(named) <= {VERSION}
