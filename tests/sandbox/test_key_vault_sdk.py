# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key management and cryptography with azure-keyvault-keys."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys import (
    KeyClient,
)
from azure.keyvault.keys.crypto import CryptographyClient, EncryptionAlgorithm
from key_vault_calls import DAY, data, error, make_key, make_vault, message, version_of
from sandbox_client import Control, Sandbox

URL = "https://vault-one.vault.azure.net"
SECRET = b"what nobody else may read"


@pytest.fixture
def credential(sandbox: Sandbox) -> DefaultAzureCredential:
    make_vault(sandbox)
    return DefaultAzureCredential()


@pytest.fixture
def client(credential: DefaultAzureCredential) -> KeyClient:
    return KeyClient(URL, credential)


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


# Cryptography. The SDK computes operations with the public key locally, so plain requests test the sandbox too.


@pytest.mark.parametrize("algorithm", ["RSA1_5", "RSA-OAEP", "RSA-OAEP-256"])
@pytest.mark.parametrize(("there", "back"), [("encrypt", "decrypt"), ("wrapkey", "unwrapkey")])
def test_encryption_by_the_service(
    client: KeyClient, credential: DefaultAzureCredential, sandbox: Sandbox, algorithm: str, there: str, back: str
) -> None:
    bundle = make_key(sandbox)
    # Without a version, and with an empty version, the latest version is used.
    for way in (f"/keys/key1/{there}", f"/keys/key1//{there}"):
        done = data(sandbox, "POST", way, {"alg": algorithm, "value": text(SECRET)})
        assert list(done.json()) == ["kid", "value"]
        assert done.json()["kid"] == bundle["key"]["kid"]
    path = f"/keys/key1/{version_of(bundle)}/{back}"
    undone = data(sandbox, "POST", path, {"alg": algorithm, "value": done.json()["value"]})
    assert undone.json() == {"kid": bundle["key"]["kid"], "value": text(SECRET)}
    decrypted = CryptographyClient(bundle["key"]["kid"], credential).decrypt(
        EncryptionAlgorithm(algorithm), base64.urlsafe_b64decode(done.json()["value"] + "==")
    )
    assert decrypted.plaintext == SECRET


# Keys that may not be used, or not for everything


def allowed(sandbox: Sandbox) -> dict[str, tuple[int, str]]:
    """The status and code of each operation, with valid values where possible."""
    digest = text(hashlib.sha256(SECRET).digest())
    bodies: dict[str, dict[str, Any]] = {
        "encrypt": {"alg": "RSA-OAEP", "value": digest},
        "wrapkey": {"alg": "RSA-OAEP", "value": digest},
        "decrypt": {"alg": "RSA-OAEP", "value": digest},
        "unwrapkey": {"alg": "RSA-OAEP", "value": digest},
        "sign": {"alg": "RS256", "value": digest},
        "verify": {"alg": "RS256", "digest": digest, "value": digest},
    }
    answers = {name: data(sandbox, "POST", f"/keys/key1/{name}", body) for name, body in bodies.items()}
    return {name: error(answer)[::2] for name, answer in answers.items() if answer.status_code == 403}


def test_a_disabled_key_still_encrypts_wraps_and_verifies(client: KeyClient, sandbox: Sandbox) -> None:
    make_key(sandbox, attributes={"enabled": False})
    assert allowed(sandbox) == dict.fromkeys(("decrypt", "unwrapkey", "sign"), (403, "KeyDisabled"))
    refused = data(sandbox, "POST", "/keys/key1/unwrapkey", {"alg": "RSA-OAEP", "value": "AAAA"})
    assert refused.json() == {
        "error": {
            "code": "Forbidden",
            "message": "Operation unwrapKey is not allowed on a disabled key.",
            "innererror": {"code": "KeyDisabled"},
        }
    }


def test_an_expired_key_still_decrypts_unwraps_and_verifies(
    client: KeyClient, credential: DefaultAzureCredential, sandbox: Sandbox, control: Control
) -> None:
    made = make_key(sandbox)
    wrapped = data(sandbox, "POST", "/keys/key1/wrapkey", {"alg": "RSA-OAEP", "value": text(SECRET)}).json()["value"]
    data(sandbox, "PATCH", "/keys/key1", {"attributes": {"exp": made["attributes"]["created"] + DAY}})
    assert allowed(sandbox) == {}
    control.advance(2 * DAY)
    assert allowed(sandbox) == dict.fromkeys(("encrypt", "wrapkey", "sign"), (403, "KeyExpired"))
    undone = data(sandbox, "POST", "/keys/key1/unwrapkey", {"alg": "RSA-OAEP", "value": wrapped})
    assert undone.json()["value"] == text(SECRET)


def test_a_key_that_is_not_valid_yet(client: KeyClient, sandbox: Sandbox) -> None:
    make_key(sandbox, attributes={"nbf": 4000000000})
    assert allowed(sandbox) == dict.fromkeys(("encrypt", "wrapkey", "sign"), (403, "KeyNotYetValid"))


def test_a_key_allows_only_its_operations(client: KeyClient, sandbox: Sandbox) -> None:
    make_key(sandbox, key_ops=["wrapKey", "verify"])
    assert allowed(sandbox) == dict.fromkeys(
        ("encrypt", "decrypt", "unwrapkey", "sign"), (403, "KeyOperationForbidden")
    )
    refused = data(sandbox, "POST", "/keys/key1/unwrapkey", {"alg": "RSA-OAEP", "value": "AAAA"})
    assert message(refused) == "Operation unwrapKey is not permitted on this key."
