# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of a key that an account uses, follows and still needs."""

from __future__ import annotations

import pytest
from encrypted_account import (
    Vault,
    disable,
    enable,
    encrypt,
    protected,
    reason,
    versionless,
    works,
)


@pytest.mark.parametrize("delay", ["3600", "86400"])
def test_account_follows_late(policy_vault: Vault, delay: str) -> None:
    control = policy_vault.sandbox.control
    control.behavior(follower_delay=delay, previous_version_needed="0")
    first = protected(policy_vault, versioned=False)
    policy_vault.keys.rotate_key("key1")
    control.advance(int(delay) - 10)
    disable(policy_vault, first)
    assert reason(policy_vault.sandbox) == f"The key '{first.id}' is disabled."
    enable(policy_vault, first)
    control.advance(20)
    disable(policy_vault, first)
    assert works(policy_vault.sandbox)


def test_account_that_begins_to_follow_takes_the_newest_version(policy_vault: Vault) -> None:
    """The account takes it regardless of its age, because an account never moves to an earlier version."""
    first = protected(policy_vault)
    policy_vault.sandbox.control.advance(2 * 86400)
    second = policy_vault.keys.rotate_key("key1")
    policy_vault.sandbox.control.behavior(previous_version_needed="0")
    assert encrypt(policy_vault.sandbox, versionless(first)).status_code == 200
    disable(policy_vault, first)
    assert works(policy_vault.sandbox)
    disable(policy_vault, second)
    assert reason(policy_vault.sandbox) == f"The key '{second.id}' is disabled."


@pytest.mark.parametrize("needed", ["0", "600", "86400"])
@pytest.mark.parametrize("versioned", [True, False], ids=["pinned", "follows"])
def test_rotated_account_needs_its_previous_version_for_some_time(
    policy_vault: Vault, needed: str, versioned: bool
) -> None:
    control = policy_vault.sandbox.control
    control.behavior(previous_version_needed=needed, follower_delay="0")
    first = protected(policy_vault, versioned)
    second = policy_vault.keys.rotate_key("key1")
    if versioned:
        assert encrypt(policy_vault.sandbox, str(second.id)).status_code == 200
    if needed != "0":
        control.advance(int(needed) - 10)
        disable(policy_vault, first)
        assert reason(policy_vault.sandbox) == f"The key '{first.id}' is disabled."
        enable(policy_vault, first)
        assert works(policy_vault.sandbox)
        control.advance(20)
    disable(policy_vault, first)
    assert works(policy_vault.sandbox)
