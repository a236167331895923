# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A creation or a deletion takes effect, and the task does not get its response. The SDK sends the request again, and
the task reports its own change."""

from __future__ import annotations

import pytest
from one_process import OneProcess
from service import GROUP, LOCATION, Service

# How Azure refuses the second try, and the code of the error if that is the result of the task.
REFUSALS: dict[str, tuple[int, str, str]] = {
    "forbidden": (403, "RequestDisallowedByPolicy", "permission_denied"),
    "not found": (404, "ResourceGroupNotFound", "resource_group_not_found"),
    "conflict": (409, "Conflict", "rejected_by_service"),
}


def refuse_second_try(service: Service, path: str, refusal: str, *, is_first_handled: bool) -> None:
    """The response to the first try of the creation is lost. `is_first_handled`: the first try takes effect."""
    match = {"method": "PUT", "path": path}
    status, code, _result = REFUSALS[refusal]
    answer = {"status": status, "body": {"error": {"code": code, "message": "No, says the test."}}}
    service.sandbox.control.fault(match=match, times=1, answer={"status": 503}, handled=is_first_handled)
    service.sandbox.control.fault(match=match, skip=1, times=1, answer=answer)


ACCOUNT = {"resource_group": GROUP, "name": "account1", "location": LOCATION}


@pytest.mark.parametrize("is_created", [True, False], ids=["created", "not created"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_second_try_to_create_an_account_is_refused(
    runner: OneProcess, service: Service, refusal: str, is_created: bool
) -> None:
    refuse_second_try(service, "/batchAccounts/account1", refusal, is_first_handled=is_created)

    report = runner.module("batch_account_identity", ACCOUNT)

    code = None if is_created else REFUSALS[refusal][2]
    assert (report["changed"], report.get("code")) == (is_created, code), report
    assert service.accounts() == ["account1"] * is_created
