# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The layers of module_utils, and the imports that they allow. docs/developers/architecture.md describes the layers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sources import ROOT, UTILS, Import, Source, below_utils, sources, written

# The first pattern that matches the name of a module below module_utils determines its layer.
LAYERS = {
    r"_core\..+": "core",
    # Packages, which are empty, and the interface to Ansible.
    r"_(?!cloud)\w+|_resources\.\w+|_documents\.effects": "top",
    r"_documents\..+": "document",
    # What decisions know of a run besides documents.
    r"_azure\.(facts|journal)": "facts",
    r"_azure\..+": "azure",
    r"_checks\..+": "check",
    r"_questions\..+": "question",
    r"_resources\.key\.requests": "request",
    r"_resources\.\w+\.\w+": "decision",
    "_cloud": "composition root",
    r"_audit\..+": "audit",
}
PURE = {"core", "document", "check"}
# The layers that each layer may import, from the bottom to the top.
MAY_IMPORT = {
    "core": {"core"},
    "document": {"core", "document"},
    "azure": {"core", "document", "azure", "facts"},
    "facts": {"core", "document", "azure", "facts"},
    "check": PURE,
    "question": {*PURE, "facts", "question"},
    "request": {*PURE, "facts", "request"},
    "decision": {*PURE, "facts", "question", "request", "decision"},
    "composition root": {*PURE, "azure", "facts", "question"},
    "audit": {*PURE, "audit"},
}
# The resources whose decisions those of a resource may import.
BESIDE = {
    "access": ["access"],
    "account": ["account"],
    "drill": ["access", "drill", "key"],
    "encryption": ["encryption"],
    "key": ["key"],
    "vault": ["access", "vault"],
}
# Other packages than the standard library. A document or a decision that needs one is in the wrong
# layer.
KNOW_AZURE = {"azure", "facts"}
SDKS = {"azure", "msal", "msal_extensions"}
# requests and urllib3 send what the SDKs send; the exceptions of requests are read once before Ansible forks.
BESIDE_SDKS = {"requests", "urllib3"}
# Only Ansible can mask secrets.
MASKS = "_azure.secrets"
REPORTS = {
    "plugins/lookup/drill_page.py",
    "plugins/modules/batch_encryption_audit.py",
    "plugins/modules/keyvault_cmk_users.py",
}

ALL = sources(ROOT, "plugins")
MODULES = {source.util for source in ALL if source.util}


def layer(util: str) -> str:
    return next((name for pattern, name in LAYERS.items() if re.fullmatch(pattern, util)), "unknown")


def module_of(one: Import, known: set[str]) -> str | None:
    """The module of module_utils that is imported, or that has the imported name."""
    util = below_utils(one.name)
    return util if util is None or util in known else util.rpartition(".")[0]


def resource(util: str) -> str:
    return util.split(".")[1]


def breaches(source: Source, known: set[str]) -> Iterator[str]:
    """The imports of the file that are not allowed."""
    own = layer(source.util) if source.util and source.path.name != "__init__.py" else None
    for one in source.imports:
        where = f"{source.path}:{one.line}"
        util = module_of(one, known)
        if one.package in SDKS and own not in KNOW_AZURE:
            yield f"{where}: imports {one.name}: only _azure may import the SDKs of Azure"
        elif util is None:
            allowed = {*sys.stdlib_module_names, *(SDKS | BESIDE_SDKS if own in KNOW_AZURE else ())}
            allowed |= {"ansible"} if source.util == MASKS else set()
            if own in MAY_IMPORT and one.package not in allowed:
                yield f"{where}: imports {one.name}: {own} may import the standard library and module_utils"
        elif layer(util) == "audit" and own != "audit":
            if str(source.path) not in REPORTS:
                yield f"{where}: imports {one.name}: only the plugins that report may import the audit"
        elif own in MAY_IMPORT:
            target = layer(util)
            if target not in MAY_IMPORT[own]:
                yield f"{where}: imports {one.name}: {own} may not import {target}"
            elif target == "decision" and resource(util) not in BESIDE[resource(source.util)]:
                yield f"{where}: imports {one.name}, which belongs to another resource"


def test_every_file_is_in_a_layer() -> None:
    layers = {source.util: layer(source.util) for source in ALL if source.util}

    assert set(layers.values()) >= set(MAY_IMPORT)
    assert [util for util, name in layers.items() if name == "unknown"] == []


def test_imports_point_down() -> None:
    order = list(MAY_IMPORT)

    for own, targets in MAY_IMPORT.items():
        # The journal is part of the session.
        assert max(map(order.index, targets - {"facts"})) <= order.index(own)


def test_packages_are_empty() -> None:
    utils = [source for source in ALL if source.util and source.path.name == "__init__.py"]

    assert utils
    assert [str(source.path) for source in utils if source.imports] == []


def test_every_import_is_allowed() -> None:
    assert [breach for source in ALL for breach in breaches(source, MODULES)] == []


U = "plugins/module_utils/"
R = f"{U}_resources/"
BREACHES = [
    (f"{U}_core/outcome.py", "import yaml"),
    (f"{U}_checks/preflight.py", "from .._resources.key import decide"),
    (f"{R}key/decide.py", "from ..vault.goal import VaultGoal"),
    (f"{R}key/decide.py", "def late():\n    from azure.core import exceptions"),
    (f"{U}_azure/gateway.py", "from ansible.module_utils.basic import AnsibleModule"),
    ("plugins/modules/batch_encryption.py", f"from {UTILS}._audit import rules"),
    ("plugins/action/key.py", "__import__('azure.core')"),
]


@pytest.mark.parametrize(("path", "code"), BREACHES)
def test_a_breach_is_found(tmp_path: Path, path: str, code: str) -> None:
    [source] = written(tmp_path, {path: code})

    [breach] = breaches(source, MODULES)

    assert breach.startswith(f"{path}:")
