# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A headless Chromium, and its errors and warnings."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from sandbox_client import plain_environment

# scripts/browser looks for the same names.
NAMES = ("chromium", "chromium-browser", "google-chrome")
# Requests go only to this machine. Chromium's own sandbox is off, because it does not work as root, as in CI.
OPTIONS = (
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Another host name that resolves to this machine, as after DNS rebinding.
REBOUND = "rebound.test"
RESOLVED = f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
REMEDY = "no Chromium here: scripts/browser installs it, or says how; WITHOUT_BROWSER=1 skips these tests"


@dataclass
class View:
    """A page with its complaints: errors and warnings of the console, errors of scripts, and failed requests."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    """A running browser. Until it is closed, the event loop of this thread counts as running, so asyncio.run fails."""
    if os.environ.get("WITHOUT_BROWSER"):
        pytest.skip("WITHOUT_BROWSER is set")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail(REMEDY)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*OPTIONS, RESOLVED], env=dict(plain_environment()), timeout=120_000
        )
        with contextlib.closing(browser):
            yield browser


@contextlib.contextmanager
def viewing(browser: Browser, *, dark: bool = False, width: int = 1360) -> Iterator[View]:
    with contextlib.closing(
        browser.new_context(
            color_scheme="dark" if dark else "light", viewport={"width": width, "height": 900}, reduced_motion="reduce"
        )
    ) as context:
        view = View(context.new_page())
        view.page.on("console", lambda said: _note(view, said.type in ("error", "warning"), said.text))
        view.page.on("pageerror", lambda error: _note(view, True, str(error)))
        view.page.on("requestfailed", lambda request: _note(view, True, f"{request.url}: {request.failure}"))
        view.page.on("request", lambda request: view.hosts.add(request.url.split("/")[2]))
        yield view


def _note(view: View, wrong: bool, text: str) -> None:
    if wrong:
        view.complaints.append(text)
