# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plays a sequence (`sequences`) against a sandbox in this process, and checks after each play:

1. No account or pool that was available is on a key that it cannot use when its run has ended. And no task takes the
   key away from an account, or from a resource of another service, that used it, as far as the task could know, not
   even for a moment.
2. Each result is true: the state of the account, whether it is available, and whether something was changed.
3. After a fault or the end of a process, the same play has the result of a play without it.
4. Check mode predicts the tasks of the play.
5. A second play changes nothing.
"""

from __future__ import annotations

import pickle
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, pairwise, product
from pathlib import Path
from typing import Any

import moments
import requests
from azure.core.exceptions import AzureError
from cases import CLOSED, DISTURBANCES
from local_azure import LocalAzure
from meddling import REALISTIC, Killed, Wire
from one_process import OneProcess
from operators import ACCOUNTS, FIRST_KEY, RBAC_VAULT, WAIT, World
from others import INCIDENTS, STRANGER, Others, uses
from predictions import Played, assert_came_true
from scheduler import current_run, unscheduled, wait_until
from sequences import DAY, FREE, OWNER, TOGETHER, WAVES, Play, Run, Sequence, Task, Tool, Wait
from service import GROUP, LOCATION, Service

from azure_sandbox.batch.account import AVAILABLE, Account
from azure_sandbox.batch.key_check import KeyCheck
from azure_sandbox.key_vault.grants import Grants
from azure_sandbox.shared.behavior import POSITIONS
from azure_sandbox.shared.lag import graph_lag
from azure_sandbox.world import World as AzureWorld

Result = dict[str, Any]
NAMES = {f"a{number}": f"account{number}" for number in range(1, 6)}
# The accounts that have a user-assigned identity, or get one with their creation. a4 and a5 do not exist at first.
WITH_USER_ASSIGNED = ("account3", "account5")
KEYS = {"k1": FIRST_KEY, "k2": ("vault-one", "key2"), "r1": (RBAC_VAULT, "key1"), "n1": ("vault-new", "key1")}
# After this time, in seconds, all changes of access are in effect.
IN_EFFECT = 700
# After this time, Batch has also noticed each loss, and an account with a repaired key is available.
SETTLED = 3600 + 1800
MARGIN = 7 * DAY
# The resource of another service, which uses a version of a key after the tool `service`.
OTHER = "other service"
# Reads of a run are cached for so many seconds.
CACHED = 20
_SLOW_SECONDS = 40
# Azure is eventually consistent: the first reads do not find an existing resource.
_FALSE_404 = {
    "match": {"method": "GET", "path": r"/(batchAccounts|vaults)/[^/?]+(\?|$)"},
    "answer": {"status": 404, "body": {"error": {"code": "ResourceNotFound", "message": "It was not found."}}},
}
_RETRY_LATE = {"answer": {"status": 429, "headers": {"Retry-After": "30"}, "body": {"error": {"code": "Busy"}}}}
FAULTS: dict[str, dict[str, Any]] = {
    **DISTURBANCES,
    "slow": {"delay": _SLOW_SECONDS},
    "throttled for 30 s": _RETRY_LATE,
    "false 404": _FALSE_404,
    "two false 404s": {**_FALSE_404, "times": 2},
}
# Locks and policies that somebody adds during the play and removes after it.
REFUSALS = {
    f"{switch} {position}": {switch: position}
    for switch in ("resource_lock", "policy_denial")
    for position in POSITIONS[switch][1:]
}
# The run's principal may lack a right, so the play may fail again.
_ALL_RIGHTS = (OWNER, "other")


def _at_once(task: Task) -> Result:
    return {"unused_for": "P0D"} if task.at_once else {}


# The modules by the verbs of the sequences, with their options besides the names of the resources.
MODULES: dict[str, tuple[str, Result]] = {
    "old": ("batch_encryption", {"previous_key": "any"}),
    "new": ("batch_encryption", {"previous_key": "any"}),
    "follow": ("batch_encryption", {"previous_key": "any", "version_mode": "follow"}),
    "pin": ("batch_encryption", {"previous_key": "any", "version_mode": "pin"}),
    "microsoft": ("batch_encryption", {"key_source": "microsoft_batch"}),
    "info": ("batch_encryption_info", {}),
    "version": ("keyvault_cmk_key", {"new_version": True}),
    "retire": ("keyvault_cmk_unused_versions", {}),
    "disable": ("keyvault_cmk_key_state", {"state": "disabled"}),
    "disable_kept": ("keyvault_cmk_key_state", {"state": "disabled", "in_use": "keep"}),
    "delete_kept": ("keyvault_cmk_key_state", {"state": "absent", "in_use": "keep"}),
    "enable": ("keyvault_cmk_key_state", {"state": "enabled"}),
    "restore": ("keyvault_cmk_key_state", {"state": "recovered"}),
    "grant": ("keyvault_cmk_access", {}),
    "revoke": ("keyvault_cmk_access", {"state": "absent"}),
    "identity": ("batch_account_identity", {"allowed_repairs": ["identity"]}),
}
# The roles by the verbs of the sequences, with their variables besides the names of the resources.
ROLES: dict[str, tuple[str, Result]] = {
    "provision": ("provision", {"cmk_previous_key": "any"}),
    "provision_following": (
        "provision",
        {
            "cmk_previous_key": "any",
            "cmk_key_version_mode": "follow",
            "cmk_key_expires_in": "P400D",
            "cmk_allowed_repairs": ["vault", "key"],
        },
    ),
    "rotate": ("rotate", {"cmk_key_new_version": True, "cmk_unused_versions": "disable"}),
    "rotate_by_age": ("rotate", {"cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable"}),
    "switch": ("switch", {}),
    "leave": ("revert", {}),
    "revert": ("revert", {"cmk_unused_key": "disable", "cmk_unused_access": "revoke"}),
    "revert_deleting": ("revert", {"cmk_unused_key": "delete"}),
    "recover": ("recover", {}),
}
# The requests before which something happens, by their meaning.
MOMENTS: dict[str, Callable[[], moments.Moment]] = {
    "lists_accounts": lambda: moments.lists_accounts,
    "changes_version": lambda: moments.changes_version,
    "after_version": lambda: moments.after_all(moments.changes_version),
    "deletes": lambda: moments.deletes_or_revokes,
    "after_deletion": lambda: moments.after_all(moments.deletes_or_revokes),
    "moves": moments.moves_account,
    "confirms": moments.confirms_move,
    "creates_vault": lambda: moments.creates_vault("vault-new"),
    "creates_account": lambda: moments.creates_account("account4"),
}
# Moves after which an account may follow its key, or not, otherwise than before.
_MODES = ("pin", "follow", "microsoft")
# Tasks that disable, delete and revoke nothing.
_KEEPING = (
    *"old new pin follow microsoft info version grant".split(),
    *("provision", "provision_following", "leave", "recover"),
)

# Tasks that disable what is not in use.
_DISABLING = ("retire", "disable_kept")


class Failed(AssertionError):
    """One of the promises was broken."""


@dataclass(frozen=True)
class Moment:
    """The state of an account, of a pool or of a resource of another service from a time on. `by` is the run and host
    that has changed something then."""

    at: float
    # The key identifier in lower case; None: a Microsoft-managed key; empty: there is no such account.
    key: str | None
    # Whether Batch can use the key, also after all changes of access are in effect; and the version that it uses now.
    is_usable: bool
    is_own_usable: bool
    # The identifier of the version that Batch uses.
    version: str
    is_available: bool
    by: str
    # Whether `by` has changed this account.
    is_own_change: bool
    # When the task of `by` began, which may have read the account before an earlier change.
    began: float = 0.0

    @property
    def state(self) -> tuple[object, ...]:
        return self.key, self.is_usable, self.is_own_usable, self.version, self.is_available


@dataclass
class Host:
    """A host of a run, with the results of its tasks."""

    name: str
    run: Run
    controller: OneProcess
    results: list[tuple[str, Result]] = field(default_factory=list)
    began: float = 0.0
    step: int = 0
    has_ended: bool = False
    writes: int = 0
    # Whether it begins only when the first run lets the other runs begin.
    waits: bool = False


class Simulation:
    # Intercepts the requests of the runs.
    wire: Wire

    def __init__(self, azure: LocalAzure, folder: Path) -> None:
        self._azure = azure
        self._folder = folder
        self._service = Service(azure.sandbox)
        self._world = World(self._service, OneProcess(folder))
        self._others = Others(self._world)
        self._begin()
        self._beginning = pickle.dumps(azure.world), azure.now, azure.server.log.last
        self._numbers = count(1)
        self._history: dict[str, list[Moment]] = {}
        self._hosts: dict[str, Host] = {}
        self._cut_short: set[str] = set()

    def _begin(self) -> None:
        """Each key has two versions. The accounts use the newest for a month. Nothing uses the oldest."""
        service = self._service
        for name in ACCOUNTS:
            identity: Result = {"type": "SystemAssigned"}
            if name == ACCOUNTS[-1]:
                identity = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
            service.make_account(name, identity=identity)
            for vault in ("vault-one", RBAC_VAULT):
                service.grant(self._world.principal(name), vault)
        for key in list(KEYS.values())[:3]:
            for _version in range(2):
                service.make_key(key[1], key[0])
                service.sandbox.control.advance(30 * DAY)
        for caller in ("resource group only", "reader", "without pools", "without lists"):
            self._world.connection(caller)
        self._world.connection("other")
        for name, key in zip(ACCOUNTS, (FIRST_KEY, FIRST_KEY, (RBAC_VAULT, "key1")), strict=True):
            service.point(self._identifier(key, "new"), name)
        service.sandbox.control.advance(30 * DAY)
        self._own_user = self._world.principal(ACCOUNTS[-1])
        vault = self._azure.world.vaults.by_name(FIRST_KEY[0])
        self._vault_uid = vault.uid if vault else ""

    def play(self, sequence: Sequence) -> None:
        """Play the sequence from the beginning. Raises Failed."""
        azure = self._azure
        beginning, azure.now, _last = self._beginning
        azure.server.world = pickle.loads(beginning)
        azure.server.faults.clear()
        azure.server.log.clear()
        azure.sandbox.tokens.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        self._history, self._cut_short, self._changed_by = {}, set(), {}
        self._hosts, self._numbers = {}, count(1)
        self._service.sign_in_again()
        switches = {name: at for name, at in sequence.switches.items() if name in POSITIONS}
        azure.chances.seed(str(sequence))
        azure.sandbox.control.behavior(**{**{name: at[0] for name, at in POSITIONS.items()}, **switches})
        is_realistic = sequence.switches.get("timing") == "realistic"
        azure.sandbox.control.timing(**(REALISTIC if is_realistic else dict.fromkeys(REALISTIC, 0)))
        self._lag = int(sequence.switches.get("value_lag", "0"))
        self._list_lag = int(sequence.switches.get("list_lag", "0"))
        azure.after = self._after
        try:
            self._look("tool", "")
            for step in sequence.steps:
                if isinstance(step, Wait):
                    azure.sleep(step.seconds)
                elif isinstance(step, Tool):
                    self._change(step.what)
                    azure.sleep(0)
                else:
                    self._play(step)
                self._look("time", "")
        finally:
            azure.after = lambda _method, _url: None

    # The state of Azure

    def _look(self, by: str, url: str) -> None:
        """Note the states of accounts and pools that have changed."""
        now, found = self._azure.now, dict[str, Moment]()
        began = self._hosts[by].began if by in self._hosts else now
        world = self._azure.world
        available = {one.name: world.batch.health(one).kind == AVAILABLE for one in world.batch.existing()}
        with self._azure.later(IN_EFFECT) as later:
            check = KeyCheck(later, Grants(later))
            for account in later.batch.existing():
                own, whole = _usable(check, account)
                is_own = url.lower().endswith(f"/batchaccounts/{account.name.lower()}")
                protection, is_available = account.protection, available.get(account.name, False)
                key, version = (protection.key_identifier, protection.version) if protection else (None, "")
                found[account.name] = Moment(
                    now, key and key.lower(), whole, own, version.lower(), is_available, by, is_own, began
                )
                for name, identifier, can in _pools(later, account):
                    is_own = url.lower().endswith(f"/pools/{name.rpartition('/')[2].lower()}")
                    found[name] = Moment(now, identifier, can, can, identifier, can, by, is_own)
            if (used := _of_other(later)) is not None:
                can = _is_enabled(later, used)
                found[OTHER] = Moment(now, used, can, can, used, can, by, url == OTHER)
        for name in self._history.keys() - found.keys():
            found[name] = Moment(now, "", False, False, "", False, by, False)
        for name, moment in found.items():
            history = self._history.setdefault(name, [])
            # Another tool takes away a key that is unusable already, which a run was about to repair.
            is_taken = by == "tool" and moment.version.startswith(url.partition("?")[0].lower() or " ")
            if not history or moment.is_own_change or is_taken or moment.state != history[-1].state:
                history.append(moment)

    def _after(self, method: str, url: str) -> None:
        """After a request that was not refused and may have changed something."""
        run = current_run()
        by = run or "tool"
        before = {name: moments[-1] for name, moments in self._history.items()}
        self._look(by, url)
        earlier, self._changed_by = self._changed_by, {**self._changed_by, by: self._azure.now}
        if run is None:
            return
        host = self._hosts[run]
        host.writes += 1
        others = [at for one, at in earlier.items() if one.partition(".")[0] != run.partition(".")[0]]
        if all(at < host.began - self._lag for at in others):
            for name, states in self._history.items():
                was, has = before.get(name), states[-1]
                if was and was.is_usable and not has.is_usable and has.is_own_change:
                    self._broken.append(f"{run} moves {name} to {has.key}, which it cannot use")
        self._require_left_kept(method, url, host)
        if method == "POST" and url.endswith("/create"):
            made = self._made.setdefault((run.partition(".")[0], url.lower()), 0) + 1
            self._made[run.partition(".")[0], url.lower()] = made
            if made > 1 and not self._is_disturbed and not any(task.verb == "version" for task in host.run.tasks):
                self._broken.append(f"the run of {run} has made {made} versions by {url}")
        for name, states in self._history.items():
            was, has = before.get(name), states[-1]
            if not was or not was.is_usable or has.is_usable or has.key != was.key or self._is_cut_short(has):
                continue
            last = next((one for one in reversed(states[:-1]) if one.is_own_change), states[0])
            since = host.began - self._lag
            if self._is_in_no_list(name):
                continue
            if name == OTHER:
                # A run asks Azure Resource Graph once.
                since = self._play_began - graph_lag(self._azure.world.behavior)
            if last.at <= since:
                self._broken.append(
                    f"{method} {url} of {run} takes the key of {name} away, which {last.by} has changed "
                    f"{host.began - last.at:.1f} s before the task"
                )

    def _require_left_kept(self, method: str, url: str, host: Host) -> None:
        """A version is not disabled within the margin after an account has left it for another key. A run has updated
        the version before that. Another tool has not, so only the account shows that for some time."""
        body = next(self._azure.server.log.newest_first()).body
        if method != "PATCH" or b'"enabled":false' not in body or _versionless_of(url.lower()) in self._cut_short:
            return
        for name, states in self._history.items():
            for moment, later in pairwise(states if name != OTHER else []):
                if moment.version != url.lower() or not later.is_own_change or later.version == moment.version:
                    continue
                since = host.began - self._lag
                if moment.at > since or self._is_in_no_list(name):
                    # No read shows that the account was moved there during the task, and away again.
                    continue
                if later.by != "tool" and moment.at >= later.began - self._lag:
                    # The task that moved it away has read the account before the earlier move, so it has updated the
                    # version before that. Nobody pins an account to an old version in the seconds of its retirement.
                    continue
                if later.version.rpartition("/")[0] != moment.version.rpartition("/")[0]:
                    # A run has updated the version before the account has left its key, which reads show at once.
                    is_updated = later.by != "tool" and self._hosts[later.by].run.caller in _ALL_RIGHTS
                    since = self._azure.now if is_updated else 0
                key = moment.version.rpartition("/")[0]
                left = [one for one in states if one.at >= later.at and not one.version.startswith(key)]
                if any(one.by == "tool" for one in left):
                    # Nothing shows that another tool has moved the account to another key since then.
                    continue
                if any(later.at < one.at <= later.at + self._lag for one in left):
                    # The run that has moved the account to another key has read it as it was before.
                    continue
                if self._azure.now - MARGIN < later.at <= since:
                    self._broken.append(
                        f"{url} is disabled {self._azure.now - later.at:.0f} s after {later.by} has moved {name}"
                    )

    def _is_in_no_list(self, name: str) -> bool:
        """Whether the account was created so lately that lists may not have it yet."""
        states = self._history[name]
        made_at = next((later.at for one, later in pairwise(states) if one.key == "" and later.key != ""), None)
        if made_at is None and name.partition("/")[0] not in ACCOUNTS:
            made_at = states[0].at
        return made_at is not None and self._azure.now < made_at + self._list_lag

    # When each host of a run, and other tools, have last changed something.
    _changed_by: dict[str, float]
    _broken: list[str]
    _made: dict[tuple[str, str], int]
    _is_disturbed: bool
    _may_begin: bool
    _first: list[Host]
    _at_step: Callable[[Host], None]
    # The variables or options of a task for an account, which are the same whenever the play runs.
    _given: dict[tuple[int, str], Any]

    def _is_cut_short(self, has: Moment) -> bool:
        """Whether a user has asked for a shorter margin, so that the account lost a previous version only, or a version
        from which Batch may still have to move it."""
        if not has.key or _versionless_of(has.key) not in self._cut_short:
            return False
        is_pinned = "/" in has.key.rpartition("/keys/")[2]
        return has.is_own_usable or not is_pinned

    def _usable_at_last(self) -> dict[str, tuple[bool, bool]]:
        """The accounts and pools that can use their keys after everything has taken effect."""
        found = {}
        with self._azure.later(SETTLED) as later:
            check = KeyCheck(later, Grants(later))
            for account in later.batch.existing():
                found[account.name] = _usable(check, account)
                found |= {name: (can, can) for name, _identifier, can in _pools(later, account)}
        return found

    # Changes by other tools

    def _change(self, what: str) -> None:
        found = what.replace("(", " ").replace(")", "").split()
        name, account, where = found[0], NAMES[found[1]], KEYS[found[-1]]
        which = found[2] if len(found) == 4 else "new"
        # The tool may have the fault that the run was to have.
        with suppress(AssertionError, AzureError, requests.RequestException):
            if name in ("move", "visit"):
                before = self._true_key(account)
                self._service.point(self._identifier(where, which), account)
                if name == "visit":
                    self._service.point(before, account)
            elif name == "revert":
                self._service.point(None, account)
            elif name == "firewall":
                self._service.change_vault(where[0], properties={"networkAcls": CLOSED})
            elif name == "pool":
                disk = {"targets": ["OsDisk"], "customerManagedKey": {"keyUrl": self._identifier(where, which)}}
                machine = {"virtualMachineConfiguration": {"diskEncryptionConfiguration": disk}}
                self._service.make_pool("pool1", account, deploymentConfiguration=machine)
            elif name == "service":
                uses(self._service, "cosmos", self._identifier(where, which))
                self._look("tool", OTHER)
            else:
                INCIDENTS[name](self._others, account, *where)

    # A play

    def _play(self, play: Play) -> None:
        removes = not all(task.verb in _KEEPING for run in play.runs for task in run.tasks)
        # The diff of a second task may begin with what reads have shown before the first task, and a task keeps what
        # lists still show in use.
        has_same_reads = len(play.runs[0].tasks) == 1 and not removes
        is_checked = play.oracle == "?checked" and (self._lag == 0 or has_same_reads)
        if is_checked:
            self._azure.sleep(SETTLED + REALISTIC["batch_recovery"])
        if play.events:
            snapshot = pickle.dumps(self._azure.world), self._azure.now, pickle.dumps(self._history)
        self._play_began, self._given = self._azure.now, {}
        before = self._usable_at_last()
        checked = self._checked(play) if is_checked else None
        hosts = self._run(play)
        is_killed = any(event.what == "killed" for event in play.events)
        if not (is_killed and removes):
            self._require_kept(before, play)
        if checked:
            self._require_predicted(checked, hosts[0])
        ends = [event for event in play.events if not event.what.startswith("tool ")]
        is_alone = ends == [*play.events] and len(play.runs) == len(play.runs[0].hosts) == 1
        if ends and is_alone and play.runs[0].caller in _ALL_RIGHTS:
            self._require_converges(play, snapshot, before)
        elif is_killed and removes:
            self._rerun(play, before)
        # As long as lists show an account with the key that it has left, the key stays. No read may show yet what
        # another tool has done.
        is_late = (removes and self._lag > 0) or self._has_hidden_change
        must_succeed = play.oracle == "?succeeds"
        if must_succeed:
            self._require_success(hosts)
        if must_succeed or (
            play.oracle == "?again" and self._is_repeatable(play) and not is_late and _first_failure(hosts) is None
        ):
            self._azure.sleep(SETTLED)
            [again] = self._run(play)
            for name, result in again.results:
                if result.get("failed") or result.get("changed"):
                    raise Failed(f"5. a second run of {play}: {name}: {_brief(result)}")

    def _rerun(self, play: Play, before: Mapping[str, tuple[bool, bool]]) -> list[Host]:
        """Run the play without its faults. What a killed run has removed and not asked for again is restored by nobody:
        then the run fails, and names the accounts that use it."""
        self._azure.sleep(SETTLED)
        hosts = self._run(Play(play.runs))
        if not _is_said_lost(hosts):
            self._require_kept(before, play)
        return hosts

    def _require_success(self, hosts: list[Host]) -> None:
        """Each host has succeeded, and its account is available."""
        if failed := _first_failure(hosts):
            raise Failed(f"5. {failed}")
        self._azure.sleep(SETTLED)
        for host in hosts:
            account = self._true_account(NAMES[host.name.partition(".")[2]])
            if account is None or self._azure.world.batch.health(account).kind != AVAILABLE:
                raise Failed(f"5. {host.name} has succeeded, and the account is not available")

    @staticmethod
    def _is_repeatable(play: Play) -> bool:
        tasks = play.runs[0].tasks
        verbs = [task.verb for task in tasks]
        return len(tasks) == 1 and not {"version", "rotate"} & set(verbs) and play.runs[0].caller == OWNER

    @property
    def _has_hidden_change(self) -> bool:
        """Whether reads of the play may not show what another tool has changed."""
        return self._lag > 0 and self._changed_by.get("tool", 0) >= self._play_began - self._lag

    def _require_kept(self, before: Mapping[str, tuple[bool, bool]], play: Play) -> None:
        after = self._usable_at_last()
        for name, (_own, was) in before.items():
            during = [one for one in self._history[name] if one.at >= self._play_began]
            by_tool = any(one.by == "tool" and not one.is_usable for one in during)
            # No read may show yet that another tool has taken away the key to which a run moves the account.
            moved = any(one.is_own_change and one.by != "tool" and not one.is_usable for one in during)
            if not was or name not in after or by_tool or (self._has_hidden_change and moved):
                continue
            if self._is_pinned_late(during):
                continue
            own, whole = after[name]
            if own and any(event.what == "killed" for event in play.events) and _is_visited(during):
                continue
            last = replace(self._history[name][-1], is_own_usable=own)
            if not whole and not self._is_cut_short(last):
                raise Failed(f"1. {name} was available before {play}, and cannot use {last.key}")
        if self._broken:
            raise Failed(f"1. {self._broken[0]}")
        self._require_others_untouched()

    def _is_pinned_late(self, during: list[Moment]) -> bool:
        """Whether another tool has pinned the account to a version that a run disabled before reads showed that."""
        own = [one for one in during if one.is_own_change]
        taken = [one for one in during if not one.is_usable and not one.is_own_change]
        return bool(own and taken) and own[-1].by == "tool" and taken[0].at - own[-1].at < self._lag

    def _require_others_untouched(self) -> None:
        """The vault has the access policy and the tag that another user has set, unless the vault was deleted."""
        vault = self._azure.world.vaults.by_name(FIRST_KEY[0])
        # A vault that was deleted and purged may be created again.
        if vault is None or vault.uid != self._vault_uid:
            return
        permissions = [sorted(one.permissions["keys"]) for one in vault.access_policies if one.object_id == STRANGER]
        if permissions != [["get", "list", "sign"]] or vault.tags != {"owner": "others"}:
            raise Failed(f"2. others have {permissions} and {vault.tags}")

    def _run(self, play: Play, *, check: bool = False) -> list[Host]:
        """Run all runs of the play. Returns the hosts."""
        self._broken, self._made = [], {}
        # Locks of two hosts do not exclude each other while the folder is deleted.
        self._is_disturbed = any(event.what in (*FAULTS, "folder gone") for event in play.events)
        hosts: list[list[Host]] = []
        calls: dict[str, Callable[[], None]] = {}
        for run in play.runs:
            number = next(self._numbers)
            controller = self._controller(run)
            of_run = [Host(f"{number}.{name}", run, controller) for name in run.hosts]
            hosts.append(of_run)
            for host in of_run:
                self._hosts[host.name] = host
                calls[host.name] = partial(self._host, host, of_run, check)
        first = [host.name for host in hosts[0]]
        others = [host for of_run in hosts[1:] for host in of_run]
        self._first = hosts[0]
        sent = count()
        waiting = {number: _moment(event.at) for number, event in enumerate(play.events)}
        turn = _moment(play.order[1:]) if others and play.order and not play.order.startswith("@r") else None
        self._may_begin = turn is None
        is_killed = False

        def at_step(host: Host) -> None:
            nonlocal is_killed
            short = host.name.partition(".")[2]
            for number, event in enumerate(play.events):
                is_it = event.at == f"task{host.step}" or (event.at == short and host.step == 1)
                if is_it and number in waiting and host in hosts[0]:
                    del waiting[number]
                    is_killed = event.what == "killed"
                    self._happens(event.what, host)

        self._at_step = at_step

        def before(name: str, request: Any) -> None:
            nonlocal turn, is_killed
            if name not in first:
                return
            if is_killed:
                raise Killed
            host, at = self._hosts[name], next(sent)
            if turn is not None and turn(at, host, request):
                turn, self._may_begin = None, True
                wait_until(lambda: all(one.has_ended for one in others))
            for number, is_it in list(waiting.items()):
                if number in waiting and is_it(at, host, request):
                    del waiting[number]
                    is_killed = play.events[number].what == "killed"
                    self._happens(play.events[number].what, host)

        def choose(names: list[str], last: str) -> str:
            if turn is None and self._may_begin and not play.order.startswith("@r"):
                # The other runs end before the first continues.
                names = [name for name in names if name not in first] or names
            return order(names, last)

        order = _order("" if others and not play.order.startswith("@r") else play.order)
        for host in others:
            host.waits = True
        try:
            self.wire.scheduled(choose if others and play.order else order, calls, before)
        finally:
            self._azure.server.faults.clear()
            self._azure.sandbox.control.behavior(resource_lock="none", policy_denial="none")
            self._service.sign_in_again()
            self._azure.sandbox.tokens.clear()
        return [host for of_run in hosts for host in of_run]

    def _happens(self, what: str, host: Host) -> None:
        if what == "killed":
            raise Killed
        if what == "interrupted":
            raise KeyboardInterrupt
        with unscheduled():
            if what == "folder gone":
                shutil.rmtree(host.controller.tokens, ignore_errors=True)
            elif what in FAULTS:
                self._azure.sandbox.control.fault(**FAULTS[what])
            elif what in REFUSALS:
                self._azure.sandbox.control.behavior(**REFUSALS[what])
            else:
                self._change(what.removeprefix("tool "))

    def _controller(self, run: Run) -> OneProcess:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        connection = self._world.connection(run.caller)
        return OneProcess(folder, connection=connection, as_module=run.as_modules)

    def _host(self, host: Host, hosts: list[Host], check: bool) -> None:
        if host.waits:
            wait_until(lambda: self._may_begin or all(one.has_ended for one in self._first))
        if host.run.strategy == WAVES:
            earlier = hosts[: hosts.index(host)]
            wait_until(lambda: all(one.has_ended for one in earlier))
        together = hosts if host.run.strategy == TOGETHER else [host]

        def next_step() -> None:
            host.step += 1
            if len(together) > 1:
                wait_until(lambda: all(one.has_ended or one.step >= host.step for one in together))
            self._at_step(host)
            host.began, host.writes = self._azure.now, 0

        number = host.name.partition(".")[0]
        controller = replace(host.controller, moment=lambda: f"{number} {host.step} {together[0].name}")
        try:
            for task in host.run.tasks:
                next_step()
                if task.host not in ("", host.name.partition(".")[2]):
                    continue
                result = self._task(host, controller, task, check, next_step)
                if result.get("failed"):
                    break
        except (Killed, KeyboardInterrupt):
            pass
        finally:
            host.has_ended = True

    def _task(
        self, host: Host, controller: OneProcess, task: Task, check: bool, next_step: Callable[[], None]
    ) -> Result:
        account = NAMES[host.name.partition(".")[2]]

        def record(name: str, result: Result) -> None:
            for one in result.get("results", [result]):
                if not one.get("skipped"):
                    self._require_true(host, f"{task}: {name}", one, account, check)
                    named = f"{task} {name}"
                    number = sum(known.startswith(f"{named} ") for known, _result in host.results)
                    host.results.append((f"{named} {number}", one))
            next_step()

        if task.verb in ROLES:
            with unscheduled():
                variables = self._given.setdefault((id(task), account), self._variables(task, account))
            return controller.role(ROLES[task.verb][0], variables, check=check, record=record)
        with unscheduled():
            module, options = self._given.setdefault((id(task), account), self._options(task, account))
        result = controller.module(module, {"wait_timeout": WAIT, **options}, check=check, task=controller.moment())
        self._require_true(host, str(task), result, account, check)
        host.results.append((f"{len(host.results)} {task}", result))
        return result

    def _variables(self, task: Task, account: str) -> Result:
        used = self._place(self._true_key(account))
        role, more = ROLES[task.verb]
        vault, key = KEYS[task.key] if role == "provision" else used or FIRST_KEY
        variables: Result = {
            "cmk_resource_group": GROUP,
            "cmk_location": LOCATION,
            "cmk_account_name": account,
            "cmk_vault_name": vault,
            "cmk_vault_authorization": "rbac" if vault == RBAC_VAULT else "access_policy",
            "cmk_key_name": key,
            "cmk_wait_timeout": WAIT,
            **({"cmk_unused_for": "P0D"} if task.at_once else {}),
            **more,
        }
        if account in WITH_USER_ASSIGNED:
            variables["cmk_identity_id"] = self._service.identity_id()
        if task.at_once:
            self._cut_short.add(_versionless((vault, key)))
        if role == "switch":
            variables |= {"cmk_new_key_identifier": self._identifier(KEYS[task.key], "new")}
            if (vault, key) != KEYS[task.key]:
                variables |= {"cmk_previous_key": _versionless((vault, key)), "cmk_unused_key": "disable"}
        return variables

    def _options(self, task: Task, account: str) -> tuple[str, Result]:
        module, options = MODULES[task.verb]
        vault, key = KEYS[task.key or "k1"]
        on_account = {"resource_group": GROUP, "account_name": account}
        if module == "batch_encryption" and task.verb != "microsoft":
            identifier = self._identifier((vault, key), task.verb)
            options = {**options, "key_source": "microsoft_keyvault", "key_identifier": identifier}
        named: dict[str, Result] = {
            "batch_encryption": on_account,
            "batch_encryption_info": on_account,
            "keyvault_cmk_access": {"vault_name": vault, "principal_id": self._true_principal(account)},
            "batch_account_identity": {
                "resource_group": GROUP,
                "name": account,
                "identity_id": self._service.identity_id("identity2"),
            },
        }
        removes = options.get("state") in ("disabled", "absent") or module == "keyvault_cmk_unused_versions"
        at_once = _at_once(task) if removes else {}
        if at_once:
            self._cut_short.add(_versionless((vault, key)))
        return module, {**named.get(module, {"vault_name": vault, "name": key}), **options, **at_once}

    # What is true

    def _true_account(self, name: str) -> Account | None:
        return self._azure.world.batch.find(self._azure.sandbox.subscription_id, GROUP, name)

    def _true_key(self, name: str) -> str | None:
        account = self._true_account(name)
        return account.protection.key_identifier if account and account.protection else None

    def _true_principal(self, name: str) -> str:
        account = self._true_account(name)
        principals = account.identity.principal_ids if account else []
        return principals[0] if principals else self._own_user

    @staticmethod
    def _place(identifier: str | None) -> tuple[str, str] | None:
        if identifier is None:
            return None
        host, _keys, name = identifier.removeprefix("https://").partition("/keys/")
        return host.partition(".")[0], name.partition("/")[0]

    def _identifier(self, key: tuple[str, str], which: str) -> str:
        world = self._azure.world
        vault = world.vaults.by_name(key[0])
        found = world.keys.live_key(vault, key[1]) if vault else None
        if found is None or which == "follow":
            return _versionless(key)
        return f"{_versionless(key)}/{found.versions[0 if which == 'old' else -1].version}"

    def _require_true(self, host: Host, name: str, result: Result, account: str, check: bool) -> None:
        where = f"2. {host.name} {name}: {_brief(result)}"
        if result.get("code") == "internal_error" or "Traceback" in str(result.get("msg")):
            raise Failed(where)
        if check:
            if host.writes:
                raise Failed(f"4. check mode has written: {where}")
            return
        # A task may undo a removal.
        may_write = result.get("failed") or result.get("changed") or "in_use_by" in result
        if not may_write and host.writes:
            raise Failed(f"{where}: not changed, but written")
        state = result.get("current_state") if result.get("failed") else result
        if not isinstance(state, Mapping) or "key_source" not in state or state.get("name", account) != account:
            return
        states = self._history.get(account, [])
        run = host.name.partition(".")[0]
        # After a change by the task, older states are false.
        own = [one.at for one in states if one.is_own_change and one.by == host.name and one.at >= host.began]
        if self._lag and result.get("failed"):
            # The state may be older than the change of the task.
            own = []
        since = max([host.began - self._lag, *own])
        earlier = [one for one in states if one.at <= since][-1:]
        possible = [*earlier, *(one for one in states if one.at > since)]
        key = state["key_identifier"] and state["key_identifier"].lower()
        if key not in {one.key for one in possible}:
            raise Failed(f"{where}: the account used {[one.key for one in possible]}")
        last = self._true_account(account)
        is_now = last is not None and self._azure.world.batch.health(last).kind == AVAILABLE
        # Reads may not show yet that others have taken the key away. If the task has not moved the account, it may use
        # what the run has read a moment ago.
        window = self._lag if any(at >= host.began for at in own) else max(self._lag, CACHED)
        # With the strategy free, other hosts of the run work at the same time.
        by_itself = host.name if host.run.strategy == FREE else f"{run}."
        changes = [at for by, at in self._changed_by.items() if not by.startswith(by_itself)]
        is_hidden = window and any(at >= host.began - window for at in changes)
        # A run that reads nothing new does not know that the user's shorter margin has cost the account its key.
        is_cut_short = any(self._is_cut_short(one) for one in possible)
        if state.get("available") is True and not (is_hidden or is_cut_short):
            if not any(one.is_usable for one in possible):
                raise Failed(f"{where}: the account cannot use its key")
            if not is_now and not any(one.is_available for one in possible):
                raise Failed(f"{where}: the account is not available")
        # Reads may not find yet a version that others have just created.
        is_late = self._lag and any(at >= host.began - self._lag for at in changes)
        is_available = is_now and all(one.is_usable and one.is_available for one in possible)
        if state.get("available") is False and is_available and not is_late:
            raise Failed(f"{where}: the account is available")

    # Check mode and convergence

    def _checked(self, play: Play) -> Host:
        [host] = self._run(play, check=True)
        return host

    def _require_predicted(self, check: Host, run: Host) -> None:
        predicted, came = map(_played, (check, run))
        first = predicted.first_changed if run.run.as_modules else None
        try:
            assert_came_true(predicted, came, first, may_succeed=True)
        except AssertionError as wrong:
            raise Failed(f"4. {wrong}") from wrong

    def _require_converges(
        self, play: Play, snapshot: tuple[bytes, float, bytes], before: Mapping[str, tuple[bool, bool]]
    ) -> None:
        """The same play without the fault succeeds if it succeeds without an earlier fault, at the time of either:
        Batch may have noticed meanwhile that another tool has taken the key away."""
        again = self._rerun(play, before)
        if _is_said_lost(again):
            return
        after = self._end_state()
        kept = self._azure.server.world, self._azure.now, self._history
        expected = []
        try:
            for alone, late in product(_with_or_without_disabling(play.runs[0]), (0, SETTLED)):
                self._azure.server.world, self._azure.now, self._history = (
                    pickle.loads(snapshot[0]),
                    snapshot[1],
                    pickle.loads(snapshot[2]),
                )
                # A version that the run has created does not exist here.
                self._given = {}
                for seconds in (late, SETTLED):
                    self._azure.sleep(seconds)
                    hosts = self._run(Play((alone,)))
                    expected.append((_first_failure(hosts) is None, self._end_state()))
                    if (_first_failure(again) is None, after) in expected:
                        return
        finally:
            self._azure.server.world, self._azure.now, self._history = kept
        verbs = [task.verb for task in play.runs[0].tasks]
        later = verbs[next((at for at, verb in enumerate(verbs) if verb in _MODES), len(verbs)) :]
        if self._lag and {"old", "new"} & {*later}:
            # Such a move may follow the key because reads show that the account did so before the first move.
            return
        raise Failed(f"3. {play}, a second time: {after} {_first_failure(again)}; without the fault: {expected}")

    def _end_state(self) -> dict[str, Any]:
        """The key of each account, and whether the account follows it; the keys that exist, and the accounts that
        may use them. For how long versions are kept depends on the time of the run."""
        found: dict[str, Any] = {}
        names = {self._true_principal(name).lower(): name for name in NAMES.values()}
        for account in self._azure.world.batch.existing():
            key = self._true_key(account.name)
            follows = bool(key) and "/" not in (key or "").rpartition("/keys/")[2]
            # While a read shows that the account follows its key, a task that sets a version lets it follow.
            found[account.name] = self._place(key), follows and not self._lag
        grants = Grants(self._azure.world)
        for vault_name, name in KEYS.values():
            vault = self._azure.world.vaults.by_name(vault_name)
            if vault and self._azure.world.keys.live_key(vault, name):
                allowed = grants.allowed(vault, "unwrapKey", name)
                found[f"{vault_name}/{name}"] = sorted(names[one] for one in allowed if one in names)
        return found


def _is_visited(moments: list[Moment]) -> bool:
    """Whether a run has used a version in the seconds in which another run has disabled it."""
    taken = {one.by.partition(".")[0] for one in moments if not one.is_usable and not one.is_own_change}
    moved = {one.by.partition(".")[0] for one in moments if one.is_own_change}
    return bool(taken) and bool(moved - taken)


def _is_said_lost(hosts: list[Host]) -> bool:
    said = [str(result.get("msg")) for host in hosts for _name, result in host.results if result.get("failed")]
    return any("that is done already" in one for one in said)


def _with_or_without_disabling(run: Run) -> list[Run]:
    """The run, and the run without the tasks that keep what is in use and disable the rest. If a fault hides whether
    something is in use, such a task undoes what it has disabled, and a later task may use that."""
    left = tuple(task for task in run.tasks if task.verb not in _DISABLING)
    return [run, replace(run, tasks=left)] if left and left != run.tasks else [run]


def _moment(at: str) -> Callable[[int, Host, Any], bool]:
    """Whether it is the moment before a request: its number, or its meaning (`MOMENTS`)."""
    if at.isdigit():
        return lambda number, _host, _request: number == int(at)
    if at.startswith("task") or at in NAMES:
        return lambda _number, _host, _request: False
    is_it = MOMENTS[at]()
    return lambda _number, _host, request: is_it(request)


def _order(order: str) -> Callable[[list[str], str], str]:
    if order.startswith("@r"):
        chances = random.Random(int(order[2:]))

        def choose(names: list[str], last: str) -> str:
            return last if last in names and chances.random() < 0.8 else chances.choice(names)

        return choose
    limit = int(order[1:]) if order[1:].isdigit() else None
    first, stops = list[str](), count()

    def first_for_some_stops(names: list[str], _last: str) -> str:
        first.extend([] if first else names[:1])
        others = [name for name in names if name not in first]
        if limit is None or (first[0] in names and next(stops) < limit) or not others:
            return names[0]
        return others[0]

    return first_for_some_stops


def _usable(check: KeyCheck, account: Account) -> tuple[bool, bool]:
    """Whether Batch can use the version that the account uses, and each version that it needs."""
    if account.protection is None:
        return True, True
    own = not check._unusable(account.identity, account.protection.version)
    return own, own and not check.unusable(account)


def _key_of_pool(properties: Mapping[str, Any]) -> str:
    machine = properties.get("deploymentConfiguration", {}).get("virtualMachineConfiguration", {})
    own = machine.get("diskEncryptionConfiguration", {}).get("customerManagedKey") or {}
    return str(own.get("keyUrl") or "")


def _pools(world: AzureWorld, account: Account) -> list[tuple[str, str, bool]]:
    """The names of the pools whose disks have a key, the identifiers of the keys, and whether each can be used."""
    found = [(pool.name, _key_of_pool(pool.properties).lower()) for pool in account.pools.values()]
    return [(f"{account.name}/{name}", key, _is_enabled(world, key)) for name, key in found if key]


def _of_other(world: AzureWorld) -> str | None:
    """The identifier of the version that the resource of another service uses."""
    found = [str(one["properties"]["keyVaultKeyUri"]).lower() for one in world.resource_graph.added()]
    return found[0] if found else None


def _is_enabled(world: AzureWorld, identifier: str) -> bool:
    host, _keys, name = identifier.removeprefix("https://").partition("/keys/")
    vault = world.vaults.by_name(host.partition(".")[0])
    key, _slash, version = name.partition("/")
    found = world.keys.live_key(vault, key) if vault else None
    item = found.version(version) if found else None
    return item is not None and item.enabled


def _versionless(key: tuple[str, str]) -> str:
    return f"https://{key[0]}.vault.azure.net/keys/{key[1]}"


def _played(host: Host) -> Played:
    tasks = {name: one for name, one in host.results if "diff" in one or one.get("failed")}
    return Played(host.results[-1][1] if host.results else {}, tasks)


def _first_failure(hosts: list[Host]) -> str | None:
    failed = [f"{host.name} {name}: {_brief(one)}" for host in hosts for name, one in host.results if one.get("failed")]
    return failed[0] if failed else None


def _versionless_of(identifier: str) -> str:
    host, keys, name = identifier.partition("/keys/")
    return f"{host}{keys}{name.partition('/')[0]}"


def _brief(result: Result) -> str:
    if result.get("failed"):
        return f"failed: {result.get('code')}: {result.get('msg')} {result.get('current_state', '')}"
    return f"changed: {result.get('changed')} {result.get('key_identifier')} available: {result.get('available')}"
