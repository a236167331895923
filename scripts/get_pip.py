# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replaces the get-pip.py of ansible-test: installs the pip that Python includes, and upgrades it from the index."""

import ensurepip
import os
import subprocess
import sys

environment = dict(os.environ)  # A copy, because ensurepip removes the PIP_* variables from os.environ.
ensurepip.bootstrap(default_pip=True)

wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
pip = [sys.executable, "-m", "pip"]
code = subprocess.call([*pip, "install", "--quiet", "--upgrade", *wanted], env=environment)
if not code and "--no-setuptools" in sys.argv:
    subprocess.call([*pip, "uninstall", "--quiet", "--yes", "setuptools"], env=environment, stderr=subprocess.DEVNULL)
sys.exit(code)
