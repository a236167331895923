# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The identity of the caller: credentials from the options' sources, and tokens shared by all tasks of a run. The
clouds, with their endpoints.

This module util is private to the collection.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._core.concurrent import unawaited
from .._core.errors import CmkError, InvalidOption
from . import sdk as azure_sdk
from . import secrets
from .run_store import RunFiles

# azure-core requests a new token if the token expires in fewer seconds than this. The cache does the same.
_SPARE = 300
_CLI_SECONDS = 60
_FILE = Path("~/.azure/credentials")
# Environment variables that, beside the options, determine the identity that signs in: the CLI's session (HOME, PATH),
# a federated token, a managed identity. The names of all variables that azure-identity reads begin with these prefixes.
_OUTSIDE = re.compile(r"(?:AZURE|IDENTITY|IMDS|MSI)_|(?:HOME|PATH)$")
# If one of these options is set, an application signs in.
_APPLICATION = ("client_id", "secret", "x509_certificate_path")
_FROM_FILE = ("subscription_id", "tenant", "client_id", "secret", "x509_certificate_path", "cloud_environment")


def completed(connection: Mapping[str, Any]) -> dict[str, Any]:
    """The connection options. If the source is a credential file, with the values of the file."""
    options = dict(connection)
    if options["auth_source"] in ("auto", "env") and not any(options[name] for name in ("profile", *_APPLICATION)):
        _refuse_user("The environment variable AZURE_AD_USER", os.environ.get("AZURE_AD_USER"))
    if options["auth_source"] == "auto":
        options["auth_source"] = _automatic(options)
    if options["auth_source"] == "credential_file":
        # A subscription that is set outside the file overrides the file. The credentials are those of the file.
        named = {name: options[name] for name in ("subscription_id",) if options[name]}
        options.update({**_from_file(options["profile"] or "default"), **named})
    secrets.register(options["secret"])
    return options


def credential(options: Mapping[str, Any], environment: Environment, transport: Any = None) -> Any:
    identity = azure_sdk.load("azure-identity")
    source = options["auth_source"]
    if source == "cli":
        # `az` may need longer than the default of 10 s, such as on a busy controller.
        return identity.AzureCliCredential(tenant_id=options["tenant"] or "", process_timeout=_CLI_SECONDS)
    if source == "msi":
        return identity.ManagedIdentityCredential(**_given(client_id=options["client_id"]))
    authority = {"authority": environment.authority, "additionally_allowed_tenants": ["*"], "transport": transport}
    if source == "workload_identity":
        given = _given(tenant_id=options["tenant"], client_id=options["client_id"])
        secrets.register_file(os.environ.get("AZURE_FEDERATED_TOKEN_FILE"))
        return identity.WorkloadIdentityCredential(**given, **authority)
    if options["x509_certificate_path"]:
        _require(options, "tenant", "client_id")
        return _certificate(identity, options, authority)
    _require(options, "tenant", "client_id", "secret")
    return identity.ClientSecretCredential(options["tenant"], options["client_id"], options["secret"], **authority)


def fingerprint(options: Mapping[str, Any]) -> str:
    """Distinguishes callers, also by their secrets: a wrong secret must not use the token of another caller."""
    names = ("auth_source", "tenant", "client_id", "secret", "x509_certificate_path", "profile", "cloud_environment")
    identity = [[options[name] for name in names], sorted(one for one in os.environ.items() if _OUTSIDE.match(one[0]))]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


class SharedTokens:
    """A credential that stores its tokens in the run's files, so that the tasks of a run request one token per
    audience."""

    def __init__(
        self, make: Callable[[], Any], caller: str, files: RunFiles, source: str = "env", scopes: Sequence[str] = ()
    ) -> None:
        """`make` makes the credential of the auth_source `source`; `caller` is its fingerprint. The first sign-in
        also requests the tokens for these `scopes`, which later tasks of the run need."""
        self._make = make
        # Created if the files have no token for it: most tasks of a run need none.
        self._inner: Any = None
        self._caller = caller
        self._files = files
        self._source = source
        self._scopes = scopes
        # By token, the name under which it is stored.
        self._given: dict[str, tuple[str, ...]] = {}
        # By the same name, the time and the error of this task's last failed sign-in.
        self._failed: dict[tuple[str, ...], tuple[float, Exception]] = {}

    def get_token(self, *scopes: str, **kwargs: Any) -> Any:
        info = self.get_token_info(*scopes, options=kwargs)
        return azure_sdk.load("azure-core").credentials.AccessToken(info.token, info.expires_on)

    def get_token_info(self, *scopes: str, options: Any = None) -> Any:
        options = options or {}
        tokens = azure_sdk.load("azure-core").credentials
        name = ("token", self._caller, *scopes)
        began = time.monotonic()
        with self._files.locked(*name):
            failed_at, failure = self._failed.get(name, (0.0, None))
            if failure is not None and failed_at >= began:
                # A concurrent request has just failed to sign in.
                raise failure
            kept = self._files.load(*name)
            # A claims challenge means that the service does not accept the stored token.
            if kept is None or kept["expires_on"] - time.time() <= _SPARE or options.get("claims"):
                try:
                    token = self._fetch(*scopes, **options)
                except Exception as error:
                    self._failed[name] = time.monotonic(), error
                    raise
                kept = {"token": token.token, "expires_on": token.expires_on}
                self._files.store(kept, *name)
                self._expect_others(*scopes)
        self._given[kept["token"]] = name
        return tokens.AccessTokenInfo(kept["token"], kept["expires_on"])

    def _expect_others(self, *scopes: str) -> None:
        """Begin to request the other tokens of the run, once. A later task would have to read the tenant's metadata
        again. This task does not need them, so it does not wait for them."""
        others, self._scopes = set(self._scopes).difference(scopes), ()
        for scope in others:
            if self._files.load("token", self._caller, scope) is None:
                unawaited(self._fetch_unlogged, scope)

    def _fetch_unlogged(self, scope: str) -> None:
        # The task may end before.
        with azure_sdk.unlogged():
            self.get_token_info(scope)

    def _fetch(self, *scopes: str, **options: Any) -> Any:
        sdk = azure_sdk.load("azure-core").exceptions
        try:
            self._inner = self._inner or self._make()
            # Like Key Vault's SDK: azure-identity has one application for tokens with continuous access evaluation
            # and another for other tokens, and each of them reads the tenant's metadata.
            return self._inner.get_token(*scopes, **{**options, "enable_cae": True})
        except azure_sdk.load("azure-identity").CredentialUnavailableError as error:
            raise _unavailable(self._source, error.message) from error
        except sdk.ClientAuthenticationError as error:
            # azure-identity wraps all exceptions, also those of its transport.
            if isinstance(error.__cause__, CmkError | sdk.ServiceRequestError | sdk.ServiceResponseError):
                raise error.__cause__ from None
            raise
        except ValueError as error:
            # azure-identity validates tenants and certificates with plain ValueErrors.
            raise CmkError(f"Could not sign in: {error}", code="authentication_failed") from error

    def forget(self, token: str) -> bool:
        """A service has refused the token. Returns whether a new token can be requested. Called for each request
        that was sent with the token."""
        name = self._given.get(token)
        # azure-identity also caches tokens in memory until they expire.
        self._inner = None
        if name is None:
            return False
        with self._files.locked(*name):
            kept = self._files.load(*name)
            # Another task of the run may have replaced the token meanwhile.
            if kept is not None and kept["token"] == token:
                self._files.store({**kept, "expires_on": 0}, *name)
        return True


def claims(token: str) -> dict[str, Any]:
    """The claims of a token. The token is not verified, because the services verify it."""
    payload = token.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return read


def _automatic(options: Mapping[str, Any]) -> str:
    """In the order of azure.azcollection: options and environment, the credential file, the Azure CLI's session."""
    if options["profile"]:
        return "credential_file"
    if any(options[name] for name in _APPLICATION):
        return "env"
    return "credential_file" if _FILE.expanduser().exists() else "cli"


def _from_file(profile: str) -> dict[str, Any]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(_FILE.expanduser())
    except (configparser.Error, ValueError) as error:
        # The error contains the line of the file, and the line may contain a secret.
        raise _malformed(error) from None
    if not parser.has_section(profile):
        raise InvalidOption(
            "profile", profile, f"{_FILE} has no such section.", "Add the section, or set another O(profile)."
        )
    found = dict(parser.items(profile))
    if not any(found.get(name) for name in _APPLICATION):
        _refuse_user(f"The option ad_user in the section {profile} of {_FILE}", found.get("ad_user"))
    return {name: value for name, value in found.items() if name in _FROM_FILE and value}


def _refuse_user(source: str, user: str | None) -> None:
    """Refuse a user name: azure.azcollection and AWX's credential type also have a user name and a password, which
    this collection does not support."""
    if not user:
        return
    remedy = "Set O(tenant), O(client_id) and O(secret) of a service principal."
    raise CmkError(
        f"Could not sign in: {source} is set, but signing in with a user name is not supported. {remedy}",
        code="credentials_missing",
        option="client_id",
        remedy=remedy,
    )


def _malformed(error: Exception) -> CmkError:
    lines = [str(line) for line, _text in getattr(error, "errors", ())] or [str(getattr(error, "lineno", ""))]
    where = f" (line {', '.join(lines)})" if any(lines) else ""
    remedy = "Correct it: sections such as [default], with lines such as client_id=VALUE, each name once, in UTF-8."
    return CmkError(
        f"The credential file {_FILE} cannot be read{where}. {remedy}", code="credentials_missing", remedy=remedy
    )


def _certificate(identity: Any, options: Mapping[str, Any], authority: Mapping[str, Any]) -> Any:
    path = Path(options["x509_certificate_path"])
    if not path.is_file():
        raise InvalidOption("x509_certificate_path", str(path), "there is no such file.", "Correct it.")
    secrets.register_file(options["x509_certificate_path"])
    return identity.CertificateCredential(options["tenant"], options["client_id"], str(path), **authority)


def _require(options: Mapping[str, Any], *names: str) -> None:
    missing = [name for name in names if not options[name]]
    if missing:
        has = [name for name in ("tenant", "client_id", "secret", "x509_certificate_path") if options[name]]
        given = (
            f"{' and '.join(has)} {'are' if len(has) > 1 else 'is'} set, but {' and '.join(missing)} " if has else ""
        )
        remedy = (
            f"Set {' and '.join(missing)} ({', '.join('AZURE_' + name.upper() for name in missing)}), or another "
            "O(auth_source)."
        )
        raise CmkError(
            f"Could not sign in as an application: {given or ' and '.join(missing) + ' '}"
            f"{'are' if len(missing) > 1 else 'is'} not set. {remedy}",
            code="credentials_missing",
            option=missing[0],
            remedy=remedy,
        )


def _unavailable(source: str, said: str) -> CmkError:
    """The error that a source has no credentials. `said` is what azure-identity reports."""
    application = "Set O(tenant), O(client_id) and O(secret) (AZURE_TENANT, AZURE_CLIENT_ID, AZURE_SECRET)"
    tried, remedy = {
        "auto": (
            f"no credentials in options, environment, {_FILE} or the Azure CLI",
            f"{application}, or run `az login`.",
        ),
        "cli": (
            "the Azure CLI has no session (O(auth_source=cli))",
            "Run `az login` as the user who runs the task, or set another O(auth_source).",
        ),
        "msi": (
            "there is no managed identity (O(auth_source=msi))",
            "Run the task on an Azure resource that has a managed identity, or set another O(auth_source).",
        ),
    }.get(
        source,
        (f"there are no credentials (O(auth_source={source}))", f"{application}, or set another O(auth_source)."),
    )
    return CmkError(
        f"Could not sign in: {tried}. {remedy}",
        code="credentials_missing",
        option="auth_source",
        remedy=remedy,
        details=said,
    )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


@dataclass(frozen=True)
class Environment:
    name: str
    authority: str
    resource_manager: str
    vault_suffix: str

    @property
    def resource_manager_scope(self) -> str:
        return f"{self.resource_manager}/.default"


_ENVIRONMENTS = (
    Environment("AzureCloud", "login.microsoftonline.com", "https://management.azure.com", "vault.azure.net"),
    Environment(
        "AzureUSGovernment",
        "login.microsoftonline.us",
        "https://management.usgovcloudapi.net",
        "vault.usgovcloudapi.net",
    ),
    Environment("AzureChinaCloud", "login.chinacloudapi.cn", "https://management.chinacloudapi.cn", "vault.azure.cn"),
)


def environment_of(name: str) -> Environment:
    by_name = {environment.name.lower(): environment for environment in _ENVIRONMENTS}
    if name.lower() not in by_name:
        names = ", ".join(environment.name for environment in _ENVIRONMENTS)
        raise InvalidOption("cloud_environment", name, "this cloud is not known.", f"Use one of {names}.")
    return by_name[name.lower()]
