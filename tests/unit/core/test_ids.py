# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key identifiers, ARM ids and names: parsed, formatted, compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from documents import OTHER, PRINCIPAL, SUBSCRIPTION, VAULT_ID, identity_id, system_assigned, user_assigned
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._core import ids
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import KeyIdentifier, UserAssignedId, is_pool
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.identity import principals_of

PUBLIC = "vault.azure.net"
VERSION = "0123456789abcdef0123456789ABCDEF"


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        pytest.param(
            f"https://myvault.vault.azure.net:443/keys/batch/{VERSION}/",
            KeyIdentifier("myvault", PUBLIC, "batch", VERSION.lower()),
            id="port",
        ),
        pytest.param(
            "  https://myvault.vault.azure.net/keys/batch\n", KeyIdentifier("myvault", PUBLIC, "batch"), id="blanks"
        ),
        pytest.param(
            "HTTPS://MyVault.Vault.Azure.Net/keys/Batch", KeyIdentifier("myvault", PUBLIC, "Batch"), id="letter case"
        ),
        pytest.param(
            "https://my-vault.vault.usgovcloudapi.net/keys/k",
            KeyIdentifier("my-vault", "vault.usgovcloudapi.net", "k"),
            id="US Government",
        ),
    ],
)
def test_key_identifier_is_parsed(value: str, parsed: KeyIdentifier) -> None:
    assert ids.parse_key_identifier(value, "key_identifier") == parsed


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param("http://myvault.vault.azure.net/keys/batch", id="no TLS"),
        pytest.param("https://myvault.vault.azure.net/secrets/batch", id="secret"),
        pytest.param("https://myvault.vault.azure.net/keys/", id="no key"),
        pytest.param("https://myvault.vault.azure.net/keys/batch/latest", id="version is a word"),
        pytest.param("https://myvault.vault.azure.net/keys/my_key", id="underscore"),
        pytest.param("https://myvault.vault.azure.net:8443/keys/batch", id="other port"),
        pytest.param("https://myhsm.managedhsm.azure.net/keys/batch", id="managed HSM"),
        pytest.param("https://myvault.vault.azure.net.evil.example/keys/batch", id="other host"),
        pytest.param("https://evil.example/myvault.vault.azure.net/keys/batch", id="host in the path"),
        pytest.param("https://myvault.vault.azure.net/keys/batch?api-version=7.4", id="query"),
    ],
)
def test_invalid_key_identifiers_are_refused(value: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        ids.parse_key_identifier(value, "cmk_key")

    assert refused.value.code == "invalid_option"
    assert refused.value.facts["option"] == "cmk_key"
    assert refused.value.facts["value"] == value


def test_identifier_that_a_service_gives_is_read() -> None:
    """Also one that could not be set."""
    found = ids.read_key_identifier("https://MyHSM.ManagedHSM.azure.net/keys/my_key/1")

    assert found == KeyIdentifier("myhsm", "managedhsm.azure.net", "my_key", "1")
    assert "batch" in str(ids.read_key_identifier("batch"))


@pytest.mark.parametrize(
    ("other", "same", "same_key"),
    [
        ("https://myvault.vault.azure.net/keys/batch/" + "a" * 32, True, True),
        ("HTTPS://MYVAULT.VAULT.AZURE.NET/KEYS/BATCH/" + "A" * 32, True, True),
        ("https://myvault.vault.azure.net/keys/Batch/" + "b" * 32, False, True),
        ("https://myvault.vault.azure.net/keys/batch2/" + "a" * 32, False, False),
        ("https://myvault2.vault.azure.net/keys/batch/" + "a" * 32, False, False),
    ],
)
def test_letter_case_makes_no_other_key_or_version(other: str, same: bool, same_key: bool) -> None:
    one = ids.parse_key_identifier("https://myvault.vault.azure.net/keys/batch/" + "a" * 32, "key")
    for parse in (lambda value: ids.parse_key_identifier(value, "key"), ids.read_key_identifier):
        assert (one.same(parse(other)), one.same_key(parse(other))) == (same, same_key)
    private = ids.read_key_identifier("https://myvault.privatelink.vault.azure.net/keys/batch")
    assert (one.same_key(private), one.same_key(None), one.same(None)) == (True, False, False)


IDENTIFIERS = st.builds(
    KeyIdentifier,
    vault=st.from_regex(r"[a-z][a-z0-9]{2,23}", fullmatch=True),
    suffix=st.sampled_from(ids.VAULT_SUFFIXES),
    name=st.from_regex(r"[a-zA-Z0-9-]{1,127}", fullmatch=True),
    version=st.none() | st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
)


@given(IDENTIFIERS)
def test_key_identifier_survives_being_written_and_read(identifier: KeyIdentifier) -> None:
    assert ids.parse_key_identifier(str(identifier), "key_identifier") == identifier
    assert ids.read_key_identifier(str(identifier)) == identifier
    assert identifier.same(ids.parse_key_identifier(str(identifier).upper(), "key_identifier"))
    assert str(identifier).startswith(str(identifier.versionless))
    assert identifier.versionless.version is None


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (ids.check_account_name, "abc"),
        (ids.check_account_name, "A1b2C3d4E5f6G7h8I9j0K1l2"),
        (ids.check_vault_name, "Vault-1-2-3"),
        (ids.check_key_name, "k"),
        (ids.check_key_name, "-1-" * 42),
        (ids.check_guid, PRINCIPAL.upper()),
        (ids.check_group_name, "Rg-1_(a).b"),
        (ids.check_group_name, "Gruppe-ä"),
    ],
)
def test_name_is_accepted(check: Callable[[str, str], str], value: str) -> None:
    assert check(value, "name") == value


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (ids.check_account_name, "ab"),
        (ids.check_account_name, "mybätch"),
        (ids.check_account_name, "mybatch\n"),
        (ids.check_vault_name, "a" * 25),
        (ids.check_vault_name, "1vault"),
        (ids.check_vault_name, "my--vault"),
        (ids.check_vault_name, "vault-"),
        (ids.check_key_name, ""),
        (ids.check_key_name, "k" * 128),
        (ids.check_key_name, "my_key"),
        (ids.check_guid, PRINCIPAL.replace("-", "")),
        (ids.check_group_name, "rg."),
        (ids.check_group_name, "r" * 91),
    ],
)
def test_name_is_refused(check: Callable[[str, str], str], value: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        check(value, "vault_name")

    assert refused.value.code == "invalid_option"
    assert refused.value.facts["option"] == "vault_name"
    assert refused.value.facts["value"] == value


GROUP_ID = f"/subscriptions/{PRINCIPAL}/resourceGroups/rg-batch"
VAULT_URL = "https://myvault.vault.azure.net/"


@pytest.mark.parametrize(
    ("check", "value", "remedy"),
    [
        (ids.check_subscription, GROUP_ID, f"Use {PRINCIPAL}."),
        (ids.check_subscription, f" {PRINCIPAL}/ ", f"Use {PRINCIPAL}."),
        (ids.check_subscription, "mine", "Correct O(name)."),
        (ids.check_group_name, f"{GROUP_ID}/", "Use rg-batch."),
        (ids.check_group_name, "rg-batch ", "Use rg-batch."),
        (ids.check_account_name, f"{GROUP_ID}/providers/Microsoft.Batch/batchAccounts/mybatch", "Use mybatch."),
        (ids.check_vault_name, VAULT_URL, "Use myvault."),
        (ids.check_key_name, f"{VAULT_URL}keys/batch", "Use batch."),
    ],
)
def test_the_name_in_an_id_is_suggested(check: Callable[[str, str], str], value: str, remedy: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        check(value, "name")

    assert refused.value.facts["remedy"] == remedy


@pytest.mark.parametrize(
    ("value", "vault", "version"),
    [
        (" MyVault/Batch ", "MyVault", None),
        (f"{VAULT_URL}keys/Batch/{VERSION}", "myvault", VERSION.lower()),
    ],
)
def test_two_ways_to_name_a_key(value: str, vault: str, version: str | None) -> None:
    key = ids.parse_key(value, "key")

    assert (key.vault, key.name, key.version) == (vault, "Batch", version)


@pytest.mark.parametrize(
    "value",
    [
        identity_id(),
        f"  {identity_id()}\n",
        identity_id().replace("Microsoft.ManagedIdentity", "microsoft.managedidentity"),
    ],
)
def test_id_of_a_user_assigned_identity_is_parsed(value: str) -> None:
    parsed = ids.parse_user_assigned_id(value, "identity_id")

    assert parsed == UserAssignedId(SUBSCRIPTION, "rg-batch", "id-batch")
    assert str(parsed) == identity_id()


@pytest.mark.parametrize(
    "value",
    [
        "",
        VAULT_ID,
        identity_id().removeprefix("/"),
        identity_id() + "/federatedIdentityCredentials/one",
        identity_id().replace("/resourceGroups/rg-batch", ""),
    ],
)
def test_malformed_id_of_a_user_assigned_identity_is_refused(value: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        ids.parse_user_assigned_id(value, "identity_id")

    assert refused.value.code == "invalid_option"


@pytest.mark.parametrize(
    ("identity", "principals"),
    [
        pytest.param({}, (), id="unknown"),
        pytest.param({"type": "None"}, (), id="none"),
        pytest.param(system_assigned(), (PRINCIPAL,), id="system-assigned"),
        pytest.param(user_assigned(one=PRINCIPAL), (PRINCIPAL,), id="user-assigned"),
        pytest.param(user_assigned(one=PRINCIPAL, two=OTHER), (PRINCIPAL, OTHER), id="several"),
        pytest.param(
            {"type": "UserAssigned", "userAssignedIdentities": {identity_id(): {}}}, (), id="not returned yet"
        ),
    ],
)
def test_principals_of_an_identity(identity: dict, principals: tuple[str, ...]) -> None:
    assert principals_of(identity) == principals


@pytest.mark.parametrize(
    ("scope", "reaches"),
    [
        pytest.param("/", True, id="everything"),
        pytest.param(f"/subscriptions/{SUBSCRIPTION}/resourcegroups/RG-KEYS/", True, id="group"),
        pytest.param(VAULT_ID, True, id="itself"),
        pytest.param(f"{VAULT_ID}/keys/batch", False, id="below"),
        pytest.param(f"{VAULT_ID}2", False, id="longer name"),
        pytest.param("/subscriptions/another", False, id="another subscription"),
        pytest.param("/providers/Microsoft.Management/managementGroups/mg", True, id="management group"),
    ],
)
def test_resources_within_a_scope(scope: str, reaches: bool) -> None:
    assert ids.within(scope, VAULT_ID) is reaches
    assert ids.within(scope, f"{VAULT_ID.upper()}/") is reaches


@pytest.mark.parametrize("group", ["group1", "pools"])
def test_a_pool_differs_from_its_account(group: str) -> None:
    account = f"/subscriptions/s/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts/account1"

    assert not is_pool(account)
    assert is_pool(f"{account}/pools/pool1")
