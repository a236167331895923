# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The caller's credentials, and tokens that the tasks of a run share and no other user can read."""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import credentials as credentials_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import sdk
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.credentials import SharedTokens, environment_of
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import settled
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, InvalidOption
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain

credentials = pytest.importorskip("azure.core.credentials")

SCOPE = "https://management.azure.com/.default"
VAULT_SCOPE = "https://vault.azure.net/.default"
FILE = """
[default]
subscription_id = of-default
secret = of-default%

[other]
subscription_id = of-other
tenant = of-other
wait_timeout = 1
"""


def options(**given: Any) -> dict[str, Any]:
    names = ("subscription_id", "tenant", "client_id", "secret", "x509_certificate_path", "profile")
    standard = {"auth_source": "auto", "cloud_environment": "AzureCloud", "wait_timeout": 600}
    return {**dict.fromkeys(names), **standard, **given}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def file(home: Path) -> Path:
    (home / ".azure").mkdir()
    path = home / ".azure" / "credentials"
    path.write_text(FILE, encoding="utf-8")
    return path


# The source of the credentials


@pytest.mark.parametrize(
    ("given", "source"),
    [
        pytest.param({}, "cli", id="nothing"),
        pytest.param({"client_id": "c", "secret": "s"}, "env", id="secret"),
        pytest.param({"auth_source": "msi", "client_id": "c"}, "msi", id="set to msi"),
    ],
)
@pytest.mark.usefixtures("home")
def test_source_without_a_file(given: dict[str, Any], source: str) -> None:
    assert credentials_module.completed(options(**given))["auth_source"] == source


@pytest.mark.parametrize(
    ("given", "source", "subscription"),
    [
        pytest.param({}, "credential_file", "of-default", id="nothing"),
        pytest.param({"profile": "other", "secret": "s"}, "credential_file", "of-other", id="profile and secret"),
        pytest.param({"secret": "s"}, "env", None, id="secret"),
        pytest.param({"auth_source": "credential_file"}, "credential_file", "of-default", id="set to credential_file"),
        pytest.param({"auth_source": "cli"}, "cli", None, id="set to cli"),
    ],
)
@pytest.mark.usefixtures("file")
def test_source_with_a_file(given: dict[str, Any], source: str, subscription: str | None) -> None:
    completed = credentials_module.completed(options(**given))

    assert completed["auth_source"] == source
    assert completed["subscription_id"] == subscription


@pytest.mark.usefixtures("file")
def test_values_of_the_file_are_taken_as_they_are() -> None:
    assert credentials_module.completed(options())["secret"] == "of-default%"
    assert credentials_module.completed(options(profile="other"))["wait_timeout"] == 600


def test_empty_values_of_the_file_are_not_set(file: Path) -> None:
    file.write_text("[default]\nclient_id = c\ncloud_environment =\n")
    assert credentials_module.completed(options())["cloud_environment"] == "AzureCloud"


@pytest.mark.usefixtures("file")
def test_missing_profile() -> None:
    with pytest.raises(InvalidOption) as refused:
        credentials_module.completed(options(profile="third"))

    assert refused.value.code == "invalid_option"
    assert "of-default" not in str(refused.value)


@pytest.mark.usefixtures("file")
def test_a_user_with_a_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside other credentials, a user is ignored."""
    monkeypatch.setenv("AZURE_AD_USER", "somebody")
    credentials_module.completed(options(client_id="c"))
    credentials_module.completed(options(profile="other"))
    with pytest.raises(CmkError, match="AZURE_AD_USER") as refused:
        credentials_module.completed(options())
    assert refused.value.code == "credentials_missing"


def test_a_user_in_the_file_is_refused(file: Path) -> None:
    file.write_text("[default]\nad_user = somebody\npassword = p\n")
    with pytest.raises(CmkError, match="ad_user in the section default") as refused:
        credentials_module.completed(options())
    assert refused.value.code == "credentials_missing"


def test_the_azure_cli_may_take_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    # This loads the SDK, which runs another command.
    made = credentials_module.credential(options(auth_source="cli"), environment_of("AzureCloud"))
    timeouts: list[float] = []

    def run(*_command: Any, **given: Any) -> str:
        timeouts.append(given["timeout"])
        return json.dumps({"accessToken": "token", "expires_on": 4102444800})

    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/az")
    monkeypatch.setattr("subprocess.check_output", run)

    assert made.get_token("https://management.azure.com/.default").token == "token"
    assert timeouts == [60]


@pytest.mark.parametrize(
    ("given", "option", "expected"),
    [
        ({}, "tenant", "tenant and client_id and secret are not set. Set tenant and client_id and secret "),
        (
            {"tenant": "t", "client_id": "c"},
            "secret",
            "tenant and client_id are set, but secret is not set. Set secret (AZURE_SECRET), or another auth_source.",
        ),
        (
            {"client_id": "c", "x509_certificate_path": "/c.pem"},
            "tenant",
            "client_id and x509_certificate_path are set, but tenant is not set. ",
        ),
    ],
)
def test_missing_options_are_named(given: dict[str, Any], option: str, expected: str) -> None:
    with pytest.raises(CmkError) as refused:
        credentials_module.credential(options(auth_source="env", **given), environment_of("AzureCloud"))

    assert refused.value.code == "credentials_missing"
    assert refused.value.facts["option"] == option
    assert str(refused.value).startswith(f"Could not sign in as an application: {expected}")
    assert plain(refused.value.facts["remedy"]) in str(refused.value)


def test_missing_certificate_file(tmp_path: Path) -> None:
    given = {"tenant": "t", "client_id": "c", "x509_certificate_path": str(tmp_path / "no.pem")}

    with pytest.raises(InvalidOption) as refused:
        credentials_module.credential(options(auth_source="env", **given), environment_of("AzureCloud"))

    assert refused.value.code == "invalid_option"


# The session


@pytest.mark.parametrize(
    ("name", "manager", "vaults"),
    [
        ("AzureCloud", "https://management.azure.com", "vault.azure.net"),
        ("azureusgovernment", "https://management.usgovcloudapi.net", "vault.usgovcloudapi.net"),
        ("AzureChinaCloud", "https://management.chinacloudapi.cn", "vault.azure.cn"),
    ],
)
def test_clouds(name: str, manager: str, vaults: str) -> None:
    environment = Session(options(auth_source="cli", cloud_environment=name)).environment

    assert (environment.resource_manager, environment.vault_suffix) == (manager, vaults)
    assert environment.resource_manager_scope == f"{manager}/.default"


@pytest.mark.parametrize(
    ("given", "ask", "code"),
    [
        ({"cloud_environment": "Moon"}, "environment", "invalid_option"),
        ({}, "subscription_id", "invalid_option"),
        ({"wait_timeout": -1}, "wait_timeout", "invalid_option"),
    ],
)
def test_session_refuses(given: dict[str, Any], ask: str, code: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        getattr(Session(options(auth_source="cli", **given)), ask)

    assert refused.value.code == code
    assert refused.value.facts["option"] in (ask, "cloud_environment")


# Tokens


class Entra:
    """A credential that records the requests for tokens."""

    def __init__(self, lasts: float = 3600, takes: float = 0) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._lasts = lasts
        self._takes = takes
        self._lock = threading.Lock()

    def get_token(self, *scopes: str, **more: Any) -> Any:
        time.sleep(self._takes)
        with self._lock:
            self.asked.append((scopes, more))
            return credentials.AccessToken(f"token-{len(self.asked)}", int(time.time() + self._lasts))


class SlowVaults(Entra):
    """Responds with a token for Key Vault only after `may_respond` was set."""

    def __init__(self, lasts: float = 3600) -> None:
        super().__init__(lasts)
        self.may_respond = threading.Event()

    def get_token(self, *scopes: str, **more: Any) -> Any:
        assert VAULT_SCOPE not in scopes or self.may_respond.wait(30)
        logging.getLogger("azure.identity").info("The SDK logs its success.")
        return super().get_token(*scopes, **more)


def test_the_first_sign_in_also_requests_the_token_for_key_vault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The process of a later task would begin with the tenant's metadata again."""
    entra, files = SlowVaults(), RunFiles(str(tmp_path))
    tokens = SharedTokens(lambda: entra, "me", files, scopes=(SCOPE, VAULT_SCOPE))

    with caplog.at_level(logging.INFO):
        with settled(), sdk.unlogged():
            # Neither the token nor the task waits for it.
            assert tokens.get_token(SCOPE).token == "token-1"

        entra.may_respond.set()
        until(lambda: files.load("token", "me", VAULT_SCOPE))
    assert caplog.records == []
    nobody = SharedTokens(lambda: pytest.fail("a later task signs in"), "me", files)
    assert nobody.get_token(VAULT_SCOPE).token == "token-2"


def until(shown: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not shown():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_tasks_of_a_run_share_a_token(tmp_path: Path) -> None:
    entra = Entra(takes=0.05)

    def task(_number: int) -> str:
        return SharedTokens(lambda: entra, "me", RunFiles(str(tmp_path))).get_token(SCOPE).token

    with ThreadPoolExecutor(8) as tasks:
        assert set(tasks.map(task, range(8))) == {"token-1"}
    assert len(entra.asked) == 1


def test_concurrent_requests_share_a_failed_sign_in(tmp_path: Path) -> None:
    """Entra ID locks an application after too many attempts with a wrong secret."""
    waiting, asked = threading.Semaphore(0), []

    class Files(RunFiles):
        def locked(self, *name: str) -> Any:
            waiting.release()
            return super().locked(*name)

    def fail(*_scopes: str, **_options: Any) -> Any:
        asked.append(_scopes)
        if len(asked) == 1:
            assert all(waiting.acquire(timeout=30) for _request in range(2))
        raise CmkError("The secret is wrong.")

    tokens = SharedTokens(lambda: SimpleNamespace(get_token=fail), "me", Files(str(tmp_path)))

    with ThreadPoolExecutor(2) as requests:
        both = [requests.submit(tokens.get_token, SCOPE) for _request in range(2)]
        failures = [one.exception(30) for one in both]

    assert [type(one) for one in failures] == [CmkError] * 2
    assert len(asked) == 1
    with pytest.raises(CmkError):
        tokens.get_token(SCOPE)
    assert len(asked) == 2


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "in memory"])
def test_a_token_that_was_refused_is_replaced(tmp_path: Path, shared: bool) -> None:
    entra = Entra()
    tokens = SharedTokens(lambda: entra, "me", RunFiles(str(tmp_path) if shared else None))
    refused = tokens.get_token(SCOPE).token

    assert tokens.forget(refused)
    assert tokens.get_token(SCOPE).token == "token-2"
    assert tokens.forget(refused), "another request was sent with it at the same time"
    assert tokens.get_token_info(SCOPE).token != refused
    assert not tokens.forget("a token of nobody's")


def test_a_token_that_another_task_has_replaced_stays(tmp_path: Path) -> None:
    entra = Entra()
    ours, theirs = (SharedTokens(lambda: entra, "me", RunFiles(str(tmp_path))) for _task in range(2))
    refused = ours.get_token(SCOPE).token
    assert theirs.get_token(SCOPE).token == refused

    assert theirs.forget(refused)
    assert theirs.get_token(SCOPE).token == "token-2"
    assert ours.forget(refused)
    assert ours.get_token(SCOPE).token == "token-2"
    assert len(entra.asked) == 2


def test_callers_do_not_share_a_token(tmp_path: Path) -> None:
    entra = Entra()

    tokens = [SharedTokens(lambda: entra, who, RunFiles(str(tmp_path))).get_token(SCOPE) for who in ("me", "you")]
    assert tokens[0] != tokens[1]


def test_token_about_to_expire_is_replaced(tmp_path: Path) -> None:
    entra = Entra(299)
    tokens = SharedTokens(lambda: entra, "me", RunFiles(str(tmp_path)))

    tokens.get_token(SCOPE)
    tokens.get_token(SCOPE)

    assert len(entra.asked) == 2


def test_a_claims_challenge_requests_a_new_token(tmp_path: Path) -> None:
    entra = Entra()
    tokens = SharedTokens(lambda: entra, "me", RunFiles(str(tmp_path)))
    tokens.get_token(SCOPE)

    better = tokens.get_token_info(SCOPE, options={"claims": "more"})

    assert better.token == "token-2"
    assert entra.asked[1][1]["claims"] == "more"
    assert tokens.get_token(SCOPE).token == "token-2"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tenant", "t"),
        ("client_id", "c"),
        ("secret", "hushed"),
        ("x509_certificate_path", "/c.pem"),
        ("profile", "p"),
        ("auth_source", "msi"),
        ("cloud_environment", "AzureChinaCloud"),
    ],
)
def test_callers_with_other_options_have_another_fingerprint(name: str, value: str) -> None:
    assert credentials_module.fingerprint(options(**{name: value})) != credentials_module.fingerprint(options())


@pytest.mark.parametrize(
    "name",
    [
        *("HOME", "PATH", "AZURE_CONFIG_DIR", "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
        *("AZURE_POD_IDENTITY_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT"),
        *("IMDS_ENDPOINT", "MSI_ENDPOINT", "MSI_SECRET"),
    ],
)
def test_callers_with_another_environment_have_another_fingerprint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = credentials_module.fingerprint(options())
    monkeypatch.setenv("HOMEWORK", "of no account")
    assert credentials_module.fingerprint(options()) == before
    monkeypatch.setenv(name, "another")
    assert credentials_module.fingerprint(options()) != before


HUSHED = "hushed-value"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (f"secret={HUSHED}\n[default]\nclient_id=c\n", "line 1"),
        (f"[default]\nclient_id=c\n{HUSHED}\n\n{HUSHED} again\n", "line 3, 5"),
        (f"[default]\nsecret={HUSHED}\nsecret={HUSHED}\n", "line 3"),
        (f"[default]\nsecret={HUSHED}\udce4\n", None),
    ],
    ids=["no section", "no equals sign", "twice", "not UTF-8"],
)
def test_a_file_that_is_malformed(file: Path, content: str, lines: str | None) -> None:
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CmkError) as failed:
        credentials_module.completed(options())

    assert failed.value.code == "credentials_missing"
    assert "~/.azure/credentials" in str(failed.value)
    assert ("(line" in str(failed.value)) is (lines is not None)
    assert (lines or "") in str(failed.value)
    assert HUSHED not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize("step", ["make", "get_token"])
def test_a_value_that_azure_identity_refuses(step: str) -> None:
    def refuse(*_scopes: str, **_options: Any) -> Any:
        raise ValueError("Invalid tenant id provided.")

    def make() -> Any:
        return refuse() if step == "make" else SimpleNamespace(get_token=refuse)

    with pytest.raises(CmkError, match="Invalid tenant id") as failed:
        SharedTokens(make, "me", RunFiles(None)).get_token(SCOPE)
    assert failed.value.code == "authentication_failed"


@pytest.mark.usefixtures("home")
def test_every_source_that_was_tried_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = pytest.importorskip("azure.identity")

    def refuse(*_scopes: str, **_options: Any) -> Any:
        raise identity.CredentialUnavailableError(message="Azure CLI not found on path.")

    monkeypatch.setattr(credentials_module, "credential", lambda *_given: SimpleNamespace(get_token=refuse))
    with pytest.raises(CmkError) as failed:
        Session(options()).credential.get_token(SCOPE)
    assert failed.value.code == "credentials_missing"
    tried, _set, remedy = str(failed.value).partition("Set ")
    for source in ("options", "environment", "~/.azure/credentials", "Azure CLI"):
        assert source in tried
    for named in ("AZURE_TENANT", "AZURE_CLIENT_ID", "AZURE_SECRET", "az login"):
        assert named in remedy


def test_no_response_is_no_failed_sign_in() -> None:
    exceptions = pytest.importorskip("azure.core.exceptions")

    def fail(*_scopes: str, **_options: Any) -> Any:
        cause = exceptions.ServiceRequestError("No route to host")
        raise exceptions.ClientAuthenticationError(message="Authentication failed") from cause

    with pytest.raises(CmkError) as failed, sdk.translated("sign in"):
        SharedTokens(lambda: SimpleNamespace(get_token=fail), "me", RunFiles(None)).get_token(SCOPE)
    assert failed.value.code == "unreachable"
