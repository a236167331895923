# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`azure-sandbox record`: requests that go on to their hosts, here to a sandbox, and recordings without secrets."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_client import COMMAND, TOKEN, Sandbox, plain_environment, serving

from azure_sandbox.recording.placeholders import Placeholders, key_of
from azure_sandbox.recording.secrets import SecretFound, Secrets

# Signs in, lists the accounts, reads a key and the shared keys of an account, and sends a tag with `VALUE`.
PROGRAM = """
import os, sys
import requests
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient
from azure.mgmt.batch import BatchManagementClient

identity = [os.environ[name] for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")]
credential = ClientSecretCredential(*identity)
batch = BatchManagementClient(credential, os.environ["AZURE_SUBSCRIPTION_ID"])
names = [account.name for account in batch.batch_account.list()]
print(KeyClient("https://kv-sandbox-1.vault.azure.net", credential).get_key("batch-cmk").id)
print(batch.batch_account.get_keys("batch-000", names[0]).primary)
if len(sys.argv) > 1:
    batch.batch_account.update("batch-000", names[0], {"tags": {"note": sys.argv[1]}})
sys.exit(7)
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Sandbox]:
    with serving("--accounts-on-key", "2") as sandbox:
        yield sandbox


@pytest.fixture
def azure(served: Sandbox) -> Sandbox:
    served.control.reset()
    return served


def record(azure: Sandbox, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "record", "--to", folder, *arguments],
        env={**plain_environment(), **azure.environment, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_program(*arguments: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", PROGRAM, *arguments)


def interactions(folder: Path, name: str = "one") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text())["interactions"]
    return found


def test_requests_reach_their_hosts_and_are_recorded(azure: Sandbox, tmp_path: Path) -> None:
    done = record(azure, tmp_path, "--name", "one", *run_program("plain text"))
    assert done.returncode == 7, done.stderr
    assert f"requests are recorded in {tmp_path / 'one.json'}" in done.stderr
    made = interactions(tmp_path)
    listed = next(one for one in made if one["url"].partition("?")[0].endswith("/batchAccounts"))
    assert listed["method"] == "GET"
    assert listed["status"] == 200
    assert [account["name"] for account in listed["answer"]["value"]] == ["batch00000", "batch00001"]
    assert listed["headers"]["content-type"].startswith("application/json")
    assert {"began", "seconds"} <= listed.keys()
    patched = next(one for one in made if one["method"] == "PATCH")
    assert patched["body"] == {"tags": {"note": "plain text"}}
    challenge = next(one for one in made if one["status"] == 401)
    assert "authorization=" in challenge["headers"]["www-authenticate"]
    key = next(one for one in made if one["status"] == 200 and "kv-sandbox-1" in one["url"])
    assert key["answer"]["key"]["n"], "the public part of a key may stay"


def test_no_secret_and_no_id_is_in_a_file(azure: Sandbox, tmp_path: Path) -> None:
    done = record(azure, tmp_path, *run_program())
    primary = done.stdout.splitlines()[-1]
    (file,) = tmp_path.glob("*.json")
    text = file.read_text().lower()
    operator = azure.control.call("GET", "/principals")["principals"][0]
    for hidden in (
        azure.secret,
        primary,
        azure.tenant_id,
        azure.client_id,
        azure.subscription_id,
        operator["object_id"],
    ):
        assert hidden
        assert hidden.lower() not in text
    assert TOKEN.search(file.read_text()) is None
    signed_in = next(one for one in interactions(tmp_path, file.stem) if one["url"].endswith("/oauth2/v2.0/token"))
    assert set(signed_in) == {"method", "url", "status", "began", "seconds"}


@pytest.mark.parametrize("encode", [str, lambda value: base64.b64encode(value.encode()).decode()])
def test_a_secret_in_an_unexpected_place_is_refused(azure: Sandbox, tmp_path: Path, encode: Any) -> None:
    done = record(azure, tmp_path, "--name", "one", *run_program(encode(azure.secret)))
    assert done.returncode == 1
    assert "would contain the environment variable AZURE_" in done.stderr
    assert azure.secret not in done.stderr
    text = (tmp_path / "one.json").read_text()
    assert azure.secret not in text
    assert encode(azure.secret) not in text
    assert all(one["method"] != "PATCH" for one in interactions(tmp_path)), "the file is as before that request"


# Placeholders and secrets


def token(**claims: str) -> str:
    parts = ({"alg": "none"}, claims)
    return ".".join(
        [*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "x"]
    )


def test_people_and_addresses_get_placeholders(tmp_path: Path) -> None:
    placeholders = Placeholders(key_of(tmp_path))
    placeholders.learn(token(name="Ada Lovelace", upn="ada@contoso.com", ipaddr="203.0.113.9"))
    document = {
        "createdBy": "ada@contoso.com",
        "text": "Ada Lovelace of contoso.onmicrosoft.com, client address 203.0.113.9, from 10.0.0.4",
        "ada@contoso.com": 1,
        "version": "1.5.1124.0",
    }
    text = json.dumps(placeholders.document(document))
    for hidden in ("Ada", "Lovelace", "contoso", "203.0.113.9"):
        assert hidden not in text
    assert "10.0.0.4" in text
    assert "1.5.1124.0" in text


@pytest.mark.parametrize(
    "name", ["AZURE_CLIENT_SECRET", "AZURE_PASSWORD", "ARM_ACCESS_KEY", "MY_CONNECTION_STRING", "GITHUB_TOKEN"]
)
def test_secrets_of_the_environment(name: str) -> None:
    secrets = Secrets({name: "hunter2/hunter2"})
    for text in ("x hunter2/hunter2 y", "hunter2%2Fhunter2"):
        with pytest.raises(SecretFound, match=name):
            secrets.require_none(text)
    secrets.require_none("hunter2")
