# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The option for the users of a vault; `VAULT_USERS` of module_utils/_arguments.py has the same option."""

    DOCUMENTATION = r"""
options:
  vault_used_by:
    description:
      - Which services use the vault.
      - With V(any), resources of all services count as users, such as storage accounts, disk encryption
        sets, SQL servers and Cosmos DB accounts. Before a task disables, deletes or revokes something, it finds them
        with one query of Azure Resource Graph in all subscriptions that the caller can list.
      - Azure Resource Graph leaves out what the caller may not read. Therefore the caller needs the right C(*/read) at
        each of these subscriptions, for example by the role Reader. Without the right, or if the query fails, a task
        that would disable, delete or revoke something fails with the code V(users_unknown), unless C(force) is set.
      - Azure Resource Graph does not show encryption protectors of SQL, encryption scopes of storage accounts, volume
        groups of Elastic SAN and search indexes. A warning names them when something is disabled, deleted or revoked.
      - With V(batch), only Batch accounts and their pools count. Use it if no other service uses the vault.
    type: str
    default: any
    choices: [any, batch]
"""
