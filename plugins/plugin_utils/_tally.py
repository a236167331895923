# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The changes of a playbook, counted in a line, and the verdict at its end. Pure: uses neither Azure nor Ansible.

This plugin util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.azbatch.cmk.plugins.plugin_utils._accounts import messages

# The word for a host that a role has changed.
_DONE = {
    "azbatch.cmk.drill": "drilled",
    "azbatch.cmk.provision": "provisioned",
    "azbatch.cmk.recover": "recovered",
    "azbatch.cmk.revert": "reverted",
    "azbatch.cmk.rotate": "rotated",
    "azbatch.cmk.switch": "switched",
}
# These words count only changes of the key that an account uses, and not, for example, a disabled version.
_MOVES = ("rotated", "reverted", "switched")
# In a prediction, what would be done with the accounts.
_WOULD = {
    "drilled": "drill",
    "provisioned": "provision",
    "recovered": "recover",
    "reverted": "move",
    "rotated": "move",
    "switched": "move",
}
_ID = re.compile(r"\b[0-9a-f-]{36}\b")
# The verdict names at most this number of failed hosts, repairs, or hosts of a rerun.
_MOST = 3
# Modules whose summary reports the key that an account uses.
_SHOWN = (
    "azbatch.cmk.batch_encryption",
    "azbatch.cmk.batch_encryption_diagnosis",
    "azbatch.cmk.batch_encryption_info",
)


@dataclass
class Tally:
    """The changes of one playbook. `total` is the number of hosts of its first play."""

    total: int
    done: str = "changed"
    # Hosts of the waves that have begun, and of those, the hosts with a result.
    begun: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    # Hosts whose account was moved to another key, version or key source.
    moved: set[str] = field(default_factory=set)
    # Hosts whose account needs repairs, and of those, the hosts whose account was repaired, perhaps by the task of
    # another host: accounts share a vault, its firewall and a key.
    lost: set[str] = field(default_factory=set)
    repaired: set[str] = field(default_factory=set)
    # By failed host, the code of the error; empty if Ansible has reported the failure.
    failed: dict[str, str] = field(default_factory=dict)
    # By host whose account was left alone, the code of the error.
    left_alone: dict[str, str] = field(default_factory=dict)
    # Hosts of the finished waves, except a wave in which the play has stopped.
    finished: set[str] = field(default_factory=set)
    # By host of the current wave, the result that reports the key that its account uses.
    shown: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    # The identifiers of the keys that moved accounts use; None for a Microsoft-managed key.
    keys: set[str | None] = field(default_factory=set)
    # What the tasks of the role recover have repaired.
    repairs: list[str] = field(default_factory=list)
    # New versions as pairs of key and version.
    versions: set[tuple[str, str]] = field(default_factory=set)

    def add(self, host: str, role: str, action: str, result: Mapping[str, Any], *, failed: bool) -> None:
        """Count a finished task. `role` and `action` are full names; `role` is empty for a task outside of a role."""
        self.reached.add(host)
        self.done = _DONE.get(role, self.done)
        # A task with a loop has a result for each item.
        item_results = [item for item in result.get("results") or [result] if isinstance(item, Mapping)]
        left_alone = next((item["left_alone"] for item in item_results if item.get("left_alone")), None)
        if left_alone:
            self.left_alone[host] = left_alone["code"]
        elif failed:
            self.failed[host] = str(result.get("code", ""))
        elif action in _SHOWN and "summary" in result:
            self.shown[host] = result
            if result.get("repairs"):
                self.lost.add(host)
            elif action == "azbatch.cmk.batch_encryption" and host in self.lost:
                self.repaired.add(host)
        for item_result in item_results:
            if not item_result.get("changed"):
                continue
            self.changed.add(host)
            if action == "azbatch.cmk.batch_encryption":
                self.moved.add(host)
                self.keys.add(item_result.get("key_identifier"))
            elif role == "azbatch.cmk.recover" and item_result.get("summary") not in (None, *self.repairs):
                self.repairs.append(item_result["summary"])
            self.versions.update(new_versions(item_result.get("diff")))

    def begin_wave(self, hosts: Iterable[str]) -> None:
        """Begin a wave. In a later play of the playbook, its hosts are not finished before the end of the wave."""
        self.begun.update(hosts)
        self.finished.difference_update(hosts)
        self.shown.clear()

    def end_wave(self) -> None:
        """End a wave in which the play has not stopped."""
        self.finished |= self.reached

    @property
    def counted(self) -> set[str]:
        """Hosts that count for the word of the role, also if the play has stopped in their wave."""
        return (self.moved if self.done in _MOVES else self.changed | self.repaired) - self.failed.keys()

    @property
    def unfinished(self) -> set[str]:
        """Hosts that have begun, and of which it is not known whether their account would have been changed."""
        known = self.finished | self.counted | self.failed.keys() | self.left_alone.keys()
        return (self.begun | self.reached) - known

    @property
    def missed(self) -> int:
        """The number of hosts that have not begun."""
        return self.total - len(self.begun | self.reached)

    def line(self) -> str:
        versions = f", {_count(len(self.versions), 'new version')}" if self.versions else ""
        return ", ".join([f"{len(self.counted)} {self.done}", *self._others(always=True)]) + versions

    def _others(self, *, always: bool) -> list[str]:
        """The counts of the hosts that do not count for the word of the role. `always` is whether a count of no
        unchanged or failed hosts is one of them."""
        others = self.changed - self.counted - self.failed.keys() - self.unfinished
        unchanged = self.finished - self.changed - self.repaired - self.failed.keys() - self.left_alone.keys()
        # An account that was moved counts as moved, also if the run may not disable the key that it has left.
        left_alone = {
            host: self.left_alone[host] for host in self.left_alone.keys() - self.changed - self.failed.keys()
        }
        parts = [f"{len(others)} changed otherwise"] if others else []
        parts += [f"{len(unchanged)} unchanged"] if unchanged or always else []
        parts += [f"{len(left_alone)} left alone{_named(left_alone)}"] if left_alone else []
        parts += [f"{len(self.failed)} failed{_named(self.failed)}"] if self.failed or always else []
        parts += [f"{len(self.unfinished)} not finished"] if self.unfinished else []
        parts += [f"{self.missed} not started"] if self.missed else []
        return parts

    def verdict(self, took: str, *, is_check: bool = False, is_interrupted: bool = False) -> list[str]:
        """At most three lines: what was repaired, what has become of the accounts, and what to do next. `took` is how
        long the playbook has run."""
        return [
            *self._repairs(is_check=is_check),
            self.outcome(took, is_check, is_interrupted),
            *self._next(is_interrupted),
        ]

    def _repairs(self, *, is_check: bool) -> list[str]:
        if not self.repairs:
            return []
        # Those that differ in ids only, such as the principals of accounts, are named once.
        by_text: dict[str, list[str]] = {}
        for one in self.repairs:
            by_text.setdefault(_ID.sub("", one), []).append(one)
        texts = [same[0] if len(same) == 1 else f"{same[0]} ({len(same)} times)" for same in by_text.values()][:_MOST]
        more = [f"And {len(by_text) - _MOST} more."] if len(by_text) > _MOST else []
        return [" ".join([*([] if is_check else ["Repaired:"]), *texts, *more])]

    def outcome(self, took: str, is_check: bool = False, is_interrupted: bool = False) -> str:
        others, number = self._others(always=False), len(self.counted)
        if is_interrupted:
            return f"Interrupted after {took}: {', '.join([f'{number} {self.done}', *others])}."
        if is_check:
            would = [f"create {_count(len(self.versions), 'version')}"] if self.versions else []
            would += [f"{_WOULD.get(self.done, 'change')} {_count(number, 'account')}"] if number else []
            text = "; ".join(
                [f"Would {', '.join(would) or 'change nothing'}", *([", ".join(others)] if others else [])]
            )
            return f"{text}. Checked {_count(len(self.reached), 'account')} in {took}."
        target = self._target()
        versions = [_count(len(self.versions), "new version")] if self.versions and not target else []
        if number == self.total:
            done = f"{self.done.capitalize()} {number} of {_count(self.total, 'account')}"
            return f"{', '.join([f'{done}{target}', *versions])} in {took}."
        if not number and len(others) == 1 and others[0].endswith(" unchanged"):
            return f"Nothing to change: {_count(self.total, 'account')} unchanged, in {took}."
        counts = [f"{number} {self.done}{target}", *others, *versions]
        return f"{', '.join(counts)}, in {took}."

    def _target(self) -> str:
        """The key that all moved accounts use."""
        if len(self.keys) != 1 or self.done == "recovered":
            return ""
        (used,) = self.keys
        if used is None:
            return " to a Microsoft-managed key"
        name, _slash, version = used.partition("/keys/")[2].partition("/")
        return f" to version {version[:8]}… of {name}" if version else f" to the latest version of {name}"

    def _next(self, is_interrupted: bool) -> list[str]:
        if is_interrupted:
            return ["Rerun the same command. It leaves finished accounts unchanged."]
        left = sorted(self.failed.keys() | self.unfinished)
        if self.total == 1 or not (left or self.missed):
            return []
        if not self.missed and len(left) <= _MOST:
            return [f"Repair the cause, and rerun with --limit {','.join(left)}."]
        return ["Repair the cause, and rerun the same command. It leaves finished accounts unchanged."]

    def overview(self) -> list[str]:
        """The lines about the wave in which the play has stopped: the keys that accounts use, and the hosts that were
        not finished. The verdict names the hosts that failed."""
        left = sorted(self.reached - self.finished - self.failed.keys())
        unfinished = [f"{host} was not finished." for host in left if host not in self.shown]
        return [*messages(self.shown[host] for host in left if host in self.shown), *unfinished]

    def accounts(self) -> dict[str, dict[str, Any]]:
        """By host of the waves that have begun, what was done for its account, for machines."""
        return {
            host: {
                "changed": host in self.changed,
                "finished": host in self.finished and host not in self.failed,
                **({"left_alone": self.left_alone[host]} if host in self.left_alone else {}),
                **({"failed": self.failed[host]} if host in self.failed else {}),
            }
            for host in sorted(self.begun | self.reached)
        }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _named(codes: Mapping[str, str]) -> str:
    """The hosts with their codes, or of many hosts only the codes, in parentheses."""
    if not codes:
        return ""
    if len(codes) <= _MOST:
        return f" ({', '.join(f'{host}: {codes[host]}' if codes[host] else host for host in sorted(codes))})"
    return f" ({', '.join(sorted({code or 'without a code' for code in codes.values()}))})"


def new_versions(diff: Any) -> Iterator[tuple[str, str]]:
    """The key and the version that a task has created, from its diff. The diff of a task has only what has changed."""
    if not isinstance(diff, Mapping) or not isinstance(diff.get("after"), Mapping):
        return
    before, after = diff.get("before") or {}, diff["after"]
    if "version" in after and not before.get("soft_deleted"):
        yield after["key_identifier"].rpartition("/")[0], after["version"]
