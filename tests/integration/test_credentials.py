# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every source of credentials, one token for each audience and run, and no secret in outputs, results or files."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cases import BUSY, DISTURBANCES, PROOF_OF_ALL
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from harness import WAYS, Ansible, assert_one_token_for_each_audience, control_task, fails, task
from sandbox_client import TOKEN
from service import GROUP, Service

SIGNED_OUT = dict.fromkeys(
    ["AZURE_CLIENT_ID", "AZURE_SECRET", "AZURE_CLIENT_SECRET", "AZURE_TENANT", "AZURE_TENANT_ID"]
)
WRONG = "wrong-secret-that-nobody-may-see"
_ENTRA = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}
_ARM = {"host": "management"}
FAILURES: dict[str, dict[str, Any]] = {
    "not signed in": {"match": {"host": "login|169"}, "times": 9, "answer": {"status": 400, "body": _ENTRA}},
    "denied": {"match": _ARM, "times": 9, "answer": {"status": 403, "body": BUSY}},
    "refused twice": {"match": _ARM, "times": 9, "answer": {"status": 401, "body": BUSY}},
    "cut off": {"match": _ARM, "times": 9, **DISTURBANCES["cut off"]},
    "no JSON": {"match": _ARM, "times": 9, "answer": {"status": 200, "body": "<html>"}},
    "token expired": {"match": _ARM, **DISTURBANCES["token expired"]},
}
RECOVERABLE = {"token expired"}
# A module in a separate process takes twice as long, so only one source is tested that way unless PROOF=all is set.
SECRET_TRIALS = [
    (way, name)
    for name in ("options", "certificate", "profile", "msi", "environment", "workload identity")
    for way in WAYS
    if way == "in_process" or name == "certificate" or PROOF_OF_ALL
]


def info(title: str, **options: Any) -> dict[str, Any]:
    return task(title, "batch_encryption_info", resource_group=GROUP, account_name="account1", **options)


def certificate() -> tuple[str, str]:
    """A certificate without and with its private key, both in PEM format."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return public, public + private.decode()


@pytest.fixture
def reader(service: Service) -> dict[str, Any]:
    """A principal with a secret, a certificate and a federated token."""
    public, private = certificate()
    roles = [{"role": "Reader", "scope": service.sandbox.subscription}]
    made = service.sandbox.control.principal("reader", roles=roles, certificate=public)
    federated = service.sandbox.control.call("POST", "/federated-token", {"object_id": made["object_id"]})
    token = next(value for value in federated.values() if str(value).startswith("eyJ"))
    return {**made, "pem": private, "federated": token}


@dataclass(frozen=True)
class Source:
    options: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def task(self, one: dict[str, Any]) -> dict[str, Any]:
        """The task with the credentials of this source."""
        (module,) = (name for name in one if name.startswith("azbatch.cmk."))
        return {**one, module: {**one[module], **self.options}, "environment": self.environment}


@pytest.fixture
def sources(ansible: Ansible, service: Service, reader: dict[str, Any]) -> dict[str, Source]:
    own = service.sandbox
    pem = ansible.write("reader.pem", reader["pem"])
    token = ansible.write("federated", reader["federated"])
    profile = {"tenant": own.tenant_id, "client_id": reader["client_id"], "secret": reader["secret"]}
    credentials = ansible.home / ".azure" / "credentials"
    credentials.parent.mkdir(parents=True)
    credentials.write_text("\n".join(["[ours]", *(f"{name}={value}" for name, value in profile.items())]))
    application = {"tenant": own.tenant_id, "client_id": reader["client_id"]}
    by_environment = {
        "AZURE_CLIENT_ID": reader["client_id"],
        "AZURE_SECRET": reader["secret"],
        "AZURE_TENANT": own.tenant_id,
    }
    federated = {
        "AZURE_CLIENT_ID": reader["client_id"],
        "AZURE_TENANT_ID": own.tenant_id,
        "AZURE_FEDERATED_TOKEN_FILE": str(token),
    }
    return {
        "options": Source({**application, "secret": reader["secret"]}),
        "certificate": Source({**application, "x509_certificate_path": str(pem)}),
        "profile": Source({"profile": "ours"}),
        "msi": Source({"auth_source": "msi"}),
        "environment": Source({}, by_environment),
        "workload identity": Source({"auth_source": "workload_identity"}, federated),
    }


def test_every_source(
    ansible: Ansible, service: Service, reader: dict[str, Any], sources: dict[str, Source], way: str
) -> None:
    service.make_account()
    run = ansible.play(
        [
            *(source.task(info(name)) for name, source in sources.items()),
            fails(info("nobody, although there were others before", auth_source="env")),
        ],
        way=way,
        environment=SIGNED_OUT,
    )
    assert all(one["exists"] for one in run if not one.failed)
    assert run["nobody, although there were others before"]["code"] == "credentials_missing"
    principals = {one.name: {r["principal"] for r in one.requests if r["principal"]} for one in run}
    machine = principals.pop("msi")
    assert len(machine) == 1
    assert machine != {reader["object_id"]}
    assert all(who == {reader["object_id"]} for name, who in principals.items() if not name.startswith("nobody"))


def test_module_defaults_of_the_action_group(
    ansible: Ansible, service: Service, reader: dict[str, Any], way: str
) -> None:
    """Connection options from module_defaults of the action group, which a task may override."""
    service.make_account()
    own = service.sandbox
    group = {
        "tenant": own.tenant_id,
        "client_id": reader["client_id"],
        "secret": reader["secret"],
        "subscription_id": own.subscription_id,
    }
    overruled = {"client_id": own.client_id, "secret": own.secret}
    run = ansible.play(
        [info("by the group"), info("by the task", **overruled)],
        way=way,
        environment={**SIGNED_OUT, "AZURE_SUBSCRIPTION_ID": None},
        keywords={"module_defaults": {"group/azbatch.cmk.azure": group}},
    )
    assert {r["principal"] for r in run["by the group"].requests if r["principal"]} == {reader["object_id"]}
    assert {r["principal"] for r in run["by the task"].requests if r["principal"]} == {service.operator}


def test_one_token_for_each_audience(ansible: Ansible, service: Service) -> None:
    """Key Vault's SDK would first send a request without a token to each vault, in every task, to find its tenant."""
    service.on_key()
    key = task("key", "keyvault_cmk_key", vault_name="vault-one", name="key1")
    run = ansible.play([info("one"), key, info("two"), {**key, "name": "key again"}, info("three")], way="in_process")

    assert_one_token_for_each_audience(run.requests)
    assert [one["url"] for one in run.requests if one["status"] == 401] == []
    assert list(run.local_tmp.rglob("*")) == []


@pytest.mark.parametrize(("way", "name"), SECRET_TRIALS)
@pytest.mark.slow(every=12)
def test_no_secret_is_shown(
    ansible: Ansible, service: Service, reader: dict[str, Any], sources: dict[str, Source], way: str, name: str
) -> None:
    """At -vvvv, neither the output, the log, the results nor remaining files have a secret. Tasks succeed and fail."""
    service.on_key()
    given = set(ansible.folder.rglob("*"))
    # Set for the whole run, because Ansible shows a secret in the keyword `environment` of a task.
    around = sources[name].environment if name == "environment" else {}
    source = replace(sources[name], environment={}) if around else sources[name]
    wrong = Source({**sources["options"].options, "secret": WRONG})
    steps = [fails(wrong.task(info("wrong secret")))]
    for failure, fault in FAILURES.items():
        task_of = info(failure) if failure in RECOVERABLE else fails(info(failure))
        steps += [control_task(f"fault: {failure}", service.sandbox, "POST", "/faults", fault), source.task(task_of)]
        steps += [control_task(f"{failure}: over", service.sandbox, "DELETE", "/faults")]
    change = task("change", "keyvault_cmk_key", vault_name="vault-one", name="key1", new_version=True)
    refused = task("refused", "batch_encryption", resource_group=GROUP, account_name="x", key_source="nonsense")
    run = ansible.play(
        [*steps, source.task(info("success")), fails(source.task(change)), fails(source.task(refused))],
        way=way,
        verbosity=4,
        environment={
            **SIGNED_OUT,
            **around,
            "ANSIBLE_LOG_PATH": str(ansible.folder / "log"),
            "ANSIBLE_PIPELINING": "0",
            "ANSIBLE_REMOTE_TEMP": str(ansible.folder / "remote-tmp"),
        },
    )
    assert run["change"]["code"] == "permission_denied"
    assert {run[failure]["code"] for failure in FAILURES if failure not in RECOVERABLE} > {"unreachable"}
    faulted = [one["fault"] for one in service.sandbox.control.requests() if one["fault"]]
    assert len(faulted) >= len(FAILURES), "each of them was met"

    left = {file: file.read_text() for file in ansible.folder.rglob("*") if file.is_file() and file not in given}
    written = [text for file, text in left.items() if not file.name.startswith("playbook-")]
    log = next(text for file, text in left.items() if file.name == "log")
    assert not re.search(r" n=(azure|msal|urllib3|requests)", log), "the SDKs log requests"
    assert any(file.name == "log" and "success" in text for file, text in left.items())
    shown = "\n".join([run.output, *written, *(str(one.result) for one in run.tasks)])
    for hidden in (service.sandbox.secret, reader["secret"], WRONG, *reader["pem"].splitlines()[-4:-1]):
        assert hidden not in shown
    assert not TOKEN.search(shown)
    assert "PRIVATE KEY" not in shown
    assert list(run.local_tmp.rglob("*")) == []
    assert [file for file in (ansible.folder / "remote-tmp").rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("keyword", [{"async": 30, "poll": 1}, {"become": True}], ids=["async", "become"])
@pytest.mark.slow
def test_credentials_are_passed_to_a_separate_process(
    ansible: Ansible, service: Service, keyword: dict[str, Any]
) -> None:
    """A task that cannot run in Ansible's process runs as a separate process, with the same result."""
    service.make_account()
    run = ansible.play(
        [{**info("here")}, {**info("there"), **keyword}],
        way="in_process",
        extra_vars={
            "ansible_async_dir": str(ansible.home / ".ansible_async"),
            "ansible_become_exe": "env",
            "ansible_become_flags": "-u XDG_RUNTIME_DIR",
        },
    )
    assert run["there"]["id"] == run["here"]["id"]
