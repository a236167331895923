# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options of a key and its new versions; `NEW_KEY` of module_utils/_arguments.py has the same options."""

    DOCUMENTATION = r"""
options:
  key_type:
    description:
      - Type of the key, V(RSA), or V(RSA-HSM) in a premium vault. The default of a new key is V(RSA).
      - The module fails if an existing key has another type.
    type: str
  key_size:
    description:
      - Size of the key in bits, 2048, 3072 or 4096. The default of a new key is 2048.
      - The module fails if an existing version has another size, unless rotation is due.
    type: int
  expires_in:
    description:
      - Period after which a new version expires, counted from its creation, such as V(90d) or the ISO 8601 duration
        V(P1Y). A month counts as 30 days, a year as 365. It must be more than 18 days, because a version is replaced
        nine days before it expires.
      - By default, a new version does not expire. Existing versions are not changed.
    type: str
  rotation_policy:
    description:
      - When Key Vault automatically creates new versions. An account that follows the latest version uses the new
        versions.
      - Notifications in an existing policy are not changed.
      - All tasks and hosts of a run must request the same policy for a key. Otherwise the run would change the policy
        back and forth.
    type: dict
    suboptions:
      expiry_time:
        description: Period after which versions that the policy creates expire, as a duration of 28 days or more.
        type: str
      time_after_create:
        description: Period after the creation of a version when Key Vault creates the next version, as a
          duration such as V(90d).
        type: str
      time_before_expiry:
        description: Period before the expiry of a version when Key Vault creates the next version, as a
          duration such as V(90d).
        type: str
"""
