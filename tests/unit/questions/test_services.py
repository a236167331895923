# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resources of other services that use a vault, as Azure Resource Graph shows them: the keys in their properties, what
is kept and refused because of them, and when they are asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from azure_table import Table, listing, task_of
from documents import (
    DAY,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
    VAULT_ID,
    account,
    account_id,
    policy,
    system_assigned,
    user_assigned,
    vault,
)
from goals import access_goal, key_goal, options_of, unused_goal
from key_table import KeyTable, decided, three_versions

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.usage import NOT_SHOWN
from ansible_collections.azbatch.cmk.plugins.module_utils._core.duration import instant
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, Refused, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.summary import counted
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.access import allows_all_reads
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.key_references import Reference, references
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import services
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.decide import AccessRevoked
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import survey as key_survey
from ansible_collections.azbatch.cmk.plugins.modules import keyvault_cmk_users

URL = "https://myvault.vault.azure.net"
GRAPH = refs.referring_to("myvault")
ANY = {"vault_used_by": "any"}


def row(kind: str, properties: dict[str, Any], identity: dict[str, Any] | None = None, name: str = "other") -> Any:
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-other/providers/{kind}/{name}",
        "name": name,
        "type": kind.lower(),
        "subscriptionId": SUBSCRIPTION,
        "properties": properties,
        "identity": identity,
    }


def storage(version: str | None, **more: Any) -> Any:
    key = {"keyvaulturi": f"{URL}/", "keyname": "batch", **({"keyversion": version} if version else {})}
    return row("Microsoft.Storage/storageAccounts", {"encryption": {"keyvaultproperties": key}}, **more)


def parts(version: str | None = OLD, uri: str = URL) -> dict[str, Any]:
    return {"keyVaultUri": uri, "keyName": "batch", "keyVersion": version}


OLD_KEY = f"{KEY}/{OLD}"
PINNED, FOLLOWS, BOTH = {OLD}, {None}, {OLD, None}
# By the service: the type, the properties, and the versions of the key `batch`.
SERVICES: dict[str, tuple[str, dict[str, Any], set[str | None]]] = {
    "storage, pinned": ("storage/storageaccounts", storage(OLD)["properties"], PINNED),
    "storage, follows": (
        "storage/storageaccounts",
        {
            "encryption": {
                "keySource": "Microsoft.Keyvault",
                "keyvaultproperties": {
                    "keyvaulturi": "HTTPS://MYVAULT.VAULT.AZURE.NET:443",
                    "keyname": "BATCH",
                    "keyversion": "",
                    "currentVersionedKeyIdentifier": OLD_KEY,
                },
            }
        },
        BOTH,
    ),
    "disk encryption set": (
        "compute/diskencryptionsets",
        {
            "activeKey": {"keyUrl": OLD_KEY, "sourceVault": {"id": VAULT_ID}},
            "previousKeys": [{"keyUrl": f"{KEY}/{MIDDLE}"}],
            "rotationToLatestKeyVersionEnabled": False,
        },
        {OLD, MIDDLE},
    ),
    "Event Hubs": ("eventhub/namespaces", {"encryption": {"keyVaultProperties": [parts(), parts(None)]}}, BOTH),
    "container registry": (
        "containerregistry/registries",
        {"encryption": {"keyVaultProperties": {"keyIdentifier": KEY, "versionedKeyIdentifier": OLD_KEY}}},
        BOTH,
    ),
    "Synapse": (
        "synapse/workspaces",
        {"encryption": {"cmk": {"key": {"name": "default", "keyVaultUrl": KEY}}}},
        FOLLOWS,
    ),
    "version beside the key": ("x/y", {"encryption": {"keyUri": KEY, "keyVersion": OLD}}, BOTH),
    "another cloud": ("sql/servers", {"keyId": f"https://myvault.vault.azure.cn/keys/Batch/{OLD}"}, PINNED),
    "id of the key": ("sql/servers", {"keyId": f"{VAULT_ID}/keys/batch/versions/{OLD}"}, PINNED),
}


@pytest.mark.parametrize("service", SERVICES)
def test_a_key_in_the_properties_of_a_service(service: str) -> None:
    kind, properties, versions = SERVICES[service]

    found = references(row(f"Microsoft.{kind}", properties), "MyVault")

    assert found is not None
    assert {(one.name, one.version) for one in found.keys} == {("batch", version) for version in versions}


@pytest.mark.parametrize(
    ("kind", "properties", "keys"),
    [
        pytest.param("sql/servers", {"keyId": "https://vault2.vault.azure.net/keys/batch"}, None, id="another vault"),
        pytest.param("x/y", {"vault": f"{VAULT_ID}2"}, None, id="longer id"),
        pytest.param("network/applicationgateways", {"secretId": f"{URL}/secrets/tls/1"}, [], id="secret"),
        pytest.param("machinelearningservices/workspaces", {"keyVault": VAULT_ID}, [], id="its own vault"),
        pytest.param("x/y", {"encryption": [{"source": {"id": VAULT_ID}}]}, [Reference(None, None)], id="id only"),
        *(
            pytest.param("x/y", {"encryption": {**parts(), part: value}}, [Reference(None, None)], id=f"{part} {value}")
            for part in ("keyName", "keyVersion")
            for value in (["batch"], {"value": "batch"}, 5, "batch/1")
        ),
        *(
            pytest.param("x/y", {"id": f"https://myvault.{domain}/keys/batch"}, [Reference("batch", None)], id=domain)
            for domain in ("vaultcore.azure.net", "privatelink.vault.azure.net", "keys.example.org:8443")
        ),
        pytest.param(
            "x/y",
            {"encryption": parts(OLD, "https://myvault.privatelink.vaultcore.azure.net")},
            [Reference("batch", OLD)],
            id="host of a private endpoint beside the name",
        ),
        pytest.param("eventgrid/systemtopics", {"source": VAULT_ID}, None, id="events of the vault"),
    ],
)
def test_other_references(kind: str, properties: dict[str, Any], keys: list[Reference] | None) -> None:
    """A resource may use the vault, but no key of it."""
    found = references(row(f"Microsoft.{kind}", properties), "myvault")

    assert (found and found.keys) == keys


@pytest.mark.parametrize(
    ("identity", "principals"),
    [
        (None, []),
        (user_assigned(one=PRINCIPAL, two=OTHER), [PRINCIPAL, OTHER]),
        ({"type": "UserAssigned", "userAssignedIdentities": {"one": {}}}, None),
    ],
)
def test_principals_of_a_resource(identity: Any, principals: list[str] | None) -> None:
    found = references(storage(OLD, identity=identity), "myvault")

    assert found is not None
    assert found.principals == principals


@pytest.mark.parametrize(
    ("actions", "excepted", "allowed"),
    [
        (["*/Read"], None, True),
        (["*"], ["Microsoft.Authorization/*/Delete", "Microsoft.Compute/galleries/share/action"], True),
        (["*"], ["Microsoft.Sql/*"], False),
        (["*/read"], ["Microsoft.Sql/servers/read"], False),
        (["Microsoft.Batch/batchAccounts/read", "Microsoft.Storage/*/read"], [], False),
        ([], [], False),
    ],
)
def test_rights_that_prove_that_nothing_is_left_out(
    actions: list[str], excepted: list[str] | None, allowed: bool
) -> None:
    assert allows_all_reads([{"actions": actions, "notActions": excepted}]) is allowed


# Versions that are disabled


def table(*rows: Any, **others: Any) -> KeyTable:
    return three_versions(account(key=f"{KEY}/{NEW}"), **others).having(GRAPH, list(rows))


def disabled(change: Change) -> list[str]:
    return [one.ref.rpartition("/")[2] for one in change.requests]


@pytest.mark.parametrize(
    ("rows", "newest_is", "kept"),
    [
        pytest.param([storage(OLD)], 10, [OLD], id="pinned"),
        pytest.param([storage(None)], 10, [], id="follows"),
        pytest.param([storage(None)], 6, [MIDDLE, OLD], id="follows, inside the margin"),
        pytest.param([row("x/y", {"encryption": {"vault": URL}})], 10, [MIDDLE, OLD], id="unknown key"),
        pytest.param([row("x/y", {"keyId": f"{URL}/keys/other/{OLD}"})], 10, [], id="another key"),
    ],
)
def test_versions_that_resources_of_other_services_use_are_kept(rows: Any, newest_is: int, kept: list[str]) -> None:
    change = decided(table(*rows, newest_is=newest_is * DAY), unused_goal(**ANY))

    assert sorted(change.report["kept_versions"]) == sorted(kept)
    assert sorted(disabled(change)) == sorted({OLD, MIDDLE} - set(kept))
    assert change.report["in_use_by"] == ([one["id"] for one in rows] if kept else [])
    assert (NOT_SHOWN in change.warnings) is bool(change.requests)


def test_one_query_and_none_if_nothing_is_to_be_disabled() -> None:
    due, kept = table(), three_versions(account(key=KEY), newest_is=6 * DAY)

    assert disabled(decided(due, unused_goal(**ANY))) == [MIDDLE, OLD]
    assert due.reads_of(GRAPH) == 1
    assert not decided(kept, unused_goal(**ANY)).requests
    assert kept.reads_of(GRAPH) == 0
    only_batch = table(storage(OLD))
    assert disabled(decided(only_batch, unused_goal())) == [MIDDLE, OLD]
    assert only_batch.reads_of(GRAPH) == 0


# Refusals

THREE = [storage(OLD), row("Microsoft.Compute/diskEncryptionSets", {"activeKey": {"keyUrl": OLD_KEY}})]


@pytest.mark.parametrize("used_by", ["any", "visible"])
def test_a_removal_is_refused_by_name(used_by: str) -> None:
    seen = table(*THREE, storage(OLD, name="second"))

    with pytest.raises(Refused) as refused:
        decided(seen, key_goal(state="absent", vault_used_by=used_by))

    assert refused.value.code == "in_use"
    assert ": 4 resources use it (mybatch, storage account " in refused.value.msg
    assert refused.value.facts["resources"] == [THREE[0]["id"], THREE[1]["id"], storage(OLD, name="second")["id"]]
    assert len(refused.value.facts["accounts"]) == 1
    forced = decided(seen, key_goal(state="disabled", force=True, vault_used_by=used_by))
    assert any("may lose their key, because O(force)" in one for one in forced.warnings)
    assert (NOT_SHOWN in forced.warnings) is (used_by == "any")


@pytest.mark.parametrize(
    ("principal", "identity", "reads", "used", "canary"),
    [
        pytest.param(
            PRINCIPAL, system_assigned(PRINCIPAL), 0, False, None, id="system-assigned identity of an account"
        ),
        pytest.param(PRINCIPAL, user_assigned(one=PRINCIPAL), 1, True, None, id="user-assigned identity of both"),
        pytest.param(OTHER, system_assigned(PRINCIPAL), 1, True, None, id="no identity of Batch"),
        pytest.param(PRINCIPAL, system_assigned(PRINCIPAL), 0, False, account_id(), id="system-assigned of canary"),
    ],
)
def test_access_that_resources_of_other_services_use(
    principal: str, identity: dict[str, Any], reads: int, used: bool, canary: str | None
) -> None:
    """Cosmos DB has no identity here: it reads the key as its own application, which may be a principal that no Batch
    account has."""
    rows = [storage(OLD, identity=user_assigned(one=PRINCIPAL)), row("x/y", {"keyVaultKeyUri": KEY}, name="cosmos")]
    seen = Table({**listing(account(identity=identity)), refs.vaults_of(SUBSCRIPTION): [vault(policy(principal))]})
    seen.update({refs.vault(VAULT_ID): vault(policy(principal)), GRAPH: rows})
    goal = replace(access_goal(state="absent", principal_id=principal, **ANY), canary=canary)
    task = task_of(seen)
    decision = AccessRevoked(goal, Facts(task.session)).decide

    if used:
        with pytest.raises(Refused) as refused:
            task.driver.solve(decision)
        assert refused.value.code == "in_use"
    else:
        assert task.driver.solve(decision).requests
    assert seen.reads_of(GRAPH) == reads


# Users that are not known


@pytest.mark.parametrize("used", [KEY, f"{KEY}/{NEW}"], ids=["nothing to disable", "due"])
def test_rows_may_be_missing(used: str) -> None:
    """As with the right to list accounts, a missing right is an error also while nothing is to be disabled."""
    seen = three_versions(account(key=used), newest_is=6 * DAY)
    seen[refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}")] = [
        {"actions": ["Microsoft.Batch/batchAccounts/read", "Microsoft.Batch/batchAccounts/pools/read"]}
    ]

    with pytest.raises(Refused) as refused:
        decided(seen, unused_goal(**ANY))

    assert refused.value.code == "users_unknown"
    assert plain(refused.value.msg).endswith(
        "Assign Reader, or set vault_used_by: batch, users_in or cmk_unused_versions: keep."
    )
    assert decided(seen, unused_goal(vault_used_by="batch")).before["exists"]


@pytest.mark.parametrize("error", [Denied("Access is denied."), Unavailable("Azure is busy.", code="throttled")])
def test_a_query_that_failed(error: Exception) -> None:
    with pytest.raises(Refused) as refused:
        decided(table().having(GRAPH, error), unused_goal(**ANY))

    assert refused.value.code == "users_unknown"
    assert "users in Azure Resource Graph are unknown" in refused.value.msg
    assert "Run the task again, or set O(vault_used_by=batch)" in refused.value.msg
    assert str(error) in refused.value.facts["unlisted"][0]["reason"]


# The report


def survey(seen: Table, **options: Any) -> dict[str, Any]:
    given = options_of(keyvault_cmk_users, vault_name="MyVault", **options)
    task = task_of(seen)
    return task.driver.solve(partial(key_survey.survey, asked=key_survey.asked(given), facts=Facts(task.session)))


def versions(found: dict[str, Any]) -> dict[str, Any]:
    [key] = found["vault_keys"]
    return {one["version"]: (one["may_be_disabled_from"], one["reason"]) for one in key["versions"]}


NOT_REPLACED = (None, "No newer version can be used.")
FREE = (instant(NOW), "Nothing uses it.")


@pytest.mark.parametrize(
    ("rows", "newest_is", "expected"),
    [
        pytest.param(
            THREE,
            10,
            {NEW: NOT_REPLACED, MIDDLE: FREE, OLD: (None, "1 storage account and 1 disk encryption set use it.")},
            id="in use",
        ),
        pytest.param(
            [],
            6,
            {
                NEW: NOT_REPLACED,
                MIDDLE: (instant(NOW + DAY), "A newer version has replaced it only recently."),
                OLD: FREE,
            },
            id="replaced lately",
        ),
    ],
)
def test_report_of_versions(rows: Any, newest_is: int, expected: dict[str, Any]) -> None:
    found = survey(table(*rows, newest_is=newest_is * DAY), name="batch")

    assert versions(found) == expected
    assert found["vault_keys"][0]["versions"][0]["in_use_by"][0] == account()["id"]
    assert (
        found["vault_keys"][0]["reason"]
        == f"{counted([account()['id'], *(one['id'] for one in rows)])} {_use(rows)} it."
    )
    removed = disabled(decided(table(*rows, newest_is=newest_is * DAY), unused_goal(**ANY)))
    assert {one["version"] for one in found["vault_keys"][0]["versions"] if one["may_be_disabled"]} == set(removed)


def _use(rows: Any) -> str:
    return "use" if rows else "uses"


def test_report_of_a_vault() -> None:
    """All keys of the vault, and those that something uses although they cannot be read."""
    rows = [storage(OLD), row("x/y", {"keyId": f"{URL}/keys/lost/{OLD}"}), row("x/z", {"keyVault": VAULT_ID})]
    seen = table(*rows)
    seen[refs.keys_of(URL)] = [{"kid": KEY, "attributes": {}}]
    seen[f"{URL}/keys/lost"] = Denied("No.")

    found = survey(seen)

    assert [(one["name"], one["exists"], one["unknown"]) for one in found["vault_keys"]] == [
        ("batch", True, None),
        ("lost", None, "No."),
    ]
    assert (found["may_be_deleted"], len(found["in_use_by"])) == (False, 4)
    users = {one["name"]: (one["version"], one["follows_latest"]) for one in found["vault_keys"][0]["users"]}
    assert users == {"mybatch": (NEW, False), "storage account other": (OLD, False)}
    assert key_survey.lines(found) == [
        "Vault myvault: 1 Batch account, 1 storage account, 1 resource of the type x/y and 1 resource of the type x/z "
        "use it.",
        "Key batch: 1 Batch account and 1 storage account use it.",
        "Version bbbbbbbb… of key batch has to stay enabled: No newer version can be used.",
        "Version aaaaaaaa… of key batch may be disabled now: Nothing uses it.",
        "Version cccccccc… of key batch has to stay enabled: 1 storage account uses it.",
        "Key lost: No.",
    ]


# The report on many vaults


def others(seen: Table, *vaults: str) -> Any:
    question = partial(services.of_vaults, vaults=vaults or ["myvault"])
    return task_of(seen).driver.solve(question)


def used(name: str | None, version: str | None, follows: bool = False) -> dict[str, Any]:
    return {"name": name, "version": version, "follows_latest": follows}


@pytest.mark.parametrize(
    ("resource", "keys"),
    [
        pytest.param(
            row("x/y", SERVICES["storage, follows"][1]), [used("batch", OLD, True)], id="follows, shows its version"
        ),
        pytest.param(
            row("x/y", SERVICES["disk encryption set"][1]), [used("batch", OLD), used("batch", MIDDLE)], id="two"
        ),
        pytest.param(row("x/y", {"encryption": {"vault": URL}}), [used(None, None)], id="unknown key"),
        pytest.param(row("x/y", {"keyVault": VAULT_ID}), [], id="no key"),
    ],
)
def test_resources_of_a_vault(resource: Any, keys: list[Any]) -> None:
    found = others(Table({**listing(), GRAPH: [resource]}))["myvault"]

    [one] = found["resources"]
    assert (one["id"], found["unknown"]) == (resource["id"], None)
    assert sorted(one["used_keys"], key=str) == sorted(keys, key=str)


BATCH_ONLY = [{"actions": ["Microsoft.Batch/*/read"]}]
PERMISSIONS = refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}")


@pytest.mark.parametrize(
    ("documents", "is_known", "reason"),
    [
        pytest.param({}, True, None, id="nobody"),
        pytest.param({PERMISSIONS: BATCH_ONLY}, False, "may lack */read at /subscriptions/", id="no right"),
        pytest.param({GRAPH: Denied("No.")}, False, "No.", id="refused"),
        pytest.param({refs.SUBSCRIPTIONS: Denied("No.")}, False, "No.", id="unknown subscriptions"),
    ],
)
def test_resources_that_may_be_missing_are_never_nobody(documents: Any, is_known: bool, reason: str | None) -> None:
    found = others(Table({**listing(), **documents}))["myvault"]

    assert found["resources"] == ([] if is_known else None)
    assert reason in found["unknown"] if reason else found["unknown"] is None


def test_one_query_for_twenty_vaults() -> None:
    """If a query fails, the vaults of the others are known. A name that is not that of a vault is in no query."""
    names = [f"vault{number:03}" for number in range(45)]
    parts = [refs.referring_to(*names[at : at + 20]) for at in (0, 20, 40)]
    uses = row("x/y", {"a": "https://vault001.vault.azure.net/keys/k", "b": "https://vault019.vault.azure.net/keys/k"})
    seen = Table({**listing(), parts[0]: [uses], parts[1]: Denied("No.")})

    found = others(seen, *names, "it's")

    assert [seen.reads_of(part) for part in parts] == [1, 1, 1]
    assert [name for name, one in found.items() if one["resources"]] == ["vault001", "vault019"]
    assert [name for name, one in found.items() if one["unknown"]] == ["it's", *names[20:40]]
    assert others(Table(listing()), "it's")["it's"]["unknown"] == "This is not the name of a key vault."
