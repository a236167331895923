# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of Entra ID for token requests. Source of the format: sandbox/fidelity/entra.yml."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from ..shared.web import AzureError


def entra_error(status: int, error: str, number: int, text: str) -> AzureError:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    return AzureError(
        status,
        {
            "error": error,
            "error_description": (
                f"AADSTS{number}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {now}"
            ),
            "error_codes": [number],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={number}",
        },
    )


def unknown_application(app_id: str, tenant_id: str) -> AzureError:
    return entra_error(
        400,
        "unauthorized_client",
        700016,
        f"Application with identifier '{app_id}' was not found in the directory '{tenant_id}'. This can happen if the "
        "application has not been installed by the administrator of the tenant or consented to by any user in the "
        "tenant. You may have sent your authentication request to the wrong tenant.",
    )


def wrong_secret(app_id: str) -> AzureError:
    return entra_error(
        401,
        "invalid_client",
        7000215,
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not "
        f"the client secret ID, for a secret added to app '{app_id}'.",
    )


def expired_secret(app_id: str) -> AzureError:
    return entra_error(
        401,
        "invalid_client",
        7000222,
        f"The provided client secret keys for app '{app_id}' are expired. Visit the Azure portal to create new keys "
        "for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: "
        "https://aka.ms/certCreds.",
    )


def unknown_tenant(tenant: str) -> AzureError:
    return entra_error(
        400,
        "invalid_tenant" if tenant else "invalid_request",
        90002,
        f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the "
        "correct cloud. Check with your subscription administrator, this may happen if there are no active "
        "subscriptions for the tenant.",
    )


def missing_parameter(name: str) -> AzureError:
    return entra_error(
        400, "invalid_request", 900144, f"The request body must contain the following parameter: '{name}'."
    )


def unsupported_grant(grant_type: str) -> AzureError:
    return entra_error(
        400, "unsupported_grant_type", 70003, f"The app requested an unsupported grant type '{grant_type}'."
    )


def unknown_resource(resource: str, tenant_id: str) -> AzureError:
    return entra_error(
        400,
        "invalid_resource",
        500011,
        f"The resource principal named {resource} was not found in the tenant named {tenant_id}. This can happen if "
        "the application has not been installed by the administrator of the tenant or consented to by any user in the "
        "tenant. You might have sent your authentication request to the wrong tenant.",
    )


def bad_scope(scope: str) -> AzureError:
    return entra_error(
        400,
        "invalid_scope",
        1002012,
        f"The provided value for scope {scope} is not valid. Client credential flows must have a scope value with "
        "/.default suffixed to the resource identifier (application ID URI).",
    )


def no_credential() -> AzureError:
    return entra_error(
        401,
        "invalid_client",
        7000218,
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
    )


def bad_assertion_signature(reason: str) -> AzureError:
    return entra_error(401, "invalid_client", 700027, f"Client assertion failed signature validation. {reason}")


def unknown_certificate(thumbprint: str, app_id: str) -> AzureError:
    return entra_error(
        401,
        "invalid_client",
        700027,
        "The certificate with identifier used to sign the client assertion is not registered on application. [Reason "
        f"- The key was not found., Thumbprint of key used by client: '{thumbprint}', Please visit the Azure Portal, "
        f"Graph Explorer or directly use MS Graph to see configured keys for app Id '{app_id}'.]",
    )


def assertion_not_in_time() -> AzureError:
    return entra_error(401, "invalid_client", 700024, "Client assertion is not within its valid time range.")


def assertion_malformed(reason: str) -> AzureError:
    return entra_error(401, "invalid_client", 50027, f"JWT token is invalid or malformed. {reason}")


def wrong_certificate_audience() -> AzureError:
    return entra_error(401, "invalid_client", 700023, "Client assertion audience claim does not match Realm issuer.")


def no_federated_audience(audience: str) -> AzureError:
    return entra_error(
        401,
        "invalid_client",
        700212,
        f"No matching federated identity record found for presented assertion audience '{audience}'. Check your "
        "federated identity credential Subject, Audience and Issuer against the presented assertion.",
    )


def no_federated_subject(subject: str) -> AzureError:
    return entra_error(
        401,
        "invalid_client",
        700213,
        f"No matching federated identity record found for presented assertion subject '{subject}'. Check your "
        "federated identity credential Subject, Audience and Issuer against the presented assertion.",
    )


def no_federated_issuer(issuer: str) -> AzureError:
    return entra_error(
        401,
        "invalid_client",
        700211,
        f"No matching federated identity record found for presented assertion issuer '{issuer}'. Check your "
        "federated identity credential Subject, Audience and Issuer against the presented assertion.",
    )


def unknown_instance() -> AzureError:
    return entra_error(400, "invalid_instance", 50049, "Unknown or invalid instance.")
