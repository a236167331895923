# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The workflow that runs the experiments with Azure in GitHub: its credential, its rights and its packages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RENEW = str(ROOT / "tests" / "live" / "with-github-token")
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "live.yml").read_text())
# Waits until the file has had three tokens, and prints them.
WATCH = """
import os, time
seen = []
while len(seen) < 3:
    token = open(os.environ["AZURE_FEDERATED_TOKEN_FILE"]).read()
    if token not in seen:
        seen.append(token)
    time.sleep(0.05)
print(*seen)
"""


class GitHub:
    """The token endpoint of GitHub. `issue` makes the next token."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.issue = lambda: f"token-{len(self.asked)}"
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                github.asked.append((self.path, self.headers["Authorization"]))
                if len(github.asked) == 2:
                    # The next request is not affected.
                    self.send_error(500)
                    return
                body = json.dumps({"value": github.issue()}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def environment(self, file: Path) -> dict[str, str]:
        return {
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"http://127.0.0.1:{self.server.server_port}/?api-version=1",
            "AZURE_FEDERATED_TOKEN_FILE": str(file),
            "RENEW_SECONDS": "0.2",
        }


@pytest.fixture
def github() -> Iterator[GitHub]:
    made = GitHub()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_the_token_of_the_job_is_renewed_while_the_command_runs(github: GitHub, tmp_path: Path) -> None:
    file = tmp_path / "federated-token"

    done = subprocess.run(
        [RENEW, sys.executable, "-c", WATCH],
        env={**os.environ, **github.environment(file)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "token-1"
    assert len(done.stdout.split()) == 3
    assert {*github.asked} == {("/?api-version=1&audience=api://AzureADTokenExchange", "Bearer of-the-job")}
    assert not file.exists()


def test_the_status_of_the_command_is_kept(github: GitHub, tmp_path: Path) -> None:
    variables = {**os.environ, **github.environment(tmp_path / "token")}
    assert subprocess.run([RENEW, "bash", "-c", "exit 7"], env=variables, timeout=60, check=False).returncode == 7


def test_the_job_that_signs_in_cannot_write_and_the_job_that_writes_cannot_sign_in() -> None:
    measure, propose = WORKFLOW["jobs"]["measure"], WORKFLOW["jobs"]["propose"]
    assert WORKFLOW["permissions"] == {}
    assert measure["permissions"] == {"contents": "read", "id-token": "write"}
    assert propose["permissions"] == {"contents": "write", "pull-requests": "write"}
    # A maintainer has to approve, and the federated credential is for this environment only.
    assert measure["environment"] == "azure-live"
    assert "environment" not in propose


def test_nothing_private_is_uploaded() -> None:
    [upload] = [one for one in WORKFLOW["jobs"]["measure"]["steps"] if "upload-artifact" in one.get("uses", "")]
    assert upload["with"]["path"].split() == ["live/RESULT.*", "live/live-*.json"]


def test_all_packages_of_the_workflow_are_pinned() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "tests/live/constraints.txt").read_text().splitlines() if "==" in line
    )
    needed = (ROOT / "requirements.txt").read_text() + (ROOT / "sandbox" / "pyproject.toml").read_text()
    names = re.findall(r'^(?: +|requires = \[|record = \[)?"?([\w-]+)>=', needed, re.MULTILINE)
    assert {"azure-identity", "starlette", "requests", "hatchling"} <= {*names}
    assert {one.lower() for one in names} - pins.keys() == {"build"} & {*names}
    steps = (step.get("run", "") for step in WORKFLOW["jobs"]["measure"]["steps"])
    [installed] = [run for run in steps if "scripts/venv" in run]
    named = {*installed.partition("requirements.txt ")[2].split()}
    assert {"ansible-core", "pytest"} <= named <= pins.keys()
