# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every module of the sandbox can be imported first."""

from __future__ import annotations

import subprocess
import sys

from sandbox_client import plain_environment

# A new interpreter for each module would take a minute. This one forgets the sandbox's modules before each import, and
# keeps the libraries.
IMPORT_EACH = """
import importlib, pkgutil, sys, traceback
import azure_sandbox
names = [one.name for one in pkgutil.walk_packages(azure_sandbox.__path__, "azure_sandbox.")]
for name in ["azure_sandbox", *names]:
    for known in [one for one in sys.modules if one.partition(".")[0] == "azure_sandbox"]:
        del sys.modules[known]
    try:
        importlib.import_module(name)
    except ImportError:
        print(name, traceback.format_exc().splitlines()[-1])
print(len(names), "modules")
"""


def test_every_module_can_be_imported_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH],
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *failed, last = done.stdout.splitlines()
    assert failed == []
    assert int(last.split()[0]) > 90
