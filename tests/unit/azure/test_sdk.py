# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The conversion of the SDKs' exceptions, and SDKs that are missing or too old."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import sdk as azure_sdk
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.warm_up import send_requests, warm_up
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    MissingSdk,
)

sdk = pytest.importorskip("azure.core.exceptions")


class Answer:
    """An HTTP response, with the attributes that the SDK's exceptions read."""

    def __init__(self, status: int, body: str, reason: str = "") -> None:
        self.status_code = status
        self.reason = reason
        self.headers = {"x-ms-request-id": "a-request"}
        self._body = body

    def text(self, encoding: str | None = None) -> str:
        return self._body

    def body(self) -> bytes:
        return self._body.encode()


def error(code: str, message: str = "It says so.", *, inner: str | None = None, **more: Any) -> str:
    return json.dumps(
        {"error": {"code": code, "message": message, **({"innererror": {"code": inner}} if inner else {}), **more}}
    )


def translated(raised: Exception, **options: str) -> CmkError:
    with pytest.raises(CmkError) as failed, azure_sdk.translated("read the key", **options):
        raise raised
    assert str(failed.value).startswith(("Could not read the key", "Could not sign in"))
    assert failed.value.__cause__ is raised
    return failed.value


RBAC = (
    "Caller is not authorized to perform action on resource.\r\nCaller: appid=a;oid=b;iss=https://sts.windows.net/c/\r\n"
    "Action: 'Microsoft.KeyVault/vaults/keys/read'\r\nResource: '/subscriptions/s'\r\nAssignment: (not found)\r\n"
)
ARM = (
    "The client 'c' with object id 'o' does not have authorization to perform action "
    "'Microsoft.Batch/batchAccounts/read' over scope '/subscriptions/s' or the scope is invalid."
)
POLICY = (
    "The user, group or application 'appid=a;oid=b' does not have keys wrapKey permission on key vault 'v;location=w'."
)


@pytest.mark.parametrize(
    ("status", "body", "code", "is_of_account"),
    [
        (400, error("InvalidRequestBody"), "rejected_by_service", False),
        (400, error("InvalidKeyVaultProperties"), "rejected_by_service", True),
        (409, error("ScopeLocked"), "resource_locked", True),
        (409, error("Conflict", inner="ObjectIsBeingDeleted"), "rejected_by_service", True),
        (404, error("SubscriptionNotFound"), "subscription_not_found", True),
        (404, error("ResourceGroupNotFound"), "resource_group_not_found", True),
        (404, error("ResourceNotFound"), "not_found", True),
        (403, error("AuthorizationFailed", ARM), "permission_denied", True),
        (403, error("Forbidden", inner="ForbiddenByFirewall"), "network_denied", True),
        (403, error("Forbidden", inner="ForbiddenByConnection"), "network_denied", True),
        (429, error("Throttled"), "service_unavailable", False),
        (500, error("InternalServerError"), "service_unavailable", False),
        (503, "<html>busy</html>", "service_unavailable", False),
    ],
)
def test_response_has_its_code(status: int, body: str, code: str, is_of_account: bool) -> None:
    """And shows whether the failure concerns only an account, so that it stops no other."""
    failure = translated(sdk.HttpResponseError(response=Answer(status, body, "A reason")))

    assert (failure.result().get("scope") == "account") is is_of_account
    assert failure.code == code
    assert failure.facts["azure"]["status"] == status
    assert failure.facts["azure"]["request_id"] == "a-request"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "The gateway is closed."}, "The gateway is closed."),
        ({"error": None}, "A reason"),
        ({"error": {"code": "Bad", "message": "No.", "details": "More of it."}}, "(Bad) No. More of it."),
        ({"error": {"code": "Bad", "message": "No.", "details": ["one", {"code": "c", "message": "m"}]}}, "one; c: m"),
        ({"error": {"code": "Bad", "message": "No.", "details": {"code": "c", "message": "m"}}}, "No. c: m"),
        ({"error": {"code": "Bad", "message": {"value": "No."}, "innererror": "ForbiddenByFirewall"}}, "No."),
        ({"error": {"code": ["Bad"], "message": "No."}}, "No."),
        ("text", "A reason"),
    ],
)
def test_a_response_of_another_shape(body: Any, said: str) -> None:
    response = Answer(403, json.dumps(body), "A reason")
    failure = translated(sdk.HttpResponseError(response=response))

    assert failure.code != "internal_error"
    assert said in failure.reported
    assert azure_sdk.is_missing_above(response) is False


@pytest.mark.parametrize(
    ("message", "action", "remedy"),
    [
        (ARM, "Microsoft.Batch/batchAccounts/read", "Assign Reader."),
        (RBAC, "Microsoft.KeyVault/vaults/keys/read", "Assign Key Vault Reader or Key Vault Crypto Officer."),
        (POLICY, "keys wrapKey", "Add it to the caller's access policy"),
        ("No.", None, "See the reason in azure.message."),
    ],
    ids=["management", "role", "policy", "not named"],
)
def test_missing_right_is_named(message: str, action: str | None, remedy: str) -> None:
    failure = translated(sdk.HttpResponseError(response=Answer(403, error("Forbidden", message))))

    assert failure.facts["action"] == action
    assert f"the caller lacks {action}. " in failure.msg or action is None
    assert remedy in failure.facts["remedy"]


MINE = "/subscriptions/s/resourceGroups/Mine"


@pytest.mark.parametrize(
    ("status", "code", "message", "said"),
    [
        (
            409,
            "ScopeLocked",
            f"following scope(s) are locked: '{MINE}'.",
            "a lock on the resource group Mine forbids it.",
        ),
        (
            409,
            "ScopeLocked",
            f"following scope(s) are locked: '{MINE}/providers/Microsoft.Batch/batchAccounts/ok1'.",
            "a lock on the Batch account ok1 forbids it.",
        ),
        (404, "ResourceGroupNotFound", "Resource group 'rg-typo' could not be found.", "group rg-typo was not found."),
    ],
    ids=["lock of group", "lock", "resource group"],
)
def test_the_cause_is_named_without_the_text_of_azure(status: int, code: str, message: str, said: str) -> None:
    failure = translated(sdk.HttpResponseError(response=Answer(status, error(code, message))))

    assert failure.msg.startswith("Could not read the key: ")
    assert said in failure.msg
    assert message not in failure.msg
    assert message in failure.reported


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Failed to resolve 'kv' ([Errno -2] Name or service not known)", "the name of its host is unknown"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED]", "the certificate of its host is not trusted"),
        ("[Errno 111] Connection refused", "its host refused the connection"),
        ("Read timed out. (read timeout=300)", "its host did not respond in time"),
        ("Connection aborted.", "no response"),
    ],
)
def test_why_there_is_no_response(message: str, reason: str) -> None:
    failure = translated(sdk.ServiceRequestError(message))

    assert failure.msg.startswith(f"Could not read the key: {reason}. ")
    assert failure.facts["details"] == message


@pytest.mark.parametrize(
    ("message", "code", "option"),
    [
        ("AADSTS7000215: Invalid client secret provided.", "authentication_failed", "secret"),
        ("AADSTS7000222: The provided client secret keys are expired.", "secret_expired", "secret"),
        ("AADSTS90002: Tenant 't' not found.", "authentication_failed", "tenant"),
        ("AADSTS50105: something else", "authentication_failed", "auth_source"),
        ("Azure CLI not found on path", "authentication_failed", "auth_source"),
    ],
)
def test_failed_sign_in_has_its_code(message: str, code: str, option: str) -> None:
    failure = translated(sdk.ClientAuthenticationError(message=message))

    assert (failure.code, failure.facts["option"]) == (code, option)
    assert failure.msg.startswith("Could not sign in")
    assert failure.facts["details"] == message


def test_a_vault_of_another_tenant() -> None:
    failure = translated(sdk.ClientAuthenticationError(message="(Unauthorized) AKV10032: Invalid issuer. Expected one"))

    assert isinstance(failure, Denied)
    assert (failure.code, "another tenant" in failure.msg) == ("vault_in_other_tenant", True)


@pytest.mark.parametrize("kind", [sdk.ServiceRequestError, sdk.ServiceResponseError])
def test_no_response(kind: type[Exception]) -> None:
    assert translated(kind("Name or service not known")).code == "unreachable"
    assert translated(kind("Name or service not known"), unreachable="vault_unreachable").code == "vault_unreachable"


@pytest.mark.parametrize(
    ("error", "variable"),
    [
        (sdk.ServiceRequestError("('Unable to connect to proxy', NewConnectionError('Refused'))"), "HTTPS_PROXY"),
        (
            sdk.ServiceRequestError("('Unable to connect to proxy', OSError('Tunnel connection failed: 407'))"),
            "all_proxy",
        ),
        (sdk.ClientAuthenticationError(message="ERROR: Max retries (Caused by ProxyError('Unable'))"), "https_proxy"),
    ],
)
def test_a_proxy_that_fails_is_named(error: Exception, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://somebody:hushed@proxy.example:3128")

    failure = translated(error, unreachable="vault_unreachable")

    assert failure.code == "unreachable"
    assert "the proxy http://proxy.example:3128 does not accept the connection" in failure.msg
    assert variable in failure.facts["remedy"]
    assert "hushed" not in str(failure.result())


def test_a_tunnel_that_a_proxy_refuses_may_be_the_fault_of_the_host() -> None:
    error = sdk.ServiceRequestError("('Unable to connect to proxy', OSError('Tunnel connection failed: 502'))")

    assert translated(error, unreachable="vault_unreachable").code == "vault_unreachable"


# The packages


@pytest.fixture(autouse=True)
def without_cache() -> Iterator[None]:
    """Clears the cache of package versions, which are read once in a process."""
    azure_sdk.load.cache_clear()
    yield
    azure_sdk.load.cache_clear()


def test_warm_up_sends_requests_to_a_local_adapter() -> None:
    """If warming up fails, a run continues, so only this test finds the failure."""
    send_requests()


def test_missing_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(azure_sdk.FLOORS, "azure-identity", ("azure.no_such_package", "1.19.0"))

    with pytest.raises(MissingSdk) as failed:
        azure_sdk.load("azure-identity")

    assert failed.value.facts["package"] == "azure-identity"
    assert failed.value.facts["floor"] == "1.19.0"
    assert failed.value.facts["found"] is None
    assert "azure-identity" in failed.value.facts["remedy"]
    assert isinstance(warm_up(), MissingSdk)


@pytest.mark.parametrize(
    ("found", "enough"),
    [
        ("1.9.0", False),
        ("1.19.0b1", True),
        ("1.19", False),
        ("2", True),
    ],
)
def test_package_that_is_too_old(monkeypatch: pytest.MonkeyPatch, found: str, enough: bool) -> None:
    monkeypatch.setitem(azure_sdk.FLOORS, "azure-core", ("azure.core", "1.19.0"))
    monkeypatch.setattr(azure_sdk.metadata, "version", lambda package: found)

    if enough:
        assert azure_sdk.load("azure-core").__name__ == "azure.core"
        return
    with pytest.raises(MissingSdk) as failed:
        azure_sdk.load("azure-core")
    assert failed.value.facts["found"] == found
    assert found in str(failed.value)


@pytest.mark.parametrize("name", ["azure.core.pipeline", "msal", "urllib3.connectionpool"])
def test_messages_of_the_sdks_are_not_shown(
    name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        with azure_sdk.unlogged():
            logging.getLogger(name).warning("secret")
            logging.getLogger("theirs").warning("seen meanwhile")
        with pytest.raises(KeyError), azure_sdk.unlogged():
            raise KeyError
        logging.getLogger(name).warning("seen later")

    assert [record.message for record in caplog.records] == ["seen meanwhile", "seen later"]
    assert "secret" not in "".join(capfd.readouterr())


def test_blocks_without_a_log_may_overlap(caplog: pytest.LogCaptureFixture) -> None:
    """A thread may still request a token after the end of its task."""
    task, thread = azure_sdk.unlogged(), azure_sdk.unlogged()
    with caplog.at_level(logging.DEBUG):
        task.__enter__()
        thread.__enter__()
        task.__exit__(None, None, None)
        logging.getLogger("azure.identity").info("secret")
        thread.__exit__(None, None, None)
        logging.getLogger("azure.identity").info("seen later")

    assert [record.message for record in caplog.records] == ["seen later"]


def test_without_a_handler_python_writes_no_warning_of_theirs_to_the_standard_error() -> None:
    code = f"""
import logging, sys
sys.path.insert(0, {str(azure_sdk.__file__).partition("ansible_collections")[0]!r})
from {azure_sdk.__name__} import unlogged
with unlogged():
    logging.getLogger("azure.identity").warning("secret")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
