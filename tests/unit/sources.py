# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Source files of the collection and the sandbox, and their imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ansible_collections.azbatch.cmk"
UTILS = f"{COLLECTION}.plugins.module_utils"


@dataclass(frozen=True)
class Import:
    line: int
    # The absolute dotted name of a module, or of a name in a module.
    name: str

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Source:
    root: Path
    path: PurePosixPath

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse((self.root / self.path).read_text(encoding="utf-8"), str(self.path))

    @cached_property
    def name(self) -> str:
        """The absolute dotted name of the module."""
        match self.path.with_suffix("").parts:
            case ("sandbox", "src", *parts):
                pass
            case (*parts,):
                parts = [COLLECTION, *parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def util(self) -> str | None:
        """The dotted name below module_utils."""
        return below_utils(self.name)

    @cached_property
    def imports(self) -> list[Import]:
        """All imports, also those in functions."""
        found = ast.walk(self.tree)
        nodes = [node for node in found if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)]
        return sorted(
            (Import(node.lineno, name) for node in nodes for name in self._names(node)),
            key=lambda one: (one.line, one.name),
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
            # `from ._core import plan` imports a module, `from ._core.tasks import Plan` a name in one.
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif called(node) in {"import_module", "__import__"} and node.args and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value)


def called(node: ast.Call) -> str | None:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return None


def below_utils(name: str) -> str | None:
    """The part of an absolute dotted name below module_utils, or None if it is elsewhere."""
    return name.removeprefix(f"{UTILS}.") if name.startswith(f"{UTILS}.") else None


def sources(root: Path, folder: str) -> list[Source]:
    return [Source(root, PurePosixPath(path.relative_to(root))) for path in sorted((root / folder).rglob("*.py"))]


def written(root: Path, files: dict[str, str]) -> list[Source]:
    """Create files with this code, to test a rule."""
    for path, code in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(code, encoding="utf-8")
    return [Source(root, PurePosixPath(path)) for path in files]
