# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets that are read from files and options are registered, and taken out of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import credentials, secrets
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.credentials import environment_of

SECRET = "a-secret-of-a-test-that-is-masked"
CLOUD = environment_of("AzureCloud")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """With any release of ansible-core, what would be registered."""
    found: list[str] = []
    monkeypatch.setattr(secrets, "register_secret", found.append)
    return found


def options(**given: Any) -> dict[str, Any]:
    names = ("subscription_id", "tenant", "client_id", "secret", "x509_certificate_path", "profile")
    return {**dict.fromkeys(names), "auth_source": "auto", "cloud_environment": "AzureCloud", **given}


def test_a_secret_of_the_credential_file_is_registered(
    registered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".azure").mkdir()
    (tmp_path / ".azure" / "credentials").write_text(f"[default]\nsecret = {SECRET}\n")
    credentials.completed(options())

    assert registered == [SECRET]


@pytest.mark.usefixtures("fake_identity")
def test_a_federated_token_is_registered(
    registered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(file))
    credentials.credential(options(auth_source="workload_identity"), CLOUD)

    assert registered == [SECRET]


@pytest.mark.usefixtures("fake_identity")
def test_a_private_key_is_registered(registered: list[str], tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(SECRET)
    application = {"tenant": "t", "client_id": "c"}
    credentials.credential(options(auth_source="env", **application, x509_certificate_path=str(file)), CLOUD)

    assert registered == [SECRET]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["a missing file", "no text"])
def test_a_file_that_is_no_text_is_not_registered(content: bytes | None, registered: list[str], tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "key.pfx").write_bytes(content)
    secrets.register_file(str(tmp_path / "key.pfx"))

    assert registered == []


@pytest.fixture
def fake_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    class Identity:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: name

    monkeypatch.setattr(credentials.azure_sdk, "load", lambda package: Identity())


def test_a_registered_secret_is_masked() -> None:
    masking = pytest.importorskip("ansible.module_utils.secrets", reason="since ansible-core 2.22")
    secrets.register(SECRET)

    assert SECRET not in masking.mask_secrets(f"the secret is {SECRET}.")


def test_a_result_has_no_secret() -> None:
    result = {"msg": f"<{SECRET}>", "lines": [SECRET, 1], "nested": ({"text": f"{SECRET[:5]} {SECRET}"}, None)}

    assert secrets.without({SECRET[:5], SECRET}, result) == {
        "msg": "<********>",
        "lines": ["********", 1],
        "nested": [{"text": "******** ********"}, None],
    }
    assert secrets.without(set(), result) is result
