# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cryptographic operations with a key, and the conditions under which Key Vault refuses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import errors, material
from .key import KeyVersion
from .material import BadMaterial

# The public key of a disabled key can still be used (Azure/azure-sdk-for-python#45342).
_REFUSED_WHEN_DISABLED = ("decrypt", "sign", "unwrapKey")
# Data that was encrypted or signed while the key was valid can be decrypted and verified later.
_REFUSED_OUT_OF_TIME = ("encrypt", "sign", "wrapKey")


def encrypt(version: KeyVersion, operation: str, algorithm: object, data: bytes, now: float) -> bytes:
    """Encrypt or wrap `data`. Raises AzureError."""
    name = check(version, operation, algorithm, material.ENCRYPTION_ALGORITHMS, now)
    with _fitting():
        return material.encrypt(version.private_key, name, data)


def decrypt(version: KeyVersion, operation: str, algorithm: object, data: bytes, now: float) -> bytes:
    """Decrypt or unwrap `data`. Raises AzureError."""
    name = check(version, operation, algorithm, material.ENCRYPTION_ALGORITHMS, now)
    with _fitting():
        return material.decrypt(version.private_key, name, data)


def sign(version: KeyVersion, algorithm: object, digest: bytes, now: float) -> bytes:
    name = check(version, "sign", algorithm, material.SIGNATURE_ALGORITHMS, now)
    with _fitting():
        return material.sign(version.private_key, name, digest)


def verify(version: KeyVersion, algorithm: object, digest: bytes, signature: bytes, now: float) -> bool:
    name = check(version, "verify", algorithm, material.SIGNATURE_ALGORITHMS, now)
    with _fitting():
        return material.verify(version.private_key, name, digest, signature)


def check(version: KeyVersion, operation: str, algorithm: object, known: frozenset[str], now: float) -> str:
    """Check that the key version can be used for the operation now. Returns the algorithm's name. Raises AzureError."""
    if not version.enabled and operation in _REFUSED_WHEN_DISABLED:
        raise errors.operation_on_disabled_key(operation)
    if operation in _REFUSED_OUT_OF_TIME:
        if version.not_before is not None and version.not_before > now:
            raise errors.operation_on_early_key(operation)
        if version.expires is not None and version.expires <= now:
            raise errors.operation_on_expired_key(operation)
    if operation not in version.key_ops:
        raise errors.operation_not_permitted(operation)
    name = str(algorithm)
    if name not in known or name.startswith("ES") != (version.family == "EC"):
        raise errors.algorithm_does_not_fit(algorithm, version.kty)
    return name


@contextmanager
def _fitting() -> Iterator[None]:
    try:
        yield
    except BadMaterial as problem:
        raise errors.bad_parameter(f"Invalid value: {problem}.") from problem
