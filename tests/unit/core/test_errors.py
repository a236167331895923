# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The messages of errors, and how long they may be."""

from __future__ import annotations

import pytest
from documents import KEY, NEW, SUBSCRIPTION
from lengths import LONGEST, why_too_long

from ansible_collections.azbatch.cmk.plugins.module_utils._core import errors
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, InvalidOption
from ansible_collections.azbatch.cmk.plugins.module_utils._core.rights import grant
from ansible_collections.azbatch.cmk.plugins.module_utils._core.summary import scope_text


def test_the_limit_is_that_of_the_collection() -> None:
    assert errors.LONGEST == LONGEST


@pytest.mark.parametrize(
    ("msg", "facts", "is_too_long"),
    [
        pytest.param("x" * 200, {}, False, id="short enough"),
        pytest.param("x" * 201, {}, True, id="too long"),
        pytest.param("a\nb", {}, True, id="lines of one problem"),
        pytest.param("a\nb", {"problems": []}, False, id="a line for each problem"),
        pytest.param("x" * 201 + "\nb", {"problems": []}, True, id="a line is too long"),
        pytest.param("x" * 201, {"code": "audit_failed"}, False, id="a report"),
    ],
)
def test_the_length_of_each_error_of_a_test_is_checked(msg: str, facts: dict[str, object], is_too_long: bool) -> None:
    assert (why_too_long(msg, facts) is not None) is is_too_long


def test_an_id_is_shortened_if_another_value_has_it() -> None:
    msg = f"{KEY}/{NEW} in {SUBSCRIPTION}."

    assert CmkError(msg).result()["msg"] == msg
    assert CmkError(msg, remedy=msg).result()["msg"] == msg
    assert CmkError(msg, key=f"{KEY}/{NEW}".upper()).result()["msg"] == f"{KEY}/{NEW[:8]}… in {SUBSCRIPTION}."
    assert CmkError(msg).extended(id=SUBSCRIPTION).result()["msg"] == f"{KEY}/{NEW} in {SUBSCRIPTION[:8]}…."


def test_a_sentence_begins_another_line_if_the_line_would_be_too_long() -> None:
    failure = CmkError("x" * 180, restored=True)

    assert failure.extended("It ended.").msg == f"{'x' * 180}. It ended."
    assert failure.extended("It ended without a change.").msg == f"{'x' * 180}\nIt ended without a change."


def test_the_value_of_an_option_is_cut_but_returned() -> None:
    failure = InvalidOption("name", "x" * 300, "it is too long.", "Use a shorter one.").result()

    assert failure["msg"] == f"O(name) is '{'x' * 59}…: it is too long. Use a shorter one."
    assert failure["value"] == "x" * 300


def test_a_report_has_the_texts_of_others() -> None:
    failure = CmkError("No.", azure={"code": "Busy", "message": "Try again"}, details="Second try.")

    assert failure.reported == "No. Azure reports: (Busy) Try again. Second try."
    assert CmkError("No.").reported == "No."
    assert failure.texts == {"azure": {"code": "Busy", "message": "Try again"}, "details": "Second try."}


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        (f"/subscriptions/{SUBSCRIPTION}", f"the subscription {SUBSCRIPTION}"),
        (f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg", "the resource group rg"),
        (f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv", "the key vault kv"),
        (f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Other/things/one", "the things one"),
        ("Azure Resource Graph", "Azure Resource Graph"),
    ],
)
def test_a_scope_is_named(scope: str, text: str) -> None:
    assert scope_text(scope) == text


@pytest.mark.parametrize(
    ("action", "remedy"),
    [
        ("Microsoft.KeyVault/vaults/keys/create/action", "Assign Key Vault Crypto Officer."),
        ("Microsoft.KeyVault/vaults/read", "Assign Key Vault Reader."),
        ("Microsoft.KeyVault/vaults/write", "Assign Key Vault Contributor."),
        ("Microsoft.Batch/batchAccounts/write", "Assign Azure Batch Account Contributor."),
        ("Microsoft.Authorization/roleAssignments/write", "Assign Role Based Access Control Administrator."),
        ("Microsoft.Other/things/write", "Assign a role that allows it."),
        ("the key permission create", "Add it to the caller's access policy of the vault."),
    ],
)
def test_a_right_is_granted_by_a_role(action: str, remedy: str) -> None:
    assert grant(action) == remedy
