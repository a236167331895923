# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The event filter key_vault: plain events from all sources and schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from eda import TOPIC, VERSION, cloud_event, event, plugin
from hypothesis import given
from hypothesis import strategies as st

PLAIN = {
    "kind": "new_version",
    "hosts": "~(key_kv_one__batch_cmk)$",
    "vaults": ["kv-one"],
    "keys": ["https://kv-one.vault.azure.net/keys/batch-cmk"],
}


@pytest.fixture
def main() -> Callable[[Any], Any]:
    """The filter, with a new memory. Returns the single event of an event of the rulebook, without its metadata."""
    function: Callable[[Any], Any] = plugin("event_filter", "key_vault")["main"]

    def single(given: Any) -> Any:
        found = function(given)
        return {name: value for name, value in found.items() if name != "meta"} if found else []

    return single


def lower(one: dict[str, Any]) -> dict[str, Any]:
    """With the names of the OpenAPI file: in lower case, and times are numbers."""
    data = {name[0].lower() + name[1:]: value for name, value in one["data"].items()}
    data = {{"nBF": "nbf", "eXP": "exp"}.get(name, name): value for name, value in data.items()}
    return {**one, "data": {**data, "nbf": 1559081980, "exp": 1559082102}}


def with_blank(one: dict[str, Any]) -> dict[str, Any]:
    """With the blank of an older example of Microsoft."""
    return {**one, "data": {f"{name} " if name == "ObjectName" else name: v for name, v in one["data"].items()}}


@pytest.mark.parametrize("form", [lambda one: one, lower, with_blank])
@pytest.mark.parametrize("make", [event, cloud_event])
def test_both_schemas_in_all_forms_become_the_same_event(
    main: Callable[[Any], Any], make: Callable[[], Any], form: Callable[[Any], Any]
) -> None:
    assert main(form(make())) == PLAIN


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: {"payload": one, "meta": {"endpoint": "/"}},
        lambda one: {"payload": [one], "meta": {"endpoint": "/"}},
        lambda one: {"body": one, "meta": {"endpoint": "/"}},
        lambda one: {"body": [one], "meta": {"endpoint": "/"}},
        lambda one: {"body": json.dumps(one), "meta": {"endpoint": "/"}},
        lambda one: {**one, "meta": {"endpoint": "/"}},
    ],
)
def test_events_of_all_sources_become_the_same_event(
    main: Callable[[Any], Any], wrap: Callable[[dict[str, Any]], Any]
) -> None:
    assert main(wrap(event())) == PLAIN


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("KeyNewVersionCreated", "new_version"),
        ("KeyNearExpiry", "near_expiry"),
        ("KeyExpired", "expired"),
        ("keyexpired", "expired"),
    ],
)
def test_kinds_of_events_of_a_key(main: Callable[[Any], Any], what: str, kind: str) -> None:
    assert main(event(what)) == {**PLAIN, "kind": kind}


@pytest.mark.parametrize(
    "data", [{"VaultName": "kv-one", "Id": TOPIC}, {"VaultName": "KV-One"}, {"ObjectName": None}, None]
)
def test_a_changed_policy_names_the_vault(main: Callable[[Any], Any], data: Any) -> None:
    found = main(event("VaultAccessPolicyChanged", data=data))

    assert found == {"kind": "access_policy_changed", "hosts": "~(vault_kv_one)$", "vaults": ["kv-one"], "keys": []}


DATA = event()["data"]


@pytest.mark.parametrize(
    "one",
    [
        event("SecretNewVersionCreated"),
        {**event(), "eventType": "Microsoft.Storage.BlobCreated"},
        # A rule must not match fields that this filter has not checked.
        {"kind": "new_version", "vault": "{{ lookup('ansible.builtin.pipe', 'id') }}", "key": "key"},
        event(data={}),
        event(data={**DATA, "Id": "https://kv-one.vault.azure.net/keys/batch-cmk"}),
        event(data={**DATA, "Id": f"https://kv-one.vault.azure.net/secrets/batch-cmk/{VERSION}"}),
        event(data={**DATA, "Id": "https://kv-one.vault.azure.net/keys/{{ 1 }}/" + VERSION}),
        event(data={**DATA, "Id": f"https://kv-two.vault.azure.net/keys/batch-cmk/{VERSION}"}),
        event(data={**DATA, "VaultName": "kv-two"}),
        event(topic=TOPIC.replace("kv-one", "kv-two")),
        event("VaultAccessPolicyChanged", topic="", data={"VaultName": "all:!x"}),
        event("VaultAccessPolicyChanged", topic="", data={}),
        {},
        {"body": "text"},
        {"body": "[" * 100_000},
        None,
        "text",
    ],
)
def test_other_events_and_wrong_names_are_dropped(main: Callable[[Any], Any], one: Any) -> None:
    assert main(one) == []


def test_an_event_is_passed_on_once(main: Callable[[Any], Any]) -> None:
    assert main(event(id="1")) == PLAIN
    assert main({"payload": [event(id="1")]}) == []
    assert main(event(id="2")) == PLAIN
    assert main(event(id="1")) == []


def test_the_memory_is_bounded(main: Callable[[Any], Any]) -> None:
    for number in range(10_001):
        main(event(id=str(number)))

    assert main(event(id="10000")) == []
    assert main(event(id="1")) == []
    assert main(event(id="0")) == PLAIN


def test_the_events_of_an_array_become_one_event_for_each_kind() -> None:
    """ansible-rulebook adds a UUID to the metadata of each event, unless the metadata has one."""
    main = plugin("event_filter", "key_vault")["main"]
    data = {**DATA, "Id": DATA["Id"].replace("batch-cmk", "Other")}
    same = [event(id="1"), event("SecretExpired"), event(id="1"), event(id="2")]
    policy = event("VaultAccessPolicyChanged", id="3")

    first, second = main({"payload": [*same, policy, event(id="4", data=data)], "meta": {"a": 1}})

    assert first == {
        "kind": "new_version",
        "hosts": "~(key_kv_one__batch_cmk|key_kv_one__other)$",
        "vaults": ["kv-one"],
        "keys": [f"https://kv-one.vault.azure.net/keys/{name}" for name in ("batch-cmk", "Other")],
        "meta": {"a": 1},
    }
    assert (second["kind"], second["hosts"]) == ("access_policy_changed", "~(vault_kv_one)$")
    first["meta"]["uuid"] = "x"
    assert second["meta"] == {"a": 1}


@pytest.mark.parametrize("place", ["payload", "body"])
def test_an_event_cannot_limit_the_hosts_of_the_playbook(place: str) -> None:
    """ansible-rulebook limits a playbook to meta.hosts."""
    main = plugin("event_filter", "key_vault")["main"]

    assert main({place: event(), "meta": {"hosts": "other", "uuid": "x"}})["meta"] == {"uuid": "x"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["payload", "data", "eventType"]), inner)
    ),
    max_leaves=20,
)


MAIN = plugin("event_filter", "key_vault")["main"]


@given(JSON, JSON)
def test_no_event_ends_the_source(one: Any, data: Any) -> None:
    for each in (one, event(data=data), event(topic=data), event(id=data), event(data={**DATA, "Id": data})):
        MAIN(each)
