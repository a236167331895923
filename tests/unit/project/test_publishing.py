# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scripts that publish a release and the docs site, in a repository with only their files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = """<!DOCTYPE html><html data-content_root="{root}"><body><a class="sidebar-brand">azbatch.cmk</a>
<script src="{root}versions.js"></script></body></html>"""
CHANGELOG = """<a id="v1-1-0"></a>
## v1.1.0
new
<a id="v1-0-0"></a>
## v1.0.0
<a id="release-summary"></a>
first
"""
# Commands that record their arguments and the token of Galaxy. `gh release view` finds a release that was created.
RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "$RECORD"
echo "token: $ANSIBLE_GALAXY_SERVER_GALAXY_TOKEN" >> "$RECORD"
case "$*" in
    "release view"*) [ -e created ] ;;
    "release create"*) cat >> "$RECORD"; touch created ;;
    *) exit "${GALAXY_STATUS:-0}" ;;
esac
"""


class Repository:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "scripts").mkdir(parents=True)
        for name in ("pages", "publish"):
            shutil.copy(ROOT / "scripts" / name, folder / "scripts")
        self.write("CHANGELOG.md", CHANGELOG)
        self.write("galaxy.yml", "version: 1.0.0\n")
        self.git("init", "--quiet")
        self.commit()

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def git(self, *arguments: str) -> None:
        who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Test")

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "scripts" / script, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def add_version(repository: Repository, version: str, *pages: str) -> None:
    """Build a site with these pages, as `make docs` does, and add it to the folder of all versions."""
    shutil.rmtree(repository.folder / "site", ignore_errors=True)
    repository.write("site/index.html", PAGE.format(root=""))
    repository.write("site/versions.js", (ROOT / "docs/docsite/static/versions.js").read_text())
    for page in pages:
        repository.write(f"site/{page}", PAGE.format(root="../" * page.count("/")))
    if version != "latest":
        repository.write("galaxy.yml", f"version: {version}\n")
    repository.commit()
    if version != "latest":
        repository.git("tag", version)
    done = repository.run("pages", str(repository.folder / "site"), str(repository.folder / "pages"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("added", "versions", "first"),
    [
        (["latest"], ["latest"], "latest"),
        (["1.9.0", "1.10.0", "latest"], ["latest", "1.10.0", "1.9.0"], "1.10.0"),
    ],
    ids=["before the first release", "after releases"],
)
def test_first_page_is_of_the_newest_release(
    repository: Repository, added: list[str], versions: list[str], first: str
) -> None:
    for version in added:
        add_version(repository, version)

    pages = repository.folder / "pages"
    assert json.loads((pages / "versions.json").read_text()) == versions
    assert f"url={first}/index.html" in (pages / "index.html").read_text()
    assert all((pages / one / "index.html").exists() for one in versions)


def publish(repository: Repository, **environment: str) -> tuple[int, str]:
    """The exit status, and the recorded commands or, if there are none, the error."""
    commands = repository.folder / "commands"
    for name in ("gh", "ansible-galaxy"):
        repository.write(f"commands/{name}", RECORDER)
        (commands / name).chmod(0o700)
    record = repository.folder / "record"
    record.unlink(missing_ok=True)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    wanted = {"RECORD": str(record), "PATH": path, "GALAXY_TOKEN": "secret", **environment}
    done = repository.run("publish", **wanted)
    return done.returncode, record.read_text() if record.exists() else done.stderr


def test_a_release_is_published_with_its_notes(repository: Repository) -> None:
    repository.git("tag", "1.0.0")
    repository.write("azbatch-cmk-1.0.0.tar.gz", "")

    status, recorded = publish(repository)

    assert status == 0
    assert "gh release create 1.0.0 azbatch-cmk-1.0.0.tar.gz --title azbatch.cmk 1.0.0" in recorded
    assert "## v1.0.0" in recorded
    assert "first" in recorded
    assert "## v1.1.0" not in recorded
    assert recorded.endswith("ansible-galaxy collection publish azbatch-cmk-1.0.0.tar.gz\ntoken: secret\n")
    assert recorded.count("secret") == 1


def test_a_second_run_completes_a_release(repository: Repository) -> None:
    repository.git("tag", "1.0.0")
    repository.write("azbatch-cmk-1.0.0.tar.gz", "")
    assert publish(repository, GALAXY_STATUS="1")[0] == 1

    status, recorded = publish(repository)

    assert status == 0
    assert "release create" not in recorded
    assert "collection publish" in recorded


@pytest.mark.parametrize(
    ("tag", "tarball", "token", "message"),
    [
        ("1.0.1", "azbatch-cmk-1.0.0.tar.gz", "secret", "no tag 1.0.0"),
        ("1.0.0", "azbatch-cmk-1.0.1.tar.gz", "secret", "no azbatch-cmk-1.0.0.tar.gz"),
        ("1.0.0", "azbatch-cmk-1.0.0.tar.gz", "", "GALAXY_TOKEN is not set"),
    ],
)
def test_an_incomplete_release_is_not_published(
    repository: Repository, tag: str, tarball: str, token: str, message: str
) -> None:
    repository.git("tag", tag)
    repository.write(tarball, "")

    status, error = publish(repository, GALAXY_TOKEN=token)

    assert status == 1
    assert message in error
