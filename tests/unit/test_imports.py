# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The import law: imports point one way, and what knows Ansible or Azure is kept in a few named places."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ansible_collections.azbatch.cmk"
UTILS = PurePosixPath("plugins/module_utils")
EDGES = {"_module", "_arguments"}  # know Ansible
PIPES = {"_converge", "_readiness"}  # are given services
CLOUD = "_cloud"
CHECK_MODE = {"plugins/module_utils/_module.py", "plugins/plugin_utils/_in_process.py"}
AZURE = {"azure", "msal", "msal_extensions"}
SANDBOX = {"sandbox", "azure_sandbox"}


@dataclass(frozen=True)
class Source:
    """A file of the collection or the sandbox, and what its syntax tree says."""

    root: Path
    path: PurePosixPath

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse((self.root / self.path).read_text(encoding="utf-8"), str(self.path))

    @cached_property
    def name(self) -> str:
        """Full dotted name, as an import would say it."""
        match self.path.with_suffix("").parts:
            case ("sandbox", "src", *parts):
                pass
            case (*parts,):
                parts = [COLLECTION, *parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def room(self) -> str | None:
        """The first name below module_utils: _plan, _cloud, ..."""
        if not self.path.is_relative_to(UTILS) or self.path == UTILS / "__init__.py":
            return None
        return self.path.relative_to(UTILS).with_suffix("").parts[0]

    @property
    def pure(self) -> bool:
        return self.room is not None and self.room not in {*EDGES, *PIPES, CLOUD}

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """(line, absolute dotted name) of every import, wherever in the file it is."""
        return sorted(
            (node.lineno, name)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
            for name in self._names(node)
        )

    def _names(self, node: ast.Import | ast.ImportFrom | ast.Call) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            # `from ._cloud import batch` imports a module, `from ._plan import Plan` a name of one.
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif called(node) in {"import_module", "__import__"} and node.args and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value)


def called(node: ast.Call) -> str | None:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return None


def top(name: str) -> str:
    return name.partition(".")[0]


def imported_room(name: str) -> str | None:
    """Which room of module_utils an import is of."""
    utils = f"{COLLECTION}.plugins.module_utils."
    return name.removeprefix(utils).partition(".")[0] if name.startswith(utils) else None


def standard_library(name: str) -> bool:
    return top(name) in sys.stdlib_module_names


Finding = tuple[int, str]
Law = Callable[[Source], Iterator[Finding]]


def rooms_are_pure(source: Source) -> Iterator[Finding]:
    """Nouns, plans, ids, errors and preflight import the standard library and each other."""
    if source.pure:
        for line, name in source.imports:
            room = imported_room(name)
            if not standard_library(name) and (room is None or room in {*EDGES, *PIPES, CLOUD}):
                yield line, f"{source.room} imports {name}: only the standard library and other pure rooms may be"


def pipe_is_handed_its_cloud(source: Source) -> Iterator[Finding]:
    """_converge and _readiness are given the services, they make none."""
    if source.room in PIPES:
        for line, name in source.imports:
            if not standard_library(name) and imported_room(name) in {None, *EDGES, CLOUD}:
                yield line, f"{source.room} imports {name}: only the standard library and pure rooms may be"


def azure_stays_in_cloud(source: Source) -> Iterator[Finding]:
    """Azure's SDKs are imported under module_utils/_cloud alone."""
    if source.path.parts[0] == "plugins" and source.room != CLOUD:
        for line, name in source.imports:
            if top(name) in AZURE:
                yield line, f"imports {name}: only {UTILS / CLOUD} may"


def cloud_is_below_the_edge(source: Source) -> Iterator[Finding]:
    """_cloud is used by the edge and by the pipe, and does not know them."""
    if source.room == CLOUD:
        for line, name in source.imports:
            if imported_room(name) in {*EDGES, *PIPES}:
                yield line, f"{CLOUD} imports {name}: imports point the other way"


def ansible_module_stays_at_the_edge(source: Source) -> Iterator[Finding]:
    """AnsibleModule is known to _module and to the modules alone."""
    if source.path.parts[0] != "plugins" or source.room == "_module" or source.path.parts[1] == "modules":
        return
    for node in ast.walk(source.tree):
        match node:
            case ast.Name(id="AnsibleModule") | ast.Attribute(attr="AnsibleModule"):
                yield node.lineno, "names AnsibleModule: only _module and the modules may"
            case ast.alias(name=name) if name.rpartition(".")[2] == "AnsibleModule":
                yield node.lineno, "imports AnsibleModule: only _module and the modules may"


def sandbox_and_plugins_are_strangers(source: Source) -> Iterator[Finding]:
    """A helper that both shared would make both wrong in the same way."""
    in_sandbox = source.path.parts[0] == "sandbox"
    for line, name in source.imports:
        if in_sandbox and top(name) in {"plugins", "ansible_collections"}:
            yield line, f"the sandbox imports {name} of the collection"
        elif not in_sandbox and (top(name) in SANDBOX or name.startswith(f"{COLLECTION}.sandbox")):
            yield line, f"the collection imports {name} of the sandbox"


def check_mode_stays_at_the_edge(source: Source) -> Iterator[Finding]:
    """The edges say whether the cloud rehearses; nothing below them knows check mode."""
    if source.path.parts[0] == "plugins" and str(source.path) not in CHECK_MODE:
        for line in check_mode_uses(source):
            yield line, "knows check_mode: only the edges may"


LAWS: list[Law] = [
    rooms_are_pure,
    pipe_is_handed_its_cloud,
    azure_stays_in_cloud,
    cloud_is_below_the_edge,
    ansible_module_stays_at_the_edge,
    sandbox_and_plugins_are_strangers,
    check_mode_stays_at_the_edge,
]


def check_mode_uses(source: Source) -> Iterator[int]:
    for node in ast.walk(source.tree):
        match node:
            case ast.Name(id="check_mode", lineno=line) | ast.Attribute(attr="check_mode", lineno=line):
                yield line
            case ast.Constant(value="check_mode", lineno=line) | ast.arg(arg="check_mode", lineno=line):
                yield line


def sources(root: Path, folder: str) -> list[Source]:
    return [Source(root, PurePosixPath(path.relative_to(root))) for path in sorted((root / folder).rglob("*.py"))]


def findings(law: Law, found: list[Source]) -> list[str]:
    return [f"{source.path}:{line}: {message}" for source in found for line, message in law(source)]


def cycle(found: list[Source]) -> list[str]:
    """Modules that import each other in a ring; empty when there is none."""
    known = {source.name for source in found}
    graph = {
        # An import names a module, or something inside of one.
        source.name: {name if name in known else name.rpartition(".")[0] for _line, name in source.imports}
        & (known - {source.name})
        for source in found
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [name.removeprefix(f"{COLLECTION}.") for name in error.args[1]]
    return []


ALL = [*sources(ROOT, "plugins"), *sources(ROOT, "sandbox/src")]
IN_UTILS = [source for source in ALL if source.room]


def test_there_is_something_to_look_at() -> None:
    assert {source.room for source in ALL if source.pure}, f"no pure room found in {ROOT / UTILS}"
    assert any(source.path.parts[0] == "sandbox" for source in ALL), "no file of the sandbox found"


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Law) -> None:
    assert not findings(law, ALL), law.__doc__


def test_no_import_goes_round_in_a_circle() -> None:
    assert not cycle(IN_UTILS)


def test_check_mode_is_known_at_the_edges() -> None:
    assert {str(source.path) for source in ALL if list(check_mode_uses(source))} == CHECK_MODE


BROKEN = [
    (rooms_are_pure, "plugins/module_utils/_plan.py", "import yaml"),
    (rooms_are_pure, "plugins/module_utils/_plan.py", "from ansible.module_utils.basic import env_fallback"),
    (rooms_are_pure, "plugins/module_utils/_key.py", "def late():\n    from azure.core import exceptions"),
    (rooms_are_pure, "plugins/module_utils/_key.py", "from ._cloud import keys"),
    (rooms_are_pure, "plugins/module_utils/_key.py", "from . import _module"),
    (rooms_are_pure, "plugins/module_utils/_new/inner.py", "from .._converge import converge"),
    (rooms_are_pure, "plugins/module_utils/_key.py", f"import {COLLECTION}.plugins.plugin_utils._in_process"),
    (pipe_is_handed_its_cloud, "plugins/module_utils/_converge.py", "from ._cloud import connect"),
    (pipe_is_handed_its_cloud, "plugins/module_utils/_converge.py", "import ansible"),
    (pipe_is_handed_its_cloud, "plugins/module_utils/_readiness.py", "from ._cloud.cloud import Cloud"),
    (azure_stays_in_cloud, "plugins/modules/key.py", "from azure.identity import DefaultAzureCredential"),
    (azure_stays_in_cloud, "plugins/inventory/all.py", "import importlib\nimportlib.import_module('msal')"),
    (azure_stays_in_cloud, "plugins/action/key.py", "__import__('azure.core')"),
    (cloud_is_below_the_edge, "plugins/module_utils/_cloud/batch.py", "from .._converge import converge"),
    (cloud_is_below_the_edge, "plugins/module_utils/_cloud/__init__.py", "from .._module import run"),
    (ansible_module_stays_at_the_edge, "plugins/action/key.py", "from ansible.module_utils.basic import AnsibleModule"),
    (ansible_module_stays_at_the_edge, "plugins/module_utils/_cloud/_sdk.py", "def fail(m: AnsibleModule): ..."),
    (ansible_module_stays_at_the_edge, "plugins/plugin_utils/_x.py", "basic.AnsibleModule(argument_spec={})"),
    (sandbox_and_plugins_are_strangers, "plugins/module_utils/_key.py", "from azure_sandbox.clock import Clock"),
    (sandbox_and_plugins_are_strangers, "plugins/module_utils/_key.py", "from ...sandbox.src import azure_sandbox"),
    (sandbox_and_plugins_are_strangers, "sandbox/src/azure_sandbox/x.py", f"from {COLLECTION}.plugins import y"),
    (check_mode_stays_at_the_edge, "plugins/modules/key.py", "if not module.check_mode:\n    pass"),
    (check_mode_stays_at_the_edge, "plugins/action/key.py", "x = 1 if task['check_mode'] else 2"),
    (check_mode_stays_at_the_edge, "plugins/module_utils/_converge.py", "def converge(goal, *, check_mode): ..."),
]


@pytest.mark.parametrize(("law", "path", "code"), BROKEN)
def test_law_sees_a_breach(tmp_path: Path, law: Law, path: str, code: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(code, encoding="utf-8")

    found = findings(law, [Source(tmp_path, PurePosixPath(path))])

    assert len(found) == 1
    assert found[0].startswith(f"{path}:")


KEPT = {
    "plugins/module_utils/_plan.py": "import dataclasses\nfrom ._errors import CmkError",
    "plugins/module_utils/_errors.py": "'''AnsibleModule and azure are only words here.'''",
    "plugins/module_utils/_converge.py": "from ._plan import Plan",
    "plugins/module_utils/_module.py": "from ansible.module_utils.basic import AnsibleModule\nfrom . import _cloud",
    "plugins/module_utils/_cloud/__init__.py": "def connect():\n    from . import batch",
    "plugins/module_utils/_cloud/batch.py": "from azure.mgmt.batch import X\nfrom . import _sdk\nfrom .._ids import a",
    "plugins/module_utils/_cloud/_sdk.py": "import azure.core",
    "plugins/modules/key.py": f"from {COLLECTION}.plugins.module_utils._module import run",
    "sandbox/src/azure_sandbox/__init__.py": "",
    "sandbox/src/azure_sandbox/app.py": "from . import clock\nfrom .batch.rules import check",
}


def write(root: Path, files: dict[str, str]) -> list[Source]:
    for path, code in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(code, encoding="utf-8")
    return [Source(root, PurePosixPath(path)) for path in files]


def test_laws_allow_what_is_meant_to_be(tmp_path: Path) -> None:
    found = write(tmp_path, KEPT)

    assert [finding for law in LAWS for finding in findings(law, found)] == []
    assert cycle(found) == []


def test_a_circle_is_seen(tmp_path: Path) -> None:
    found = write(
        tmp_path,
        {
            "plugins/module_utils/_key.py": "from ._plan import Plan",
            "plugins/module_utils/_plan.py": f"from {COLLECTION}.plugins.module_utils import _ids",
            "plugins/module_utils/_ids.py": "def late():\n    from ._key import Key",
        },
    )

    assert set(cycle(found)) == {f"plugins.module_utils.{room}" for room in ("_key", "_plan", "_ids")}
