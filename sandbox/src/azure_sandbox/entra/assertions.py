# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Client assertions: JSON Web Tokens that are signed with the key of a certificate, or by a federated issuer."""

from __future__ import annotations

import base64
import time
from collections.abc import Collection, Mapping
from typing import Any, cast

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from . import errors, tokens
from .rules import Credentials, Directory, FederatedCredential, Principal

CERTIFICATE_ALGORITHMS = ["RS256", "PS256"]
FEDERATED_AUDIENCE = "api://AzureADTokenExchange"
FEDERATED_TOKEN_SECONDS = 3600
SKEW_SECONDS = 300


def sandbox_issuer(directory: Directory) -> str:
    """The issuer of the federated tokens of the control API, which replaces the issuer of a Kubernetes cluster."""
    return f"https://oidc.azure-sandbox.invalid/{directory.tenant_id}/"


def thumbprints(pem: bytes) -> tuple[str, str]:
    """The SHA-1 and the SHA-256 thumbprint of a certificate, as in x5t and x5t#S256."""
    certificate = x509.load_pem_x509_certificate(pem)
    return (
        tokens.base64url(certificate.fingerprint(hashes.SHA1())),
        tokens.base64url(certificate.fingerprint(hashes.SHA256())),
    )


def add_certificate(directory: Directory, principal: Principal, pem: bytes) -> str:
    """Add a certificate to a principal. Returns the SHA-1 thumbprint in hexadecimal, as the Azure portal shows it."""
    certificate = x509.load_pem_x509_certificate(pem)
    public = certificate.public_bytes(serialization.Encoding.PEM)
    directory.credentials(principal).certificates[thumbprints(public)[0]] = public
    return certificate.fingerprint(hashes.SHA1()).hex().upper()


def federated_token(directory: Directory, principal: Principal) -> str:
    """A token for AZURE_FEDERATED_TOKEN_FILE. The principal gets the federated credential for such tokens."""
    issuer, subject = sandbox_issuer(directory), f"system:serviceaccount:sandbox:{principal.object_id}"
    credential = FederatedCredential(issuer, subject, FEDERATED_AUDIENCE)
    held = directory.credentials(principal).federated
    if credential not in held:
        held.append(credential)
    now = int(time.time())
    claims = {
        "iss": issuer,
        "sub": subject,
        "aud": [FEDERATED_AUDIENCE],
        "iat": now,
        "nbf": now,
        "exp": now + FEDERATED_TOKEN_SECONDS,
    }
    pem = directory.signing_key
    return jwt.encode(claims, cast(Any, tokens.load_private_key(pem)), "RS256", {"kid": tokens.key_id(pem)})


def check(directory: Directory, principal: Principal, assertion: str, endpoints: Collection[str]) -> None:
    """Check a client assertion. Raises AzureError if Entra ID does not accept the assertion."""
    try:
        header = jwt.get_unverified_header(assertion)
        claims = jwt.decode(assertion, options={"verify_signature": False})
    except (jwt.InvalidTokenError, RecursionError) as error:
        raise errors.assertion_malformed(f"{error}.") from error
    credentials = directory.credentials(principal)
    if str(claims.get("iss", "")).lower() == principal.app_id:
        _check_certificate(credentials, principal, assertion, header)
        if _audience(claims) not in endpoints:
            raise errors.wrong_certificate_audience()
    else:
        _check_federated(directory, credentials, assertion, claims)
    _check_times(claims)


def _check_times(claims: Mapping[str, Any]) -> None:
    if not _moment(claims, "nbf") - SKEW_SECONDS <= time.time() < _moment(claims, "exp") + SKEW_SECONDS:
        raise errors.assertion_not_in_time()


def _moment(claims: Mapping[str, Any], name: str) -> float:
    moment = claims.get(name, 0)
    if not isinstance(moment, (int, float)):
        raise errors.assertion_malformed(f"{name} is not a number.")
    return moment


def _audience(claims: Mapping[str, Any]) -> str:
    audience = claims.get("aud", "")
    return str(audience[0] if isinstance(audience, list) and audience else audience)


def _check_certificate(
    credentials: Credentials, principal: Principal, assertion: str, header: Mapping[str, Any]
) -> None:
    short = str(header.get("x5t", "")).rstrip("=")
    long = str(header.get("x5t#S256", "")).rstrip("=")
    pem = next((pem for pem in credentials.certificates.values() if {short, long} & set(thumbprints(pem))), None)
    if pem is None:
        raise errors.unknown_certificate(_hexadecimal(short or long), principal.app_id)
    certificate = x509.load_pem_x509_certificate(pem)
    if certificate.not_valid_after_utc.timestamp() < time.time():
        raise errors.bad_assertion_signature("[Reason - The key used is expired.]")
    _verify(assertion, certificate.public_key(), CERTIFICATE_ALGORITHMS)


def _hexadecimal(thumbprint: str) -> str:
    try:
        return base64.urlsafe_b64decode(thumbprint + "=" * (-len(thumbprint) % 4)).hex().upper()
    except ValueError:
        return thumbprint


def _check_federated(directory: Directory, credentials: Credentials, assertion: str, claims: Mapping[str, Any]) -> None:
    issuer, subject, audience = str(claims.get("iss", "")), str(claims.get("sub", "")), _audience(claims)
    of_issuer = [held for held in credentials.federated if held.issuer == issuer]
    if not of_issuer:
        raise errors.no_federated_issuer(issuer)
    of_subject = [held for held in of_issuer if held.subject == subject]
    if not of_subject:
        raise errors.no_federated_subject(subject)
    match = next((held for held in of_subject if held.audience == audience), None)
    if match is None:
        raise errors.no_federated_audience(audience)
    _verify(assertion, tokens.load_private_key(directory.signing_key).public_key(), ["RS256"])


def _verify(assertion: str, key: Any, algorithms: list[str]) -> None:
    if not isinstance(key, rsa.RSAPublicKey):
        raise errors.bad_assertion_signature("[Reason - The key is not an RSA key.]")
    unchecked: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
    try:
        jwt.decode(assertion, cast(Any, key), algorithms, options=unchecked)
    except jwt.InvalidTokenError as error:
        raise errors.bad_assertion_signature("[Reason - The signature is not the key's own.]") from error
