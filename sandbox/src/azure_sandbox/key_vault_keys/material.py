# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key material, and the operations with it. Private keys are stored as PKCS #8 DER."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-256K": ec.SECP256K1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
_ENCRYPTION: dict[str, padding.AsymmetricPadding] = {
    "RSA1_5": padding.PKCS1v15(),
    "RSA-OAEP": padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None),
    "RSA-OAEP-256": padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
}
_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVE_OF = {"ES256": "P-256", "ES256K": "P-256K", "ES384": "P-384", "ES512": "P-521"}

ENCRYPTION_ALGORITHMS = frozenset(_ENCRYPTION)
SIGNATURE_ALGORITHMS = frozenset([*_CURVE_OF, *(family + bits for family in ("RS", "PS") for bits in _HASHES)])


class BadMaterial(Exception):
    """The data does not fit the key, or is not a key."""


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: Any) -> bytes:
    if not isinstance(text, str):
        raise BadMaterial("not a base64url string")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise BadMaterial("not a base64url string") from error


def generate(family: str, size: int | None, curve: str | None, exponent: int = 65537) -> bytes:
    """Generate a private key. This can take some seconds, but does not block other threads."""
    if family == "RSA":
        return _dump(rsa.generate_private_key(exponent, size or 2048))
    return _dump(ec.generate_private_key(CURVES[curve or "P-256"]))


def from_jwk(jwk: Mapping[str, Any]) -> bytes:
    try:
        if str(jwk.get("kty")).upper().startswith("RSA"):
            return _dump(_rsa_from_jwk(jwk))
        return _dump(_ec_from_jwk(jwk))
    except (KeyError, TypeError, ValueError, BadMaterial) as error:
        raise BadMaterial("the key's parts do not make a key") from error


def public_jwk(private_key: bytes) -> dict[str, str]:
    """The public parts of a key as in a JSON Web Key. The numbers of an RSA key have no leading zero bytes, even if the
    imported key had them."""
    key = load(private_key)
    if isinstance(key, rsa.RSAPrivateKey):
        rsa_numbers = key.public_key().public_numbers()
        return {"n": base64url(_bytes(rsa_numbers.n)), "e": base64url(_bytes(rsa_numbers.e))}
    numbers = key.public_key().public_numbers()
    length = (key.curve.key_size + 7) // 8
    curve = next(name for name, known in CURVES.items() if known.name == key.curve.name)
    return {
        "crv": curve,
        "x": base64url(numbers.x.to_bytes(length, "big")),
        "y": base64url(numbers.y.to_bytes(length, "big")),
    }


def rsa_size(private_key: bytes) -> int | None:
    key = load(private_key)
    return key.key_size if isinstance(key, rsa.RSAPrivateKey) else None


@lru_cache(maxsize=1024)
def load(private_key: bytes) -> PrivateKey:
    # The key was validated when it was created or imported. Another validation would take longer than most operations.
    return cast(PrivateKey, serialization.load_der_private_key(private_key, None, unsafe_skip_rsa_key_validation=True))


def encrypt(private_key: bytes, algorithm: str, data: bytes) -> bytes:
    try:
        return _rsa(private_key).public_key().encrypt(data, _ENCRYPTION[algorithm])
    except ValueError as error:
        raise BadMaterial("the value is too long for the key and the algorithm") from error


def decrypt(private_key: bytes, algorithm: str, data: bytes) -> bytes:
    try:
        return _rsa(private_key).decrypt(data, _ENCRYPTION[algorithm])
    except ValueError as error:
        raise BadMaterial("the value was not encrypted with this key and algorithm") from error


def sign(private_key: bytes, algorithm: str, digest: bytes) -> bytes:
    key, prehashed = load(private_key), _prehashed(algorithm, digest)
    if algorithm in _CURVE_OF:
        if not isinstance(key, ec.EllipticCurvePrivateKey) or _curve_name(key) != _CURVE_OF[algorithm]:
            raise BadMaterial(f"{algorithm} takes a key on {_CURVE_OF[algorithm]}")
        r, s = utils.decode_dss_signature(key.sign(digest, ec.ECDSA(prehashed)))
        length = (key.curve.key_size + 7) // 8
        return r.to_bytes(length, "big") + s.to_bytes(length, "big")
    return _rsa(private_key).sign(digest, _signature_padding(algorithm), prehashed)


def verify(private_key: bytes, algorithm: str, digest: bytes, signature: bytes) -> bool:
    key, prehashed = load(private_key), _prehashed(algorithm, digest)
    try:
        if algorithm in _CURVE_OF:
            if not isinstance(key, ec.EllipticCurvePrivateKey) or _curve_name(key) != _CURVE_OF[algorithm]:
                raise BadMaterial(f"{algorithm} takes a key on {_CURVE_OF[algorithm]}")
            half = len(signature) // 2
            r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
            key.public_key().verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(prehashed))
        else:
            _rsa(private_key).public_key().verify(signature, digest, _signature_padding(algorithm), prehashed)
    except InvalidSignature:
        return False
    return True


def _prehashed(algorithm: str, digest: bytes) -> utils.Prehashed:
    algorithm_hash = _HASHES[algorithm[2:5]]
    if len(digest) != algorithm_hash.digest_size:
        raise BadMaterial(f"{algorithm} takes a digest of {algorithm_hash.digest_size} bytes")
    return utils.Prehashed(algorithm_hash)


def _signature_padding(algorithm: str) -> padding.AsymmetricPadding:
    if algorithm.startswith("RS"):
        return padding.PKCS1v15()
    algorithm_hash = _HASHES[algorithm[2:5]]
    return padding.PSS(padding.MGF1(algorithm_hash), algorithm_hash.digest_size)


def _rsa(private_key: bytes) -> rsa.RSAPrivateKey:
    key = load(private_key)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise BadMaterial("the algorithm takes an RSA key")
    return key


def _curve_name(key: ec.EllipticCurvePrivateKey) -> str:
    return next(name for name, curve in CURVES.items() if curve.name == key.curve.name)


def _rsa_from_jwk(jwk: Mapping[str, Any]) -> rsa.RSAPrivateKey:
    n, e, d, p, q = (_number(jwk[name]) for name in ("n", "e", "d", "p", "q"))
    dmp1, dmq1, iqmp = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, dmp1, dmq1, iqmp, rsa.RSAPublicNumbers(e, n)).private_key()


def _ec_from_jwk(jwk: Mapping[str, Any]) -> ec.EllipticCurvePrivateKey:
    x, y, d = (_number(jwk[name]) for name in ("x", "y", "d"))
    return ec.EllipticCurvePrivateNumbers(d, ec.EllipticCurvePublicNumbers(x, y, CURVES[jwk["crv"]])).private_key()


def _number(text: Any) -> int:
    return int.from_bytes(from_base64url(text), "big")


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _dump(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
