# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first task of all roles: which runs are refused."""

from __future__ import annotations

import pytest
from documents import KEY, PRINCIPAL
from readiness import EACH_ROLE, ELSEWHERE, PINNED_NEW, PINNED_OLD, READS, WRITE, Azure, check, on, refused

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption
from ansible_collections.azbatch.cmk.plugins.modules import batch_encryption_info


@EACH_ROLE
@pytest.mark.parametrize("option", ["vault_name", "key_name"])
def test_a_check_requires_vault_and_key_names(role: str, option: str) -> None:
    with pytest.raises(InvalidOption) as failed:
        check(role, Azure(on(KEY)), **{option: None})

    assert failed.value.facts["option"] == option


def test_ansible_requires_the_names_of_the_account() -> None:
    required = {name for name, option in batch_encryption_info.ARGUMENTS.items() if option.get("required")}

    assert required == {"resource_group", "account_name"}


def test_a_malformed_name_is_refused() -> None:
    for role in ("provision", "rotate", "revert", "recover"):
        assert refused(role, Azure(on(KEY)), account_name="my-batch").facts["option"] == "account_name"
    assert refused("provision", Azure(), vault_name="v").facts["option"] == "vault_name"
    assert refused("provision", Azure(), key_name="my_key").facts["option"] == "key_name"


@pytest.mark.parametrize("role", ["rotate", "revert"])
def test_an_account_that_is_missing(role: str) -> None:
    assert refused(role, Azure()).code == "account_not_found"
    azure = Azure()
    skipped = check(role, azure, missing="skip", previous_key="disable")

    assert (skipped.changed, skipped.after["exists"]) == (False, False)
    assert "mybatch" in skipped.warnings[0]
    assert azure.group_may_be_missing
    # Nothing is read.
    assert azure.asked == []


@pytest.mark.parametrize("missing", ["fail", "skip"])
def test_an_account_that_is_to_be_created_may_be_missing_and_its_group_may_not(missing: str) -> None:
    azure = Azure()

    assert check("provision", azure, missing=missing).after == {"exists": False}
    assert not azure.group_may_be_missing


@EACH_ROLE
def test_the_account_is_reported_as_it_is(role: str) -> None:
    checked = check(role, Azure(on(PINNED_NEW))).after

    assert (checked["exists"], checked["key_identifier"], checked["principal_ids"]) == (True, PINNED_NEW, [PRINCIPAL])
    assert "available" not in checked
    assert ("previous_key_identifier" in checked) is (role == "revert")


@EACH_ROLE
@pytest.mark.parametrize(
    ("used", "is_read_again"),
    [(KEY, False), (PINNED_OLD.upper().replace("HTTPS", "https"), False), (f"{KEY}2", True), (ELSEWHERE, True)],
)
def test_an_account_on_another_key_is_read_again(role: str, used: str, is_read_again: bool) -> None:
    """The run's list may show the previous key."""
    azure = Azure(on(KEY))
    check(role, azure)

    assert azure.refresh_if(on(used)) is is_read_again
    assert azure.refresh_if(on(None)) is True


@EACH_ROLE
def test_in_check_mode_missing_rights_are_warnings(role: str) -> None:
    """Another caller may make the change."""
    azure = Azure(on(None if role == "provision" else PINNED_OLD), allowed=READS, is_rehearsal=True)
    outcome = check(role, azure, follow_latest=True)

    assert any(WRITE in warning for warning in outcome.warnings)
    assert outcome.after["exists"]
