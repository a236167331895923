# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a resource exists although a read does not find it. Azure is eventually consistent, and a PUT would replace a
resource that another task or user has created. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from typing import Any

from .._core.docs import Docs, Ref, Wait
from .._core.errors import CmkError, Denied, Refused, TimedOut, created_by_others
from .._documents import refs

_APPEARS_WITHIN_SECONDS = 60


def not_shown(resource: str, wait_timeout: int, so_far: str = "is listed in its resource group") -> Wait:
    """To be raised until a read shows the resource (`key vault kv`). `so_far` is how Azure has shown that the resource
    exists."""
    complaint = TimedOut(
        f"The {resource} {so_far}, but Azure did not show it for {wait_timeout} s. It is not created a second time. "
        "Run the task again.",
        option="wait_timeout",
        value=wait_timeout,
    )
    return Wait(complaint, f"Azure to show the {resource}")


def require_missing(
    docs: Docs, resource: str, ref: Ref[Any], name: refs.NameCheck, taken: Refused, wait_timeout: int
) -> tuple[str, ...]:
    """Check that the resource (`key vault kv`) is still missing just before it is created: its name is available.
    Returns a warning if the caller may not check that.

    Raises PlanOutdated if a read shows the resource now, and `taken` if the name is taken and no read shows the
    resource.
    """
    said = docs.known(name)
    if said is not None and not isinstance(said, CmkError) and refs.is_free(said):
        return ()
    if docs.get(ref) is not None:
        raise created_by_others(resource)
    # A caller who may not check names can still read the resource.
    if isinstance(said, Denied):
        return (
            f"It is not known whether the name of the {resource} is available. {said.reported} If it is not available, "
            "Azure refuses the creation.",
        )
    raise Wait(
        said if isinstance(said, CmkError) else taken,
        "Azure to show the resource whose name is taken",
        min(wait_timeout, _APPEARS_WITHIN_SECONDS),
    )
