# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sends requests of all kinds to every route. Each response must have the form of the service, and an error must
change nothing.

`make test` sends the same few hundred requests each time. FUZZ_EXAMPLES=N sends N random requests of each kind.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import pickle
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest
from batch_calls import VERSION
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from furnished import (
    AZURE,
    BODIES,
    CONTROL,
    GROUP,
    KNOWN,
    LOGIN_HOST,
    MANAGEMENT,
    MANAGEMENT_HOST,
    SIGNER,
    SUBSCRIPTION,
    furnished,
    vault_plane,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from key_vault_calls import NEW
from oddities import (
    NOISE,
    NUMBERS,
    PLAIN_JUNK,
    RAW,
    TEXTS,
    Ask,
    Plane,
    asks,
    documents_for,
    every_change,
    filled,
    garbled,
    good,
    mutated,
    written,
)
from sandbox_client import Control, Sandbox
from wire import NO_HTTP, Answer, NoTunnel, Wire, last_words

from azure_sandbox.key_vault_keys import documents as key_documents
from azure_sandbox.key_vault_keys.material import base64url
from azure_sandbox.running import InThread, Options, Running
from azure_sandbox.server import Sandbox as Server
from azure_sandbox.shared.timing import REALISTIC
from azure_sandbox.shared.web import Route

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
QUICKLY = 50

# The sandbox


@dataclass
class Target:
    """The tested sandbox. It runs in this process, so that tests can read its state."""

    server: Server
    sandbox: Sandbox
    wire: Wire
    known: dict[str, str]
    complaints: list[str] = field(default_factory=list)

    def ask(self, one: Ask) -> Answer:
        return self.wire.ask(one.tunnel, one.method, one.bytes(self.known))

    def reset(self) -> None:
        self.server.reset()
        self.complaints.clear()


class Listener(logging.Handler):
    """Records logged errors, which responses do not show."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        self.complaints.append(logging.Formatter().format(record))


@pytest.fixture
def target(lasting_target: Target) -> Target:
    lasting_target.reset()
    return lasting_target


@pytest.fixture(scope="module")
def lasting_target() -> Iterator[Target]:
    with InThread(Running(Options())) as server:
        control = Control(server.url)
        sandbox = Sandbox(control.call("GET", "/environment"), control, None)  # type: ignore[arg-type]
        known = furnished(server, sandbox)
        server.beginning = pickle.dumps(server.world)
        context = ssl.create_default_context(cafile=sandbox.environment["SSL_CERT_FILE"])
        one = Target(server, sandbox, Wire(int(known["port"]), context), known)
        listener = Listener(one.complaints)
        logging.getLogger().addHandler(listener)
        yield one
        logging.getLogger().removeHandler(listener)
        one.wire.close()


# The checks of each response


def examples(share: float) -> Any:
    """The number of examples: a share of the usual number, or the full number if FUZZ_EXAMPLES is set."""
    return settings(
        max_examples=EXAMPLES or round(QUICKLY * share),
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


# Attributes that are not compared: caches, and the results of Batch's checks of its keys.
UNSEEN = {
    *("world", "_world", "throttle", "key_vault_throttle", "_revoked", "_windows"),
    *("lost", "back_at", "unusable_since", "version", "wrapped"),
}


def facts(thing: Any) -> Any:
    """All data of the sandbox's world, for a comparison."""
    if isinstance(thing, dict):
        return {key: facts(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple, set)):
        return [facts(value) for value in thing]
    if not hasattr(thing, "__dict__"):
        return thing
    # An empty safe is ignored, because the first read of a vault creates it.
    held = {name: facts(value) for name, value in vars(thing).items() if name not in UNSEEN}
    held["_safes"] = {uid: safe for uid, safe in held.get("_safes", {}).items() if safe["live"] or safe["deleted"]}
    return held


def settled(target: Target) -> Any:
    """The data of the world, after resources whose time has ended were removed, which any read does."""
    world = target.server.world
    list(world.batch.contents(""))
    world.vaults.deleted("")
    return facts(world)


def check(target: Target, one: Ask, answer: Answer) -> None:
    """Check that the response has the form of a service of Azure or, if the request did not reach a service, of
    HTTP."""
    message = f"{one}\n{answer.status} {answer.body[:1000]!r}\n" + "\n".join(target.complaints)
    assert not target.complaints, message
    assert answer.status < 500 or answer.status == 502, message
    kind = answer.headers.get("content-type", "")
    if not answer.body:
        assert answer.status < 400 or one.method == "HEAD", message
    elif answer.body == NO_HTTP:
        assert answer.status == 400, message
    elif kind.startswith("text/html"):
        assert answer.status == 200, message
    else:
        document = answer.json
        assert answer.status < 400 or is_error(document), message


def is_error(document: Any) -> bool:
    error = document["error"]
    if isinstance(error, str):
        return isinstance(document["error_description"], str)
    return bool(error["code"]) and isinstance(error["code"], str) and isinstance(error["message"], str)


def check_one(target: Target, one: Ask) -> Answer:
    """Send the request, and check that the response is valid, and that an error has changed nothing."""
    before = settled(target)
    answer = target.ask(one)
    check(target, one, answer)
    if answer.status >= 400:
        assert settled(target) == before, one
    return answer


def check_all(target: Target, requests: list[Ask]) -> None:
    target.reset()
    answers = [(one, check_one(target, one)) for one in requests]
    check_log(target)
    if any(answer.status < 400 and one.method not in ("GET", "HEAD") for one, answer in answers):
        look_around(target)


def check_log(target: Target) -> None:
    check_shown(target, CONTROL, "/requests")


def look_around(target: Target) -> None:
    """Each resource that was accepted can be read."""
    at_management = (
        f"/{SUBSCRIPTION}/resourceGroups?api-version=2022-09-01",
        f"/{SUBSCRIPTION}/resources?api-version=2022-09-01",
        f"/{SUBSCRIPTION}/providers/Microsoft.Batch/batchAccounts?api-version={VERSION}",
        f"/{GROUP}/providers/Microsoft.Batch/batchAccounts/account1/pools?api-version={VERSION}",
        f"/{GROUP}/providers/Microsoft.Batch/batchAccounts/account2/pools?api-version={VERSION}",
        f"/{SUBSCRIPTION}/providers/Microsoft.KeyVault/vaults?api-version={NEW}",
        f"/{SUBSCRIPTION}/providers/Microsoft.KeyVault/deletedVaults?api-version={NEW}",
        f"/{SUBSCRIPTION}/providers/Microsoft.ManagedIdentity/userAssignedIdentities?api-version=2023-01-31",
        f"/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01",
        f"/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions?api-version=2022-04-01",
    )
    in_a_vault = ("/keys", "/keys/curve", "/keys/curve/versions", "/keys/curve/rotationpolicy", "/deletedkeys")
    for path in at_management:
        check_shown(target, MANAGEMENT, path)
    for name in ("vault-one", "vault-two"):
        if target.server.world.vaults.by_name(name) is None:
            continue
        for path in in_a_vault:
            check_shown(target, vault_plane(name), f"{path}?api-version={key_documents.NEWEST}")


def check_shown(target: Target, plane: Plane, path: str) -> None:
    one = good(plane, "GET", path)
    answer = target.ask(one)
    check(target, one, answer)
    # The vault may be deleted, closed, or in another tenant, and its key unusable. Not every path accepts GET.
    assert answer.status in (200, 401, 403, 404, 405, 409, 429)


# The tests


@pytest.mark.parametrize("name", ["management", "vault with roles", "control"])
def test_a_change_in_each_place_of_each_good_body(target: Target, name: str) -> None:
    plane = {**AZURE, "control": CONTROL}[name]
    for route in plane.routes:
        for document in documents_for(route, BODIES):
            path = where_accepted(target, plane, route, document)
            target.reset()
            for changed in some_changes(document):
                answer = check_one(target, good(plane, route.method, path, written(changed)))
                if answer.status < 400 and plane is not CONTROL:
                    check_shown(target, plane, path)
                    look_around(target)
                if answer.status < 400:
                    check_log(target)
                    target.reset()


def some_changes(document: Any) -> Iterator[Any]:
    """All changes if FUZZ_EXAMPLES is set; otherwise one in twenty of the changes with plain values."""
    if EXAMPLES:
        return every_change(document, (*PLAIN_JUNK, *NUMBERS, *TEXTS, *RAW))
    return itertools.islice(every_change(document, PLAIN_JUNK), 0, None, 20)


def where_accepted(target: Target, plane: Plane, route: Route, document: Any) -> str:
    """The first known path that accepts the document."""
    parts = [KNOWN[part.strip("{}").partition(":")[0]] if "{" in part else (part,) for part in route.path.split("/")]
    for place in itertools.product(*parts):
        path = f"{'/'.join(place)}?api-version={plane.versions(route)}"
        target.reset()
        if target.ask(good(plane, route.method, path, written(document))).status < 400:
            return path
    pytest.fail(f"nowhere is {document} accepted by {route.method} {route.path}")


SHARES = {"management": 4.0, "vault with roles": 3.0, "vault with policies": 2.0, "login": 1.0, "metadata": 0.5}


@pytest.mark.parametrize("name", AZURE)
def test_random_requests_to_each_operation_of_azure(target: Target, name: str) -> None:
    @examples(SHARES[name])
    @given(st.lists(asks(AZURE[name], KNOWN, BODIES), min_size=1, max_size=4))
    def try_all(requests: list[Ask]) -> None:
        check_all(target, requests)

    try_all()


TIME_PASSES = Ask("POST", "", "/clock/advance", (("host", CONTROL.host),), b'{"seconds": 8000000}')
SLOWLY = json.dumps({**dataclasses.asdict(REALISTIC), "retry_after": 1}).encode()
TAKES_TIME = Ask("PATCH", "", "/timing", (("host", CONTROL.host),), SLOWLY)
MIXED = st.lists(
    asks(MANAGEMENT, KNOWN, BODIES)
    | asks(AZURE["vault with roles"], KNOWN, BODIES)
    | st.sampled_from((TIME_PASSES, TAKES_TIME)),
    min_size=4,
    max_size=10,
)


def check_together(target: Target, requests: list[Ask]) -> None:
    target.reset()
    for one in requests:
        try:
            answer = target.ask(one)
        except NoTunnel:
            # An earlier request has deleted the vault, or creates it again.
            vaults = target.server.world.vaults
            vault = vaults.by_name(one.tunnel.partition(".")[0])
            assert vault is None or vaults.is_registering(vault)
            continue
        check(target, one, answer)
    look_around(target)


def test_random_operations_on_vaults_keys_and_accounts(target: Target) -> None:
    @examples(1)
    @given(MIXED)
    def try_all(requests: list[Ask]) -> None:
        check_together(target, requests)

    try_all()


def check_control(target: Target, requests: list[Ask]) -> None:
    target.reset()
    for one in requests:
        check(target, one, target.ask(one))
        target.server.faults.clear()
    check_log(target)
    # The clock may have been advanced, so that the token has expired.
    one = good(MANAGEMENT, "GET", f"/{SUBSCRIPTION}/resources?api-version=2022-09-01")
    check(target, one, target.ask(one))


def test_the_control_api(target: Target) -> None:
    @examples(2)
    @given(st.lists(asks(CONTROL, KNOWN, BODIES), min_size=1, max_size=4))
    def try_all(requests: list[Ask]) -> None:
        check_control(target, requests)

    try_all()


CLAIMS = {
    "iss": "https://issuer",
    "sub": "subject",
    "aud": "audience",
    "nbf": 1,
    "exp": 4102444800,
    "iat": 1,
    "jti": "x",
}
ASSERTION = {
    "grant_type": "client_credentials",
    "client_id": "@certain@",
    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "scope": "https://management.azure.com/.default",
}


HEADER = {"alg": "RS256", "typ": "JWT", "kid": "x", "x5t": "x", "x5t#S256": "x"}


def signed(header: Any, claims: Any, known: dict[str, str]) -> str:
    """A signed JSON Web Token with any contents."""
    parts = (base64url(filled(written(part), known)) for part in (header, claims))
    content = ".".join(parts)
    return f"{content}.{base64url(SIGNER.sign(content.encode(), PKCS1v15(), SHA256()))}"


def test_assertions(target: Target) -> None:
    """Assertions with a valid signature and other errors."""
    pem = SIGNER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    options = {"federated_subject": "subject", "federated_issuer": "https://issuer", "federated_audience": "audience"}
    target.reset()
    certain = target.sandbox.control.principal("certain", federated_public_key=pem, **options)
    known = {**target.known, "certain": certain["client_id"]}

    def ask(header: Any, claims: Any) -> int:
        form = urlencode({**ASSERTION, "client_assertion": signed(header, claims, known)}, safe="@").encode()
        one = Ask("POST", LOGIN_HOST, "/@tenant@/oauth2/v2.0/token", (("host", LOGIN_HOST),), form)
        answer = target.wire.ask(LOGIN_HOST, one.method, one.bytes(known))
        check(target, one, answer)
        return answer.status

    assert ask(HEADER, CLAIMS) == 200
    for issuer in ("https://issuer", "@certain@"):
        for changed in some_changes({**CLAIMS, "iss": issuer}):
            ask(HEADER, changed)
        for changed in some_changes(HEADER):
            ask(changed, {**CLAIMS, "iss": issuer})

    @examples(1)
    @given(mutated(HEADER), mutated(CLAIMS))
    def try_all(header: Any, claims: Any) -> None:
        ask(header, claims)

    try_all()


REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:@port@\r\n\r\n",
    b'POST /clock/advance HTTP/1.1\r\nHost: 127.0.0.1:@port@\r\nContent-Length: 13\r\n\r\n{"seconds":1}',
    b"GET /metadata/instance HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n",
    b"PATCH /x HTTP/1.1\r\nHost: management.azure.com\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/0.9\r\n\r\n",
    b"CONNECT management.azure.com:443 HTTP/1.1\r\nHost: management.azure.com:443\r\n\r\n",
    b"CONNECT vault-one.vault.azure.net:443 HTTP/1.1\r\n\r\n\x16\x03\x01\x00\x05hello",
)
BYTES = garbled(*REQUESTS) | NOISE


def check_responds(target: Target) -> None:
    assert target.complaints == []
    assert target.ask(good(MANAGEMENT, "GET", f"/{GROUP}?api-version=2022-09-01")).status == 200


def test_bytes(target: Target) -> None:
    @examples(2)
    @given(BYTES)
    def try_all(content: bytes) -> None:
        answer = last_words(target.wire.plain(), filled(content, target.known))
        assert not answer or answer.startswith(b"HTTP/1.")
        check_responds(target)

    try_all()


def test_bytes_where_tls_should_begin(target: Target) -> None:
    connect = f"CONNECT {MANAGEMENT_HOST}:443 HTTP/1.1\r\n\r\n".encode()

    @examples(1)
    @given(BYTES)
    def try_all(content: bytes) -> None:
        connection = target.wire.plain()
        connection.sendall(connect)
        assert connection.recv(200).startswith(b"HTTP/1.1 200 ")
        last_words(connection, filled(content, target.known))
        check_responds(target)

    try_all()


def test_bytes_inside_tls(target: Target) -> None:
    @examples(1)
    @given(BYTES)
    def try_all(content: bytes) -> None:
        last_words(target.wire.tunnel(MANAGEMENT_HOST), filled(content, target.known))
        check_responds(target)

    try_all()


def test_a_changed_document_is_detected(target: Target) -> None:
    target.reset()
    before = facts(target.server.world)
    assert facts(target.server.world) == before
    target.server.world.resources.group(target.known["subscription"], "rg-sandbox").tags["a"] = "b"  # type: ignore[union-attr]
    assert facts(target.server.world) != before
    target.reset()
