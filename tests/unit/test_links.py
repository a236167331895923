# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each link of a page has a target in the installed collection, or in the repository."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._audit.rules import MANUAL, RULES

ROOT = Path(__file__).resolve().parents[2]
# Links to files that are not in the released collection are URLs of the repository.
REPOSITORY = re.compile(
    r"https://(?:github\.com/azbatch/azbatch\.cmk/(?:blob|tree|raw)|raw\.githubusercontent\.com/azbatch/azbatch\.cmk)"
    r"/(?:main|\d+\.\d+\.\d+)/(.*)"
)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# Outside of Markdown: addresses in the repository, and files that a documentation names, as in C(docs/errors.md).
_ADDRESS = re.compile(REPOSITORY.pattern.replace("(.*)", r"[\w./#-]*\w"))
_NAMED = re.compile(r"\bC\((docs/[\w./-]+)\)")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of the released tarball."""
    work = tmp_path_factory.mktemp("built")
    copied = subprocess.run(
        [str(ROOT / "scripts" / "copy-tree"), str(work)], stdout=subprocess.PIPE, text=True, check=True
    )
    galaxy = str(Path(sys.executable).parent / "ansible-galaxy")
    command = [galaxy, "collection", "build", "--output-path", str(work), copied.stdout.strip()]
    subprocess.run(command, stdout=subprocess.PIPE, check=True)
    [tarball] = work.glob("azbatch-cmk-*.tar.gz")
    folder = work / "installed"
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder


def anchors(page: str) -> set[str]:
    """The anchors of the headings of a page, as GitHub and the documentation site create them."""
    titles = _HEADING.findall(_FENCE.sub("", page))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(target: str, page: Path) -> str | None:
    """Why a link of a page is broken; None if it is not."""
    if found := REPOSITORY.fullmatch(target):
        target, page = found[1], ROOT / "README.md"
    elif re.match(r"\w+:", target):
        return None
    path, _hash, anchor = target.partition("#")
    file = page.parent / path if path else page
    # An address may be that of a folder.
    if not (file.is_file() or (found and file.is_dir())):
        return f"{target}: there is no such file"
    if anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
        return f"{target}: there is no such heading"
    return None


def links(page: Path) -> Iterator[str]:
    # A link may be wrapped between its words.
    yield from _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def test_every_link_of_the_installed_collection_leads_somewhere(installed: Path) -> None:
    pages = sorted(installed.rglob("*.md"))
    names = {page.relative_to(installed).as_posix() for page in pages}
    assert {"README.md", "SECURITY.md", "docs/README.md", "examples/README.md", "roles/rotate/README.md"} <= names
    found = [(page, link) for page in pages for link in links(page)]
    assert len(found) > 150

    wrong = {f"{page.relative_to(installed)}: {why}" for page, link in found if (why := broken(link, page)) is not None}

    assert not wrong, "\n".join(sorted(wrong))


def addresses(file: Path) -> Iterator[str]:
    """The addresses of files of the repository, and the files of the collection that the documentation names."""
    text = file.read_text(encoding="utf-8")
    yield from (found[0] for found in _ADDRESS.finditer(text))
    yield from _NAMED.findall(text)


def test_every_address_outside_of_markdown_leads_somewhere(installed: Path) -> None:
    """In the documentation of modules and roles, the code, the menu and the guides of the docs site."""
    kinds = {".json", ".py", ".rst", ".txt", ".yml"}
    files = sorted(file for file in installed.rglob("*") if file.suffix in kinds)
    found = [(file, address) for file in files for address in addresses(file)]
    by_file = {file.relative_to(installed).as_posix() for file, _address in found}
    assert {"docs/docsite/links.yml", "docs/docsite/rst/guides.rst", "plugins/doc_fragments/azure.py"} <= by_file
    assert {"plugins/module_utils/_audit/rules.py", "plugins/modules/batch_encryption_audit.py"} <= by_file

    wrong = {
        f"{file.relative_to(installed)}: {why}"
        for file, address in found
        if (why := broken(address, installed / "README.md")) is not None
    }

    assert not wrong, "\n".join(sorted(wrong))


def test_every_finding_of_a_report_has_its_heading() -> None:
    """The web page of an audit and the SARIF report link the heading of each finding."""
    assert [why for name in RULES if (why := broken(f"{MANUAL}#{name}", ROOT / "README.md"))] == []


def test_every_link_of_other_pages_leads_somewhere() -> None:
    folders = (ROOT / ".github", ROOT / "docs" / "developers")
    pages = [ROOT / "sandbox" / "README.md", *(page for folder in folders for page in folder.rglob("*.md"))]
    assert [why for page in pages for link in links(page) if (why := broken(link, page))] == []


def test_only_the_tests_of_ansible_test_are_installed(installed: Path) -> None:
    """And nothing else that only the development of the collection needs."""
    top = {file.relative_to(installed).parts[0] for file in installed.rglob("*") if file.is_file()}
    tests = {file.relative_to(installed).as_posix() for file in (installed / "tests").rglob("*") if file.is_file()}

    assert tests == {"tests/config.yml"}
    assert not (installed / "docs" / "developers").exists()
    assert top == {
        *("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"),
        *("FILES.json", "MANIFEST.json", "changelogs", "docs", "examples", "extensions", "meta", "playbooks"),
        *("plugins", "requirements.txt", "roles", "tests"),
    }


def test_every_page_is_in_the_list_of_pages(installed: Path) -> None:
    listed = set(links(installed / "docs" / "README.md"))

    assert {page.name for page in (installed / "docs").glob("*.md")} - listed - {"README.md"} == set()
    assert {f"../roles/{folder.name}/meta/argument_specs.yml" for folder in (ROOT / "roles").iterdir()} <= listed


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("docs/guide.md#6-a-new-version", None),
        ("https://example.org/page", None),
        ("#nowhere", "#nowhere: there is no such heading"),
        ("docs/nowhere.md", "docs/nowhere.md: there is no such file"),
        ("docs/guide.md#nowhere", "docs/guide.md#nowhere: there is no such heading"),
        ("https://github.com/azbatch/azbatch.cmk/blob/main/sandbox/README.md", None),
        ("https://github.com/azbatch/azbatch.cmk/blob/main/nowhere.md", "nowhere.md: there is no such file"),
        (
            "https://github.com/azbatch/azbatch.cmk/blob/main/docs/audit.md#nothing",
            "docs/audit.md#nothing: there is no such heading",
        ),
    ],
)
def test_a_link_that_leads_nowhere_is_found(target: str, why: str | None) -> None:
    assert broken(target, ROOT / "README.md") == why
