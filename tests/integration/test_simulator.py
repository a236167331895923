# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random sequences of plays, faults and changes by other tools (`simulator`), and sequences that have failed once.

`make test` tries the same sequences each time. SEQUENCES=N tries N other sequences; with SEED, they are those of a
previous run. LINE='...' plays one sequence. A failure prints the shortened sequence, which is a line for `KNOWN`.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_azure import LocalAzure, installed
from meddling import Wire
from one_process import compile_once
from sequences import Chances, Sequence, parsed, shorter
from simulator import FAULTS, REFUSALS, Failed, Simulation

from azure_sandbox.shared.behavior import POSITIONS

SEQUENCES = int(os.environ.get("SEQUENCES", "0"))
SEED = int(os.environ.get("SEED") or (random.randrange(2**32) if SEQUENCES else 1))
SHARDS = 4
# More often those after which the run does not know whether its change took effect.
EVENTS = [*FAULTS, *REFUSALS, *[name for name in FAULTS if "after" in name or "although" in name] * 4]
# How many shorter sequences are tried after a failure.
SHORTENED = int(os.environ.get("SHORTENED", "200"))

# A poller runs in a thread, which raises the end of the process as well.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

# By the repair without which the line fails.
KNOWN = {
    "another tool deletes a key just before a run enables the version that it has disabled": (
        "previous_version_needed=0 key_loss_noticed=0 follower_delay=0 ; a1+a2: a2.microsoft(r1) ; wait 7862400 ; "
        "a1/a2: a1.retire!(r1) | a1>a2: old(r1) a1.microsoft(r1) disable_kept(r1) !tool delete a2 (r1)@25"
    ),
    "a move to an older version ends before a read shows it": (
        "value_lag=5 ; a2: old(k1) retire(k1) !dropped after@changes_version"
    ),
    "an account leaves an older version before a read shows it there": (
        "value_lag=5 ; a2: version(k1) | a3: old(k1) microsoft(k1) ; wait 200 ; a2: retire(k1)"
    ),
    "the update of a version that an account leaves is lost": (
        "a3: old(k2) microsoft(k2) retire(k2) !dropped before@changes_version"
    ),
    "another tool has moved an account to a version just before it is disabled": (
        "value_lag=20 ; tool move a1 old(k1) ; a2: retire(k1)"
    ),
    "a run is killed before it has asked again for users of a disabled version": (
        "value_lag=20 ; tool move a1 old(k1) ; a2: retire(k1) !killed@after_version"
    ),
    "an account leaves the version that another run disables just then, before it is killed": (
        "value_lag=20 ; a1: retire(k2) | a1: old(k2) new(k2) !killed@18"
    ),
    "reads show that an account has left a key before they show the update of its version": (
        "value_lag=20 value_lag_of=keys ; tool move a1 old(k2) ; wait 2592000 ; a1: new(k1) retire(k2)"
    ),
    "another tool moves an account to a version whose removal gets no response": (
        "value_lag=20 ; a2: disable_kept(k2) !tool move a1 new(k2)@changes_version !dropped after@changes_version"
    ),
    "another tool moves an account to a key whose revocation gets no response": (
        "value_lag=20 ; a1: revoke(r1) !tool move a1 new(r1)@deletes !dropped after again and again@deletes"
    ),
    "another tool moves an account to a version and back while it is disabled": (
        "previous_version_needed=86400 ; a2: retire(k1) !tool visit a1 old(k1)@changes_version"
    ),
    "a pool is created on a version after an earlier task has listed the pools": (
        "a2: retire(k2) retire(k1) !tool pool a1 old(k1)@task2"
    ),
    "an account leaves a version before another run lists the accounts": (
        "tool move a1 old(k1) ; wait 2592000 ; a2: retire(k1) | a1: new(k2) @lists_accounts"
    ),
    "an account has left a version for another key": (
        "tool move a1 old(k1) ; wait 2592000 ; a1: new(k2) ; a2: retire(k1)"
    ),
    "a second wave uses reads of the first": "a1>a2: new(k1) !tool disable a1 (k1)@a2",
    "a move without a response does not make an account available that has lost its key": (
        "tool revoke a1 (k1) ; wait 5400 ; a1: microsoft(k2) !dropped after again and again@moves"
    ),
    "reads show the previous key after a move that is rolled back": (
        "value_lag=20 ; a1: new(k2) !interrupted@confirms"
    ),
    "reads show the previous key after a move without a response": (
        "value_lag=20 ; a1: new(k2) !dropped after again and again@moves"
    ),
    "no list shows yet whose access the creation of a vault has removed": (
        "value_lag=20 name_lag=60 list_lag=180 ; a1: provision(n1) | a2: provision(n1) @creates_vault"
    ),
    "a read from before the move shows a third key during a rollback": (
        "value_lag=20 ; tool move a1 old(k1) ; wait 19 ; a1: new(k2) !interrupted@confirms"
    ),
    "a pool of an account whose pools Batch does not list uses a version": (
        "pools_without_key=409 ; tool pool a3 old(k1) ; tool revoke a3 (r1) ; wait 2592000 ; a1: retire(k1)"
    ),
    "access is revoked before the account is moved, and Batch notices that later": (
        "timing=realistic ; a1: switch(k2) | a1: revert! @moves"
    ),
    "roles are revoked before the account is moved, and Batch notices that later": (
        "timing=realistic ; a3: switch(k2) ; a3: switch(r1) | a3: revert! @moves"
    ),
    "a creation resets the key that another run has set": (
        "value_lag=20 name_lag=60 list_lag=180 ; a4: provision(n1) | a4: provision(n1) @creates_account"
    ),
    "a vault that was purged in time is created again": (
        "tool delete_vault a1 (k1) ; wait 7862400 ; a1: provision(k1) ?checked"
    ),
    "an account whose loss Batch has not noticed leaves its deleted key": (
        "pools_without_key=200 ; tool delete a1 (k1) ; a1: revert ?checked"
    ),
    "a key is recovered by a caller who may not list its versions": (
        "tool delete a1 (k1) ; wait 5400 ; a1 as without lists: recover ?checked"
    ),
    "a vault is created by a caller who cannot see that a deleted vault has the name": (
        "subscription_list=denied ; a1+a2: leave ; tool delete_vault a1 (k1) ; wait 5400 ; "
        "a3 as resource group only: provision(k1) ?checked"
    ),
    "a key is disabled in the vault of a key that an account has lost": (
        "a2: leave ; tool delete a1 (k1) ; wait 5400 ; a1: disable(k2) ?checked"
    ),
    "an account is moved from a key before Batch notices its loss": (
        "tool delete a1 (k1) ; a1: provision(k2) ?checked"
    ),
}
# Two runs of which the second begins and ends between any two requests of the first.
PAIRS = [
    "a4: provision(n1) | a4: provision(n1)",
    "a4: provision(n1) | a4: provision(k2)",
    "a4: provision(n1) | a5: provision(n1)",
    "a1: rotate | a1: rotate",
    "a1: rotate! | a1: rotate!",
    "a1: rotate! | a2: rotate!",
    "a1: switch!(k2) | a1: switch!(r1)",
    "a1: switch!(k2) | a2: provision(k1)",
    "a1: revert_deleting! | a2: provision(k1)",
    "a1: revert! | a2: provision(k1)",
    "a1: revert! | a1: provision(k1)",
    "a3: revert! | a3: provision(r1)",
    "a3: identity | a3: provision(k2)",
    "a1: disable!(k2) | a2: provision(k2)",
]

# The main jobs, which succeed in each position of each switch.
JOBS = {
    "a system-assigned identity": (
        "a1: provision(r1) ?succeeds ; wait 7862400 ; a1: rotate_by_age ?succeeds ; wait 7862400 ; "
        "a1: rotate_by_age ?succeeds ; a1: switch(k2) ?succeeds ; a1: recover ?succeeds ; a1: leave ?succeeds"
    ),
    "a user-assigned identity": (
        "a3: provision(k2) ?succeeds ; wait 7862400 ; a3: rotate_by_age ?succeeds ; wait 7862400 ; "
        "a3: rotate_by_age ?succeeds ; a3: switch(r1) ?succeeds ; a3: recover ?succeeds ; a3: leave ?succeeds"
    ),
    "accounts that follow their key": (
        "a1: provision_following(k2) ?succeeds ; wait 7862400 ; a1: rotate_by_age ?succeeds ; wait 7862400 ; "
        "a1: rotate_by_age ?succeeds ; a1: switch(r1) ?succeeds ; a1: leave ?succeeds"
    ),
    "a new account": "a4: provision(n1) ?succeeds",
    "a new account with a user-assigned identity": "a5: provision(n1) ?succeeds",
    "a further identity": "a3: leave ?succeeds ; a3: identity ?succeeds",
    "a disabled version": "tool disable a1 (k1) ; wait 5400 ; a1: recover ?succeeds",
    "a deleted key": "tool delete a1 (k1) ; wait 5400 ; a1: recover ?succeeds",
    "a deleted vault": "tool delete_vault a1 (k1) ; wait 5400 ; a1: recover ?succeeds",
    "revoked access": "tool revoke a1 (k1) ; wait 5400 ; a1: recover ?succeeds",
    "revoked roles": "tool revoke a3 (r1) ; wait 5400 ; a3: recover ?succeeds",
}
# Not those with which nearly every job fails, or the creation of an account.
SWITCHES = [
    "",
    *(
        f"{name}={position}"
        for name, positions in POSITIONS.items()
        if name
        not in ("resource_lock", "policy_denial", "policy_message", "policy_modify", "account_quota", "value_lag_of")
        for position in positions[1:]
    ),
]


@pytest.fixture(scope="module")
def prepared() -> Iterator[tuple[LocalAzure, Simulation]]:
    # In memory if possible, because the tasks of a run store many small files.
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    azure = LocalAzure()
    with installed(azure):
        azure.begin()
        simulation = Simulation(azure, folder / "run")
    yield azure, simulation
    shutil.rmtree(folder)


@pytest.fixture
def simulation(prepared: tuple[LocalAzure, Simulation], monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulation]:
    azure, simulation = prepared
    compile_once(monkeypatch)
    for name, value in azure.sandbox.environment.items():
        monkeypatch.setenv(name, value)
    simulation.wire = Wire(monkeypatch)
    with installed(azure):
        yield simulation


def failure(simulation: Simulation, sequence: Sequence) -> str:
    try:
        simulation.play(sequence)
    except Failed as failed:
        return str(failed)
    return ""


def shortest(simulation: Simulation, sequence: Sequence, oracle: str) -> Sequence:
    """A shorter sequence for which the same promise is broken."""
    left = SHORTENED
    found: Sequence | None = sequence
    while found is not None:
        sequence, found = found, None
        for one in shorter(sequence):
            left -= 1
            if left > 0 and failure(simulation, one).startswith(oracle):
                found = one
                break
    return sequence


@pytest.mark.parametrize("name", KNOWN)
def test_known(simulation: Simulation, name: str) -> None:
    assert failure(simulation, parsed(KNOWN[name])) == "", f"LINE='{KNOWN[name]}'"


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs(simulation: Simulation, pair: str) -> None:
    for at in range(0, 50, 1 if SEQUENCES else 17):
        line = f"{pair} @{at}"
        assert failure(simulation, parsed(line)) == "", f"LINE='{line}'"


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.slow(every=60)
def test_jobs(simulation: Simulation, switch: str) -> None:
    for line in JOBS.values():
        line = f"{switch} ; {line}" if switch else line
        assert failure(simulation, parsed(line)) == "", f"LINE='{line}'"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random(simulation: Simulation, shard: int) -> None:
    chances = Chances(SEED * SHARDS + shard, EVENTS)
    each = (SEQUENCES or 40) // SHARDS
    for number in range(each * shard + 1, each * (shard + 1) + 1):
        sequence = chances.sequence()
        said = failure(simulation, sequence)
        if said:
            short = shortest(simulation, sequence, said[:2])
            found = f"LINE='{short}'\n{failure(simulation, short)}"
            pytest.fail(f"sequence {number}: {found}\nSEED={SEED}, LINE='{sequence}'\n{said}")


def test_a_sequence_is_written_in_one_line() -> None:
    chances = Chances(SEED, EVENTS)
    for sequence in (chances.sequence() for _number in range(100)):
        assert parsed(str(sequence)) == sequence


@pytest.mark.skipif("LINE" not in os.environ, reason="plays the sequence in LINE")
def test_line(simulation: Simulation) -> None:
    said = failure(simulation, parsed(os.environ["LINE"]))
    print(said)
    assert said == ""
