# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The messages of this collection's playbooks about accounts and keys. Ansible loads this plugin with the playbooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.azbatch.cmk.plugins.plugin_utils._accounts import (
    messages,
    shown,
    unused_messages,
)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "azbatch_cmk_messages": messages,
            "azbatch_cmk_shown": shown,
            "azbatch_cmk_unused_messages": unused_messages,
        }
