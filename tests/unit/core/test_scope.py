# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a failure concerns only an account (`scope: account`), so that it stops no other."""

from __future__ import annotations

from contextlib import suppress

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sdk import no_response
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    AccountUnavailable,
    CmkError,
    InvalidOption,
    NotConverged,
    Refused,
    Rejected,
    TimedOut,
    Unavailable,
)

CONNECTION = {
    **dict.fromkeys(("subscription_id", "tenant", "client_id", "secret", "x509_certificate_path", "profile")),
    "auth_source": "env",
    "cloud_environment": "AzureCloud",
    "wait_timeout": 1,
}
GROUP = "/subscriptions/s/resourceGroups/rg"
ACCOUNT = f"{GROUP}/providers/Microsoft.Batch/batchAccounts/mybatch"
VAULT = f"{GROUP}/providers/Microsoft.KeyVault/vaults/myvault"


@pytest.mark.parametrize(
    ("error", "is_of_account"),
    [
        pytest.param(no_response("read the key", "no route", "vault_unreachable"), True, id="no route to the vault"),
        pytest.param(no_response("read the account", "no route", "unreachable"), False, id="no route to Azure"),
        pytest.param(Refused("In use."), True, id="refused"),
        pytest.param(AccountUnavailable("It lost its key."), True, id="unavailable"),
        pytest.param(Unavailable("Busy."), False, id="a service"),
        pytest.param(NotConverged("Not shown."), False, id="not confirmed"),
        pytest.param(TimedOut("Too slow."), False, id="timeout"),
        pytest.param(InvalidOption("name", "x", "It is wrong.", "Correct it."), False, id="an option"),
    ],
)
def test_the_scope_of_an_error(error: CmkError, is_of_account: bool) -> None:
    assert (error.result().get("scope") == "account") is is_of_account


@pytest.mark.parametrize(
    ("ref", "refusal", "is_of_account"),
    [
        pytest.param(ACCOUNT, None, False, id="the account was changed"),
        pytest.param(ACCOUNT, Unavailable("Busy."), False, id="the account may have been changed"),
        pytest.param(ACCOUNT, Rejected("A lock."), True, id="Azure has refused the change"),
        pytest.param(VAULT, None, True, id="something that accounts share was changed"),
    ],
)
def test_a_failure_after_a_write(ref: str, refusal: CmkError | None, is_of_account: bool) -> None:
    cloud = Cloud(CONNECTION)
    body = {"properties": {"encryption": {"keySource": "Microsoft.Batch"}}}

    def fail() -> None:
        with cloud.task():
            with suppress(CmkError), cloud._session.journal.writing("PATCH", ref, body, undoes=False):
                if refusal:
                    raise refusal
            raise Refused("In use.")

    with pytest.raises(Refused) as failed:
        fail()
    assert (failed.value.result().get("scope") == "account") is is_of_account


def test_a_failure_that_left_something_taken_away() -> None:
    with pytest.raises(Refused) as failed, Cloud(CONNECTION).task():
        raise Refused("In use.", restore_failure={"msg": "Busy."})
    assert "scope" not in failed.value.result()
