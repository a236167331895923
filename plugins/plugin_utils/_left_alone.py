# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One account's trouble does not stop the others. In the playbooks that change accounts in waves, a task
that fails for its account's own trouble, and has not changed the account, leaves the account alone: it succeeds, the
next tasks of the play are skipped for the host, and the end of the run shows the causes.

This plugin util is private to the collection.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible import constants
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, InvalidOption, link_to, reports
from ansible_collections.azbatch.cmk.plugins.module_utils._core.exceptions import OPTION, Exemption, exemption
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import read_key_identifier
from ansible_collections.azbatch.cmk.plugins.plugin_utils import _argument_spec
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import (
    EXCEPTIONS,
    LEFT_ALONE_FAILS,
    PLAYBOOK,
    is_blank,
    left_alone_fails,
)

# A variable of the plays that leave accounts alone.
LEAVES_ALONE = "__leaves_alone"
_NOTES, _CANARY = "left alone", "canary"
# The modules that change an account. Reports and shared resources may be tasks of several hosts.
_CHANGES = (".batch_encryption", ".batch_account_identity")
# The values of a failure with the texts of others.
_TEXTS = ("azure", "details")
# The parts of a reason that differ between accounts with the same cause: identifiers, and versions.
_OF_ONE_ACCOUNT = re.compile(r"/subscriptions/\S+|\b[0-9a-f]{32}\b|\b[0-9a-f-]{36}\b|\b[0-9a-f]{8}…")
# A key as messages name it: as an identifier, with the address of its vault, or with the name of its vault.
_KEY = re.compile(
    r"(?:the key (?P<name>[\w-]+) in )?https://(?P<vault>[^/\s]+)(?:/keys/(?P<key>[\w-]+)\S*)?"
    r"|the key (?P<named>[\w-]+) in (?P<in>[\w-]+)"
)
_VAULT = re.compile(r"\b(?:(?:key )?vault|key) [\w-]+")


class LeftAlone(ActionBase):  # type: ignore[misc]
    """Notes the accounts that are left alone. Until a first account of the play was changed, or had nothing to change,
    one host at a time changes its account: the account of an earlier wave may have been left alone."""

    _account_id: Callable[[Mapping[str, Any], str, str], str]

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        host = (task_vars or {}).get("inventory_hostname", "")
        files = RunFiles(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
        if (other := self._other_host(files, host)) is not None:
            return {"failed": True, "changed": False, **_of_other_host(self._name(), host, other).result()}
        result = self._run_in_wave(tmp, task_vars or {}, files, host)
        if self._is_change() and not (result.get("failed") or result.get("left_alone")):
            self._end_note(files)
        return result

    def _run_in_wave(self, tmp: str | None, task_vars: dict[str, Any], files: RunFiles, host: str) -> dict[str, Any]:
        if LEAVES_ALONE not in task_vars:
            return dict(super().run(tmp, task_vars))
        try:
            exceptions = read_exceptions(self._templar.template(task_vars.get(EXCEPTIONS)))
        except CmkError as wrong:
            return {"failed": True, "changed": False, **wrong.result()}
        play = self._task.get_play()
        canary = _CANARY, play_id(play)
        if not self._is_change() or play.max_fail_percentage == 100 or files.load(*canary) == "":
            return self._run(tmp, task_vars, files, exceptions)
        with files.locked(*canary):
            failed = files.load(*canary)
            if failed is None:
                result = self._run(tmp, task_vars, files, exceptions)
                if not result.get("left_alone"):
                    files.store(host if result.get("failed") else "", *canary)
                return result
        if failed:
            return {"failed": True, "changed": False, **_not_started(failed).result()}
        return self._run(tmp, task_vars, files, exceptions)

    def _run(
        self, tmp: str | None, task_vars: dict[str, Any], files: RunFiles, exceptions: Sequence[Exemption]
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        is_only_host = len(task_vars["ansible_play_hosts_all"]) == 1
        if "warnings" in result and not is_only_host:
            # Ansible shows equal warnings once. The playbook shows the names of the accounts.
            named = f"the Batch account {self._name()} "
            result["warnings"] = [str(warning).replace(named, "the account ") for warning in result["warnings"]]
        if not result.get("failed") or result.get("scope") != "account":
            return result
        account = self._account_of_host(task_vars)
        fitting = [exception for exception in exceptions if exception.is_for(account, code=result["code"])]
        exception = max(fitting, key=lambda exception: exception.ends, default=None)
        is_accepted = exception is not None and time.time() < exception.ends
        if exception and not is_accepted:
            ended = f"The exception for this account ended on {exception.expires_on} ({exception.reason})."
            result["msg"] = f"{ended} {result['msg']}"
        fails = not is_accepted and left_alone_fails(self._templar.template(task_vars.get(LEFT_ALONE_FAILS)))
        if fails and is_only_host:
            return result
        host = task_vars["inventory_hostname"]
        note = {
            "host": host,
            "account": self._account(),
            "playbook": playbook_number(files),
            "fails": fails,
            "name": self._name(),
            "code": result["code"],
            "reason": result["msg"],
            "remedy": result.get("remedy") or "",
            **{name: result[name] for name in _TEXTS if name in result},
        }
        if exception and is_accepted:
            note["accepted"] = f"accepted until {exception.expires_on} ({exception.reason})"
        with files.locked(_NOTES):
            notes = [*(other for other in left_alone_accounts(files) if other["host"] != host), note]
            if not files.store(notes, _NOTES, is_note=True):
                # Nobody would report the account.
                return result
        left_alone = {name: note[name] for name in ("code", "reason", "remedy", *_TEXTS) if name in note}
        warnings = {"warnings": result["warnings"]} if "warnings" in result else {}
        return {"changed": False, "left_alone": left_alone, **warnings}

    def _end_note(self, files: RunFiles) -> None:
        """The task has succeeded, so what an earlier playbook of the run has noted about the account is over."""
        account = self._account()
        if any(note["account"] == account for note in left_alone_accounts(files)):
            with files.locked(_NOTES):
                others = [note for note in left_alone_accounts(files) if note["account"] != account]
                files.store(others, _NOTES, is_note=True)

    def _is_change(self) -> bool:
        return str(self._task.action).endswith(".batch_encryption")

    def _account(self) -> str:
        """The id of the account that the task is for."""
        args = {"subscription_id": None, **self._task.args}
        group = args.get("account_resource_group") or args.get("resource_group")
        return self._account_id(args, str(group), self._name()).lower()

    def _account_of_host(self, task_vars: Mapping[str, Any]) -> dict[str, str]:
        """The account of the variables of the roles: the task may be for a key that accounts share."""
        variables = ("cmk_subscription_id", "cmk_resource_group", "cmk_account_name")
        subscription, group, name = (self._templar.template(task_vars.get(variable)) or "" for variable in variables)
        return {"name": name, "id": self._account_id({"subscription_id": subscription}, group, name)}

    def _name(self) -> str:
        """The name of the account that the task changes, or of the key."""
        args = self._task.args
        name = args.get("account_name") or args.get("used_by_account") or args.get("name")
        return str(name or read_key_identifier(str(args.get("key_identifier") or "")).name)

    def _other_host(self, files: RunFiles, host: str) -> str | None:
        """The host of the play that has changed the account of this task before, if it is another host."""
        if not str(self._task.action).endswith(_CHANGES):
            return None
        profile = str(self._task.args.get("profile"))
        first: str = files.first(host, "changed by", play_id(self._task.get_play()), profile, self._account())
        return None if first == host else first


def _of_other_host(account: str, host: str, other: str) -> CmkError:
    remedy = "Give each host another cmk_account_name, in the inventory and not with -e."
    message = f"The hosts {other} and {host} both name the Batch account {account}. Nothing was changed for {host}."
    return CmkError(f"{message} {remedy}", code="account_of_other_host", remedy=remedy)


def _not_started(failed: str) -> CmkError:
    remedy = "Correct that, and run the playbook again."
    message = f"The account was not changed, because the change of the first account ({failed}) has failed."
    return CmkError(f"{message} {remedy}", code="canary_failed", remedy=remedy)


def play_id(play: Any) -> str:
    """The identity of a play in all its waves. Each import of a playbook is another play."""
    # ansible-runner appends the number of the wave.
    return str(play._uuid).partition("_")[0]


def playbook_number(files: RunFiles) -> int:
    """The number of the playbook that runs, in the order of the run."""
    return int((files.load(PLAYBOOK, is_note=True) or {"number": 0})["number"])


def failing(files: RunFiles) -> list[str]:
    """The hosts that fail the run because their accounts were left alone. If another of the playbooks follows, it may
    repair the accounts, and its last play fails. Ansible runs no later play on a failed host, and no later play at all
    if all hosts of a play have failed."""
    if (files.load(PLAYBOOK, is_note=True) or {"is_followed": False})["is_followed"]:
        return []
    return [note["host"] for note in left_alone_accounts(files) if note["fails"]]


def read_exceptions(value: Any) -> list[Exemption]:
    """The exceptions of the variable `cmk_exceptions`. Raises CmkError."""
    if is_blank(value):
        return []
    specification, given = {EXCEPTIONS: OPTION}, {EXCEPTIONS: value}
    for error in _argument_spec.errors(specification, given):
        raise error
    items = ArgumentSpecValidator(specification).validate(given).validated_parameters[EXCEPTIONS]
    try:
        return [exemption(item) for item in items]
    except InvalidOption as wrong:
        raise wrong.extended(msg=wrong.msg.replace("O(exceptions)", EXCEPTIONS), variable=EXCEPTIONS) from None


def left_alone_accounts(files: RunFiles) -> list[dict[str, Any]]:
    """The accounts that the run has left alone: `host`, `account` (its id), `playbook` (its number), `fails` (whether
    this fails the run), `name`, `code`, `reason` and `remedy` of each, and `accepted` if an exception accepts it."""
    notes: list[dict[str, Any]] = files.load(_NOTES, is_note=True) or []
    return notes


def lines(
    notes: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[str]], inventories: Sequence[str]
) -> list[str]:
    """A line for each cause. `groups` are the groups of the inventory with their hosts."""
    causes: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for note in notes:
        causes.setdefault((note["code"], note.get("accepted") or _cause(note)), []).append(note)
    return [_line(code, together, groups, inventories) for (code, _text), together in causes.items()]


def _cause(note: Mapping[str, str]) -> str:
    """The reason without what differs between accounts with the same cause."""
    text = " ".join([note["reason"], *reports(note)])
    text = re.sub(rf"\b{re.escape(note['name'])}\b", "", text) if note["name"] else text
    # The cause is in the vault, such as its firewall, unless the reason names a version.
    is_of_key = "version" in text.lower()
    text = _KEY.sub(r"\g<name> \g<key> \g<named> \g<vault> \g<in>" if is_of_key else r"\g<vault> \g<in>", text)
    if note["code"] == "users_unknown":
        # The cause is in what lists the users of all vaults.
        text = _VAULT.sub("", text)
    return _OF_ONE_ACCOUNT.sub("", text)


def links(notes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The links to the codes of the causes that no exception accepts."""
    return [link_to(code) for code in sorted({note["code"] for note in notes if "accepted" not in note})]


def _line(
    code: str, notes: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[str]], inventories: Sequence[str]
) -> str:
    first, hosts = min(notes, key=lambda note: note["host"]), sorted(note["host"] for note in notes)
    if "accepted" in first:
        return " ".join(f"{', '.join(hosts)}: {code}, {first['accepted']}.".split())
    # The last sentence of the reason is the remedy.
    reason = f"{first['host']}: {first['reason']}"
    if code == "account_unavailable":
        reason = f"{reason.removesuffix(first['remedy'])} {_recover(_pattern(hosts, groups), inventories)}"
    elif code in ("account_not_found", "account_on_another_key", "account_not_on_cmk"):
        reason = f"{reason} If the account was deleted or moved on purpose, update the inventory (--flush-cache)."
    if len(hosts) > 1:
        reason = f"{len(hosts)} hosts ({', '.join(hosts)}) for the same cause ({code}). For example, {reason}"
    return " ".join(reason.split())


def _recover(pattern: str, inventories: Sequence[str]) -> str:
    if pattern == "localhost":
        return "Run the playbook azbatch.cmk.recover with the same variables."
    sources = "".join(f" -i {shlex.quote(inventory)}" for inventory in inventories)
    return f"Run: ansible-playbook{sources} azbatch.cmk.recover -e cmk_hosts={shlex.quote(pattern)}"


def _pattern(hosts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str:
    """A pattern of Ansible for the hosts: if there are several, the smallest group of a key or a vault that has all of
    them."""
    if len(hosts) > 1:
        having = [(len(of), name) for name, of in _of_keys(groups) if set(hosts) <= set(of)]
        if having:
            return min(having)[1]
    return ",".join(hosts)


def _of_keys(groups: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    return ((name, of) for name, of in groups.items() if name.startswith(("key_", "vault_")))
