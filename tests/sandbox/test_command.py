# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line: shell, run, serve, env, and the saved state."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys import KeyClient
from azure.mgmt.batch import BatchManagementClient
from sandbox_client import COMMAND, Sandbox, heed_signals, plain_environment, point_at, serving, started

from azure_sandbox import state
from azure_sandbox.shared.behavior import POSITIONS
from azure_sandbox.world import World

MANUAL = (Path(__file__).parents[2] / "sandbox" / "README.md").read_text(encoding="utf-8")
VERSION = "2022-09-01"
TWICE = ["serve", "--accounts", "1", "--accounts-on-key", "1"]
# A shell would run commands in these values if the values were not quoted.
HARMLESS_QUOTED = ("$(touch created)", "'; touch created; '")
PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"
PYTHON = [sys.executable, "-c"]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**plain_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# run


def test_run_sets_the_environment(tmp_path: Path) -> None:
    others = {"https_proxy": "http://elsewhere", "no_proxy": "management.azure.com", "ALL_PROXY": "http://elsewhere"}
    done = command("run", "--", *PYTHON, PRINT_ENVIRONMENT, **others, KEPT="kept")
    assert done.returncode == 0, done.stderr
    environment = json.loads(done.stdout)
    url = environment["AZURE_SANDBOX_URL"]
    assert environment["HTTPS_PROXY"] == environment["HTTP_PROXY"] == url
    assert environment["NO_PROXY"] == "127.0.0.1,localhost"
    bundle = environment["REQUESTS_CA_BUNDLE"]
    assert environment["SSL_CERT_FILE"] == environment["CURL_CA_BUNDLE"] == bundle
    assert environment["AZURE_TENANT"] == environment["AZURE_TENANT_ID"]
    assert environment["AZURE_SECRET"] == environment["AZURE_CLIENT_SECRET"]
    assert {"AZURE_CLIENT_ID", "AZURE_SUBSCRIPTION_ID"} <= set(environment)
    assert environment["KEPT"] == "kept"
    assert not set(others) & set(environment)
    assert not Path(bundle).exists(), "nothing is left behind"


def test_run_lets_a_program_use_azure() -> None:
    program = (
        "import os; from azure.identity import DefaultAzureCredential as C;"
        "from azure.mgmt.batch import BatchManagementClient as B;"
        "print(len(list(B(C(), os.environ['AZURE_SUBSCRIPTION_ID']).batch_account.list())))"
    )
    done = command("run", "--accounts", "3", "--", *PYTHON, program)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


@pytest.mark.slow(every=4)
@pytest.mark.parametrize(
    ("what", "status"),
    [
        ([*PYTHON, "raise SystemExit(7)"], 7),
        ([*PYTHON, "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"], 143),
        (["/nowhere/at-all"], 127),
        (["/"], 126),
        ([], 2),
    ],
)
def test_run_returns_the_exit_status(what: list[str], status: int) -> None:
    assert command("run", "--", *what).returncode == status


def test_run_keeps_the_commands_own_options_and_input() -> None:
    done = command("run", "--latency", "1", "--", "echo", "--latency", "-n", "--")
    assert done.stdout == "--latency -n --\n"
    process = subprocess.run(
        [*COMMAND, "run", "--", "cat"], input="through", capture_output=True, text=True, timeout=60, check=True
    )
    assert process.stdout == "through"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_run_passes_signals_on(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import signal, sys, time\n"
        "for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):\n"
        "    signal.signal(n, lambda n, f: (print('got', n, flush=True), sys.exit(5)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "run", "--", *PYTHON, program],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=plain_environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.read() == f"got {int(number)}\n"
    assert process.wait(30) == 5


# shell


def test_a_shell_in_a_terminal_uses_the_sandbox_despite_the_startup_file_of_the_user(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(
        "export OWN=1 HTTPS_PROXY=http://elsewhere https_proxy=http://elsewhere PATH=/nowhere PS1='mine$ '\n"
    )
    changed = {"SHELL": shutil.which("bash") or "bash", "HOME": str(tmp_path), "TERM": "dumb"}
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "shell", "--port", "0"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), end),
        env={**plain_environment(), **changed},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(end)
    program = tmp_path / "print.py"
    program.write_text("import json, os; json.dump(dict(os.environ), open('printed.json', 'w'))", encoding="utf-8")
    os.write(terminal, f"cd {tmp_path} && {sys.executable} print.py\nexit 3\n".encode())
    output = b""
    with contextlib.suppress(OSError):  # the terminal is closed
        while chunk := os.read(terminal, 4096):
            output += chunk
    os.close(terminal)
    assert process.wait(30) == 3, output
    environment = json.loads((tmp_path / "printed.json").read_text(encoding="utf-8"))
    url = environment["AZURE_SANDBOX_URL"]
    assert f"ready at {url}. ".encode() in output
    assert b"(sandbox) mine$ " in output
    assert (environment["HTTPS_PROXY"], environment["OWN"]) == (url, "1")
    assert "https_proxy" not in environment
    assert environment["PATH"] == os.environ["PATH"]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)


# serve and env


def test_serve_prints_one_line_and_ends_on_a_signal() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=plain_environment(),
            preexec_fn=heed_signals,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("azure-sandbox is ready at http://127.0.0.1:")
        process.send_signal(number)
        rest = process.communicate(timeout=30)
        assert (rest, process.returncode) == (("", ""), 0)


def test_serve_listens_on_the_loopback_address_only(running_sandbox: Sandbox) -> None:
    port = int(running_sandbox.url.rpartition(":")[2])
    with socket.socket(socket.AF_INET) as other:
        other.settimeout(5)
        with pytest.raises(OSError):  # noqa: PT011
            other.connect(("127.0.0.2", port))


def test_env(running_sandbox: Sandbox) -> None:
    port = running_sandbox.url.rpartition(":")[2]
    done = command("env", "--port", port, https_proxy="http://elsewhere")
    assert done.returncode == 0, done.stderr
    shell = f"{done.stdout}\nexec {sys.executable} -c '{PRINT_ENVIRONMENT}'"
    printed = subprocess.run(
        ["sh", "-c", shell], env={**os.environ, "https_proxy": "x"}, capture_output=True, text=True, check=True
    )
    environment = json.loads(printed.stdout)
    assert running_sandbox.environment.items() <= environment.items()
    assert "https_proxy" not in environment


def test_env_without_a_sandbox(running_sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = command("env", "--port", str(port))
    assert done.returncode == 1
    assert "no sandbox listens" in done.stderr
    assert done.stdout == ""


class Rogue(BaseHTTPRequestHandler):
    """Responds to every request with the content that the test sets."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        content: bytes = self.server.content  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.slow(every=4)
@pytest.mark.parametrize(
    "changes",
    [
        {"X=1; touch created; Y": "1"},
        {"PROMPT_COMMAND": "touch created"},
        {"AZURE_TENANT": "$(touch created)"},
        {"AZURE_TENANT": "'; touch created; '"},
        {"AZURE_TENANT": "\n touch created \n"},
        {"AZURE_TENANT": "\udc80"},
        {"AZURE_TENANT": ["touch created"]},
    ],
)
def test_env_does_not_execute_responses(running_sandbox: Sandbox, tmp_path: Path, changes: dict[str, object]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Rogue) as server:
        server.content = json.dumps({**running_sandbox.environment, **changes}).encode()  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, daemon=True).start()
        done = command("env", "--port", str(server.server_port))
        server.shutdown()
    assert "Traceback" not in done.stderr
    subprocess.run(["sh", "-c", 'eval "$1"', "sh", done.stdout], cwd=tmp_path, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []
    assert (done.returncode == 0) is (changes in ({"AZURE_TENANT": text} for text in HARMLESS_QUOTED))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
@pytest.mark.parametrize("address", ["127.0.0.1", "::"])
def test_env_of_another_user_is_refused(running_sandbox: Sandbox, address: str) -> None:
    if address == "::" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    environment = json.dumps(running_sandbox.environment)
    answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(environment)}\r\n\r\n{environment}"
    program = (
        "import os, socket, sys\n"
        "address, response = sys.argv[1:]\n"
        "family = socket.AF_INET6 if ':' in address else socket.AF_INET\n"
        "os.setuid(65534)\n"
        "server = socket.create_server((address, 0), family=family, dualstack_ipv6=family == socket.AF_INET6)\n"
        "print(server.getsockname()[1], flush=True)\n"
        "connection, _ = server.accept()\n"
        "connection.sendall(response.encode())\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [*PYTHON, program, address, answer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        done = command("env", "--port", process.stdout.readline().strip())
        process.communicate()
    assert (done.returncode, done.stdout) == (1, "")
    assert "a process of the user with the id 65534 listens on port" in done.stderr


def test_a_port_that_is_taken(running_sandbox: Sandbox) -> None:
    done = command("serve", "--port", running_sandbox.url.rpartition(":")[2])
    assert done.returncode == 1
    assert done.stderr.startswith("azure-sandbox: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow(every=4)
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["shell", "--port", "70000"],
        ["serve", "--port", "70000"],
        ["serve", "--latency", "-1"],
        ["serve", "--accounts", "x"],
        ["serve", "--behavior", "subscription_list=maybe"],
        ["serve", "--behavior", "nothing"],
        ["walk"],
        TWICE,
    ],
)
def test_invalid_arguments(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# The manual


def test_the_manual_lists_the_commands_and_the_options() -> None:
    actions = re.findall(r"^    (\w+) ", command("--help").stdout, re.MULTILINE)
    assert {"shell", "run", "serve", "env", "record"} == set(actions)
    assert [action for action in actions if f"\n| `azure-sandbox {action} " not in MANUAL] == []
    options = set(re.findall(r"--[a-z-]+", command("serve", "--help").stdout)) - {"--help"}
    assert [option for option in options if not re.search(rf"`[^`]*{option}\b[^`]*` \|", MANUAL)] == []


@pytest.mark.parametrize("name", POSITIONS)
def test_the_manual_lists_every_switch(name: str) -> None:
    assert f"| `{name}` | {', '.join(f'`{value}`' for value in POSITIONS[name])} |" in MANUAL


# Options


def test_realistic() -> None:
    with serving("--realistic") as sandbox:
        timing = sandbox.control.call("GET", "/timing")
        assert (timing["retry_after"], timing["batch_recovery"], timing["throttling"]) == (15, 600, True)
        sandbox.control.reset()
        assert sandbox.control.call("GET", "/timing") == timing


def test_behavior() -> None:
    with serving("--behavior", "subscription_list=denied") as sandbox:
        assert sandbox.control.call("GET", "/behavior")["subscription_list"] == "denied"
        sandbox.control.behavior(subscription_list="filtered")
        sandbox.control.reset()
        assert sandbox.control.call("GET", "/behavior")["subscription_list"] == "denied"


def test_latency() -> None:
    with serving("--latency", "200") as sandbox:
        session, took = sandbox.bearer(), []
        # On a busy machine, single requests may take long.
        while min(took, default=2) >= 2 and len(took) < 20:
            began = time.monotonic()
            assert sandbox.arm("GET", sandbox.group, VERSION, session=session).ok
            took.append(time.monotonic() - began)
        assert 0.2 <= min(took) < 2


def test_accounts_of_one_subscription() -> None:
    with serving("--accounts-on-key", "1001", "--one-subscription") as sandbox:
        (subscription,) = sandbox.arm("GET", "/subscriptions", VERSION).json()["value"]
        assert sandbox.arm("GET", f"{subscription['id']}/resourceGroups/batch-020", VERSION).ok


def test_accounts_on_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thousand accounts share a key and a vault. If the key is lost, only these accounts are unavailable."""
    with serving("--realistic", "--accounts-on-key", "1001", "--behavior", "key_loss_noticed=0") as sandbox:
        point_at(sandbox, monkeypatch)
        credential = DefaultAzureCredential()
        listed = sandbox.arm("GET", "/subscriptions", VERSION).json()["value"]
        first, second = (BatchManagementClient(credential, one["subscriptionId"]).batch_account for one in listed)
        assert first.get_keys("batch-019", "batch00999").primary, "it is available"
        assert second.get_keys("batch-020", "batch01000").primary
        keys = [KeyClient(f"https://kv-sandbox-{number}.vault.azure.net", credential) for number in (1, 2)]
        for accounts, key, count in ((first, keys[0], 1000), (second, keys[1], 1)):
            (version,) = key.list_properties_of_key_versions("batch-cmk")
            found = [one.encryption.key_vault_properties.key_identifier for one in accounts.list()]
            assert found == [version.id] * count

        keys[1].update_key_properties("batch-cmk", enabled=False)
        assert first.get_keys("batch-019", "batch00999").primary
        with pytest.raises(HttpResponseError, match="KeyVaultKeyNotAccessible"):
            second.get_keys("batch-020", "batch01000")


# State


def test_the_state_is_saved_and_loaded(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    group = "resourceGroups/kept"
    with serving("--state-dir", str(directory), "--accounts", "2") as first:
        path = f"{first.subscription}/{group}"
        assert first.arm("PUT", path, VERSION, {"location": "westeurope"}).status_code == 201
        first.control.advance(86400)
        token = first.bearer()
    with serving("--state-dir", str(directory)) as second:
        for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "REQUESTS_CA_BUNDLE"):
            assert second.environment[name] == first.environment[name]
        token.proxies = second.session().proxies
        assert second.arm("GET", path, VERSION, session=token).ok, "the earlier token and CA are still valid"
        assert second.control.call("GET", "/clock")["time"] - time.time() > 86000
        second.control.reset()
        assert second.arm("GET", path, VERSION).status_code == 404
        assert len(second.arm("GET", f"{second.subscription}/resources", VERSION).json()["value"]) == 2


def put_group(sandbox: Sandbox, name: str) -> None:
    path = f"{sandbox.subscription}/resourceGroups/{name}"
    assert sandbox.arm("PUT", path, VERSION, {"location": "westeurope"}).status_code == 201


def saved(directory: Path) -> World:
    found = state.load(directory) if directory.exists() else None
    return found.world if found else World()


def saved_groups(directory: Path) -> set[str]:
    world = saved(directory)
    return {group.name for one in world.resources.subscriptions() for group in world.resources.groups(one.id)}


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_group(sandbox: Sandbox, name: str) -> bool:
    return sandbox.arm("GET", f"{sandbox.subscription}/resourceGroups/{name}", VERSION).ok


@pytest.mark.slow(every=2)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_write_before_the_end_is_saved(tmp_path: Path, number: signal.Signals, status: int) -> None:
    first = started("--state-dir", str(tmp_path))
    put_group(first, "kept")
    if number == signal.SIGKILL:
        wait_until(lambda: "kept" in saved_groups(tmp_path))
        put_group(first, "lost")
    first.process.send_signal(number)
    assert first.process.wait(30) == status
    with serving("--state-dir", str(tmp_path)) as second:
        assert second.secret == first.secret
        assert has_group(second, "kept")
    assert {path.name for path in tmp_path.iterdir()} == {"world.pickle", "ca-key.pem", "ca.pem", "lock"}


def test_the_state_is_its_owners_only(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    with serving("--state-dir", str(directory)):
        pass
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in ("world.pickle", "ca-key.pem"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert {path.name for path in directory.iterdir()} == {"world.pickle", "ca-key.pem", "ca.pem", "lock"}


def writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | stat.S_IWGRP)


def foreign(path: Path) -> None:
    os.chown(path, 65534, -1)


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


ONLY_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
CHANGES = [
    (writable, "Others can write the"),
    pytest.param(foreign, "belongs to the user with the id 65534", marks=ONLY_ROOT),
]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory, with a link to it beside it."""
    directory = tmp_path_factory.mktemp("kept") / "state"
    with serving("--state-dir", str(directory)):
        pass
    (directory.parent / "link").symlink_to("state")
    return directory


@pytest.mark.parametrize("name", ["world.pickle", "ca.pem", "ca-key.pem", "lock"])
@pytest.mark.parametrize(("change", "reason"), [*CHANGES, (linked, "is a symbolic link")])
@pytest.mark.slow(every=12)
def test_a_file_that_others_could_have_written_is_refused(
    kept: Path, tmp_path: Path, name: str, change: Callable[[Path], None], reason: str
) -> None:
    directory = tmp_path / "state"
    shutil.copytree(kept, directory)
    change(directory / name)
    content = (directory / name).read_bytes()
    done = command("serve", "--port", "0", "--state-dir", str(directory))
    assert done.returncode == 1
    assert reason in done.stderr
    assert f"file {directory / name}" in done.stderr
    assert "Traceback" not in done.stderr
    assert (directory / name).read_bytes() == content


@pytest.mark.parametrize("name", ["state", "link"])
@pytest.mark.parametrize(("change", "reason"), CHANGES)
@pytest.mark.slow(every=3)
def test_a_directory_that_others_could_have_written_is_refused(
    kept: Path, tmp_path: Path, name: str, change: Callable[[Path], None], reason: str
) -> None:
    shutil.copytree(kept.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    change(tmp_path / "state")
    done = command("serve", "--port", "0", "--state-dir", str(tmp_path / name))
    assert done.returncode == 1
    assert reason in done.stderr
    assert f"directory {tmp_path / 'state'}" in done.stderr


@pytest.mark.parametrize("name", ["world.pickle", "ca-key.pem"])
@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_file_with_private_keys_that_others_can_read_is_refused(
    kept: Path, tmp_path: Path, name: str, mode: int
) -> None:
    directory = tmp_path / "state"
    shutil.copytree(kept, directory)
    (directory / name).chmod(mode)
    done = command("serve", "--port", "0", "--state-dir", str(directory))
    assert done.returncode == 1
    assert f"Others can read the file {directory / name}" in done.stderr
    assert f"chmod go-r {directory / name}" in done.stderr
    assert "Traceback" not in done.stderr


def writable_for_all(path: Path) -> None:
    path.chmod(0o777)


def writable_for_a_group(path: Path) -> None:
    os.chown(path, -1, 65534)
    path.chmod(0o775)


@pytest.mark.parametrize("below", ["state", "middle/state", "link"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            writable_for_all,
            "Others can write the directory {}, and replace the state directory in it; run: chmod go-w {}",
        ),
        pytest.param(writable_for_a_group, "Others can write the directory {}", marks=ONLY_ROOT),
        pytest.param(foreign, "The directory {} belongs to the user with the id 65534", marks=ONLY_ROOT),
    ],
)
@pytest.mark.slow(every=4)
def test_a_parent_in_which_others_can_replace_the_directory_is_refused(
    tmp_path: Path, below: str, change: Callable[[Path], None], reason: str
) -> None:
    parent = tmp_path / "parent"
    (parent / "state").mkdir(parents=True, mode=0o700)
    (tmp_path / "safe").mkdir()
    (tmp_path / "safe" / "link").symlink_to(parent / "state")
    change(parent)
    directory = (tmp_path / "safe" if below == "link" else parent) / below
    done = command("serve", "--port", "0", "--state-dir", str(directory))
    assert done.returncode == 1
    assert reason.format(parent, parent) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (parent / "middle").exists()
    assert list((parent / "state").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x04N."])
def test_a_file_that_is_no_state(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "world.pickle").write_bytes(content)
    done = command("serve", "--port", "0", "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert "remove it to start with a new state" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "world.pickle").read_bytes() == content


def test_a_state_directory_is_used_by_one_sandbox(tmp_path: Path) -> None:
    with serving("--state-dir", str(tmp_path)):
        done = command("run", "--state-dir", str(tmp_path), "--", "true")
    assert done.returncode == 1
    assert "in use by another sandbox" in done.stderr
