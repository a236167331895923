# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tenants with their principals and credentials, and the validation of access tokens."""

from __future__ import annotations

import hmac
import secrets
import string
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..shared.clouds import CLOUDS, Cloud
from ..shared.world import Principal, World
from . import tokens
from .tokens import Subject, TokenProblem

__all__ = ["Directory", "Principal", "TokenProblem"]

SECRET_CHARACTERS = string.ascii_letters + string.digits
APP_TOKEN_SECONDS = 3599
MANAGED_IDENTITY_TOKEN_SECONDS = 86399


@dataclass
class Secret:
    value: str
    # By the sandbox's clock.
    expires: float


@dataclass
class FederatedCredential:
    """The issuer, subject and audience of the federated tokens that the principal accepts."""

    issuer: str
    subject: str
    audience: str


@dataclass
class Credentials:
    secrets: list[Secret] = field(default_factory=list)
    # PEM, by SHA-1 thumbprint in base64url without padding, as in the x5t of an assertion.
    certificates: dict[str, bytes] = field(default_factory=dict)
    federated: list[FederatedCredential] = field(default_factory=list)
    # The lifetime of the principal's tokens in seconds; None: the default. If the lifetime is not positive, tokens have
    # expired when they are issued, but expires_in has the default, so only the services notice.
    token_lifetime: int | None = None


class Directory:
    def __init__(self, world: World) -> None:
        self._world = world
        self.tenants = [str(uuid.uuid4())]
        # Tokens of earlier epochs have expired.
        self.epoch = 0
        self.signing_key = tokens.new_signing_key()
        self._principals: dict[str, Principal] = {}
        self._credentials: dict[str, Credentials] = {}

    # Tenants

    @property
    def tenant_id(self) -> str:
        """The first tenant, which is the tenant of a request that names none."""
        return self.tenants[0]

    # Principals

    def principals(self) -> Iterator[Principal]:
        return iter(list(self._principals.values()))

    def principal(self, object_id: str) -> Principal | None:
        return self._principals.get(object_id.lower())

    def by_app_id(self, app_id: str) -> Principal | None:
        wanted = app_id.lower()
        return next((p for p in self._principals.values() if p.app_id == wanted), None)

    def add_principal(
        self, tenant_id: str, display_name: str, kind: str = "ServicePrincipal", resource_id: str | None = None
    ) -> Principal:
        principal = Principal(str(uuid.uuid4()), str(uuid.uuid4()), tenant_id, display_name, kind, resource_id)
        principal.created = self._world.clock.time()
        self._principals[principal.object_id] = principal
        return principal

    def remove_principal(self, object_id: str) -> None:
        """Delete a principal. As in Entra ID, its tokens stay valid until they expire."""
        principal = self._principals.pop(object_id.lower(), None)
        if principal is not None:
            self._credentials.pop(principal.app_id, None)

    # Credentials

    def credentials(self, principal: Principal) -> Credentials:
        return self._credentials.setdefault(principal.app_id, Credentials())

    def add_secret(self, principal: Principal, lifetime_s: float) -> str:
        # Secrets of Entra ID also have 40 characters, one of which is a tilde.
        text = "".join(secrets.choice(SECRET_CHARACTERS) for _ in range(39))
        value = f"{text[:3]}~{text[3:]}"
        self.credentials(principal).secrets.append(Secret(value, self._world.clock.time() + lifetime_s))
        return value

    def secret_state(self, principal: Principal, value: str) -> str:
        """The state of a secret: valid, expired or wrong."""
        for secret in self.credentials(principal).secrets:
            if hmac.compare_digest(secret.value.encode(), value.encode()):
                return "valid" if secret.expires > self._world.clock.time() else "expired"
        return "wrong"

    # Tokens

    def issue(self, principal: Principal, cloud: Cloud, audience: str, credential: str) -> tuple[str, int]:
        """Issue an access token. Returns the token and the value of expires_in, in seconds."""
        usual = MANAGED_IDENTITY_TOKEN_SECONDS if principal.kind == "ManagedIdentity" else APP_TOKEN_SECONDS
        held = self._credentials.get(principal.app_id)
        lifetime = held.token_lifetime if held and held.token_lifetime is not None else usual
        subject = Subject(principal.object_id, principal.app_id, principal.tenant_id, principal.resource_id, credential)
        token = tokens.issue(self.signing_key, cloud, subject, audience, lifetime, self.epoch)
        return token, lifetime if lifetime > 0 else usual

    def expire_tokens(self) -> None:
        """Expire all tokens issued so far, whatever their claim `exp` is."""
        self.epoch += 1

    def authenticate(self, authorization_header: str | None, audiences: frozenset[str] | set[str]) -> Principal:
        """The principal of the token. Raises TokenProblem."""
        scheme, _, token = (authorization_header or "").partition(" ")
        if not authorization_header or scheme.lower() != "bearer":
            raise TokenProblem("missing")
        claims = tokens.read(self.signing_key, token.strip())
        if claims["aud"] not in audiences:
            raise TokenProblem("audience", str(claims["aud"]))
        if claims["iss"] not in {cloud.issuer(tenant) for cloud in CLOUDS for tenant in self.tenants}:
            raise TokenProblem("issuer", str(claims["iss"]))
        if claims["exp"] <= time.time() or tokens.epoch(claims) < self.epoch:
            raise TokenProblem("expired", str(claims["exp"]))
        return self.principal(claims["oid"]) or Principal(
            claims["oid"], claims["appid"], claims["tid"], "(removed)", resource_id=claims.get("xms_mirid")
        )
