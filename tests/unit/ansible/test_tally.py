# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The line that counts the changes of a play, and the verdict of a playbook."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.plugin_utils._tally import Tally

KEY = "https://kv.vault.azure.net/keys/batch"
ROTATE = "azbatch.cmk.rotate"
ENCRYPTION, KEYS = "azbatch.cmk.batch_encryption", "azbatch.cmk.keyvault_cmk_key"


def made(version: str, key: str = KEY, **before: Any) -> dict[str, Any]:
    """The result of a task that has created a version."""
    previous = {"key_identifier": f"{key}/1", "version": "1", **before}
    new = {"key_identifier": f"{key}/{version}", "version": version}
    return {"changed": True, "diff": {"before": previous, "after": new}}


def test_accounts_that_the_task_of_one_host_has_recovered() -> None:
    """One host opens the firewall of the vault that the accounts share."""
    recover, diagnosis, vault = "azbatch.cmk.recover", f"{ENCRYPTION}_diagnosis", "azbatch.cmk.keyvault_cmk_vault"
    tally = Tally(4)
    for host in ("first", "second", "other", "failed"):
        repairs = [] if host == "other" else ["network"]
        found = {"changed": False, "summary": f"About {host}.", "repairs": repairs}
        tally.add(host, recover, diagnosis, found, failed=False)
    for host in ("first", "second", "failed"):
        tally.add(host, recover, vault, {"changed": host == "first"}, failed=False)
    for host in ("first", "second", "other", "failed"):
        result = {"changed": False, "summary": f"{host} uses version 1."}
        tally.add(host, recover, ENCRYPTION, result, failed=host == "failed")
    tally.end_wave()

    assert tally.line() == "2 recovered, 1 unchanged, 1 failed (failed)"


def test_a_wave_in_which_the_play_stops() -> None:
    """Moved hosts count as done. It is not known whether the other hosts would have been changed."""
    tally = Tally(6)
    tally.add("canary", ROTATE, ENCRYPTION, {"changed": False}, failed=False)
    tally.end_wave()
    for host in ("moved", "failed", "read"):
        tally.add(host, ROTATE, f"{ENCRYPTION}_info", {"summary": f"{host} uses version 1."}, failed=False)
    tally.add("begun", ROTATE, KEYS, {"summary": "The key exists."}, failed=False)
    tally.add("moved", ROTATE, ENCRYPTION, {"changed": True, "summary": "moved uses version 2."}, failed=False)
    tally.add("failed", ROTATE, ENCRYPTION, {"summary": "failed uses version 2."}, failed=True)

    assert tally.line() == "1 rotated, 1 unchanged, 1 failed (failed), 2 not finished, 1 not started"
    assert tally.counted == {"moved"}
    assert tally.overview() == ["moved uses version 2.", "read uses version 1.", "begun was not finished."]


@pytest.mark.parametrize(
    ("results", "versions"),
    [
        pytest.param([made("2"), made("2")], 1, id="one for several hosts"),
        pytest.param([made("2"), made("3")], 2, id="two of one key"),
        pytest.param([made("2"), made("2", f"{KEY}2")], 2, id="of two keys"),
        pytest.param([{"changed": True, "diff": {"before": {}, "after": {"enabled": True}}}], 0, id="another change"),
        pytest.param([made("2", soft_deleted=True)], 0, id="recovered"),
        pytest.param([{"changed": True, "results": [made("2"), "censored"]}], 1, id="in a loop"),
        pytest.param([{"changed": True, "diff": [{"before": "a", "after": "b"}]}, {"changed": True}], 0, id="no diff"),
    ],
)
def test_new_versions(results: list[dict[str, Any]], versions: int) -> None:
    tally = Tally(len(results))
    for number, result in enumerate(results):
        tally.add(str(number), "", KEYS, result, failed=False)

    assert len(tally.versions) == versions
    assert ("new version" in tally.line()) is (versions > 0)
    assert tally.line().endswith("versions") is (versions > 1)


def test_an_account_that_was_moved_counts_once() -> None:
    """In the next play, the key that it has left may not be disabled."""
    tally = Tally(2)
    tally.add("moved", ROTATE, ENCRYPTION, {"changed": True}, failed=False)
    tally.add("locked", ROTATE, ENCRYPTION, {"left_alone": {"code": "resource_locked"}}, failed=False)
    tally.end_wave()
    tally.begin_wave(["moved"])
    tally.add("moved", ROTATE, KEYS, {"left_alone": {"code": "users_unknown"}}, failed=False)
    tally.end_wave()

    assert tally.line() == "1 rotated, 0 unchanged, 1 left alone (locked: resource_locked), 0 failed"
    assert tally.accounts() == {
        "locked": {"changed": False, "finished": True, "left_alone": "resource_locked"},
        "moved": {"changed": True, "finished": True, "left_alone": "users_unknown"},
    }


def fleet(moved: int, failed: int = 0, *, total: int = 0) -> Tally:
    """A rotation to one version, in which hosts fail after others were moved."""
    tally = Tally(total or moved + failed)
    hosts = [f"host{number}" for number in range(moved + failed)]
    tally.begin_wave(hosts)
    if moved:
        tally.add(hosts[0], ROTATE, KEYS, made("0123456789"), failed=False)
    for number, host in enumerate(hosts):
        result = {"changed": True, "key_identifier": f"{KEY}/0123456789"}
        found = result if number < moved else {"changed": False, "code": "service_unavailable"}
        tally.add(host, ROTATE, ENCRYPTION, found, failed=number >= moved)
    tally.end_wave()
    return tally


AGAIN = "Repair the cause, and rerun the same command. It leaves finished accounts unchanged."
FEW = "Repair the cause, and rerun with --limit host10."


@pytest.mark.parametrize(
    ("tally", "options", "verdict"),
    [
        (fleet(40), {}, ["Rotated 40 of 40 accounts to version 01234567… of batch in 44 s."]),
        (fleet(1), {}, ["Rotated 1 of 1 account to version 01234567… of batch in 44 s."]),
        (fleet(40), {"is_check": True}, ["Would create 1 version, move 40 accounts. Checked 40 accounts in 44 s."]),
        (
            fleet(10, 1),
            {},
            ["10 rotated to version 01234567… of batch, 1 failed (host10: service_unavailable), in 44 s.", FEW],
        ),
        (
            fleet(10, 4, total=40),
            {},
            [
                "10 rotated to version 01234567… of batch, 4 failed (service_unavailable), 26 not started, in 44 s.",
                AGAIN,
            ],
        ),
        (fleet(0, 1), {}, ["0 rotated, 1 failed (host0: service_unavailable), in 44 s."]),
        (
            fleet(2, total=9),
            {"is_interrupted": True},
            [
                "Interrupted after 44 s: 2 rotated, 7 not started.",
                "Rerun the same command. It leaves finished accounts unchanged.",
            ],
        ),
    ],
)
def test_the_verdict(tally: Tally, options: dict[str, bool], verdict: list[str]) -> None:
    assert tally.verdict("44 s", **options) == verdict


def test_the_verdict_of_a_quiet_night() -> None:
    tally = Tally(120)
    for number in range(120):
        tally.add(str(number), ROTATE, ENCRYPTION, {"changed": False, "summary": "It is so."}, failed=False)
    tally.end_wave()
    assert tally.verdict("44 s") == ["Nothing to change: 120 accounts unchanged, in 44 s."]
    assert tally.verdict("44 s", is_check=True) == [
        "Would change nothing; 120 unchanged. Checked 120 accounts in 44 s."
    ]


@pytest.mark.parametrize(("repaired", "more"), [(1, ""), (3, ""), (5, " And 2 more.")])
def test_recover_names_first_what_it_has_repaired(repaired: int, more: str) -> None:
    recover = "azbatch.cmk.recover"
    tally = Tally(9)
    for number in range(9):
        change = {"changed": number < repaired, "summary": f"Enabled version {number}."}
        tally.add(str(number), recover, f"{KEYS}_state", change, failed=False)
    tally.end_wave()
    first, second = tally.verdict("44 s")
    enabled = " ".join(f"Enabled version {number}." for number in range(min(repaired, 3)))
    assert first == f"Repaired: {enabled}{more}"
    assert second == f"{repaired} recovered, {9 - repaired} unchanged, in 44 s."


def test_recover_names_once_what_it_has_repaired_for_several_accounts() -> None:
    tally = Tally(2)
    for number in range(2):
        summary = f"The principal 1111111{number}-1111-4111-8111-111111111111 has get."
        change = {"changed": True, "summary": summary}
        tally.add(str(number), "azbatch.cmk.recover", "azbatch.cmk.keyvault_cmk_access", change, failed=False)
    tally.end_wave()
    first, _second = tally.verdict("44 s")
    assert first == "Repaired: The principal 11111110-1111-4111-8111-111111111111 has get. (2 times)"
