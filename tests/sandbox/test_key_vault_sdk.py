# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key management and cryptography with azure-keyvault-keys."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys import (
    KeyClient,
    KeyCurveName,
    KeyRotationLifetimeAction,
    KeyRotationPolicy,
    KeyRotationPolicyAction,
    KeyVaultKey,
)
from azure.keyvault.keys.crypto import CryptographyClient, EncryptionAlgorithm, KeyWrapAlgorithm, SignatureAlgorithm
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


def number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


# Management


def test_a_key_is_created_changed_and_deleted(client: KeyClient) -> None:
    made = client.create_rsa_key("key1", size=3072, key_operations=["wrapKey", "unwrapKey"], tags={"a": "1"})
    assert made.properties.recovery_level == "Recoverable+Purgeable"
    assert client.get_key("key1").id == made.id
    assert client.get_key("key1", made.properties.version).key.n == made.key.n
    expiry = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    changed = client.update_key_properties("key1", expires_on=expiry, enabled=False)
    assert (changed.properties.expires_on, changed.properties.enabled) == (expiry, False)
    rotated = client.rotate_key("key1")
    assert {found.id for found in client.list_properties_of_key_versions("key1")} == {made.id, rotated.id}
    assert [found.name for found in client.list_properties_of_keys()] == ["key1"]
    poller = client.begin_delete_key("key1", _polling_interval=0.1)
    poller.wait()
    assert poller.result().recovery_id == f"{URL}/deletedkeys/key1"
    assert client.get_deleted_key("key1").id == rotated.id
    assert [found.name for found in client.list_deleted_keys()] == ["key1"]
    recovery = client.begin_recover_deleted_key("key1", _polling_interval=0.1)
    recovery.wait()
    assert recovery.result().id == rotated.id
    client.begin_delete_key("key1", _polling_interval=0.1).wait()
    client.purge_deleted_key("key1")
    with pytest.raises(ResourceNotFoundError) as refusal:
        client.get_deleted_key("key1")
    assert refusal.value.error.code == "KeyNotFound"


def test_the_sdk_learns_where_to_sign_in(
    credential: DefaultAzureCredential, sandbox: Sandbox, control: Control
) -> None:
    # The SDK caches the tenant until the process ends, so the name must be new.
    make_vault(sandbox, "vault-never-seen")
    KeyClient("https://vault-never-seen.vault.azure.net", credential).create_ec_key("key1")
    asked = [entry for entry in control.requests() if entry["host"] == "vault-never-seen.vault.azure.net"]
    assert [(entry["method"], entry["status"]) for entry in asked] == [("POST", 401), ("POST", 200)]


def test_rotation_policies(client: KeyClient) -> None:
    client.create_rsa_key("key1")
    assert client.get_key_rotation_policy("key1").lifetime_actions[0].action == KeyRotationPolicyAction.notify
    rotate = KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_before_expiry="P30D")
    policy = client.update_key_rotation_policy("key1", KeyRotationPolicy(lifetime_actions=[rotate], expires_in="P90D"))
    assert [action.action for action in policy.lifetime_actions] == ["Rotate", "Notify"]
    assert policy.expires_in == "P90D"
    lifetime = client.rotate_key("key1").properties
    assert lifetime.expires_on - lifetime.created_on == timedelta(days=90)


# Cryptography. The SDK computes operations with the public key locally, so plain requests test the sandbox too.


@pytest.mark.parametrize(
    "algorithm", [KeyWrapAlgorithm.rsa1_5, KeyWrapAlgorithm.rsa_oaep, KeyWrapAlgorithm.rsa_oaep_256]
)
def test_wrapping(client: KeyClient, credential: DefaultAzureCredential, algorithm: KeyWrapAlgorithm) -> None:
    key = client.create_rsa_key("key1")
    local = CryptographyClient(key, credential)
    remote = CryptographyClient(key.id, credential)
    wrapped = local.wrap_key(algorithm, SECRET).encrypted_key
    assert remote.unwrap_key(algorithm, wrapped).key == SECRET


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


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa_signatures(
    client: KeyClient, credential: DefaultAzureCredential, sandbox: Sandbox, algorithm: str
) -> None:
    _signatures(client.create_rsa_key("key1"), credential, sandbox, algorithm)


@pytest.mark.parametrize(
    ("algorithm", "curve"),
    [
        ("ES256", KeyCurveName.p_256),
        ("ES256K", KeyCurveName.p_256_k),
        ("ES384", KeyCurveName.p_384),
        ("ES512", KeyCurveName.p_521),
    ],
)
def test_elliptic_signatures(
    client: KeyClient, credential: DefaultAzureCredential, sandbox: Sandbox, algorithm: str, curve: KeyCurveName
) -> None:
    _signatures(client.create_ec_key("key1", curve=curve), credential, sandbox, algorithm)


def _signatures(key: KeyVaultKey, credential: DefaultAzureCredential, sandbox: Sandbox, algorithm: str) -> None:
    name = SignatureAlgorithm(algorithm)
    digest = hashlib.new(f"sha{algorithm[2:5]}", SECRET).digest()
    signature = CryptographyClient(key.id, credential).sign(name, digest).signature
    assert CryptographyClient(key, credential).verify(name, digest, signature).is_valid
    other = hashlib.new(f"sha{algorithm[2:5]}", b"other").digest()
    for checked, valid in ((digest, True), (other, False)):
        body = {"alg": algorithm, "digest": text(checked), "value": text(signature)}
        assert data(sandbox, "POST", "/keys/key1/verify", body).json() == {"value": valid}
    short = data(sandbox, "POST", "/keys/key1/sign", {"alg": algorithm, "value": text(digest[1:])})
    assert error(short) == (400, "BadParameter", "")


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
