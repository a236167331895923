# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cryptography with a key, and when Key Vault refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import errors, material
from .key import KeyVersion
from .material import BadMaterial

# A disabled key's public half can be used all the same (Azure/azure-sdk-for-python#45342).
_REFUSED_WHEN_DISABLED = ("decrypt", "sign", "unwrapKey")
# What was encrypted or signed in time can be read and checked later.
_REFUSED_OUT_OF_TIME = ("encrypt", "sign", "wrapKey")


def encrypt(version: KeyVersion, operation: str, algorithm: object, data: bytes, now: float) -> bytes:
    """Or wrapKey."""
    name = check(version, operation, algorithm, material.ENCRYPTION_ALGORITHMS, now)
    with _fitting():
        return material.encrypt(version.private_key, name, data)


def decrypt(version: KeyVersion, operation: str, algorithm: object, data: bytes, now: float) -> bytes:
    """Or unwrapKey."""
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
    """The algorithm's name, if the key may be used so now. Raises what Key Vault answers if not."""
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
