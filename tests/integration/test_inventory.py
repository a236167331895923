# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory plugin: runs of ansible-inventory against the sandbox, and runs of the roles on the listed hosts."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cases import BUSY
from harness import BIN, Ansible, Run
from service import GROUP, LOCATION, Service

BATCH = "2024-07-01"
PLUGIN = {"plugin": "azbatch.cmk.batch_accounts"}
SIGNED_OUT = dict.fromkeys(
    ["AZURE_CLIENT_ID", "AZURE_SECRET", "AZURE_CLIENT_SECRET", "AZURE_TENANT", "AZURE_TENANT_ID"]
)
# Must never be evaluated as a template, because text from Azure is data.
HOSTILE = "{{ lookup('ansible.builtin.pipe', 'touch touched') }}{% if %}"


def plain(value: Any) -> Any:
    """Remove the marks that ansible-inventory of ansible-core 2.19 or later sets on each string that is no template."""
    if isinstance(value, dict):
        marked = value.get("__ansible_unsafe")
        return marked if marked is not None else {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def asked(requests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Paths of the requests to Azure, without those of the sign-in."""
    urls = [one["url"] for one in requests if one["service"] == "resource_manager"]
    return [re.sub(r"^https://[^/]+|[?].*", "", url) for url in urls]


@dataclass
class Listing:
    """The output of ansible-inventory."""

    output: str
    said: str
    requests: list[dict[str, Any]]

    @property
    def warned(self) -> str:
        """The warnings and errors, without the line breaks that Ansible inserts, also after the hyphens of a GUID."""
        return " ".join(re.sub(r"-\n *", "-", self.said.replace("[WARNING]:", "")).split())

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output)
        return found

    @property
    def hosts(self) -> dict[str, dict[str, Any]]:
        """The variables of each host."""
        found: dict[str, dict[str, Any]] = plain(self.document["_meta"]["hostvars"])
        return found

    @property
    def groups(self) -> dict[str, list[str]]:
        return {name: group["hosts"] for name, group in self.document.items() if "hosts" in group}

    @property
    def asked(self) -> list[str]:
        return asked(self.requests)

    @property
    def tokens(self) -> int:
        return sum(one["url"].endswith("/oauth2/v2.0/token") for one in self.requests)


@dataclass
class Inventory:
    """An inventory source in the test's folder."""

    ansible: Ansible
    file: Path

    def inventory(self, *arguments: str, environment: Mapping[str, str | None] | None = None) -> Listing:
        since = self.ansible.sandbox.control.last
        done = subprocess.run(
            [str(BIN / "ansible-inventory"), "-i", str(self.file), *(arguments or ["--list"])],
            env=self.ansible.environment(ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="1", **(environment or {})),
            cwd=self.ansible.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert (done.returncode == 0) == ("Completely failed to parse" not in done.stderr), done.stderr
        return Listing(done.stdout, done.stderr, self.ansible.sandbox.control.requests(since))

    def refused(self, *words: str, **options: Any) -> Listing:
        """Check that the inventory could not be parsed, and that the message has these words."""
        listing = self.inventory(**options)
        assert "Completely failed to parse" in listing.warned, listing.warned
        # ansible-core 2.16 wraps a message also within an address.
        unwrapped = "".join(listing.warned.split())
        assert all("".join(word.split()) in unwrapped for word in words), listing.warned
        return listing

    def play(self, role: str, **variables: Any) -> Run:
        """Run the playbook of the role on all hosts. It has to succeed."""
        run = self.ansible.playbook(
            f"azbatch.cmk.{role}",
            extra_vars={"cmk_hosts": "all", "cmk_wait_timeout": 30, **variables},
            arguments=["-i", str(self.file)],
        )
        assert run.rc == 0, run.output
        return run


def source(ansible: Ansible, name: str = "batch_accounts.yml", **options: Any) -> Inventory:
    return Inventory(ansible, ansible.write(name, {**PLUGIN, **options}))


def second_subscription(service: Service) -> str:
    made = service.sandbox.control.call("POST", "/subscriptions", {"name": "second"}, status=201)
    return str(made["subscription_id"])


def put_account(service: Service, subscription: str, name: str, location: str = LOCATION, **body: Any) -> str:
    """Create an account in the subscription. Returns its ID."""
    path = f"/subscriptions/{subscription}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts/{name}"
    answer = service.sandbox.arm("PUT", path, BATCH, {"location": location, **body})
    assert answer.ok, answer.text
    return path


def listing_of(subscription: str) -> str:
    return f"/subscriptions/{subscription}/providers/Microsoft.Batch/batchAccounts"


def permissions_of(subscription: str) -> str:
    return f"/subscriptions/{subscription}/providers/Microsoft.Authorization/permissions"


def group_name(name: str) -> str:
    return name.replace("-", "_")


# The hosts, their variables and their groups


def test_variables_and_groups(ansible: Ansible, service: Service) -> None:
    """One account is pinned, one follows its key with a user-assigned identity, and one in another region uses a
    Microsoft-managed key."""
    principal, version = service.on_key()
    identity = service.make_identity()
    service.grant(identity["properties"]["principalId"])
    assigned = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
    service.make_account("account2", identity=assigned, tags={"team": "blue"})
    service.point(service.key().id.rpartition("/")[0], "account2")
    service.make_account("account3", location="northeurope", identity={"type": "None"})
    subscription = service.sandbox.subscription_id

    listing = source(ansible).inventory()
    assert listing.hosts["account1"] == {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "cmk_subscription_id": subscription,
        "cmk_resource_group": GROUP,
        "cmk_provisioning_state": "Succeeded",
        "cmk_key_source": "microsoft_keyvault",
        "cmk_vault_name": "vault-one",
        "cmk_key_name": "key1",
        "cmk_account_id": service.account_id(),
        "cmk_account_name": "account1",
        "cmk_location": LOCATION,
        "cmk_principal_ids": [principal],
        "cmk_key_identifier": version,
        "cmk_key_version": version.rpartition("/")[2],
        "cmk_follows_latest": False,
        "cmk_tags": {},
    }
    follows = {name: listing.hosts["account2"][name] for name in ("cmk_identity_id", "cmk_key_version", "cmk_tags")}
    assert follows == {"cmk_identity_id": service.identity_id(), "cmk_key_version": None, "cmk_tags": {"team": "blue"}}
    assert "cmk_vault_name" not in listing.hosts["account3"]
    assert listing.groups == {
        f"subscription_{group_name(subscription)}": ["account1", "account2", "account3"],
        "location_westeurope": ["account1", "account2"],
        "location_northeurope": ["account3"],
        "resource_group_rg_sandbox": ["account1", "account2", "account3"],
        "key_source_microsoft_keyvault": ["account1", "account2"],
        "key_source_microsoft_batch": ["account3"],
        "vault_vault_one": ["account1", "account2"],
        "key_vault_one__key1": ["account1", "account2"],
        "pinned": ["account1"],
        "following": ["account2"],
    }
    assert listing.said == ""


# Which accounts


def test_subscriptions(ansible: Ansible, service: Service) -> None:
    """The inventory lists all subscriptions that the caller can read, or those that the option `subscriptions` names.
    It does not need a default subscription."""
    own, second = service.sandbox.subscription_id, second_subscription(service)
    service.make_account("account1")
    put_account(service, second, "account2", "northeurope")
    nobodys = {"AZURE_SUBSCRIPTION_ID": None}

    every = source(ansible).inventory(environment=nobodys)
    assert {name: host["cmk_subscription_id"] for name, host in every.hosts.items()} == {
        "account1": own,
        "account2": second,
    }
    of_both = [f(one) for one in (own, second) for f in (listing_of, permissions_of)]
    assert sorted(every.asked) == sorted(["/subscriptions", *of_both])
    named = source(ansible, subscriptions=[second, second.upper()]).inventory(environment=nobodys)
    assert list(named.hosts) == ["account2"]
    assert named.asked == [listing_of(second), permissions_of(second)]


def test_a_caller_with_rights_on_a_resource_group(ansible: Ansible, service: Service) -> None:
    """If Azure lists no subscription for this caller, the task's own subscription is used."""
    service.make_account()
    service.sandbox.control.behavior(listed_subscriptions="readable")
    roles = [{"role": "Reader", "scope": service.sandbox.group}]
    reader = service.sandbox.control.principal("reader", roles=roles)
    who = {"tenant": service.sandbox.tenant_id, "client_id": reader["client_id"], "secret": reader["secret"]}
    own = {"AZURE_SUBSCRIPTION_ID": service.sandbox.subscription_id}

    listing = source(ansible, **who).inventory(environment={**SIGNED_OUT, **own})
    assert list(listing.hosts) == ["account1"]
    assert f"Not all Batch accounts of {service.sandbox.subscription} could be listed" in listing.warned

    listing = source(ansible, **who).inventory(environment={**SIGNED_OUT, "AZURE_SUBSCRIPTION_ID": None})
    assert listing.hosts == {}
    assert "Azure lists no subscription for the caller." in listing.warned
    assert "Set subscriptions" in listing.warned


# Groups and variables that the user defines


BROKEN = {
    "keyed_groups": [{"key": "cmk_tags.team", "prefix": "team"}],
    "groups": {"blue": "cmk_tags.team == 'blue'"},
    "compose": {"team": "cmk_tags.team"},
}


def test_strict(ansible: Ansible, service: Service) -> None:
    """If `strict` is true, an expression that fails for an account is an error."""
    service.make_account("account1")
    service.make_account("account2", tags={"team": "blue"})

    lenient = source(ansible, **BROKEN).inventory()
    assert list(lenient.hosts) == ["account1", "account2"]
    assert (lenient.groups["team_blue"], lenient.groups["blue"]) == (["account2"], ["account2"])
    source(ansible, strict=True, compose=BROKEN["compose"]).refused("account1", "team")


def test_text_from_azure_is_not_evaluated_as_a_template(ansible: Ansible, service: Service) -> None:
    service.make_account(tags={"team": HOSTILE, "{{ 1 + 1 }}": "x"})
    inventory = source(
        ansible,
        strict=True,
        keyed_groups=[{"key": "cmk_tags.team", "prefix": "team"}],
        compose={"copied": "cmk_tags.team"},
        filters=[{"exclude": "cmk_tags.team == ''"}],
    )

    host = inventory.inventory().hosts["account1"]
    assert host["cmk_tags"] == {"team": HOSTILE, "{{ 1 + 1 }}": "x"}
    assert host["copied"] == HOSTILE
    show = {"name": "show", "ansible.builtin.debug": {"msg": ["{{ cmk_tags }}", "{{ cmk_tags.team }}", "{{ copied }}"]}}
    play = {"name": "Show", "hosts": "all", "gather_facts": False, "tasks": [show]}
    run = ansible.playbook([play], arguments=["-i", str(inventory.file)])
    assert run.rc == 0, run.output
    assert run["show"]["msg"] == [host["cmk_tags"], HOSTILE, HOSTILE]
    assert not list(ansible.folder.rglob("touched"))


# Caching


@pytest.mark.slow
def test_cache(ansible: Ansible, service: Service) -> None:
    """If the list is cached, the inventory sends no requests. Another caller and other subscriptions have separate
    cache entries."""
    service.make_account()
    kept = {"cache": True, "cache_plugin": "jsonfile", "cache_connection": str(ansible.folder / "cache")}
    inventory = source(ansible, **kept)
    first = inventory.inventory()
    assert len(first.asked) == 3
    service.make_account("account2")

    second = inventory.inventory()
    assert (second.requests, second.hosts) == ([], first.hosts)
    filtered = source(ansible, **kept, filters=[{"exclude": True}]).inventory()
    assert (filtered.requests, filtered.hosts) == ([], {})

    play = {"name": "Nothing", "hosts": "all", "gather_facts": False, "tasks": []}
    since = service.sandbox.control.last
    ansible.playbook([play], arguments=["-i", str(source(ansible, **kept).file), "--flush-cache"])
    assert len(asked(service.sandbox.control.requests(since))) == 3
    again = inventory.inventory()
    assert (again.requests, list(again.hosts)) == ([], ["account1", "account2"])

    named = source(ansible, **kept, subscriptions=[service.sandbox.subscription_id])
    assert len(named.inventory().asked) == 2
    assert named.inventory().requests == []
    stranger = service.sandbox.control.principal("stranger")
    who = {"client_id": stranger["client_id"], "secret": stranger["secret"]}
    assert source(ansible, **kept, **who).inventory().hosts == {}
    cached = "".join(file.read_text() for file in (ansible.folder / "cache").iterdir())
    assert stranger["secret"] not in cached
    assert service.sandbox.secret not in cached


# Bad input


MALFORMED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown option": ({"filter": []}, ("has no option filter", "filters")),
    "another's option": ({"subscription_id": "x"}, ("has no option subscription_id", "subscriptions")),
    "filter of neither kind": ({"filters": [{"only": "x"}]}, ("filters is {'only': 'x'}", "exclude: CONDITION")),
    "filter that does not parse": ({"filters": [{"include": "a =="}]}, ("the condition 'a =='", "account1")),
    "wrong secret": ({"secret": "wrong-secret-that-nobody-may-see"}, ("Could not sign in", "secret")),
    "undefined in a template": ({"tenant": "{{ nowhere }}"}, ("nowhere", "undefined")),
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.slow(every=6)
def test_malformed(ansible: Ansible, service: Service, case: str) -> None:
    service.make_account()
    options, words = MALFORMED[case]

    listing = source(ansible, **options).refused(*words)
    assert "wrong-secret" not in listing.said


def test_subscription_that_does_not_exist(ansible: Ansible, service: Service) -> None:
    unknown = "99999999-0000-4000-8000-000000000001"

    service.make_account()

    listing = source(ansible, subscriptions=[service.sandbox.subscription_id, unknown]).inventory()
    assert list(listing.hosts) == ["account1"]
    for word in (
        f"the subscription {unknown}",
        "Correct subscriptions, or grant the caller access",
        "SubscriptionNotFound",
    ):
        assert word in listing.warned
    source(ansible, subscriptions=[unknown]).refused("SubscriptionNotFound", "docs/errors.md#subscription_not_found")


def test_listing_that_fails(ansible: Ansible, service: Service) -> None:
    """If the list of a subscription fails, a warning names the subscription and the reason."""
    second = second_subscription(service)
    service.make_account()
    path, answer = "Microsoft.Batch/batchAccounts[?]", {"status": 409, "body": BUSY}
    words = "Azure reports: (Busy) Try again"
    service.sandbox.control.fault(match={"path": f"{second}/providers/{path}"}, times=None, answer=answer)

    listing = source(ansible).inventory()
    assert list(listing.hosts) == ["account1"]
    assert f"Not all Batch accounts of /subscriptions/{second} could be listed" in listing.warned
    assert words in listing.warned
    service.sandbox.control.fault(match={"path": path}, times=None, answer=answer)
    source(ansible).refused("Could not list the Batch accounts of the subscription", words)


def test_options_may_be_templates(ansible: Ansible, service: Service) -> None:
    """Only options in the file may be templates. The value of an environment variable is used unchanged."""
    service.make_account()
    own = service.sandbox
    options = {
        "tenant": "{{ tenant }}",
        "client_id": "{{ lookup('ansible.builtin.env', 'OURS') }}",
        "secret": "{{ lookup('ansible.builtin.env', 'OUR_SECRET') }}",
        "subscriptions": "{{ [subscription] }}",
    }
    ours = {"OURS": own.client_id, "OUR_SECRET": own.secret, "AZURE_PROFILE": None}
    extra = ["-e", json.dumps({"tenant": own.tenant_id, "subscription": own.subscription_id})]

    listing = source(ansible, **options).inventory("--list", *extra, environment={**SIGNED_OUT, **ours})
    assert list(listing.hosts) == ["account1"]
    assert own.secret not in listing.output + listing.said
    literal = {"AZURE_SECRET": "{{ 1 + 1 }}", "AZURE_CLIENT_SECRET": None}
    source(ansible).refused("Could not sign in", environment=literal)


def test_secret_in_a_vault(ansible: Ansible, service: Service) -> None:
    service.make_account()
    password = str(ansible.write("password", "of the vault"))
    sealed = subprocess.run(
        [str(BIN / "ansible-vault"), "encrypt_string", "--vault-password-file", password, service.sandbox.secret],
        env=ansible.environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    file = ansible.write("batch_accounts.yml", f"plugin: azbatch.cmk.batch_accounts\nsecret: {sealed}")
    unset = {"AZURE_SECRET": None, "AZURE_CLIENT_SECRET": None}

    listing = Inventory(ansible, file).inventory("--list", "--vault-password-file", password, environment=unset)
    assert list(listing.hosts) == ["account1"]


# The roles on the listed hosts


def play_if_there_is_a_host(ansible: Ansible, inventory: Path) -> Run:
    wanted = {"cmk_hosts": "pinned", "cmk_hosts_required": False}
    return ansible.playbook("azbatch.cmk.rotate", extra_vars=wanted, arguments=["-i", str(inventory)])


def test_a_group_without_hosts_is_no_failure(ansible: Ansible, service: Service) -> None:
    """Without an account, the inventory has no groups at all."""
    inventory = source(ansible)
    for _ in range(2):
        run = play_if_there_is_a_host(ansible, inventory.file)
        assert (run.rc, list(run)) == (0, []), run.output
        service.make_account()


def test_an_inventory_that_cannot_be_listed_fails_a_run_that_requires_no_host(
    ansible: Ansible, service: Service
) -> None:
    """Also beside a source with hosts."""
    folder = ansible.folder / "sources"
    folder.mkdir()
    (folder / "batch_accounts.yml").write_text(json.dumps({**PLUGIN, "secret": "wrong"}))
    for _ in range(2):
        run = play_if_there_is_a_host(ansible, folder)
        assert run.rc != 0
        output = " ".join(run.output.split())
        assert f"The inventory {folder}/batch_accounts.yml could not be read. Could not " in output
        assert "errors.md#authentication_failed" in output
        (folder / "others.yml").write_text("pinned: {hosts: {account1: {}}}")


def test_another_inventory_that_cannot_be_read_fails_a_run_that_requires_no_host(
    ansible: Ansible, service: Service
) -> None:
    run = play_if_there_is_a_host(ansible, ansible.write("hosts.yml", "pinned: ["))

    assert run.rc != 0
    assert "The inventory has neither hosts nor groups" in " ".join(run.output.split())
