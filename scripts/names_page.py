# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print the page of the docs site that lists each variable of the roles and each option of the modules.

The rows are those of the argument specifications of the roles and of the documentation of the modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
_MARKUP = re.compile(r"\b(?:[CIBVOPE]|RV)\(([^)]*)\)|\bM\(azbatch\.cmk\.([^)]*)\)")
_PASSED_ON = re.compile(r"\{\{ (\w+)(?: \| default\(omit\))? \}\}")


def meaning(option: Mapping[str, Any]) -> str:
    """The first sentence of the description, as Markdown."""
    text = option["description"]
    first = " ".join((text if isinstance(text, str) else text[0]).split()).partition(". ")[0].rstrip(".")
    return _MARKUP.sub(lambda found: f"`{found[1] or found[2]}`", first).replace("|", "\\|")


def variables() -> Iterator[tuple[str, list[str], str, list[str]]]:
    """Each variable with the roles that have it, its meaning, and the options that it is passed on to."""
    found: dict[str, tuple[list[str], str]] = {}
    for file in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        for specification in yaml.safe_load(file.read_text(encoding="utf-8"))["argument_specs"].values():
            for name, option in specification["options"].items():
                found.setdefault(name, ([], meaning(option)))[0].append(file.parts[-3])
    options: dict[str, set[str]] = {}
    for file in ROOT.glob("roles/*/tasks/*.yml"):
        for task in yaml.safe_load(file.read_text(encoding="utf-8")):
            for action, given in task.items():
                for option, value in given.items() if action.startswith("azbatch.cmk.") else ():
                    passed = _PASSED_ON.fullmatch(str(value))
                    options.setdefault(passed[1] if passed else "", set()).add(option)
    for name, (roles, text) in sorted(found.items()):
        yield name, roles, text, sorted(options.get(name, ()))


def options() -> Iterator[tuple[str, list[str], str]]:
    """Each option with the modules that have it and its meaning. An option with several meanings has several rows."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in sorted((ROOT / "plugins" / "modules").glob("*.py")):
        [text] = re.findall(
            r'^DOCUMENTATION = r"""(.+?)"""', file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        for name, option in yaml.safe_load(text)["options"].items():
            found.setdefault((name, meaning(option)), []).append(file.stem)
    for (name, text), modules in sorted(found.items()):
        yield name, modules, text


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def page() -> str:
    lines = [
        "# Variables and options",
        "",
        "## Variables of the roles",
        "",
        "| Variable | Roles | Meaning | Option of the modules |",
        "|---|---|---|---|",
        *(f"| `{name}` | {', '.join(roles)} | {text} | {_code(to)} |" for name, roles, text, to in variables()),
        "",
        "## Options of the modules",
        "",
        "The options of the connection are the same in all modules.",
        "",
        "| Option | Modules | Meaning |",
        "|---|---|---|",
        *(f"| `{name}` | {_code(modules)} | {text} |" for name, modules, text in options()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())
