# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make ansible_collections.azbatch.cmk importable from a plain checkout, for the tests and for what they start."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lengths import why_too_long

ROOT = Path(__file__).resolve().parents[1]


def collections_path() -> str:
    """Where the checkout is ansible_collections/azbatch/cmk: in the folder that `make setup` made, or in a new one."""
    made = Path(sys.prefix) / "collections"
    if (made / "ansible_collections" / "azbatch" / "cmk").resolve() == ROOT:
        return str(made)
    temporary = Path(tempfile.mkdtemp(prefix="azbatch-cmk-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    namespace = temporary / "ansible_collections" / "azbatch"
    namespace.mkdir(parents=True)
    (namespace / "cmk").symlink_to(ROOT)
    return str(temporary)


def importable() -> bool:
    try:
        return importlib.util.find_spec("ansible_collections.azbatch.cmk.plugins") is not None
    except ModuleNotFoundError:
        return False


if not importable():  # ansible-test has its own finder
    from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

    path = collections_path()
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = path
    # Installed before anything else imports the collection, or ansible finds a package without its meta/runtime.yml.
    _AnsibleCollectionFinder(paths=[path])._install()
    sys.path.insert(0, path)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--on-azure",
        type=Path,
        metavar="FILE",
        help="run tests with the mark on_azure in Azure; only an experiment of `make live` makes the file",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Apply `slow(every=N)`: of a test with several cases, all but every Nth case are slow."""
    cases: Counter[str] = Counter()
    for item in items:
        mark = item.get_closest_marker("slow")
        if mark is not None and "every" in mark.kwargs:
            test = item.nodeid.partition("[")[0]
            if cases[test] % mark.kwargs["every"] == 0:
                item.own_markers.remove(mark)
            cases[test] += 1


@pytest.fixture(autouse=True)
def short_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in whose process an error was too long. `harness.Task` checks those of ansible-playbook."""
    from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError
    from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain

    found = list[str]()

    def checked(make: Callable[..., CmkError | None]) -> Callable[..., CmkError | None]:
        def made(error: CmkError, *args: Any, **facts: Any) -> CmkError | None:
            other = make(error, *args, **facts)
            result = (other or error).result()
            found.extend(filter(None, [why_too_long(plain(result["msg"]), result)]))
            return other

        return made

    for name in ("__init__", "extended"):
        monkeypatch.setattr(CmkError, name, checked(getattr(CmkError, name)))
    yield
    assert not found, "\n".join(found)
