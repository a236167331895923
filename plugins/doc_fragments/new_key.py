# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What a key and its new versions are like; `NEW_KEY` of module_utils/_arguments.py has the same options."""

    DOCUMENTATION = r"""
options:
  key_type:
    description:
      - V(RSA), or V(RSA-HSM) in a premium vault. A new key is V(RSA) by default.
      - An existing key of another type is refused.
    type: str
  key_size:
    description:
      - Bits of the key, 2048, 3072 or 4096. A new key has 2048 by default.
      - A version that exists and differs is refused, unless a new version is due.
    type: int
  expires_in:
    description:
      - When the version expires, counted from its creation, as an ISO 8601 duration such as V(P1Y) or V(P90D).
        A month counts as 30 days, a year as 365.
      - Without it a new version does not expire. Versions that exist already are left as they are.
    type: str
  rotation_policy:
    description:
      - When Key Vault is to make new versions by itself. An account that follows the key takes them over.
      - Notifications that the policy holds stay as they are.
    type: dict
    suboptions:
      expiry_time:
        description: When versions made by the policy expire, as an ISO 8601 duration of 28 days or more.
        type: str
      time_after_create:
        description: How long after its creation a version is followed by a new one, as an ISO 8601 duration.
        type: str
      time_before_expiry:
        description: How long before it expires a version is followed by a new one, as an ISO 8601 duration.
        type: str
"""
