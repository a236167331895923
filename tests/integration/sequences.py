# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sequences of plays, of changes by other tools and of waits for the simulator: how they are written in one line, how
random sequences are made, and how a sequence that fails is shortened.

    value_lag=20 ; a1+a2: old(k1) retire(k1) | a3: info @7 !killed@5 ; wait 400 ; tool move a1 old(k1)

The line begins with positions of switches. Its steps are separated by semicolons:

- A play has one or more concurrent runs, each with its hosts and tasks. `a1+a2` are hosts with the strategy linear,
  `a1/a2` with the strategy free, `a1>a2` are two waves. A run may have a caller (`a1 as reader: info`), and modules in
  separate processes (`a1 in modules: info`).
- A task is a module or a role with its key. `!` after its name: without the margin of seven days. `a1.` before it: only
  for this host.
- The order of concurrent runs: `@7` lets the first send seven requests, and then the others end before the first
  continues. `@r7` is a random order.
- Events before a request of the first run (`!killed@5`): a fault, the end of the run, or a change by another tool.
- Instead of the number of a request, a moment of the simulator has the meaning of the request (`@lists_accounts`). It
  does not change if tasks send other requests.
- `?checked`: the play runs in check mode first, which has to predict its tasks. `?again`: it runs a second time, and
  must not change anything then. `?succeeds`: the same, and the play must not fail.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from azure_sandbox.shared.behavior import POSITIONS

HOUR, DAY = 3600, 86400
TOGETHER, FREE, WAVES = "+", "/", ">"
OWNER = "owner"
_TASK = re.compile(r"(?:(?P<host>a\d)\.)?(?P<verb>[a-z_]+)(?P<now>!?)(?:\((?P<key>\w+)\))?")
_RUN = re.compile(r"(?P<hosts>[\w+/>]+)(?: as (?P<caller>[\w ]+?))?(?P<modules> in modules)?: (?P<tasks>.+)")


@dataclass(frozen=True)
class Task:
    verb: str
    key: str = ""
    # Whether unused versions, keys or access are removed without the margin of seven days.
    at_once: bool = False
    # The only host of the run that runs the task; empty: all hosts.
    host: str = ""

    def __str__(self) -> str:
        host, key = f"{self.host}." if self.host else "", f"({self.key})" if self.key else ""
        return f"{host}{self.verb}{'!' if self.at_once else ''}{key}"


@dataclass(frozen=True)
class Run:
    """A run of ansible-playbook by one controller."""

    hosts: tuple[str, ...]
    tasks: tuple[Task, ...]
    # How the hosts run the tasks: TOGETHER, FREE or WAVES.
    strategy: str = TOGETHER
    caller: str = OWNER
    as_modules: bool = False

    def __str__(self) -> str:
        caller = "" if self.caller == OWNER else f" as {self.caller}"
        modules = " in modules" if self.as_modules else ""
        return f"{self.strategy.join(self.hosts)}{caller}{modules}: {' '.join(map(str, self.tasks))}"


@dataclass(frozen=True)
class Event:
    """Something that happens before a request of the first run: `at` is the number of the request, counted from 0, or a
    moment of the simulator."""

    what: str
    at: str

    def __str__(self) -> str:
        return f"!{self.what}@{self.at}"


@dataclass(frozen=True)
class Play:
    runs: tuple[Run, ...]
    # `@7`, `@r7` or empty: the first run that can proceed.
    order: str = ""
    events: tuple[Event, ...] = ()
    # `?checked`, `?again`, `?succeeds` or empty.
    oracle: str = ""

    def __str__(self) -> str:
        runs = " | ".join(map(str, self.runs))
        return " ".join(filter(None, [runs, self.order, *map(str, self.events), self.oracle]))


@dataclass(frozen=True)
class Wait:
    seconds: int

    def __str__(self) -> str:
        return f"wait {self.seconds}"


@dataclass(frozen=True)
class Tool:
    """A change by another tool."""

    what: str

    def __str__(self) -> str:
        return f"tool {self.what}"


Step = Play | Wait | Tool


@dataclass(frozen=True)
class Sequence:
    steps: tuple[Step, ...]
    switches: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        switches = " ".join(f"{name}={position}" for name, position in self.switches.items())
        return " ; ".join(filter(None, [switches, *map(str, self.steps)]))


def parsed(text: str) -> Sequence:
    """The sequence that was written as this line."""
    parts = [part.strip() for part in text.split(" ; ")]
    switches = {}
    if "=" in parts[0]:
        switches = dict(one.split("=") for one in parts.pop(0).split())
    return Sequence(tuple(map(_step, parts)), switches)


def _step(text: str) -> Step:
    if text.startswith("wait "):
        return Wait(int(text.removeprefix("wait ")))
    if text.startswith("tool "):
        return Tool(text.removeprefix("tool "))
    text, _mark, oracle = text.partition(" ?")
    text, *events = text.split(" !")
    found = re.search(r" (@\w+)$", text)
    order = found[1] if found else ""
    runs = tuple(map(_run, text.removesuffix(f" {order}").split(" | ")))
    return Play(runs, order, tuple(map(_event, events)), f"?{oracle}" if oracle else "")


def _event(text: str) -> Event:
    what, _at, at = text.rpartition("@")
    return Event(what, at)


def _run(text: str) -> Run:
    found = _RUN.fullmatch(text)
    assert found, text
    strategy = next((one for one in (FREE, WAVES) if one in found["hosts"]), TOGETHER)
    tasks = tuple(
        Task(one["verb"], one["key"] or "", bool(one["now"]), one["host"] or "")
        for one in _TASK.finditer(found["tasks"])
    )
    return Run(
        tuple(found["hosts"].split(strategy)), tasks, strategy, found["caller"] or OWNER, found["modules"] is not None
    )


# Random sequences

# Switches that are in a random position in each sequence, and those of which a few are in another position.
_ALWAYS = {
    "value_lag": ["0", "0", "5", "20", "20"],
    "value_lag_of": ["all"] * 4 + ["batch", "keys", "keys", "authorization"],
    "name_lag": ["0", "0", "10", "60"],
    "list_lag": ["0", "0", "180", "1200"],
    "previous_version_needed": ["86400", "86400", "600", "0"],
    "key_loss_noticed": ["3600", "600", "0", "0"],
    "follower_delay": ["86400", "3600", "0"],
    "pools_without_key": ["409", "409", "200", "403", "500"],
    "timing": ["quick", "realistic"],
}
_SELDOM = [
    (name, position)
    for name, positions in POSITIONS.items()
    if name
    not in (
        *_ALWAYS,
        "resource_lock",
        "policy_denial",
        "policy_message",
        "policy_modify",
        "perimeter",
        "retired_versions",
    )
    for position in positions[1:]
]
_MOVES = ["old"] * 4 + ["new"] * 4 + ["pin", "follow", "microsoft"]
_MOVES_BEFORE_REMOVAL = [["old"], *[["old", "new"], ["old", "microsoft"]] * 2, ["microsoft", "old"], ["follow"]]
_REMOVALS = (*(["retire"] * 8 + ["disable_kept"] * 4 + ["disable", "delete_kept", "revoke"]),)
_ROLES = (
    *"rotate rotate rotate_by_age switch switch revert revert_deleting".split(),
    *"provision provision_following recover".split(),
)
_MORE = ["info", "info", "version", "enable", "restore", "grant", "identity"]
_WAITS = [0, 0, 0, 0, 3, 30, 70, 200, 7 * HOUR, 8 * DAY, 8 * DAY, 91 * DAY]
_TOOLS = ["move {} old({})"] * 4 + ["move {} new({})"] * 2 + ["visit {} old({})"] * 3 + ["pool {} old({})"] * 3
_TOOLS += ["make_version {} ({})", "revert {} ({})", *["service {} old({})"] * 2]
_INCIDENTS = (
    *"firewall disable disable_all expire expire_in_time delete restore revoke close_vault delete_vault".split(),
    *("interrupt_access", "delete_account"),
)
_ENDS = ["killed", "killed", "interrupted", "folder gone"]
_MOMENTS = "lists_accounts changes_version changes_version after_version moves confirms".split()
_MOMENTS += "deletes after_deletion task2 task3 a1 a2".split()
_KEYS = ["k1"] * 6 + ["k2"] * 2 + ["r1"] * 2 + ["n1"]
_ACCOUNTS = [*[["a1", "a2"]] * 4, *[["a2", "a3"], ["a1", "a3"]] * 2, ["a1", "a4"], ["a3", "a5"]]
_CALLERS = ["resource group only", "reader", "without pools", "without lists", "other"]


class Chances:
    """Makes random sequences. Most of the steps of a sequence concern the same key and two of the accounts."""

    def __init__(self, seed: int, faults: Iterable[str]) -> None:
        self._random = random.Random(seed)
        self._faults = list(faults)
        self._key, self._accounts, self._reads_lag = "k1", ["a1", "a2"], False

    def sequence(self) -> Sequence:
        chances = self._random
        self._key = chances.choice(_KEYS[:-1])
        self._accounts = chances.choice(_ACCOUNTS)
        switches = {name: chances.choice(positions) for name, positions in _ALWAYS.items()}
        self._reads_lag = switches["value_lag"] != "0"
        if chances.random() < 0.25:
            switches.update([chances.choice(_SELDOM)])
        steps: list[Step] = []
        for _number in range(chances.choice([1, 1, 2, 2, 3])):
            if chances.random() < 0.35:
                steps.append(self._tool())
                if chances.random() < 0.2:
                    steps.append(Wait(30 * DAY))
            steps.append(self._play())
            if wait := chances.choice(_WAITS):
                steps.append(Wait(wait))
        return Sequence(tuple(steps), switches)

    def _tool(self) -> Tool:
        chances = self._random
        return Tool(self._incident() if chances.random() < 0.3 else self._change())

    def _incident(self) -> str:
        return f"{self._random.choice(_INCIDENTS)} {self._account()} ({self._some_key()})"

    def _change(self) -> str:
        return self._random.choice(_TOOLS).format(self._account(), self._some_key())

    def _at(self) -> str:
        """A request, often one at which something is decided."""
        chances = self._random
        return chances.choice(_MOMENTS) if chances.random() < 0.5 else str(chances.randrange(30))

    def _account(self) -> str:
        return self._random.choice(self._accounts)

    def _some_key(self) -> str:
        return self._key if self._random.random() < 0.75 else self._random.choice(_KEYS)

    def _play(self) -> Play:
        chances = self._random
        first = self._run()
        runs, order, events, oracle = [first], "", [], ""
        if chances.random() < 0.35:
            runs.append(self._run())
        if len(runs) > 1 or len(first.hosts) > 1:
            order = chances.choice(["", f"@{self._at()}", f"@r{chances.randrange(1000)}"])
        kind = chances.random()
        if kind < 0.3:
            what = chances.choice(self._faults) if chances.random() < 0.75 else chances.choice(_ENDS)
            at = chances.choice(["moves", "confirms", "changes_version", "deletes"])
            at = at if chances.random() < 0.4 else self._at()
            events = [Event(what, at)]
            if chances.random() < 0.3:
                # Before the fault, and often just before.
                events.insert(0, Event(f"tool {self._change()}", at if chances.random() < 0.5 else self._at()))
        elif kind < 0.55:
            # No guarantee holds if somebody takes the key away during a run, and no read shows that.
            is_incident = not self._reads_lag and chances.random() < 0.4
            what = self._incident() if is_incident else self._change()
            events = [Event(f"tool {what}", self._at())]
        elif len(runs) == len(first.hosts) == 1:
            oracle = chances.choice(["", "?checked", "?again"])
        return Play(tuple(runs), order, tuple(events), oracle)

    def _run(self) -> Run:
        chances = self._random
        hosts = (self._account(),) if chances.random() < 0.6 else tuple(self._accounts)
        caller = OWNER if chances.random() < 0.9 else chances.choice(_CALLERS)
        as_modules = len(hosts) == 1 and chances.random() < 0.2
        kind = chances.random()
        if kind < 0.25:
            tasks = [self._task(chances.choice(_ROLES))]
        elif kind < 0.5:
            # Moves of an account, and then a removal.
            moves = chances.choice(_MOVES_BEFORE_REMOVAL)
            removal = Task(chances.choice(_REMOVALS), self._key, chances.random() < 0.2)
            tasks = [*(Task(move, self._key) for move in moves), removal]
        else:
            number = chances.choice([1, 1, 2, 2, 3])
            kinds = chances.choices([_MOVES, _REMOVALS, _MORE], [2, 2, 1], k=number)
            tasks = [self._task(chances.choice(kind)) for kind in kinds]
        strategy = TOGETHER
        if len(hosts) > 1:
            strategy = chances.choice([TOGETHER, TOGETHER, FREE, WAVES])
            tasks = [replace(task, host=chances.choice(["", "", *hosts])) for task in tasks]
        return Run(hosts, tuple(tasks), strategy, caller, as_modules)

    def _task(self, verb: str) -> Task:
        at_once = verb in (*_REMOVALS, "rotate", "switch", "revert") and self._random.random() < 0.15
        return Task(verb, self._some_key(), at_once)


# Shorter sequences


def shorter(sequence: Sequence) -> Iterator[Sequence]:
    """Sequences that are a little shorter or simpler."""
    for number, step in enumerate(sequence.steps):
        before, after = sequence.steps[:number], sequence.steps[number + 1 :]
        if len(sequence.steps) > 1:
            yield replace(sequence, steps=(*before, *after))
        for simpler in _simpler(step):
            yield replace(sequence, steps=(*before, simpler, *after))
    for name in sequence.switches:
        yield replace(sequence, switches={one: at for one, at in sequence.switches.items() if one != name})


def _simpler(step: Step) -> Iterator[Step]:
    if not isinstance(step, Play):
        return
    for name, value in (("oracle", ""), ("events", ()), ("order", "")):
        if getattr(step, name) != value:
            changed: dict[str, Any] = {name: value}
            yield replace(step, **changed)
    for number, run in enumerate(step.runs):
        before, after = step.runs[:number], step.runs[number + 1 :]
        if len(step.runs) > 1:
            yield replace(step, runs=(*before, *after))
        for simpler in _simpler_run(run):
            yield replace(step, runs=(*before, simpler, *after))


def _simpler_run(run: Run) -> Iterator[Run]:
    if len(run.hosts) > 1:
        for host in run.hosts:
            tasks = tuple(replace(task, host="") for task in run.tasks if task.host in ("", host))
            if tasks:
                yield replace(run, hosts=(host,), tasks=tasks, strategy=TOGETHER)
    if len(run.tasks) > 1:
        yield from (replace(run, tasks=(*run.tasks[:at], *run.tasks[at + 1 :])) for at in range(len(run.tasks)))
    if run.caller != OWNER:
        yield replace(run, caller=OWNER)
    if run.as_modules:
        yield replace(run, as_modules=False)
    if run.strategy != TOGETHER:
        yield replace(run, strategy=TOGETHER)
