# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The option for the time without use; `UNUSED` of module_utils/_arguments.py has the same option."""

    DOCUMENTATION = r"""
options:
  unused_for:
    description:
      - How long accounts and pools must not have used the resource before the task disables, deletes or revokes the
        resource, as a duration such as V(14d).
      - Microsoft does not document how long Batch needs a key after an account has left the key. If the time is shorter
        than seven days, accounts may lose their key, and the module returns a warning that names the accounts.
      - V(P0D) does not wait. Use it if a key has leaked.
    type: str
    default: P7D
"""
