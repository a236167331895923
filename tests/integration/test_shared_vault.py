# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nights of a vault with six keys, three of which several accounts share. The keys rotate on different days, somebody
tags the accounts of one key each night, and each month an account is switched to another key. Versions end at the
margin plus a night, and no account loses a version that it needs."""

from __future__ import annotations

from typing import Any

import pytest
from one_process import OneProcess
from operators import done
from role_runs import VARS
from service import DAY, Service

VAULT, MARGIN, MONTH = "vault-one", 7 * DAY, 30
# By account, the key that it uses first. An account `follow…` follows its key.
USED = {
    **{
        "pinned1": "key1",
        "follow1": "key1",
        "pinned2": "key2",
        "second2": "key2",
        "pinned3": "key3",
        "follow3": "key3",
    },
    **{"pinned4": "key4", "follow5": "key5", "pinned6": "key6"},
}
TAGGED = "key6"
KEYS = sorted(set(USED.values()))


class Vault:
    def __init__(self, service: Service, runner: OneProcess) -> None:
        self.service = service
        self.runner = runner
        self.used = dict(USED)
        self.made = dict.fromkeys(KEYS, 1)
        service.make_vault()
        for name in USED:
            service.grant(service.make_account(name)["identity"]["principalId"])
        for key in KEYS:
            identifier = service.make_key(key).id
            for name, used in USED.items():
                if used == key:
                    service.point(identifier.rpartition("/")[0] if name.startswith("follow") else identifier, name)
            service.sandbox.control.advance(MONTH // len(KEYS) * DAY)
        # By key, when an account was last moved within the key, from it or to it, or when a version was created.
        self.moved = dict.fromkeys(KEYS, self.now)

    @property
    def now(self) -> float:
        return float(self.service.sandbox.control.call("GET", "/clock")["time"])

    def night(self, number: int) -> None:
        """Rotate what is due, switch an account each month, and disable unused versions."""
        controller = self.runner.another()
        for name, key in self.used.items():
            if key == TAGGED:
                self.service.change_account(name, tags={"night": str(number)})
            wanted = {**VARS, "cmk_account_name": name, "cmk_key_name": key, "cmk_key_max_version_age": f"P{MONTH}D"}
            if done(controller.role("rotate", wanted))["changed"]:
                self.moved[key] = self.now
        for key in KEYS:
            if (made := len(self.service.versions(key))) > self.made[key]:
                self.made[key], self.moved[key] = made, self.now
        if number % MONTH == 2:
            self.switch(controller, *self.mover(number // MONTH))
        self.retire(controller)

    def mover(self, month: int) -> tuple[str, str]:
        """The account that is switched in this month, and its next key: one of the three shared keys."""
        name = ("pinned1", "follow3", "second2", "pinned3", "follow1", "pinned2")[month % 6]
        return name, {"key1": "key2", "key2": "key3", "key3": "key1"}[self.used[name]]

    def switch(self, controller: OneProcess, name: str, key: str) -> None:
        identifier = f"https://{VAULT}.vault.azure.net/keys/{key}"
        # The newest version is not a month old, so this account leaves an older one.
        self.service.make_key(self.used[name])
        self.made[self.used[name]] += 1
        if not name.startswith("follow"):
            identifier = str(self.service.versions(key)[-1].id)
        wanted = {**VARS, "cmk_account_name": name, "cmk_new_key_identifier": identifier}
        wanted |= {"cmk_key_name": self.used[name]}
        report = done(controller.role("switch", wanted))
        assert (report["changed"], report["available"]) == (True, True)
        self.moved[key] = self.moved[self.used[name]] = self.now
        self.used[name] = key

    def retire(self, controller: OneProcess) -> None:
        for key in KEYS:
            before = self.service.enabled(key, VAULT)
            named = {"vault_name": VAULT, "name": key}
            report: dict[str, Any] = done(controller.module("keyvault_cmk_unused_versions", named))
            enabled = self.service.enabled(key, VAULT)
            assert enabled[-1]
            if key == TAGGED:
                # Each version may be in use, because its account is changed each night.
                assert report["kept_until"] or not report["kept_versions"]
                assert enabled == before
            elif self.now - self.moved[key] >= MARGIN:
                assert not any(enabled[:-1]), (key, enabled)
            else:
                assert enabled == before, (key, report)

    def pass_day(self) -> None:
        # A night begins a minute later than the night before.
        self.service.sandbox.control.advance(DAY + 60)
        assert all(map(self.service.is_safe, self.used)), [one for one in self.used if not self.service.is_safe(one)]


@pytest.mark.slow
@pytest.mark.parametrize("nights", [12, 200])
def test_versions_end_although_other_accounts_of_the_vault_are_changed(
    service: Service, runner: OneProcess, nights: int
) -> None:
    service.sandbox.control.behavior(follower_delay="86400", previous_version_needed="86400")
    vault = Vault(service, runner)
    for number in range(nights):
        vault.night(number)
        vault.pass_day()
    made = sum(vault.made.values())
    assert made >= nights // 5
    enabled = {key: sum(service.enabled(key, VAULT)) for key in KEYS if key != TAGGED}
    assert sum(enabled.values()) <= 5 + 3, enabled
