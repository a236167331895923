# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of imports in addition to the layers (test_layers.py), and the modules that may use Ansible's check mode."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter

import pytest
from sources import COLLECTION, ROOT, Source, sources

EDGE = "_module"
CHECK_MODE = {"plugins/module_utils/_module.py", "plugins/plugin_utils/_in_process.py"}
SANDBOX = {"sandbox", "azure_sandbox"}

Finding = tuple[int, str]
Rule = Callable[[Source], Iterator[Finding]]


def ansible_module_stays_at_the_edge(source: Source) -> Iterator[Finding]:
    """Only _module and the modules name AnsibleModule."""
    if source.path.parts[0] != "plugins" or source.util == EDGE or source.path.parts[1] == "modules":
        return
    for node in ast.walk(source.tree):
        match node:
            case ast.Name(id="AnsibleModule") | ast.Attribute(attr="AnsibleModule"):
                yield node.lineno, f"names AnsibleModule: only {EDGE} and the modules may"
            case ast.alias(name=name) if name.rpartition(".")[2] == "AnsibleModule":
                yield node.lineno, f"imports AnsibleModule: only {EDGE} and the modules may"


def sandbox_and_plugins_are_independent(source: Source) -> Iterator[Finding]:
    """Otherwise an error in a shared helper would be in both, and no test would find it."""
    in_sandbox = source.path.parts[0] == "sandbox"
    for one in source.imports:
        if in_sandbox and one.package in {"plugins", "ansible_collections"}:
            yield one.line, f"the sandbox imports {one.name} of the collection"
        elif not in_sandbox and (one.package in SANDBOX or one.name.startswith(f"{COLLECTION}.sandbox")):
            yield one.line, f"the collection imports {one.name} of the sandbox"


def check_mode_stays_at_the_edge(source: Source) -> Iterator[Finding]:
    """The modules at the edge decide whether the cloud predicts. No other module uses check mode."""
    if source.path.parts[0] == "plugins" and str(source.path) not in CHECK_MODE:
        for line in check_mode_uses(source):
            yield line, "knows check_mode: only the edges may"


RULES: list[Rule] = [
    ansible_module_stays_at_the_edge,
    sandbox_and_plugins_are_independent,
    check_mode_stays_at_the_edge,
]


def below_sandbox(name: str) -> str:
    """The part of an absolute dotted name below the package of the sandbox, or "" if it is elsewhere."""
    return name.removeprefix("azure_sandbox.") if name.startswith("azure_sandbox.") else ""


def check_mode_uses(source: Source) -> Iterator[int]:
    for node in ast.walk(source.tree):
        match node:
            case ast.Name(id="check_mode", lineno=line) | ast.Attribute(attr="check_mode", lineno=line):
                yield line
            case ast.Constant(value="check_mode", lineno=line) | ast.arg(arg="check_mode", lineno=line):
                yield line


def findings(rule: Rule, found: list[Source]) -> list[str]:
    return [f"{source.path}:{line}: {message}" for source in found for line, message in rule(source)]


def cycle(found: list[Source]) -> list[str]:
    """Modules with circular imports; empty if there are none. Imports for types count too."""
    known = {source.name for source in found}
    graph = {
        source.name: {module for one in source.imports for module in run_by_import(source.name, one.name, known)}
        & (known - {source.name})
        for source in found
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [name.removeprefix(f"{COLLECTION}.") for name in error.args[1]]
    return []


def run_by_import(importer: str, name: str, known: set[str]) -> set[str]:
    """The modules that an import runs: the module, and the `__init__` of each package above the module.

    The packages above the importing module are not included, because Python has already started to run them.
    """
    # An import names a module, or something in a module.
    module = name if name in known else name.rpartition(".")[0]
    return {module, *(set(packages(module)) - set(packages(importer)))}


def packages(name: str) -> Iterator[str]:
    """The packages above a module."""
    while name := name.rpartition(".")[0]:
        yield name


ALL = [*sources(ROOT, "plugins"), *sources(ROOT, "sandbox/src")]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule) -> None:
    assert not findings(rule, ALL), rule.__doc__


def test_there_are_no_circular_imports() -> None:
    assert not cycle([source for source in ALL if source.util or below_sandbox(source.name)])
