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
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys import (
    JsonWebKey,
    KeyClient,
    KeyCurveName,
    KeyRotationLifetimeAction,
    KeyRotationPolicy,
    KeyRotationPolicyAction,
    KeyVaultKey,
)
from azure.keyvault.keys.crypto import CryptographyClient, EncryptionAlgorithm, KeyWrapAlgorithm, SignatureAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
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


def plain_rsa() -> tuple[rsa.RSAPrivateKey, JsonWebKey]:
    key = rsa.generate_private_key(65537, 2048)
    found = key.private_numbers()
    parts = {
        "n": b"\0" + number(found.public_numbers.n),
        "e": number(found.public_numbers.e),
        "d": number(found.d),
        "p": number(found.p),
        "q": number(found.q),
        "dp": number(found.dmp1),
        "dq": number(found.dmq1),
        "qi": number(found.iqmp),
    }
    return key, JsonWebKey(kty="RSA", key_ops=["wrapKey", "unwrapKey"], **parts)


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


def test_pages(client: KeyClient) -> None:
    for number_ in range(5):
        client.create_ec_key(f"key{number_}")
    assert [found.name for found in client.list_properties_of_keys(max_page_size=2)] == [
        f"key{number_}" for number_ in range(5)
    ]


def test_a_name_that_is_still_taken(client: KeyClient) -> None:
    client.create_ec_key("key1")
    client.begin_delete_key("key1", _polling_interval=0.1).wait()
    with pytest.raises(ResourceExistsError) as refusal:
        client.create_ec_key("key1")
    assert refusal.value.error.innererror["code"] == "ObjectIsDeletedButRecoverable"


def test_rotation_policies(client: KeyClient) -> None:
    client.create_rsa_key("key1")
    assert client.get_key_rotation_policy("key1").lifetime_actions[0].action == KeyRotationPolicyAction.notify
    rotate = KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_before_expiry="P30D")
    policy = client.update_key_rotation_policy("key1", KeyRotationPolicy(lifetime_actions=[rotate], expires_in="P90D"))
    assert [action.action for action in policy.lifetime_actions] == ["Rotate", "Notify"]
    assert policy.expires_in == "P90D"
    lifetime = client.rotate_key("key1").properties
    assert lifetime.expires_on - lifetime.created_on == timedelta(days=90)


def test_import(client: KeyClient) -> None:
    key, jwk = plain_rsa()
    imported = client.import_key("key1", jwk, tags={"a": "1"})
    assert imported.key.n == number(key.private_numbers().public_numbers.n)
    assert imported.key.d is None
    assert imported.key_operations == ["wrapKey", "unwrapKey"]
    curve = ec.generate_private_key(ec.SECP384R1()).private_numbers()
    parts = {
        "x": curve.public_numbers.x.to_bytes(48, "big"),
        "y": curve.public_numbers.y.to_bytes(48, "big"),
        "d": curve.private_value.to_bytes(48, "big"),
    }
    elliptic = client.import_key("key2", JsonWebKey(kty="EC", crv="P-384", key_ops=["sign"], **parts))
    assert (elliptic.key.crv, elliptic.key.x) == ("P-384", parts["x"])
    with pytest.raises(HttpResponseError) as refusal:
        client.import_key("key3", JsonWebKey(kty="RSA", n=b"12", e=b"3"))
    assert refusal.value.error.code == "BadParameter"
    with pytest.raises(HttpResponseError):
        client.import_key("key3", jwk, hardware_protected=True)


def test_backup_and_restore(client: KeyClient, sandbox: Sandbox, credential: DefaultAzureCredential) -> None:
    first = client.create_rsa_key("key1")
    latest = client.rotate_key("key1")
    blob = client.backup_key("key1")
    with pytest.raises(ResourceExistsError) as refusal:
        client.restore_key_backup(blob)
    assert not refusal.value.error.innererror
    assert f"There was a conflict restoring the key '{latest.id}'. This can happen if" in refusal.value.error.message
    make_vault(sandbox, "vault-two")
    other = KeyClient("https://vault-two.vault.azure.net", credential)
    other.restore_key_backup(blob)
    assert other.get_key("key1", first.properties.version).key.n == first.key.n
    with pytest.raises(HttpResponseError):
        client.restore_key_backup(b"nonsense")


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


@pytest.mark.parametrize(
    ("kty", "operation", "algorithm", "code"),
    [
        ("RSA", "encrypt", "A128KW", "BadParameter"),
        ("RSA", "encrypt", None, "BadParameter"),
        ("RSA", "sign", "ES256", "BadParameter"),
        ("EC", "sign", "RS256", "BadParameter"),
        ("EC", "sign", "ES384", "BadParameter"),
        ("EC", "wrapkey", "RSA-OAEP", "Forbidden"),
        ("RSA", "unwrapkey", "RSA-OAEP", "BadParameter"),
    ],
)
def test_data_that_does_not_fit_the_algorithm(
    client: KeyClient, sandbox: Sandbox, kty: str, operation: str, algorithm: str | None, code: str
) -> None:
    make_key(sandbox, kty=kty)
    digest = text(hashlib.sha256(SECRET).digest())
    refused = data(sandbox, "POST", f"/keys/key1/{operation}", {"alg": algorithm, "value": digest})
    assert refused.json()["error"]["code"] == code


def test_a_malformed_value_is_refused(client: KeyClient, sandbox: Sandbox) -> None:
    make_key(sandbox)
    for value in (None, 1, "é", text(b"x" * 300)):
        refused = data(sandbox, "POST", "/keys/key1/wrapkey", {"alg": "RSA-OAEP", "value": value})
        assert error(refused) == (400, "BadParameter", "")


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
