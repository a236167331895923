# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role switch by its playbook: the move of an account to a different key, and disabling of the key that it left."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from harness import Run
from one_process import RolesRunner
from role_runs import (
    VARS,
    play_role,
    result,
    steps,
    unchanged,
    warnings,
    wrote,
)
from service import DAY, Service

AT_ONCE = {"cmk_unused_for": "P0D"}
ACCESS = "Grant the account access to the key"
MOVE = "Move the account to the key"


def switch(roles: RolesRunner, **options: Any) -> Run:
    return play_role(roles, "switch", **options)


def keyless(identifier: str) -> str:
    """The identifier of the key without the version."""
    return identifier.rpartition("/")[0]


@pytest.mark.parametrize("was_pinned", [True, False])
def test_an_account_stays_pinned_or_keeps_following(roles: RolesRunner, service: Service, was_pinned: bool) -> None:
    """The identifier names no version. If the account is pinned, the newest version cannot be used."""
    _principal, first = service.on_key()
    if not was_pinned:
        service.point(keyless(first))
    usable = str(service.make_key("other").id)
    if was_pinned:
        service.make_key("other")
        service.disable("other")
    wanted = {"cmk_new_key_identifier": keyless(usable)}
    predicted = play_role(roles, "switch", check=True, **wanted)
    run = switch(roles, **wanted)
    expected = usable if was_pinned else keyless(usable)
    assert service.encryption() == expected
    assert result(run)["follows_latest"] is not was_pinned
    assert result(predicted)["key_identifier"] == expected
    assert switch(roles, **wanted).writes == []


def test_to_a_vault_that_no_list_shows_yet(roles: RolesRunner, service: Service) -> None:
    """The vault is in the resource group of the account, where a read finds it."""
    service.on_key()
    service.sandbox.control.behavior(list_lag="1200")
    service.make_vault("vault-two", rbac=True)
    other = service.make_key("other", "vault-two").id

    run = switch(roles, cmk_new_key_identifier=other)

    assert wrote(run) == ["PUT role vault-two", "PATCH account account1"]
    assert service.encryption() == other


def test_the_key_that_the_account_left_is_disabled_after_the_margin(roles: RolesRunner, service: Service) -> None:
    _, first = service.on_key()
    other = service.make_key("other").id
    wanted = {"cmk_new_key_identifier": other, "cmk_previous_key": keyless(first), "cmk_unused_key": "disable"}
    run = switch(roles, **wanted)
    assert (steps(run), wrote(run)) == (["encryption"], ["PATCH account account1"])
    assert result(run)["key_kept_for"] == [service.account_id()]
    until = result(run)["key_kept_until"]
    assert until
    assert warnings(run) == []

    service.sandbox.control.advance(6 * DAY)
    run = unchanged(switch(roles, **wanted))
    # Just after the change, a read may be older, so that the margin is counted from the time of the check.
    changed = datetime.fromisoformat(result(run)["key_kept_until"])
    assert changed <= datetime.fromisoformat(until) < changed + timedelta(minutes=1)

    service.sandbox.control.advance(DAY + 120)
    unchanged(switch(roles, cmk_new_key_identifier=other))
    predicted = play_role(roles, "switch", check=True, **wanted)
    assert (steps(predicted), wrote(predicted)) == (["key"], [])
    run = switch(roles, **wanted)
    assert (steps(run), wrote(run)) == (["key"], ["PATCH key vault-one key1"])
    assert (result(run)["key_kept_for"], result(run)["key_kept_until"]) == ([], None)
    assert warnings(run) == []
    assert (service.enabled(), service.enabled("other")) == ([False], [True])
    assert service.is_available()
    unchanged(switch(roles, **wanted))


def test_the_new_key_is_not_disabled_if_the_inventory_names_it_already(roles: RolesRunner, service: Service) -> None:
    """An inventory that is read after the switch has the new key in `cmk_key_name`."""
    service.on_key()
    other = service.make_key("other").id
    switch(roles, cmk_new_key_identifier=other)
    run = switch(roles, cmk_new_key_identifier=other, cmk_key_name="other", cmk_unused_key="disable", **AT_ONCE)
    assert steps(run) == []
    assert result(run)["key_kept_for"] == [service.account_id()]
    assert service.enabled("other") == [True]


def test_without_the_name_of_the_previous_key(roles: RolesRunner, service: Service) -> None:
    service.on_key()
    other = service.make_key("other").id
    names = {name: value for name, value in VARS.items() if name not in ("cmk_vault_name", "cmk_key_name")}
    run = roles.playbook("azbatch.cmk.switch", extra_vars={**names, "cmk_new_key_identifier": other})
    assert run.rc == 0, run.output
    assert service.encryption() == other
