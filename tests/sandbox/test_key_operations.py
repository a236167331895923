# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations that a disabled, expired or restricted key still allows."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from key_vault_calls import DAY, data, error, make_key, make_vault, message
from sandbox_client import Control, Sandbox

SECRET = b"what nobody else may read"


@pytest.fixture(autouse=True)
def vault(sandbox: Sandbox) -> None:
    make_vault(sandbox)


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


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


def test_a_disabled_key_still_encrypts_wraps_and_verifies(sandbox: Sandbox) -> None:
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


def test_an_expired_key_still_decrypts_unwraps_and_verifies(sandbox: Sandbox, control: Control) -> None:
    made = make_key(sandbox)
    wrapped = data(sandbox, "POST", "/keys/key1/wrapkey", {"alg": "RSA-OAEP", "value": text(SECRET)}).json()["value"]
    data(sandbox, "PATCH", "/keys/key1", {"attributes": {"exp": made["attributes"]["created"] + DAY}})
    assert allowed(sandbox) == {}
    control.advance(2 * DAY)
    assert allowed(sandbox) == dict.fromkeys(("encrypt", "wrapkey", "sign"), (403, "KeyExpired"))
    undone = data(sandbox, "POST", "/keys/key1/unwrapkey", {"alg": "RSA-OAEP", "value": wrapped})
    assert undone.json()["value"] == text(SECRET)


def test_a_key_that_is_not_valid_yet(sandbox: Sandbox) -> None:
    make_key(sandbox, attributes={"nbf": 4000000000})
    assert allowed(sandbox) == dict.fromkeys(("encrypt", "wrapkey", "sign"), (403, "KeyNotYetValid"))


def test_a_key_allows_only_its_operations(sandbox: Sandbox) -> None:
    make_key(sandbox, key_ops=["wrapKey", "verify"])
    assert allowed(sandbox) == dict.fromkeys(
        ("encrypt", "decrypt", "unwrapkey", "sign"), (403, "KeyOperationForbidden")
    )
    refused = data(sandbox, "POST", "/keys/key1/unwrapkey", {"alg": "RSA-OAEP", "value": "AAAA"})
    assert message(refused) == "Operation unwrapKey is not permitted on this key."
