# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every module promises of check mode, diff mode and repetition."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description:
      - Can run in C(check_mode) and tell what would change without changing it.
      - Later tasks of the run in check mode see what this task would change, if both run in the process of Ansible.
      - Values that only Azure can give are shown as C((known after apply\)), and can be passed on.
    support: full
  diff_mode:
    description: Tells what has changed, or in check mode would change, when in diff mode.
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
