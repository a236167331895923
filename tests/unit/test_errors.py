# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors: a human-readable message, a stable code for playbooks, and facts."""

from __future__ import annotations

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption, NotFound


def test_result_has_message_code_and_facts() -> None:
    error = NotFound("There is no key batch.", option="name", value="batch", remedy="Correct name.")

    assert error.result() == {
        "msg": "There is no key batch.",
        "code": "not_found",
        "scope": "account",
        "option": "name",
        "value": "batch",
        "remedy": "Correct name.",
    }
    assert str(error) == error.msg


def test_invalid_option_has_option_value_problem_and_remedy() -> None:
    error = InvalidOption("key_size", 1024, "Batch takes other sizes.", "Use 2048.")

    assert error.msg == "O(key_size) is 1024: Batch takes other sizes. Use 2048."
    assert error.result() == {
        "msg": error.msg,
        "code": "invalid_option",
        "option": "key_size",
        "value": 1024,
        "remedy": "Use 2048.",
    }
