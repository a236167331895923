# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Access tokens: signed JSON Web Tokens in the v1.0 format of Entra ID."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ..shared.clouds import CLOUDS, Cloud

ALGORITHM = "RS256"
# The number of checked tokens that are cached. The cache is cleared when there are more.
REMEMBERED = 10_000


class TokenProblem(Exception):
    """A token is not accepted. Each service returns its own error for each `kind`."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}")
        # missing, malformed, expired, audience, issuer or signature
        self.kind = kind
        # The audience or issuer in the token, its expiry in seconds since 1970, or its header.
        self.detail = detail


def new_signing_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@lru_cache(maxsize=16)
def load_private_key(pem: bytes) -> rsa.RSAPrivateKey:
    return cast(rsa.RSAPrivateKey, serialization.load_pem_private_key(pem, None))


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@lru_cache(maxsize=16)
def key_id(pem: bytes) -> str:
    """The id of a signing key. As in Entra ID, it has the format of a certificate's thumbprint, and equals `x5t`."""
    public = load_private_key(pem).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return base64url(digest.finalize()[:20])


def jwk(pem: bytes, issuer: str) -> dict[str, Any]:
    numbers = load_private_key(pem).public_key().public_numbers()
    return {
        "kty": "RSA",
        "use": "sig",
        "kid": key_id(pem),
        "x5t": key_id(pem),
        "n": base64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
        "e": base64url(numbers.e.to_bytes(3, "big")),
        "issuer": issuer,
    }


@dataclass(frozen=True)
class Subject:
    """The principal of a token, and how the principal authenticated."""

    object_id: str
    app_id: str
    tenant_id: str
    resource_id: str | None
    # 1: a secret; 2: a client assertion or a managed identity.
    credential: str


def issue(pem: bytes, cloud: Cloud, subject: Subject, audience: str, lifetime: int, epoch: int) -> str:
    # The clock of the machine and not of the sandbox, because clients cache tokens by the clock of the machine.
    now = int(time.time())
    claims: dict[str, Any] = {
        "aud": audience,
        "iss": cloud.issuer(subject.tenant_id),
        "iat": now,
        "nbf": now,
        "exp": now + lifetime,
        "aio": base64url(uuid.uuid4().bytes + uuid.uuid4().bytes),
        "appid": subject.app_id,
        "appidacr": subject.credential,
        "idp": cloud.issuer(subject.tenant_id),
        "idtyp": "app",
        "oid": subject.object_id,
        # Opaque to clients. The sandbox stores the epoch in it.
        "rh": f"{epoch}.{base64url(uuid.uuid4().bytes)}.",
        "sub": subject.object_id,
        "tid": subject.tenant_id,
        "uti": base64url(uuid.uuid4().bytes),
        "ver": "1.0",
    }
    if subject.resource_id:
        claims["xms_mirid"] = subject.resource_id
    kid = key_id(pem)
    return jwt.encode(claims, cast(Any, load_private_key(pem)), ALGORITHM, {"x5t": kid, "kid": kid})


def epoch(claims: Mapping[str, Any]) -> int:
    return int(claims["rh"].partition(".")[0])


_checked: dict[tuple[bytes, str], Mapping[str, Any]] = {}


def read(pem: bytes, token: str) -> Mapping[str, Any]:
    """The claims of a token with a valid signature, even if the token has expired. Raises TokenProblem."""
    claims = _checked.get((pem, token))
    if claims is None:
        claims = _verify(pem, token)
        if len(_checked) >= REMEMBERED:
            _checked.clear()
        _checked[(pem, token)] = claims
    return claims


def _verify(pem: bytes, token: str) -> Mapping[str, Any]:
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise TokenProblem("malformed", str(error)) from error
    if header.get("alg") != ALGORITHM or header.get("kid") != key_id(pem):
        raise TokenProblem("signature", token.partition(".")[0])
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
    try:
        claims: dict[str, Any] = jwt.decode(
            token, cast(Any, load_private_key(pem).public_key()), [ALGORITHM], options=options
        )
    except jwt.InvalidSignatureError as error:
        raise TokenProblem("signature", token.partition(".")[0]) from error
    except jwt.InvalidTokenError as error:
        raise TokenProblem("malformed", str(error)) from error
    return claims


# Audiences


# Every tenant has these audiences, although the sandbox does not emulate the services.
OTHER_AUDIENCES = (
    "https://graph.microsoft.com",
    "https://graph.windows.net",
    "https://batch.core.windows.net",
)


def is_audience(resource: str, cloud: Cloud | None) -> bool:
    """Whether clients can request tokens for the resource. `cloud` is the cloud of the login host; None for the
    metadata service, which issues tokens for all clouds."""
    clouds = CLOUDS if cloud is None else (cloud,)
    bare = resource.rstrip("/")
    return bare in OTHER_AUDIENCES or any(
        bare == each.vault_audience or bare in each.management_audiences for each in clouds
    )


def cloud_of(resource: str) -> Cloud:
    return next((cloud for cloud in CLOUDS if is_audience(resource, cloud)), CLOUDS[0])
