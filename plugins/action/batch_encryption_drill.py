# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs azbatch.cmk.batch_encryption_drill inside Ansible's own process."""

from __future__ import annotations

from ansible_collections.azbatch.cmk.plugins.modules import batch_encryption_drill
from ansible_collections.azbatch.cmk.plugins.plugin_utils._in_process import action_for

ActionModule = action_for(batch_encryption_drill)
