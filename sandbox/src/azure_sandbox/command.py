# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line: azure-sandbox shell, run, serve and record."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from .environment import IN_THE_WAY
from .running import InThread, Options, Running
from .shared.behavior import DEFAULT, POSITIONS, Behavior, changed

DEFAULT_PORT = 9180
USAGE, NOT_EXECUTABLE, NOT_FOUND = 2, 126, 127
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="azure-sandbox: %(message)s", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # uvicorn logs a warning for each malformed HTTP request, which is an error of the client.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    try:
        status: int = options.action(options)
    except OSError as error:
        print(f"azure-sandbox: {error}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="azure-sandbox",
        description="A local emulator of the parts of Azure that Batch accounts with customer-managed keys need.",
    )
    actions = parser.add_subparsers(required=True, metavar="shell | run | serve | record")
    common = _common_options()
    shell = actions.add_parser("shell", parents=[common], help="start a sandbox and a shell that uses it")
    shell.set_defaults(action=_shell)
    run = actions.add_parser("run", parents=[common], help="start a sandbox, run COMMAND, and stop the sandbox")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    run.set_defaults(action=_run, port=0)
    serve = actions.add_parser("serve", parents=[common], help="run a sandbox in the foreground")
    serve.set_defaults(action=_serve)
    for action in (shell, serve):
        action.add_argument("--port", type=_port, default=DEFAULT_PORT, help="0: a free port (default: %(default)s)")
    record = actions.add_parser("record", help="run COMMAND, and record its requests to Azure without secrets")
    record.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the folder of the recording")
    record.add_argument("--name", metavar="NAME", help="the name of the recording (default: the time)")
    record.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    record.set_defaults(action=_record)
    return parser


def _common_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--realistic", action="store_true", help="use the delays and throttling limits of Azure")
    options.add_argument("--latency", type=_not_negative, default=0, metavar="MS", help="delay of each response in ms")
    options.add_argument(
        "--behavior",
        type=_position,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a switch: " + "; ".join(f"{name} is {' or '.join(values)}" for name, values in POSITIONS.items()),
    )
    options.add_argument(
        "--behavior-file",
        type=_positions,
        default=(),
        metavar="FILE",
        help="set the switches that were measured in Azure (RESULT.json); --behavior has precedence",
    )
    accounts = options.add_mutually_exclusive_group()
    accounts.add_argument(
        "--accounts",
        type=_count,
        default=0,
        metavar="N",
        help="create N Batch accounts",
    )
    accounts.add_argument(
        "--accounts-on-key", type=_count, default=0, metavar="N", help="the same, with a customer-managed key"
    )
    options.add_argument(
        "--one-subscription", action="store_true", help="create all these accounts in one subscription"
    )
    return options


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError
    return port


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1e9:
        raise ValueError
    return number


def _count(text: str) -> int:
    return int(_not_negative(text))


def _position(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    try:
        changed(DEFAULT, {name: value})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name, value


def _positions(path: str) -> list[tuple[str, str]]:
    """The measured positions, and times between them, in a file of the experiments with Azure."""
    try:
        measured = json.loads(Path(path).read_text(encoding="utf-8"))
        times = {name: str(seconds) for name, seconds in measured.get("seconds", {}).items()}
        found = {**measured["behavior"], **times}
        changed(DEFAULT, found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise argparse.ArgumentTypeError(f"{path} has no measured positions ({error})") from error
    return [*found.items()]


def _behavior(positions: Sequence[tuple[str, str]]) -> Behavior:
    return changed(DEFAULT, dict(positions))


def _options(parsed: argparse.Namespace) -> Options:
    return Options(
        parsed.port,
        parsed.realistic,
        parsed.latency / 1000,
        parsed.accounts or parsed.accounts_on_key,
        on_key=parsed.accounts_on_key > 0,
        one_subscription=parsed.one_subscription,
        behavior=_behavior([*parsed.behavior_file, *parsed.behavior]),
    )


# serve


def _serve(parsed: argparse.Namespace) -> int:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_until_stopped(_options(parsed)))
    return 0


async def _serve_until_stopped(options: Options) -> None:
    stopped = asyncio.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    # nohup starts the process with SIGHUP ignored, and the signal must then stay ignored.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    running = Running(options)
    await running.start()
    sandbox = running.sandbox
    print(f"azure-sandbox is ready at {sandbox.url} (CA: {sandbox.certificate})", flush=True)
    await stopped.wait()
    await running.stop()


# shell


def _shell(parsed: argparse.Namespace) -> int:
    with (
        InThread(Running(_options(parsed))) as sandbox,
        tempfile.TemporaryDirectory(prefix="azure-sandbox-") as folder,
    ):
        print(f"azure-sandbox is ready at {sandbox.url}. This shell uses it. To stop it, run: exit", flush=True)
        command = [os.environ.get("SHELL") or "/bin/sh"]
        if Path(command[0]).name == "bash":
            startup = Path(folder) / "bashrc"
            startup.write_text(_bashrc(sandbox.environment), encoding="utf-8")
            command += ["--rcfile", str(startup)]
        return _run_command(command, {**_own_environment(), **sandbox.environment})


def _exports(variables: Mapping[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _bashrc(variables: Mapping[str, str]) -> str:
    """The startup file of an interactive bash. The user's startup file may set a proxy, or put other commands before
    those of a virtual environment."""
    lines = [
        "if [ -r ~/.bashrc ]; then . ~/.bashrc; fi",
        *_exports({"PATH": os.environ.get("PATH", os.defpath), **variables}),
        f"unset {' '.join(IN_THE_WAY)}",
        'PS1="(sandbox) $PS1"',
    ]
    return "\n".join(lines) + "\n"


# run


def _run(parsed: argparse.Namespace) -> int:
    command = _command(parsed, "run")
    if not command:
        return USAGE
    with InThread(Running(_options(parsed))) as sandbox:
        return _run_command(command, {**_own_environment(), **sandbox.environment})


def _command(parsed: argparse.Namespace, action: str) -> list[str]:
    command: list[str] = parsed.command[1:] if parsed.command[:1] == ["--"] else parsed.command
    if not command:
        print(f"azure-sandbox: {action} requires a command: azure-sandbox {action} -- COMMAND ...", file=sys.stderr)
    return command


def _own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in IN_THE_WAY}


def _run_command(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command and forward signals to it. Returns the exit status that a shell reports: 128 plus the number of the
    signal if a signal ended the command, 127 if it is not found, 126 if it is not executable."""
    pending: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: object) -> None:
        if process is None:
            pending.append(number)
        elif not _from_terminal(number):
            process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        process = subprocess.Popen(command, env=environment)
        for number in pending:
            process.send_signal(number)
        status = process.wait()
    except FileNotFoundError as error:
        print(f"azure-sandbox: {error.filename}: command not found", file=sys.stderr)
        return NOT_FOUND
    except PermissionError as error:
        print(f"azure-sandbox: {error.filename}: {error.strerror}", file=sys.stderr)
        return NOT_EXECUTABLE
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _from_terminal(number: int) -> bool:
    """Whether a terminal sent the signal. A terminal sends SIGINT (Ctrl-C) and SIGQUIT to the whole foreground process
    group, so the command has already received the signal."""
    if number not in (signal.SIGINT, signal.SIGQUIT):
        return False
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


# record


def _record(parsed: argparse.Namespace) -> int:
    command = _command(parsed, "record --to FOLDER")
    if not command:
        return USAGE
    # Only this action needs a client of HTTP.
    from .recording.recorder import Recorder, RecordingProblem

    recorder = Recorder(parsed.to, os.environ)
    try:
        with InThread(recorder), recorder.into(parsed.name or f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}") as path:
            status = _run_command(command, {**_own_environment(), **recorder.environment})
    except RecordingProblem as problem:
        print(f"azure-sandbox: {problem}", file=sys.stderr)
        return 1
    print(f"azure-sandbox: {recorder.count} requests are recorded in {path}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
