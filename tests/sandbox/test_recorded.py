# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandbox returns the responses that public recordings have from Azure."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
import requests
from recorded import HEADERS, RECORDINGS, compared, filled
from sandbox_client import MANAGEMENT, MANAGEMENT_SCOPE, VAULT_SCOPE, Control, Sandbox

# The durations of the services in seconds, so that operations that were unfinished in a recording are unfinished
# here too.
DURATIONS = {
    "retry_after": 15,
    "batch_create": 8,
    "batch_delete": 12,
    "pool_delete": 15,
    "vault_dns": 31,
    "vault_purge": 600,
    "key_delete": 20,
    "key_recover": 5,
}
LONGER_THAN_ANY = 700


def ask(sandbox: Sandbox, method: str, address: str, body: Any = None, *, anonymous: bool = False) -> requests.Response:
    url = f"{MANAGEMENT}{address}" if address.startswith("/") else address
    host = urlsplit(url).netloc
    scope = VAULT_SCOPE if ".vault." in host else MANAGEMENT_SCOPE
    session = sandbox.session() if anonymous else sandbox.bearer(scope)
    return session.request(method, url, json=body, timeout=30)


def learnt(response: requests.Response) -> dict[str, str]:
    """The values of a response that later requests contain."""
    answer = response.json() if response.content else {}
    found = {name: answer[name] for name in ("nextLink", "value") if isinstance(answer.get(name), str)}
    if "key" in answer:
        found["kid"] = answer["key"]["kid"]
    if "location" in response.headers:
        found["location"] = response.headers["location"]
    return found


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_responses_of_a_recording(sandbox: Sandbox, control: Control, name: str) -> None:
    recording = RECORDINGS[name]
    control.timing(**DURATIONS)
    token = jwt.decode(sandbox.token(), options={"verify_signature": False})
    known = {"subscription": sandbox.subscription_id, "tenant": sandbox.tenant_id, "operator": token["oid"]}
    for method, address, body in filled(recording["given"], known):
        # The bodies of the recorded requests may have the key of an earlier response.
        response = ask(sandbox, method, address, body)
        assert response.ok, response.text
        known |= learnt(response)
        control.advance(LONGER_THAN_ANY)
    for case in recording["cases"]:
        if not case.get("at_once"):
            control.advance(LONGER_THAN_ANY)
        asked = filled({"address": case.get("sent", case["path"]), "body": case.get("body")}, known)
        response = ask(sandbox, case["method"], **asked, anonymous=case.get("anonymous", False))
        expected = filled(
            {"number": case["number"], "status": case["status"], **case["headers"], "answer": case.get("answer")}, known
        )
        own = {"number": case["number"], "status": response.status_code}
        headers = [header for header in HEADERS if header not in recording["unrecorded"]]
        own |= {header: response.headers[header] for header in headers if header in response.headers}
        own["answer"] = response.json() if response.content else None
        if case.get("part"):
            ids = [one["id"] for one in expected["answer"]["value"]]
            own["answer"]["value"] = [one for one in own["answer"]["value"] if one["id"] in ids]
        shown = compared(own, expected)
        assert shown == expected
        # The order of the members is also that of Azure.
        assert json.dumps(shown) == json.dumps(expected)
        known |= learnt(response)
