# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`module_defaults: {group/azbatch.cmk.azure: ...}` applies to every module, in process and as a separate process."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
GROUP = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))["action_groups"]["azure"]


def plugins(kind: str) -> list[str]:
    return sorted(file.stem for file in (ROOT / "plugins" / kind).glob("*.py") if file.stem != "__init__")


def test_group_lists_every_module_and_nothing_else() -> None:
    assert sorted(GROUP) == plugins("modules")


def test_every_module_has_its_action() -> None:
    assert plugins("action") == plugins("modules")
