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
  confirm:
    description:
      - When to check again that nothing uses the resource that the task has disabled, deleted or revoked. Azure's lists
        may be up to three minutes out of date.
      - V(now) waits until three minutes have passed since the change, or six since a revocation. If an account or a
        pool uses the resource then, the module undoes the change.
      - V(now) also checks what earlier tasks of the run have changed with V(later) and the same options.
      - V(later) does not wait. Run a task with the same options and V(now) afterwards if RV(confirmed) is V(false),
        also if a task between them fails, such as in C(always). Several resources then wait at the same time.
    type: str
    default: now
    choices: [now, later]
"""
