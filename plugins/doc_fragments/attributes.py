# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The support of every module for check mode, diff mode and idempotency."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description:
      - Can run in C(check_mode) and return changed status prediction without modifying Azure.
      - In check mode, later tasks of the run read the predicted changes of this task, if both run in the process of
        Ansible.
      - A value that only Azure can assign is shown as a text that names its resource, and the text can be passed on.
    support: full
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
  idempotent:
    description: When run twice in a row outside check mode with the same options, the second run changes nothing.
    support: full
  action_group:
    description: Use C(group/azbatch.cmk.azure) in C(module_defaults) to set the connection options.
    support: full
    membership:
      - azbatch.cmk.azure
"""
