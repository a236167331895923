# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The experiment with locks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..azure import LOCKS, Response
from ..experiment import Experiment, Outcome
from ..lab import Lab

_HERE = "providers/Microsoft.Authorization"


def locks(lab: Lab) -> Outcome:
    account = lab.once("account", lab.account)
    for level in ("ReadOnly", "CanNotDelete"):
        lock = f"{lab.account_path(account)}/{_HERE}/locks/azbatch-live"
        lab.azure.arm("PUT", lock, LOCKS, {"properties": {"level": level}}).required()
        lab.settle()
        requests: dict[str, Callable[[], Response]] = {
            **lab.uses(account),
            "delete the account": partial(lab.delete_account, account),
        }
        for what, request in requests.items():
            lab.case(f"{level}: {what}", partial(_said, request, "ScopeLocked"))
        lab.azure.arm("DELETE", lock, LOCKS).required()
        lab.settle()
    return Outcome("Used and deleted an account with each kind of lock.")


def _said(request: Callable[[], Response], code: str) -> str:
    return request().checked(code).said


EXPERIMENTS = (
    Experiment(
        "locks",
        "What does a lock refuse, and how?",
        "Lock an account against changes and against its deletion, use it, try to delete it, and remove the lock.",
        locks,
        minutes=3,
    ),
)
