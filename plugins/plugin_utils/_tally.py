# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The changes of a playbook over many hosts, in one line. Pure: uses neither Azure nor Ansible.

This plugin util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

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
    # By host, the line that reports the key that its account uses.
    summaries: dict[str, str] = field(default_factory=dict)
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
            self.summaries[host] = result["summary"]
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
            self.versions.update(new_versions(item_result.get("diff")))

    def begin_wave(self, hosts: Iterable[str]) -> None:
        """Begin a wave. In a later play of the playbook, its hosts are not finished before the end of the wave."""
        self.begun.update(hosts)
        self.finished.difference_update(hosts)

    def end_wave(self) -> None:
        """End a wave in which the play has not stopped."""
        self.finished |= self.reached

    @property
    def counted(self) -> set[str]:
        """Hosts that count for the word of the role, also if the play has stopped in their wave."""
        return (self.moved if self.done in _MOVES else self.changed | self.repaired) - self.failed.keys()

    def line(self) -> str:
        others = self.changed - self.counted - self.failed.keys()
        known = self.changed | self.repaired | self.failed.keys()
        unchanged = self.finished - known - self.left_alone.keys()
        unfinished = self.reached - self.finished - known
        missed = self.total - len(self.reached)
        parts = [f"{len(self.counted)} {self.done}"]
        parts += [f"{len(others)} changed otherwise"] if others else []
        parts += [f"{len(unchanged)} unchanged"]
        # An account that was moved counts as moved, also if the run may not disable the key that it has left.
        left_alone = self.left_alone.keys() - self.changed - self.failed.keys()
        parts += [f"{len(left_alone)} left alone"] if left_alone else []
        parts += [f"{len(self.failed)} failed"]
        parts += [f"{len(unfinished)} not finished"] if unfinished else []
        parts += [f"{missed} not started"] if missed else []
        if self.versions:
            parts.append(f"{len(self.versions)} new version{'s' if len(self.versions) > 1 else ''}")
        return ", ".join(parts)

    def overview(self) -> list[str]:
        """A line for each host of the wave in which the play has stopped: the account's key, or that the host
        failed."""
        return [
            f"{host} failed." if host in self.failed else self.summaries.get(host, f"{host} was not finished.")
            for host in sorted(self.reached - self.finished)
        ]

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


def new_versions(diff: Any) -> Iterator[tuple[str, str]]:
    """The key and the version that a task has created, from its diff. The diff of a task has only what has changed."""
    if not isinstance(diff, Mapping) or not isinstance(diff.get("after"), Mapping):
        return
    before, after = diff.get("before") or {}, diff["after"]
    if "version" in after and not before.get("soft_deleted"):
        yield after["key_identifier"].rpartition("/")[0], after["version"]
