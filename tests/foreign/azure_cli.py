# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the Azure CLI against a sandbox, with a separate configuration folder."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox_client import Sandbox, plain_environment

# Disables telemetry, the installation of extensions, and questions to the user.
QUIET = {
    "AZURE_CORE_COLLECT_TELEMETRY": "false",
    "AZURE_EXTENSION_USE_DYNAMIC_INSTALL": "no",
    "AZURE_CORE_NO_COLOR": "true",
    "AZURE_CORE_OUTPUT": "json",
}


@dataclass
class Az:
    command: Path
    sandbox: Sandbox
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**plain_environment(), **self.sandbox.environment, **QUIET, "AZURE_CONFIG_DIR": str(self.folder)}

    def __call__(self, line: str) -> Any:
        """The output of a command that succeeds."""
        done = self._run(line)
        assert done.returncode == 0, f"az {line}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def refused(self, code: str, line: str) -> str:
        """The output of a command that fails with an error code of Azure."""
        done = self._run(line)
        assert done.returncode != 0, f"az {line}\n{done.stdout}"
        # `az` prints the first form, `az rest` the body of the response, and a sign-in the error of Microsoft Entra ID.
        forms = (rf"ERROR: \({code}\) ", rf'"code":"{code}"', rf"ERROR: {code}: ")
        assert any(re.search(form, done.stderr) for form in forms), f"az {line}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr

    def _run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.command, *shlex.split(line)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def sign_in(self, client_id: str, proof: str) -> Any:
        return self(f"login --service-principal --username {client_id} {proof} --tenant {self.sandbox.tenant_id}")
