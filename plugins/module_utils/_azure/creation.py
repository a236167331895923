# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds out whether a resource exists although a read does not find it. Azure is eventually consistent, and a PUT
would replace a resource that another task or user has created.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .._core.concurrent import value_or_error
from .._core.errors import CmkError, Denied, PlanOutdated, Refused, TimedOut
from .._documents.refs import is_free, name_check
from .driver import Driver
from .session import Session

# How long to wait until a read shows a resource whose name is taken. If the resource of another customer has the
# name, no read shows it.
_APPEARS_WITHIN_SECONDS = 60


def until_shown(
    session: Session,
    driver: Driver,
    resource: str,
    *,
    is_shown: Callable[[], bool],
    is_listed: Callable[[], bool] = lambda: True,
    so_far: str = "is listed in its resource group",
) -> None:
    """Wait until a read shows the resource (`key vault kv`), or until the resource is no longer listed. `so_far` is how
    Azure has shown that the resource exists.

    Raises TimedOut after wait_timeout.
    """
    wait = session.wait_timeout

    def hidden() -> TimedOut | None:
        driver.forget()
        if is_shown() or not is_listed():
            return None
        return TimedOut(
            f"The {resource} {so_far}, but Azure did not show it for {wait} s. It is not created a second time. Run "
            "the task again.",
            option="wait_timeout",
            value=wait,
        )

    failure = session.poll_until(hidden, time.monotonic() + wait, f"Azure to show the {resource}")
    if failure is not None:
        raise failure


def is_name_free(driver: Driver, scope: str, resource_type: str, name: str) -> bool:
    """Whether the name is available. `scope` is a resource provider, in a subscription or a location."""
    said = driver.get(name_check(scope, resource_type, name), time.monotonic())
    return said is not None and is_free(said)


def require_missing(
    session: Session,
    resource: str,
    taken: Refused,
    *,
    is_free: Callable[[], bool],
    is_shown: Callable[[], bool],
) -> None:
    """Check that the resource (`key vault kv`) is still missing just before it is created.

    `is_free` returns whether the name is available, `is_shown` whether a read shows the resource. Raises
    PlanOutdated if a read shows the resource now, and `taken` if the name is taken and no read shows the resource.
    """

    def complaint() -> CmkError | None:
        free = value_or_error(is_free)
        if free is True:
            return None
        if is_shown():
            raise outdated(resource)
        # A caller who may not check names can still read the resource.
        if isinstance(free, Denied):
            if session.predicts:
                session.warnings.append(_unknown_name(resource, free))
            return None
        return free or taken

    wait = min(session.wait_timeout, _APPEARS_WITHIN_SECONDS)
    failure = session.poll_until(complaint, time.monotonic() + wait, "Azure to show the resource whose name is taken")
    if failure is not None:
        raise failure


def _unknown_name(resource: str, denied: Denied) -> str:
    return (
        f"It is not known whether the name of the {resource} is available. {denied.msg} If it is not available, Azure "
        "refuses the creation."
    )


def outdated(resource: str) -> PlanOutdated:
    return PlanOutdated(
        f"The {resource} was created by somebody else just before this task would have created it. This task "
        "changed nothing. Run the task again."
    )
