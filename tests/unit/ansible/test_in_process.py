# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module runs inside Ansible's own process if possible. Otherwise, the action plugin holds the locks of the run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from ansible import constants
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.block import Block
from ansible.playbook.handler import Handler
from ansible.playbook.play import Play
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import become_loader, connection_loader
from ansible.template import Templar
from azure_table import Table, task_of
from documents import SUBSCRIPTION, account
from goals import options_of

from ansible_collections.azbatch.cmk.plugins.action import (
    batch_encryption,
    keyvault_cmk_access,
    keyvault_cmk_key,
    keyvault_cmk_key_state,
    keyvault_cmk_unused_versions,
    keyvault_cmk_vault,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.driver import MaxAge
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles, _hash
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import MANUAL, CmkError, MissingSdk, Rejected
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.sent_writes import SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._module import MESSAGES
from ansible_collections.azbatch.cmk.plugins.plugin_utils import _in_process
from ansible_collections.azbatch.cmk.plugins.plugin_utils._left_alone import left_alone_accounts

NAME = "azbatch.cmk.batch_encryption"
REVERT = {"resource_group": "rg-batch", "account_name": "mybatch", "key_source": "microsoft_batch"}
ACCOUNT = {"resource_group": "rg-batch", "account_name": "mybatch"}
# In process or as a separate process


class Watched(batch_encryption.ActionModule):
    """The action plugin. It does not run the module, but returns where the module would run."""

    def _run_module(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        return {"ran": "here"}

    def _execute_module(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"ran": "elsewhere", **kwargs}


def task_in_play(task: type[Task] = Task, strategy: str = "linear") -> Any:
    play = Play()
    play._uuid, play.strategy = "play", strategy
    return task(block=Block(play=play))


def run(
    *,
    connection: str = "local",
    variables: dict[str, Any] | None = None,
    action: type[Any] = Watched,
    args: dict[str, Any] | None = None,
    **keywords: Any,
) -> dict[str, Any]:
    loader = DataLoader()
    task = task_in_play()
    task.action, task.args = NAME, args or REVERT
    for keyword, value in keywords.items():
        setattr(task, keyword, value)
    connected = connection_loader.get(connection, PlayContext(), os.devnull)
    # Like Ansible's executor, if the task, the play, the command line or the inventory enables become.
    connected.set_become_plugin(become_loader.get("su") if task.become else None)
    plugin = action(
        task,
        connection=connected,
        play_context=PlayContext(),
        loader=loader,
        templar=Templar(loader=loader, variables=variables or {}),
        shared_loader_obj=None,
    )
    ran: dict[str, Any] = plugin.run(task_vars=variables or {})
    return ran


@pytest.fixture(autouse=True)
def _sdk_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_in_process, "_MISSING", None)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({}, "here", id="by default"),
        pytest.param({"variables": {"cmk_in_process": "yes"}}, "here", id="if set"),
        pytest.param({"variables": {"cmk_in_process": "no"}}, "elsewhere", id="if disabled"),
        pytest.param({"connection": "ssh"}, "elsewhere", id="on another machine"),
        pytest.param({"become": True}, "elsewhere", id="as another user"),
    ],
)
def test_where_a_task_runs(options: dict[str, Any], where: str) -> None:
    assert run(**options)["ran"] == where


def test_without_the_sdk_the_module_runs_in_a_separate_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_in_process, "_MISSING", MissingSdk("azure-identity is not installed."))

    assert run(variables={"name": "x"})["task_vars"] == {"name": "x"}


# The messages of a module in a separate process


class Speaking(keyvault_cmk_key.ActionModule):
    """Replaces the module in a separate process, which shows options if the action plugin does not ask for marks."""

    code = "invalid_option"

    def _execute_module(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        result = {"failed": True, "msg": "name is 'x'.", "code": self.code, "exception": "Module failed: name is 'x'."}
        if kwargs["module_args"].get(MESSAGES):
            result[MESSAGES] = {"msg": "O(name) is 'x'.", "warnings": ["Correct O(name)."]}
        return result


def refused_in_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **keywords: Any) -> dict[str, Any]:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    args = {"vault_name": "myvault", "name": "batch", "allowed_repairs": ["key"]}
    return run(action=Speaking, args=args, variables={"cmk_in_process": False}, **keywords)


def test_the_action_shows_the_messages_of_a_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Since ansible-core 2.19, Ansible would show `exception` instead of the message of the action."""
    result = refused_in_module(monkeypatch, tmp_path)

    link = f"{MANUAL}#invalid_option"
    assert result["msg"] == "name is 'x'."
    assert result["warnings"] == ["Correct name."]
    assert result["documentation"] == link
    assert not {MESSAGES, "exception"} & result.keys()


def test_the_traceback_of_a_bug_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Speaking, "code", "internal_error")

    assert refused_in_module(monkeypatch, tmp_path)["exception"]


# The locks that the action plugin holds while the module runs in a separate process


FORCED = "forced version myvault/batch"


class Rotation(keyvault_cmk_key.ActionModule):
    """Replaces the module in a separate process: records whether the vaults are locked, and whether the run has forced
    a version. Then it notes that it has."""

    seen: ClassVar[list[dict[str, Any]]] = []

    def _execute_module(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        journal = Journal(RunFiles(None), SentWrites())
        handed = kwargs["module_args"].get("_journal")
        journal.merge(handed or {"notes": {}})
        noted = {"has_forced": journal.noted_at(FORCED) is not None, "run": handed and handed["run"]}
        self.seen.append({"locked": is_locked("myvault"), "other": is_locked("vault2"), **noted})
        journal.note(FORCED)
        return {"changed": True, "_journal": journal.handed_over()}


def is_locked(vault: str) -> bool:
    files = RunFiles(constants.DEFAULT_LOCAL_TMP)
    with open(files._folder / f"{_hash(('turn', vault))}.lock", "w") as lock:  # type: ignore[operator]
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(Rotation, "seen", [])
    return Rotation.seen


def rotate(account: str = "mybatch", **changed: Any) -> dict[str, Any]:
    args = {"account_resource_group": "rg-batch", "used_by_account": account, "vault_name": "MyVault", "name": "batch"}
    return run(action=Rotation, args={**args, **changed}, variables={"cmk_in_process": False})


def test_a_vault_is_locked_while_a_module_that_changes_it_runs(handed_over: list[dict[str, Any]]) -> None:
    rotate()

    assert [(one["locked"], one["other"]) for one in handed_over] == [(True, False)]


def test_options_that_a_module_refuses_are_left_to_the_module(handed_over: list[dict[str, Any]]) -> None:
    """The module reports the error."""
    rotate(vault_name="v")

    assert len(handed_over) == 1


def test_modules_know_that_the_run_has_forced_a_version(handed_over: list[dict[str, Any]], tmp_path: Path) -> None:
    """And they know the name of the run, which is the purpose of the version by default."""
    for name in ("one", "two", "two"):
        rotate(name)

    assert [one["has_forced"] for one in handed_over] == [False, True, True]
    assert {one["run"] for one in handed_over} == {tmp_path.name}


# What was read before a module in a separate process


ACCOUNT_ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-batch/providers/Microsoft.Batch/batchAccounts/mybatch"
WANTED = "https://myvault.vault.azure.net/keys/wanted"


class Switch(batch_encryption.ActionModule):
    """Replaces the module in a separate process: records what it gets, and returns a result or ends without one."""

    got: ClassVar[list[Any]] = []
    outcome: ClassVar[Any] = {}

    def _execute_module(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self.got.append(kwargs["module_args"].get("_journal"))
        if self.outcome is None:
            raise RuntimeError("lost")
        return {"changed": True, **self.outcome}


@pytest.fixture
def switched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Switch]:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(Switch, "got", [])
    monkeypatch.setattr(Switch, "outcome", {})
    return Switch


def switch() -> None:
    args = {**ACCOUNT, "subscription_id": SUBSCRIPTION, "key_source": "microsoft_keyvault", "key_identifier": WANTED}
    run(action=Switch, args=args, variables={"cmk_in_process": False})


@pytest.mark.parametrize(
    "outcome", [{}, {"failed": True, "msg": "No response."}, None], ids=["ended", "failed", "killed"]
)
def test_a_module_in_a_separate_process_ends_the_reads_of_all_callers(
    switched: type[Switch], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: Any
) -> None:
    monkeypatch.setattr(switched, "outcome", outcome)
    read = refs.dated_account(ACCOUNT_ID)
    table = Table({read: account()})
    tasks = [task_of(table, tmp_path, caller=caller) for caller in ("me", "you")]
    for one in tasks:
        one.driver.get(read, MaxAge.RECENT)
    table[read] = moved = account(key=WANTED)
    with contextlib.suppress(RuntimeError):
        switch()

    for one in tasks:
        assert one.driver.get(read, MaxAge.RECENT) == moved


@pytest.mark.parametrize(
    ("action", "args"),
    [
        pytest.param(Switch, REVERT, id="encryption"),
        pytest.param(Rotation, {"vault_name": "myvault", "name": "batch"}, id="a vault"),
    ],
)
def test_a_task_in_the_background_cannot_change_an_account_or_a_vault(
    switched: type[Switch], action: type[Any], args: dict[str, str]
) -> None:
    result = run(action=action, args=args, async_val=60)

    assert (result["failed"], result["code"]) == (True, "invalid_option")
    assert switched.got == []


IDENTIFIER = "https://MyVault.vault.azure.net/keys/batch"
PRINCIPAL_ID = {"principal_id": "abcdef01-7777-8888-9999-000000000000"}


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (keyvault_cmk_key, {"vault_name": "MyVault", "name": "batch"}),
        (keyvault_cmk_key_state, {"key_identifier": f"{IDENTIFIER}/{'a' * 32}", "state": "disabled"}),
        (keyvault_cmk_unused_versions, {"key_identifier": IDENTIFIER}),
        (keyvault_cmk_access, {"key_identifier": IDENTIFIER, **PRINCIPAL_ID}),
        (keyvault_cmk_vault, {"resource_group": "rg-keys", "name": "MyVault"}),
    ],
)
def test_the_lock_is_that_of_the_vault(module: ModuleType, options: dict[str, Any]) -> None:
    """In any letter case: the name of the lock is in lower case."""
    assert module.ActionModule.module.exclusive(options_of(module.ActionModule.module, **options)).lower() == "myvault"


# Hosts that run a task at the same time


@pytest.mark.parametrize(
    ("second", "is_same"),
    [
        pytest.param({}, True, id="of a wave"),
        pytest.param({"batch": ["two"]}, False, id="of another wave"),
        pytest.param({"strategy": "free"}, False, id="with the strategy free"),
        pytest.param({"task": Handler}, False, id="of a handler"),
        pytest.param({"attempts": 2}, False, id="of a repetition"),
        pytest.param({"uuid": "another"}, False, id="of another task"),
    ],
)
def test_the_hosts_of_a_wave_begin_a_task_at_the_same_moment(second: dict[str, Any], is_same: bool) -> None:
    def moment(
        host: str,
        *,
        batch: list[str] | None = None,
        strategy: str = "linear",
        task: Any = Task,
        attempts: int = 1,
        uuid: str = "one",
    ) -> str:
        plugin = prepared(Module(Outcome(False, {}, {})), name="x")
        plugin._task = task_in_play(task, strategy)
        plugin._task._uuid = uuid
        plugin._attempts = attempts
        return plugin._moment({"inventory_hostname": host, "ansible_play_batch": batch or ["one", "two"]})

    assert (moment("one") == moment("two", **second)) is is_same


# The run in process


class Module:
    """Replaces a module of the collection: records its arguments, and returns or raises the given outcome."""

    __name__: ClassVar[str] = "a.b.modules.c"  # type: ignore[misc]
    ARGUMENTS: ClassVar[dict[str, Any]] = {"name": {"type": "str", "required": True}, "size": {"type": "int"}}

    def __init__(self, outcome: Outcome | BaseException) -> None:
        self.outcome = outcome
        self.runs: list[dict[str, Any]] = []

    def run(self, params: Mapping[str, Any], cloud: Any) -> Outcome:
        self.runs.append({"params": params, "cloud": cloud})
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def run_module(module: Module, *, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
    return prepared(module, check_mode=check_mode, **arguments).run(task_vars={})


def prepared(module: Module, *, check_mode: bool = False, **arguments: Any) -> _in_process.InProcessAction:
    task = task_in_play()
    task.action, task.args, task.check_mode = "a.b.c", arguments, check_mode
    return _in_process.action_for(module)(
        task,
        connection=connection_loader.get("local", PlayContext(), os.devnull),
        play_context=PlayContext(),
        loader=DataLoader(),
        templar=Templar(loader=DataLoader(), variables={}),
        shared_loader_obj=None,
    )


@pytest.mark.parametrize("no_log", [False, True])
def test_the_text_of_azure_is_shown_with_v(monkeypatch: pytest.MonkeyPatch, no_log: bool) -> None:
    shown = list[str]()
    monkeypatch.setattr(_in_process.Display, "v", lambda _display, line: shown.append(line))
    azure = {"code": "ScopeLocked", "message": "The scope is locked."}
    action = prepared(Module(Rejected("A lock forbids it.", azure=azure)), name="x")
    action._task.no_log = no_log

    result = action.run(task_vars={"inventory_hostname": "host1"})

    assert (result["msg"], result["azure"]) == ("A lock forbids it.", azure)
    assert shown == ([] if no_log else ["[host1]: Azure reports: (ScopeLocked) The scope is locked."])


def test_a_wrong_flag_is_an_error() -> None:
    module = Module(Outcome(True, {}, {}))

    result = prepared(module, name="x").run(task_vars={"cmk_in_process": "perhaps"})

    assert result["failed"]
    said = "cmk_in_process is 'perhaps', which is neither true nor false. Set cmk_in_process to true or false."
    assert (result["msg"], result["documentation"]) == (said, f"{MANUAL}#invalid_option")
    assert module.runs == []


@pytest.mark.parametrize(
    ("check_mode", "outcome", "ends"),
    [
        pytest.param(True, Outcome(True, {}, {}), False, id="in check mode"),
        pytest.param(False, Outcome(False, {}, {}), False, id="nothing changed"),
        pytest.param(False, Outcome(True, {}, {}), True, id="changed"),
        pytest.param(False, CmkError("no"), True, id="failed"),
    ],
)
def test_a_change_ends_the_predictions(
    check_mode: bool, outcome: Any, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    files = RunFiles(str(tmp_path))
    files.for_predictions().store("prediction", "it")

    run_module(Module(outcome), name="x", check_mode=check_mode)

    assert files.for_predictions().load("it") == (None if ends else "prediction")


# The environment of the run


def run_around(module: Any, environment: dict[str, str], **keywords: Any) -> dict[str, Any]:
    action = prepared(module, name="x")
    action._task.environment = [environment]
    for keyword, value in keywords.items():
        setattr(action._task, keyword, value)
    return action.run(task_vars={})


class Looking(Module):
    """Records its environment, and changes the environment."""

    def run(self, params: Mapping[str, Any], cloud: Any) -> Outcome:
        self.seen = dict(os.environ)
        os.environ["MADE_BY_THE_MODULE"] = "1"
        return super().run(params, cloud)


@pytest.mark.parametrize("outcome", [Outcome(True, {}, {}), KeyboardInterrupt()])
def test_the_environment_of_a_task_ends_with_it(outcome: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The items of a loop run in one process."""
    monkeypatch.setenv("AZURE_CLIENT_ID", "of the base")
    monkeypatch.delenv("AZURE_TENANT", raising=False)
    before = dict(os.environ)
    module = Looking(outcome)
    with contextlib.suppress(KeyboardInterrupt):
        run_around(module, {"AZURE_CLIENT_ID": "of the item", "AZURE_TENANT": "t"})

    assert (module.seen["AZURE_CLIENT_ID"], module.seen["AZURE_TENANT"]) == ("of the item", "t")
    assert dict(os.environ) == before


# No secrets


HUSHED = Outcome(True, {"key": "a hushed b"}, {"key": ["hushed"]}, ("hushed",), {"report": "hushed"})
REJECTED = CmkError("It said hushed.", code="rejected_by_service", azure={"message": "hushed"})


@pytest.mark.parametrize("outcome", [HUSHED, REJECTED], ids=["success", "failure"])
def test_secret_is_in_no_result(outcome: Outcome | CmkError) -> None:
    assert "hushed" not in json.dumps(run_module(Module(outcome), name="x", secret="hushed"))


# Accounts that are left alone


class Refusing(Watched):
    """The module refuses the task."""

    failure: ClassVar[dict[str, Any]] = {"code": "resource_locked", "msg": "A lock. Remove it.", "remedy": "Remove it."}
    scope: ClassVar[str | None] = "account"
    asked: ClassVar[list[str]] = []

    def _run_module(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(task_vars["inventory_hostname"])
        return {"failed": True, **self.failure, **({"scope": self.scope} if self.scope else {})}


@pytest.fixture
def waves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(Refusing, "asked", [])
    return tmp_path


def refused(host: str = "a", hosts: tuple[str, ...] = ("a", "b"), **variables: Any) -> dict[str, Any]:
    names = {"inventory_hostname": host, "ansible_play_hosts_all": list(hosts), "__stats": "cmk_rotate_result"}
    args = {**REVERT, "account_name": f"account{host}"}
    return run(action=Refusing, args=args, variables={"__leaves_alone": True, **names, **variables})


def test_the_only_host_is_left_alone_if_that_is_no_failure(waves: Path) -> None:
    assert refused(hosts=("a",), cmk_left_alone_fails="no")["left_alone"]


def test_a_failure_stays_a_failure_if_it_cannot_be_noted(waves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the run would succeed, and nobody would report the account."""
    monkeypatch.setattr(RunFiles, "store", lambda *_value, **_options: False)

    assert refused()["failed"]


def test_the_next_host_is_the_canary_if_the_first_was_left_alone(waves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("a")
    monkeypatch.setattr(Refusing, "scope", None)

    assert [refused("b")["code"], refused("c")["code"]] == ["resource_locked", "canary_failed"]
    assert Refusing.asked == ["a", "b"]


def exception(accounts: str, expires_on: str = "2099-12-31", code: str = "resource_locked") -> dict[str, Any]:
    return {"code": code, "accounts": [accounts], "reason": "Locked", "expires_on": expires_on}


@pytest.mark.parametrize(
    ("exceptions", "fails"),
    [
        pytest.param([exception("accounta")], False, id="by name"),
        pytest.param([exception("*/resourcegroups/rg/*/accounta")], False, id="by id"),
        pytest.param([exception("accounta", "2020-12-31"), exception("*")], False, id="one of two has not ended"),
        pytest.param([exception("accounta", "2020-12-31")], True, id="ended"),
        pytest.param([exception("accounta", code="account_unavailable")], True, id="another error"),
        pytest.param([exception("accountb")], True, id="another account"),
    ],
)
def test_an_exception_accepts_the_error_of_an_account(
    waves: Path, exceptions: list[dict[str, Any]], fails: bool
) -> None:
    account = {"cmk_account_name": "accounta", "cmk_resource_group": "rg"}

    refused(cmk_exceptions=exceptions, **account)

    ended = "The exception for this account ended on 2020-12-31 (Locked). A lock."
    [note] = left_alone_accounts(RunFiles(str(waves)))
    assert note["fails"] is fails
    assert note.get("accepted") == (None if fails else "accepted until 2099-12-31 (Locked)")
    assert note["reason"].startswith(ended) is (fails and exceptions[0]["expires_on"] == "2020-12-31")
    # The only host fails, unless the error is accepted.
    assert bool(refused(hosts=("a",), cmk_exceptions=exceptions, **account).get("failed")) is fails


def test_a_wrong_exception_is_refused_before_the_module_runs(waves: Path) -> None:
    assert refused(cmk_exceptions=[{"code": "locked"}])["variable"] == "cmk_exceptions"
    assert Refusing.asked == []


class Succeeding(Watched):
    def _run_module(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        return {"changed": False}


@pytest.mark.parametrize(("account", "left"), [("accounta", 0), ("accountb", 1)])
def test_a_success_for_the_account_ends_its_note(waves: Path, account: str, left: int) -> None:
    refused()

    run(action=Succeeding, args={**REVERT, "account_name": account}, variables={"inventory_hostname": "a"})

    assert len(left_alone_accounts(RunFiles(str(waves)))) == left


@pytest.mark.parametrize("option", ["subscription_id", "profile"])
def test_accounts_of_two_subscriptions_may_have_one_name(waves: Path, option: str) -> None:
    def change(host: str, value: str) -> dict[str, Any]:
        return run(args={**REVERT, option: value}, variables={"inventory_hostname": host})

    assert change("a", "one")["ran"] == "here"
    assert change("b", "two")["ran"] == "here"
    assert change("b", "one")["code"] == "account_of_other_host"
