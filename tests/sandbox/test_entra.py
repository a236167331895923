# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entra ID and the instance metadata service, with azure-identity and with plain requests."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from sandbox_client import LOGIN, MANAGEMENT_SCOPE, VAULT_SCOPE, Control, Sandbox

METADATA = "http://169.254.169.254/metadata"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = serialization.Encoding.PEM


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


@functools.cache
def certificate(key: rsa.RSAPrivateKey = KEY, days: int = 30) -> bytes:
    """The certificate is cached, because its times, and therefore its thumbprint, depend on the second of its
    creation."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(PEM)


def private(key: rsa.RSAPrivateKey = KEY) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def ask(sandbox: Sandbox, tenant: str = "", version: str = "/v2.0", **fields: str | None) -> Any:
    form = {
        "grant_type": "client_credentials",
        "client_id": sandbox.client_id,
        "client_secret": sandbox.secret,
        "scope": MANAGEMENT_SCOPE,
        **fields,
    }
    wanted = {name: value for name, value in form.items() if value is not None}
    return sandbox.session().post(f"{LOGIN}/{tenant or sandbox.tenant_id}/oauth2{version}/token", wanted, timeout=30)


# Secrets


@pytest.mark.parametrize("scope", [MANAGEMENT_SCOPE, VAULT_SCOPE])
def test_a_secret_gets_a_token(sandbox: Sandbox, scope: str) -> None:
    before = time.time()
    token = ClientSecretCredential(sandbox.tenant_id, sandbox.client_id, sandbox.secret).get_token(scope)
    claims = claims_of(token.token)
    assert claims["aud"] == scope.removesuffix("/.default")
    assert claims["iss"] == f"https://sts.windows.net/{sandbox.tenant_id}/"
    assert claims["tid"] == sandbox.tenant_id
    assert claims["appid"] == sandbox.client_id
    assert claims["appidacr"] == "1"
    assert claims["oid"] == claims["sub"] != sandbox.client_id
    assert claims["ver"] == "1.0"
    assert before - 30 < claims["exp"] - 3599 < time.time() + 30
    assert "xms_mirid" not in claims


@pytest.mark.parametrize(
    ("fields", "status", "error", "code"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_secret": None}, 401, "invalid_client", 7000218),
        ({"client_id": "11111111-1111-1111-1111-111111111111"}, 400, "unauthorized_client", 700016),
        ({"client_id": None}, 400, "invalid_request", 900144),
        ({"grant_type": None}, 400, "invalid_request", 900144),
        ({"scope": None}, 400, "invalid_request", 900144),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"scope": "https://management.azure.com/user_impersonation"}, 400, "invalid_scope", 1002012),
        ({"scope": "https://nowhere.example/.default"}, 400, "invalid_resource", 500011),
        ({"tenant": "22222222-2222-2222-2222-222222222222"}, 400, "invalid_tenant", 90002),
    ],
)
def test_an_error_has_the_text_of_entra(
    sandbox: Sandbox, fields: dict[str, Any], status: int, error: str, code: int
) -> None:
    response = ask(sandbox, **fields)
    document = response.json()
    assert (response.status_code, document["error"], document["error_codes"]) == (status, error, [code])
    assert document["error_description"].startswith(f"AADSTS{code}: ")
    assert document["error_uri"].endswith(str(code))
    assert "Correlation ID" in document["error_description"]


def test_the_errors_of_the_sdk(sandbox: Sandbox) -> None:
    """After an error, MSAL also requests the instance discovery, which the sandbox must support."""
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        ClientSecretCredential(sandbox.tenant_id, sandbox.client_id, "wrong").get_token(MANAGEMENT_SCOPE)
    with pytest.raises(ClientAuthenticationError, match="Unable to get authority configuration"):
        ClientSecretCredential("2" * 8, sandbox.client_id, sandbox.secret).get_token(MANAGEMENT_SCOPE)
    assert sandbox.control.unknown() == []


# Certificates


def test_a_certificate(sandbox: Sandbox, control: Control) -> None:
    somebody = control.principal(certificate=certificate().decode())
    credential = CertificateCredential(
        sandbox.tenant_id, somebody["client_id"], certificate_data=private() + certificate()
    )
    claims = claims_of(credential.get_token(MANAGEMENT_SCOPE).token)
    assert (claims["oid"], claims["appidacr"]) == (somebody["object_id"], "2")


def test_a_certificate_that_nobody_registered(sandbox: Sandbox, control: Control) -> None:
    somebody = control.principal(certificate=certificate(OTHER_KEY).decode())
    credential = CertificateCredential(
        sandbox.tenant_id, somebody["client_id"], certificate_data=private() + certificate()
    )
    with pytest.raises(ClientAuthenticationError, match=r"AADSTS700027.*not registered"):
        credential.get_token(MANAGEMENT_SCOPE)


# Federated assertions


def assertion(sandbox: Sandbox, text: str) -> Any:
    return ask(
        sandbox,
        client_secret=None,
        client_assertion=text,
        client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    )


def test_a_token_of_the_sandboxs_own_issuer(sandbox: Sandbox, control: Control, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(control.call("POST", "/federated-token", {})["token"])
    credential = WorkloadIdentityCredential(
        tenant_id=sandbox.tenant_id, client_id=sandbox.client_id, token_file_path=str(file)
    )
    assert claims_of(credential.get_token(VAULT_SCOPE).token)["appid"] == sandbox.client_id


def test_a_token_of_another_issuer(sandbox: Sandbox) -> None:
    claims = {"iss": "https://issuer.example", "sub": "pod", "exp": int(time.time()) + 600}
    assert assertion(sandbox, jwt.encode(claims, KEY, "RS256")).json()["error_codes"] == [700211]


# The metadata service


def test_the_managed_identity_of_the_machine(sandbox: Sandbox) -> None:
    token = ManagedIdentityCredential().get_token(VAULT_SCOPE)
    claims = claims_of(token.token)
    assert claims["aud"] == "https://vault.azure.net"
    assert claims["xms_mirid"].endswith("/Microsoft.Compute/virtualMachines/sandbox-machine")
    assert claims["exp"] - time.time() > 80_000


def test_a_user_assigned_identity(sandbox: Sandbox) -> None:
    path = f"{sandbox.group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id1"
    identity = sandbox.arm("PUT", path, "2023-01-31", {"location": "westeurope"}).json()
    facts = identity["properties"]
    for credential in (
        ManagedIdentityCredential(client_id=facts["clientId"]),
        ManagedIdentityCredential(identity_config={"object_id": facts["principalId"]}),
        ManagedIdentityCredential(identity_config={"resource_id": identity["id"]}),
    ):
        claims = claims_of(credential.get_token(VAULT_SCOPE).token)
        assert (claims["oid"], claims["appid"]) == (facts["principalId"], facts["clientId"])
        assert claims["xms_mirid"] == identity["id"]
