# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The experiment with an account that is created or deleted at that time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..azure import BATCH, Response
from ..experiment import Experiment, Outcome
from ..lab import Lab, random_name


def _said(request: Callable[[], Response]) -> str:
    return request().checked().said


def changing_accounts(lab: Lab) -> Outcome:
    """Requests to an account that is created or deleted."""
    name = random_name("ba")
    with lab.azure.undisturbed():
        created = lab.azure.arm("PUT", lab.account_path(name), BATCH, {"location": lab.place.location}).checked()
        _probe(lab, name, "during the creation")
    lab.finished(created)
    lab.settle()
    with lab.azure.undisturbed():
        deleted = lab.azure.arm("DELETE", lab.account_path(name), BATCH).checked()
        _probe(lab, name, "during the deletion")
    lab.finished(deleted)
    lab.case("GET after the deletion", partial(_said, partial(lab.azure.arm, "GET", lab.account_path(name), BATCH)))
    return Outcome("Sent requests to an account while it was created and deleted.")


def _probe(lab: Lab, name: str, when: str) -> None:
    path = lab.account_path(name)
    change = partial(lab.change, name, tags={"probe": "1"})

    def read() -> str:
        response = lab.azure.arm("GET", path, BATCH).checked()
        state = response.document["properties"]["provisioningState"] if response.ok else ""
        return f"{response.said} {state}".strip()

    lab.case(f"GET {when}", read)
    # Here, it is a result that another operation is in progress.
    lab.case(f"PATCH {when}", lambda: change().checked("AccountOperationInProgress").said)
    lab.case(f"list of pools {when}", partial(_said, partial(lab.azure.arm, "GET", f"{path}/pools", BATCH)))


EXPERIMENTS = (
    Experiment(
        "changing_accounts",
        "How does Batch respond to requests for an account that is created or deleted at that time?",
        "Create and delete an account, and send requests meanwhile.",
        changing_accounts,
        minutes=2,
    ),
)
