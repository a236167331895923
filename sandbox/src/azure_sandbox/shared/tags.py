# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tags, which Resource Manager checks itself, whosever resource they are for."""

from __future__ import annotations

from typing import Any

from . import errors


def read(value: Any) -> dict[str, str]:
    """As they were sent; none for null."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise errors.invalid_request_content("The value of 'tags' must be an object of strings")
    return dict(value)
