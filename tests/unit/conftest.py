# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of Hypothesis: no files in the checkout, and no deadline, which would fail tests on slow machines."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "azbatch-cmk-hypothesis")
settings.register_profile("azbatch.cmk", database=None, deadline=None)
settings.load_profile("azbatch.cmk")
