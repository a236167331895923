# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starts a sandbox, and sends requests to its control API and, through its proxy, to Azure's host names."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    import pytest

LOGIN = "https://login.microsoftonline.com"
MANAGEMENT = "https://management.azure.com"
MANAGEMENT_SCOPE = f"{MANAGEMENT}/.default"
# An API version of vaults. Older ones retire on 27 February 2027, and some tests advance the clock beyond that day.
VAULTS = "2026-02-01"
VAULT_SCOPE = "https://vault.azure.net/.default"
# The form of a signed token, from any issuer.
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.")
COMMAND = [sys.executable, "-m", "azure_sandbox.command"]


class Control:
    """The control API of the sandbox."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def call(self, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
        response = self._session.request(method, f"{self.url}{path}", json=body, timeout=30)
        assert response.status_code == (status or response.status_code), response.text
        if status is None:
            assert response.ok, response.text
        return response.json()

    def reset(self) -> None:
        self.call("POST", "/reset")

    def advance(self, seconds: float) -> None:
        self.call("POST", "/clock/advance", {"seconds": seconds})

    def timing(self, **fields: float) -> None:
        self.call("PATCH", "/timing", fields)

    def behavior(self, **positions: str) -> None:
        self.call("PATCH", "/behavior", positions)

    def fault(self, **description: Any) -> None:
        self.call("POST", "/faults", description)

    def principal(self, name: str = "somebody", **settings: Any) -> dict[str, Any]:
        principal: dict[str, Any] = self.call("POST", "/principals", {"name": name, **settings})
        return principal

    def requests(self, since: int = 0, writes: bool = False) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", f"/requests?since={since}&writes={str(writes).lower()}")[
            "requests"
        ]
        return found

    @property
    def last(self) -> int:
        """Number of the last request. `requests` takes it and returns the later requests."""
        number: int = self.call("GET", f"/requests?since={2**62}")["last"]
        return number

    def unknown(self) -> list[dict[str, Any]]:
        """Requests that the sandbox had no operation for."""
        return [entry for entry in self.requests() if entry["route"] == "unknown"]


@dataclass
class Sandbox:
    environment: dict[str, str]
    control: Control
    process: subprocess.Popen[str]
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.environment["AZURE_SANDBOX_URL"]

    @property
    def tenant_id(self) -> str:
        return self.environment["AZURE_TENANT_ID"]

    @property
    def client_id(self) -> str:
        return self.environment["AZURE_CLIENT_ID"]

    @property
    def secret(self) -> str:
        return self.environment["AZURE_CLIENT_SECRET"]

    @property
    def subscription_id(self) -> str:
        return self.environment["AZURE_SUBSCRIPTION_ID"]

    @property
    def subscription(self) -> str:
        return f"/subscriptions/{self.subscription_id}"

    def processor_seconds(self) -> float:
        """The user and system time of the sandbox's process so far. Other processes have little influence on it."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def group(self) -> str:
        return f"{self.subscription}/resourceGroups/rg-sandbox"

    def session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.proxies = {"http": self.url, "https": self.url}
        session.verify = self.environment["REQUESTS_CA_BUNDLE"]
        return session

    def token(self, scope: str = MANAGEMENT_SCOPE, client_id: str = "", secret: str = "") -> str:
        client_id = client_id or self.client_id
        key = (scope, client_id)
        if key not in self.tokens:
            response = self.session().post(
                f"{LOGIN}/{self.tenant_id}/oauth2/v2.0/token",
                {
                    "grant_type": "client_credentials",
                    "client_id": client_id,
                    "client_secret": secret or self.secret,
                    "scope": scope,
                },
                timeout=30,
            )
            assert response.ok, response.text
            self.tokens[key] = response.json()["access_token"]
        return self.tokens[key]

    def bearer(self, scope: str = MANAGEMENT_SCOPE, **principal: str) -> requests.Session:
        """A session with a token."""
        session = self.session()
        session.headers["authorization"] = f"Bearer {self.token(scope, **principal)}"
        return session

    def arm(
        self, method: str, path: str, version: str, body: Any = None, session: requests.Session | None = None
    ) -> requests.Response:
        separator = "&" if "?" in path else "?"
        url = f"{MANAGEMENT}{path}{separator}api-version={version}"
        return (session or self.bearer()).request(method, url, json=body, timeout=30)


@functools.cache
def shared() -> Sandbox:
    """One sandbox for all tests of a process, because Key Vault's SDK caches the tenant of a vault until the
    process ends."""
    sandbox = started()
    atexit.register(_stop, sandbox)
    return sandbox


def _stop(sandbox: Sandbox) -> None:
    sandbox.process.terminate()
    sandbox.process.wait(20)


def started(*options: str) -> Sandbox:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env=plain_environment(),
        preexec_fn=heed_signals,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, f"the sandbox did not start: {line!r}, exit status {process.wait(10)}"
    control = Control(found[0])
    return Sandbox(control.call("GET", "/environment"), control, process)


@contextlib.contextmanager
def serving(*options: str) -> Iterator[Sandbox]:
    sandbox = started(*options)
    try:
        yield sandbox
    finally:
        sandbox.process.terminate()
        assert sandbox.process.wait(30) == 0


def heed_signals() -> None:
    """Restore the default handlers in a started process: under nohup SIGHUP is ignored, and in CI SIGINT may be."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def plain_environment() -> dict[str, str]:
    """The environment without variables that would make clients or the sandbox use other hosts."""
    elsewhere = re.compile(r"(AZURE_|ARM_|.*_PROXY$|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|SSL_CERT_FILE)", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not elsewhere.match(name)}


def point_at(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment variables with which the SDKs in this process use the sandbox, and remove variables that
    would make them use other hosts."""
    for name in set(os.environ) - set(plain_environment()):
        monkeypatch.delenv(name)
    for name, value in sandbox.environment.items():
        monkeypatch.setenv(name, value)
