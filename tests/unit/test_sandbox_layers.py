# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The layers of the sandbox: the shared package, the services, and the modules that may import all services."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sources import ROOT, Source, sources, written
from test_imports import cycle

PACKAGE = "azure_sandbox"
SHARED = "shared"
LIBRARIES = {"starlette"}
# A service may import the services before it in this list.
SERVICES = [
    "entra",
    "resource_manager",
    "authorization",
    "managed_identity",
    "event_grid",
    "key_vault",
    "key_vault_keys",
    "batch",
    "resource_graph",
]
# Requests pass this layer before they reach a service of Resource Manager. It checks the caller's rights.
GATEWAY = {"resource_manager.frame", "resource_manager.http"}
# The HTTP layer of a service. Only the composition root imports the HTTP layers of several services.
OUTSIDE = {"frame", "http", "metadata"}
# The only module that imports the HTTP layers of several services.
COMPOSITION_ROOT = "services"
# Modules at the top that know no service. Every service may import `environment`.
LEAVES: dict[str, set[str]] = {
    "certificates": set(),
    "environment": set(),
    "faults": set(),
    "proxy": set(),
    "redaction": set(),
    "request_log": {SHARED, "redaction"},
}
FOR_SERVICES = {"environment"}
# The modules and packages at the top that know services, and their imports at the top.
ROOTS: dict[str, set[str]] = {
    "services": {SHARED, *SERVICES},
    "world": {SHARED, *SERVICES, "environment"},
    "seed": {SHARED, *SERVICES, "environment", "world"},
    "state": {"certificates", "world"},
    "saving": {"state"},
    "sandbox": {"faults", "request_log", "world"},
    "page": {SHARED, *SERVICES, "faults", "request_log", "sandbox", "world"},
    "control": {SHARED, *SERVICES, "faults", "page", "sandbox", "seed"},
    "server": {SHARED, "control", "environment", "faults", "proxy", "request_log", "services", "world"},
    "deliveries": {"event_grid", "world"},
    "running": {SHARED, "certificates", "deliveries", "proxy", "saving", "seed", "server", "state"},
    "recording": {SHARED, "certificates", "proxy", "redaction", "request_log"},
    "command": {SHARED, "environment", "recording", "running", "state"},
}
TOP = LEAVES | ROOTS

ALL = sources(ROOT, "sandbox/src")


def below(name: str) -> str | None:
    return name.removeprefix(f"{PACKAGE}.") if name.startswith(f"{PACKAGE}.") else None


def breaches(source: Source) -> Iterator[str]:
    """The imports of a module that are not allowed."""
    own = below(source.name)
    if own is None:
        return
    package = own.partition(".")[0]
    if package in TOP:
        yield from breaches_at_the_top(source, package)
        return
    for one in source.imports:
        where = f"{source.path}:{one.line}: imports {one.name}"
        target = below(one.name)
        if target is None:
            if package == SHARED and one.package not in {*sys.stdlib_module_names, *LIBRARIES}:
                yield f"{where}: {SHARED} may import the standard library and starlette"
            continue
        of, _rest, inside = target.partition(".")
        if of in {SHARED, package, *FOR_SERVICES} and not (package == SHARED and of != SHARED):
            continue
        if of in SERVICES and package in SERVICES:
            if inside.partition(".")[0] in OUTSIDE:
                yield f"{where}: only the composition root imports how a service is called"
            elif SERVICES.index(of) > SERVICES.index(package) and own not in GATEWAY:
                yield f"{where}: {package} may import the services before it only"
        else:
            yield f"{where}: {package} may not import it"


def breaches_at_the_top(source: Source, package: str) -> Iterator[str]:
    for one in source.imports:
        target = below(one.name)
        if target is None:
            continue
        where = f"{source.path}:{one.line}: imports {one.name}"
        of, _rest, inside = target.partition(".")
        if of not in {package, *TOP[package]}:
            yield f"{where}: {package} may not import it"
        elif of in SERVICES and inside.partition(".")[0] in OUTSIDE and package != COMPOSITION_ROOT:
            yield f"{where}: only the composition root imports how a service is called"


def without_a_rule(found: list[Source]) -> set[str]:
    """The modules and packages at the top for which no rule says what they may import."""
    tops = {name.partition(".")[0] for source in found if (name := below(source.name))}
    return tops - {SHARED, *SERVICES, *TOP}


def test_every_module_has_a_rule() -> None:
    assert without_a_rule(ALL) == set()


def test_a_new_module_without_a_rule_is_found(tmp_path: Path) -> None:
    found = written(tmp_path, {f"{S}storage/rules.py": "", f"{S}extra.py": "", f"{S}batch/extra.py": ""})

    assert without_a_rule(found) == {"storage", "extra"}


def test_every_import_is_allowed() -> None:
    assert [breach for source in ALL for breach in breaches(source)] == []


def test_one_module_writes_the_links_of_pages() -> None:
    writers = {below(source.name) for source in ALL if "skiptoken=" in ast.unparse(source.tree).lower()}
    encoders = {below(source.name) for source in ALL if "('$skiptoken', " in ast.unparse(source.tree)}
    assert (writers, encoders) == (set(), {"shared.paging"})


def test_there_are_no_circular_imports() -> None:
    """Circular imports for types count too."""
    assert cycle(ALL) == []


S = "sandbox/src/azure_sandbox/"
BREACHES = [
    (f"{S}shared/web.py", "from ..entra.rules import Directory"),
    (f"{S}shared/web.py", "import cryptography"),
    (f"{S}key_vault/rules.py", "from ..key_vault_keys.rules import Keys"),
    (f"{S}batch/rules.py", "from ..key_vault import http"),
    (f"{S}resource_manager/frame.py", "from ..batch import http"),
    (f"{S}batch/rules.py", "from ..faults import Faults"),
    (f"{S}faults.py", "from .shared.web import Call"),
    (f"{S}seed.py", "from .batch import http"),
]


@pytest.mark.parametrize(("path", "code"), BREACHES)
def test_a_breach_is_found(tmp_path: Path, path: str, code: str) -> None:
    [source] = written(tmp_path, {path: code})

    [breach] = breaches(source)

    assert breach.startswith(f"{path}:")
