# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The option of modules that the role recover uses; `REPAIR` of module_utils/_arguments.py has the same option."""

    DOCUMENTATION = r"""
options:
  causes_so_far:
    description:
      - RV(azbatch.cmk.batch_encryption_info#module:causes_so_far) of the last check. If the task fails, the message
        names the causes that earlier tasks of the role P(azbatch.cmk.recover#role) have repaired.
    type: list
    elements: str
    default: []
"""
