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

ROOT = Path(__file__).resolve().parents[3]
# Links to files that are not in the released collection are URLs of the repository.
REPOSITORY = re.compile(
    r"https://(?:github\.com/azbatch/azbatch\.cmk/(?:blob|tree|raw)|raw\.githubusercontent\.com/azbatch/azbatch\.cmk)"
    r"/(?:main|\d+\.\d+\.\d+)/(.*)"
)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


# Files of a clone that are not part of the collection: of git, editors, virtual environments and runs.
OTHERS = """
.env .git/config .idea/workspace.xml .venv/pyvenv.cfg .coverage .placeholder-key CHANGELOG.md.orig LICENSE.bak
README.md.bak ansible.cfg azbatch-cmk-1.0.0.tar.gz batch/lib/python3/site-packages/module.py batch/pyvenv.cfg
batch_accounts.yml build/module.py change.diff changes.txt cmk-audit/cmk-audit.html core demo.log dist/module.whl
doc/page.md docs.zip docs/developers/decisions.md docs/guide.md~ env/bin/python example.yml examples.zip
extra_vars.yml group_vars/all.yml hosts inventory.yml live/RESULT.json logs/run.log meta.json nohup.out old/README.md
pages/index.html plan.md play.yml playbook.yml playbooks.bak/rotate.yml plugin/module.py plugins.zip
plugins/__pycache__/module.pyc plugins/modules/.batch_encryption.py.swp plugins/modules/module.py.orig provision.retry
recover.yml report.html requirements.yml requirements/all.txt role/main.yml roles.txt roles/rotate/.ansible/log
rotate.yml sandbox.egg-info/PKG-INFO sandbox.log secrets.yml site/index.html test.yml test/one.py tests.log
tests/integration/inventory tests/output/result.txt tmp/file vars.yml venv/pyvenv.cfg
""".split()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone."""
    work = str(tmp_path_factory.mktemp("clone"))
    copied = subprocess.run([ROOT / "scripts" / "copy-tree", work], stdout=subprocess.PIPE, text=True, check=True)
    return Path(copied.stdout.strip())


@pytest.fixture(scope="module")
def tracked(source: Path) -> set[str]:
    """The files of the clone that git tracks."""
    return names(source)


@pytest.fixture(scope="module")
def installed(source: Path, tracked: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of the tarball that is built in a clone with other files."""
    for name in OTHERS:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("", encoding="utf-8")
    work = tmp_path_factory.mktemp("built")
    galaxy = str(Path(sys.executable).parent / "ansible-galaxy")
    command = [galaxy, "collection", "build", "--output-path", str(work), str(source)]
    subprocess.run(command, stdout=subprocess.PIPE, check=True)
    [tarball] = work.glob("azbatch-cmk-*.tar.gz")
    folder = work / "installed"
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder


def names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


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


def test_links_of_the_first_page_also_work_on_galaxy() -> None:
    """Galaxy shows README.md without the other files."""
    assert [link for link in links(ROOT / "README.md") if not re.match("https://|#", link)] == []


def test_every_link_of_other_pages_leads_somewhere() -> None:
    folders = (ROOT / ".github", ROOT / "docs" / "developers")
    pages = [ROOT / "sandbox" / "README.md", *(page for folder in folders for page in folder.rglob("*.md"))]
    assert [why for page in pages for link in links(page) if (why := broken(link, page))] == []


def test_only_the_collection_is_built(installed: Path, tracked: set[str]) -> None:
    built = names(installed) - {"FILES.json", "MANIFEST.json"}
    files = {
        *("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"),
        *("requirements.txt", "tests/config.yml"),
        *("docs/docsite/extra-docs.yml", "docs/docsite/links.yml", "docs/docsite/rst/guides.rst"),
    }
    folders = ("changelogs/", "docs/", "examples/", "extensions/", "meta/", "playbooks/", "plugins/", "roles/")
    # Only the development of the collection, or a copy of the repository, needs these folders.
    without = ("changelogs/fragments/", "docs/developers/", "docs/docsite/", "examples/awx/", "extensions/molecule/")

    parts = {name for name in tracked if name.startswith(folders) and not name.startswith(without)}
    assert built == {*files, *parts} - {"docs/images/sandbox-page.png"}
