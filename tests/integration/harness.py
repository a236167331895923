# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs ansible-playbook against the sandbox, and returns the result and the requests of each task."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from lengths import why_too_long
from sandbox_client import MANAGEMENT_SCOPE, VAULT_SCOPE, Sandbox, plain_environment

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
# The ways to run a module: in Ansible's process, or as a separate process.
WAYS = ("in_process", "module")

# The options that the roles pass variables to, and the modules: the names that a role's message never contains.
_OF_MODULES = re.compile(
    r"(?<![\w./])(?:azbatch\.cmk\.(?:batch|keyvault)_\w+|{})\b".format(
        "|".join(
            {
                option
                for file in HERE.parents[1].glob("roles/*/tasks/*.yml")
                for option in re.findall(r"^    (\w+_\w+): \"\{\{ cmk_", file.read_text(), re.MULTILINE)
            }
        )
    )
)
# Advice to run another task: its module with its options, or an option that no variable of the role sets.
_OF_OTHER_TASKS = re.compile(
    r"\(azbatch\.cmk\.\w+[^()]*\)|azbatch\.cmk\.\w+ \([^()]*\)|\w+(?:: \w+)? in azbatch\.cmk\.\w+"
)
# An option or a module as messages mark it.
_MARKED = re.compile(r"\b[OM]\(\w")
_FAILS = "_fails"
# A value that only Azure can assign, in a prediction.
KNOWN = re.compile(r"\(known after apply(?:: [^()]+)?\)")
# The values of a result that describe the task and its change, not the resource.
_OF_THE_TASK = frozenset(
    ("changed diff summary warnings invocation preflight in_use_by kept_until kept_versions disabled_versions").split()
)


def key(title: str, **options: Any) -> dict[str, Any]:
    """A task for key1 of vault-one, with the module that has these options."""
    module = "keyvault_cmk_key_state" if "state" in options else "keyvault_cmk_key"
    return task(title, module, **{"vault_name": "vault-one", "name": "key1", **options})


def task(name: str, module: str, /, register: str | None = None, **arguments: Any) -> dict[str, Any]:
    """A task of this collection. To set a keyword other than `register`, change the returned task."""
    return {"name": name, f"azbatch.cmk.{module}": arguments, **({"register": register} if register else {})}


def checked(one: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """A copy of the task in check mode, without `register`."""
    unregistered = {keyword: value for keyword, value in one.items() if keyword != "register"}
    return {**unregistered, "name": name or f"{one['name']} (check)", "check_mode": True}


def fails(one: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the task that has to fail. `Ansible.play` checks that it does."""
    return {**one, _FAILS: True}


def control_task(name: str, sandbox: Sandbox, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """A task that calls the sandbox's control API."""
    arguments = {"url": f"{sandbox.url}{path}", "method": method, "use_proxy": False, "status_code": [200, 201]}
    sent = {} if body is None else {"body": body, "body_format": "json"}
    return {"name": name, "ansible.builtin.uri": {**arguments, **sent}}


def four_steps(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The four steps: check, apply, check again, apply again. `checked_steps` checks the results."""
    name = one["name"]
    check, again = checked(one, f"{name}: check"), checked(one, f"{name}: check again")
    apply, second = two_steps(one)
    return [check, apply, again, second]


def two_steps(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of `four_steps` that are not in check mode."""
    return [{**one, "name": f"{one['name']}: apply"}, {**one, "name": f"{one['name']}: apply again"}]


def ended(
    command: Sequence[str | Path], environment: Mapping[str, str], folder: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command, which may fail. Its output contains its errors. `timeout` is in seconds."""
    return subprocess.run(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def as_user(home: Path, *command: str) -> str:
    """Run a command in the folder `home` without the sandbox of the test, because the command starts its own sandbox.
    The command has to succeed. Returns its output."""
    environment = {
        **{name: value for name, value in plain_environment().items() if not name.startswith("ANSIBLE_")},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
    }
    done = ended(command, environment, home, timeout=180)
    assert done.returncode == 0, done.stdout
    return done.stdout


@dataclass
class Task:
    """A finished task, or an item of its loop."""

    name: str
    full_name: str
    action: str
    host: str
    status: str
    item: bool
    result: dict[str, Any]
    requests: list[dict[str, Any]]

    def __getitem__(self, key: str) -> Any:
        return self.result[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self.result.get(key, default)

    @property
    def failed(self) -> bool:
        return self.status in ("failed", "unreachable")

    @property
    def writes(self) -> list[dict[str, Any]]:
        return writes(self.requests)

    @property
    def warnings(self) -> list[str]:
        """Without that of each removal, about users that Azure Resource Graph does not show."""
        given = [str(warning) for warning in self.result.get("warnings") or []]
        return [one for one in given if not one.startswith("Azure Resource Graph does not show")]

    def __str__(self) -> str:
        shown = {k: v for k, v in self.result.items() if k not in ("invocation", "diff", "exception")}
        return f"{self.name}: {self.status}\n{json.dumps(shown, indent=1)}\n" + "\n".join(short(self.requests))

    def refused(self, code: str) -> Task:
        """Check that the task failed with that code, a message without a traceback, and no write request."""
        assert self.failed, f"{self.name} did not fail: {self.result}"
        assert self.result.get("code") == code, f"{self.name}: {self.result.get('code')}: {self.result.get('msg')}"
        assert "Traceback" not in self.result["msg"], self.result["msg"]
        return self.untouched()

    def check_messages(self) -> None:
        """Check that the messages of a task have no marks, that the message of a failure is short and has a link to
        its code, and that the message of a task of a role names variables, not options and modules."""
        assert not _MARKED.search(json.dumps(self.result.get("warnings") or "", default=str)), str(self)
        # A failure without a code is Ansible's own, before the module runs.
        if not self.failed or "code" not in self.result:
            return
        assert not _MARKED.search(str(self)), str(self)
        assert why_too_long(self.result["msg"], self.result) is None, str(self)
        assert self.result["documentation"].endswith(f"/docs/errors.md#{self.result['code']}"), str(self)
        if self.full_name.startswith("azbatch.cmk."):
            for text in ("msg", "remedy"):
                said = _OF_OTHER_TASKS.sub("", str(self.result.get(text)))
                assert not _OF_MODULES.search(said), str(self)

    def untouched(self) -> Task:
        assert not self.writes, f"{self.name} wrote: {short(self.writes)}"
        return self


# POST requests that change nothing.
_ASKS = re.compile("/checkNameAvailability|/Microsoft.ResourceGraph/")


def writes(requests: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The write requests, including those that Azure rejected. The log's field `write` does not include those."""
    services = ("resource_manager", "key_vault_keys")
    asks = ("GET", "HEAD", "CONNECT")
    return [r for r in requests if r["service"] in services and r["method"] not in asks and not _ASKS.search(r["url"])]


def short(requests: Sequence[Mapping[str, Any]]) -> list[str]:
    """The method, the URL and the status of each request, as a line of text."""
    return [f"{r['method']} {r['url'].partition('?')[0]} {r['status']}" for r in requests]


@dataclass
class Run:
    """A finished run of ansible-playbook."""

    rc: int
    output: str
    tasks: list[Task]
    # Ansible's folder for temporary files on the controller.
    local_tmp: Path

    def __getitem__(self, name: str) -> Task:
        """The last task of that name, without items of loops."""
        found = [one for one in self if one.name == name]
        assert found, f"there is no task {name!r} among {[one.name for one in self]}\n{self.output}"
        return found[-1]

    def __iter__(self) -> Iterator[Task]:
        return (one for one in self.tasks if not one.item)

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [request for one in self.tasks for request in one.requests]

    @property
    def writes(self) -> list[dict[str, Any]]:
        return writes(self.requests)

    @property
    def failed(self) -> list[Task]:
        return [one for one in self if one.failed]

    @property
    def changed(self) -> list[Task]:
        return [one for one in self if one.result.get("changed")]

    def checked_steps(self, name: str) -> Task:
        """Check the results of `four_steps`: the first check predicts the change, the first run makes it, and the other
        two steps report no change. Returns the step that made the change."""
        steps = {one.name.rpartition(": ")[2]: one for one in self if one.name.rpartition(": ")[0] == name}
        apply, second = steps["apply"], steps["apply again"]
        for step, one in steps.items():
            assert one.status == "ok", str(one)
            assert one["changed"] is (step in ("check", "apply")), str(one)
            if step != "apply":
                one.untouched()
        assert apply.writes, f"{apply.name} says that it changed something and wrote nothing"
        assert all(one["summary"].endswith(".") for one in steps.values())
        if "check" in steps:
            assert_predicted(change(steps["check"].result), change(apply.result), name)
        assert second["diff"] == {"before": {}, "after": {}}
        assert state(second.result) == state(apply.result)
        return apply


def state(result: Mapping[str, Any]) -> dict[str, Any]:
    """The state of the resource in the result of a task, without what the task says about itself."""
    # Of an account, the key that it has left. Of a key, its previous version.
    left = {"previous_key_identifier"} if "key_source" in result else set()
    return {name: value for name, value in result.items() if name not in _OF_THE_TASK | left}


def change(result: Mapping[str, Any]) -> dict[str, Any]:
    """The whole state before and after a task. The diff of a task has only the values that differ."""
    diff, after = result["diff"], state(result)
    return {"before": _undone(after, diff["after"], diff["before"]), "after": after}


def _undone(after: Mapping[str, Any], new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in after.items() if name in old or name not in new}
    return kept | {
        name: _undone(kept[name], new[name], value)
        if isinstance(value, Mapping) and isinstance(new.get(name), Mapping)
        else value
        for name, value in old.items()
    }


def assert_predicted(predicted: Any, came: Any, where: str) -> None:
    """Check a prediction, except values that are known only after the change. A time of expiry may
    differ by the time between the check and the run."""
    if isinstance(predicted, Mapping):
        assert set(predicted) == set(came), f"{where}: {predicted}, {came}"
        for name, value in predicted.items():
            assert_predicted(value, came[name], f"{where}.{name}")
    elif isinstance(predicted, list) and KNOWN.search(json.dumps(predicted)):
        known = [one for one in predicted if not KNOWN.search(json.dumps(one))]
        assert len(predicted) == len(came), f"{where}: {predicted}, {came}"
        assert all(one in came for one in known), f"{where}: {predicted}, {came}"
    elif isinstance(predicted, str) and where.endswith("expires_on") and came:
        assert abs((moment(came) - moment(predicted)).total_seconds()) < 120, f"{where}: {predicted}, {came}"
    elif isinstance(predicted, str):
        pattern = ".+".join(map(re.escape, KNOWN.split(predicted)))
        assert re.fullmatch(pattern, str(came)), f"{where}: {predicted}, {came}"
    else:
        assert predicted == came, f"{where}: {predicted}, {came}"


def assert_one_token_for_each_audience(requests: Sequence[Mapping[str, Any]]) -> None:
    bodies = [parse_qs(one["body"]) for one in requests if one["url"].endswith("/oauth2/v2.0/token")]
    scopes = [body["scope"][0] for body in bodies]
    assert scopes.count(MANAGEMENT_SCOPE) == 1, scopes
    # The first sign-in also requests Key Vault's token for later tasks. It is lost if the task ends first.
    assert scopes.count(VAULT_SCOPE) in (1, 2), scopes
    assert set(scopes) == {MANAGEMENT_SCOPE, VAULT_SCOPE}


def moment(text: str) -> datetime:
    """Parse a time in the format of the modules' results."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


@dataclass
class Ansible:
    """Runs playbooks in a separate folder, with an environment that contains only the settings of the sandbox."""

    sandbox: Sandbox
    folder: Path
    runs: list[Run] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """The value of HOME in a run."""
        return self.folder / "home"

    @property
    def collections_path(self) -> str:
        return os.environ["ANSIBLE_COLLECTIONS_PATH"]

    def environment(self, **more: str | None) -> dict[str, str]:
        """The environment of a run. The value None removes a variable."""
        self.home.mkdir(exist_ok=True)
        (self.folder / "ansible.cfg").touch()
        plain = {n: v for n, v in plain_environment().items() if not n.startswith(("ANSIBLE_", "PYTEST_", "COV_"))}
        made: dict[str, str | None] = {
            **plain,
            **self.sandbox.environment,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.home / ".ansible"),
            "ANSIBLE_LOCAL_TEMP": str(self.local_tmp),
            "ANSIBLE_COLLECTIONS_PATH": self.collections_path,
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "recorder",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            # After a removal, tasks wait for 40 s.
            "PYTHONPATH": str(HERE / "fast_clock"),
            "TEST_CLOCK": str(self.folder / "clock"),
            **more,
        }
        return {name: value for name, value in made.items() if value is not None}

    @property
    def local_tmp(self) -> Path:
        return self.folder / "local-tmp"

    def write(self, name: str, content: Any) -> Path:
        """Write a file in the folder: a string unchanged, everything else as JSON, which is also valid YAML."""
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path

    def arguments(
        self,
        playbook: str | Path | Sequence[Mapping[str, Any]],
        *,
        way: str | None = None,
        extra_vars: Mapping[str, Any] | None = None,
        check: bool = False,
        diff: bool = False,
        verbosity: int = 0,
        arguments: Sequence[str] = (),
    ) -> list[str]:
        """The command line. `playbook` is a file, a name such as azbatch.cmk.provision, or a list of plays."""
        if not isinstance(playbook, str | Path):
            playbook = self.write(f"playbook-{len(self.runs)}.json", list(playbook))
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            **({"cmk_in_process": way == "in_process"} if way else {}),
            **(extra_vars or {}),
        }
        return [
            str(BIN / "ansible-playbook"),
            str(playbook),
            *([] if "-i" in arguments else ["-i", "localhost,"]),
            "-e",
            f"@{self.write(f'vars-{len(self.runs)}.json', variables)}",
            *(["--check"] if check else []),
            *(["--diff"] if diff else []),
            *([f"-{'v' * verbosity}"] if verbosity else []),
            *arguments,
        ]

    def recording(self) -> tuple[Path, dict[str, str]]:
        """The file that the recorder of the next run writes, and the environment that configures the recorder."""
        file = self.folder / f"record-{len(self.runs)}.jsonl"
        return file, {
            "RECORDER_FILE": str(file),
            "RECORDER_URL": self.sandbox.url,
            "RECORDER_SINCE": str(self.sandbox.control.last),
        }

    def playbook(
        self,
        playbook: str | Path | Sequence[Mapping[str, Any]],
        *,
        environment: Mapping[str, str | None] | None = None,
        timeout: float = 180,
        **options: Any,
    ) -> Run:
        """Run a playbook, which may fail. `options` are those of `arguments`."""
        record, recorder = self.recording()
        variables = self.environment(**recorder, **(environment or {}))
        done = ended(self.arguments(playbook, **options), variables, self.folder, timeout)
        run = Run(done.returncode, done.stdout, recorded(record), self.local_tmp)
        self.runs.append(run)
        for one in run.tasks:
            one.check_messages()
        return run

    def play(
        self,
        tasks: Sequence[Mapping[str, Any]],
        *,
        vars: Mapping[str, Any] | None = None,
        keywords: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Run:
        """Run all of the tasks, also those after a failed task. Exactly the tasks that `fails` marks have to fail."""
        expected = [one["name"] for one in tasks if one.get(_FAILS)]
        play = {
            "name": "Test",
            "hosts": "localhost",
            "gather_facts": False,
            "ignore_errors": True,
            "vars": dict(vars or {}),
            **(keywords or {}),
            "tasks": [{k: v for k, v in one.items() if k != _FAILS} for one in tasks],
        }
        run = self.playbook([play], **options)
        assert [one.name for one in run] == [one["name"] for one in tasks], run.output
        messages = "\n".join(f"{one.name}: {one.get('code')}: {one.get('msg')}" for one in run.failed)
        assert [one.name for one in run.failed] == expected, f"{messages}\n{run.output}"
        return run


def until(holds: Callable[[], object]) -> None:
    """Wait until `holds()` is true, for at most three minutes."""
    deadline = time.monotonic() + 180
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kill(process: int) -> None:
    """Kill a process and all of its descendants."""
    for one in family(process):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def family(process: int) -> list[int]:
    """The ids of all descendants of a process, and then its own id. A process group does not contain them all: a worker
    of ansible-core 2.19 or later is in a separate session, and continues its task after the other processes end."""
    children = [
        int(child) for file in Path(f"/proc/{process}/task").glob("*/children") for child in file.read_text().split()
    ]
    return [*(one for child in children for one in family(child)), process]


def recorded(file: Path) -> list[Task]:
    if not file.exists():
        return []
    return [Task(**json.loads(line)) for line in file.read_text().splitlines()]


# Values that differ between two runs of the same playbook.
_VOLATILE = (
    (re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE), "<guid>"),
    (re.compile(r"\b[0-9a-f]{32}\b", re.IGNORECASE), "<version>"),
    (re.compile(r"\b[0-9a-f]{8}…"), "<version>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+\d\d:\d\d)?"), "<time>"),
    (re.compile(r"\b0x[0-9a-f]+\b"), "<address>"),
    # Files in the folder of a test
    (re.compile(r"/[^\s'\"]*/pytest-[^\s'\"]*"), "<path>"),
)
# Keys that Ansible adds to a result if the module runs as a separate process.
_ANSIBLES = ("invocation", "exception", "ansible_facts", "deprecations")


def comparable(run: Run) -> dict[str, tuple[str, Any]]:
    """The status and the result of each task of the collection, without values that differ from run to run. Must be
    equal if modules run in Ansible's process and if they run as separate processes."""
    ours = [one for one in run.tasks if one.action.startswith("azbatch.cmk.")]
    names = [f"{one.name} (item)" if one.item else one.name for one in ours]
    numbered = [f"{name} {names[:number].count(name)}" for number, name in enumerate(names)]
    results = [(one.status, _steady(one.result)) for one in ours]
    return dict(zip(numbered, results, strict=True))


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        kept = (n for n in value if n not in _ANSIBLES and not n.startswith("_ansible_"))
        return {_steady(name): _steady(value[name]) for name in kept}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    if isinstance(value, str):
        for pattern, name in _VOLATILE:
            value = pattern.sub(name, value)
    return value
