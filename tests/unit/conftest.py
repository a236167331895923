# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A browser, and the settings of Hypothesis: no files in the checkout, and no deadline, which would fail tests on slow
machines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir
from playwright.sync_api import Browser

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "azbatch-cmk-hypothesis")
settings.register_profile("azbatch.cmk", database=None, deadline=None)
settings.load_profile("azbatch.cmk")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.started() as started:
        yield started


@pytest.fixture
def view(chromium: Browser) -> Iterator[browser.View]:
    """A page that may complain about nothing and may read only files."""
    with browser.viewing(chromium) as view:
        yield view
        assert view.complaints == []
        assert view.hosts <= {""}
