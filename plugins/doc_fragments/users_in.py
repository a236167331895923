# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The option for the subscriptions of users; `USERS_IN` of module_utils/_arguments.py has the same option."""

    DOCUMENTATION = r"""
options:
  users_in:
    description:
      - Ids of the subscriptions in which accounts, pools and resources can be that use the vault. By default, all
        subscriptions that Azure lists for the caller, and O(subscription_id).
      - Azure lists a subscription in which the caller has any role, for example at one resource group. If not all users
        of a listed subscription can be read, the task fails with the code V(users_unknown). Use this option to leave
        out such a subscription if nothing in it uses the vault.
      - Users in other subscriptions are not searched for. A warning names those subscriptions that Azure lists.
    type: list
    elements: str
"""
