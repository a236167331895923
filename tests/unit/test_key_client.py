# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pipeline of the client of keys, with Key Vault's SDK and a transport in memory."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.connections import transport
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.warm_up import answering
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.client import Keys

pytest.importorskip("azure.keyvault.keys")

URL = "https://vault-one.vault.azure.net"
KEY: dict[str, Any] = {"key": {"kid": f"{URL}/keys/batch/1", "kty": "RSA", "key_ops": []}, "attributes": {}}


class Credential:
    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("token", 2**31)


def test_responses_are_decoded_in_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """azure-keyvault-keys 4.10 reads the decoded response, and later versions decode the response themselves."""
    from azure.core.pipeline.policies import ContentDecodePolicy

    given = {"auth_source": "msi", "cloud_environment": "AzureCloud", "wait_timeout": 600}
    session = Session({**dict.fromkeys(CONNECTION), **given})
    monkeypatch.setattr(Session, "credential", Credential())
    monkeypatch.setattr(Session, "_transport", transport(lambda _to_azure: answering(KEY)))
    keys: Any = Keys(session, *[None] * 4)  # type: ignore[arg-type]
    contexts: list[Any] = []

    keys._client(URL).get_key("batch", raw_response_hook=lambda response: contexts.append(response.context))

    [context] = contexts
    assert context[ContentDecodePolicy.CONTEXT_NAME] == KEY
