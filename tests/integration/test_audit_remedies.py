# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each playbook that the audit offers is run for accounts with its finding. After the run, the accounts do not have the
finding."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cases import PROOF_OF_ALL
from harness import Ansible
from one_process import RolesRunner
from sandbox_client import VAULTS, Sandbox
from service import DAY, GROUP, Service

from ansible_collections.azbatch.cmk.plugins.module_utils._audit.remedies import ready
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.rules import RULES

VAULTS_GROUP = "rg-keys"
PINNED, FOLLOWING, OWN_IDENTITY, BROKEN = "onversion", "onlatest", "ownidentity", "broken"
FLEET = (PINNED, FOLLOWING, OWN_IDENTITY)
WITHOUT_IDENTITY = "withoutidentity"


class Keys(Service):
    """A Service whose vaults are in a separate resource group."""

    def vault_id(self, name: str = "vault-one") -> str:
        return f"{self.sandbox.subscription}/resourceGroups/{VAULTS_GROUP}/providers/Microsoft.KeyVault/vaults/{name}"

    def vault(self, name: str = "vault-one") -> dict[str, Any]:
        answer = self.sandbox.arm("GET", self.vault_id(name), VAULTS)
        assert answer.ok, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def principals(self, name: str) -> list[str]:
        identity = self.account(name)["identity"]
        own = [one["principalId"] for one in identity.get("userAssignedIdentities", {}).values()]
        return [*own, *([identity["principalId"]] if identity.get("principalId") else [])]


@pytest.fixture
def fleet(sandbox: Sandbox) -> Keys:
    """Accounts that use key1 of vault-one: pinned, following, with user-assigned identities, and one whose repair
    fails."""
    service = Keys(sandbox)
    group = f"{sandbox.subscription}/resourceGroups/{VAULTS_GROUP}"
    assert sandbox.arm("PUT", group, "2021-04-01", {"location": "westeurope"}).ok
    service.make_vault()
    version = service.make_key().id
    for name in (*FLEET, BROKEN):
        body = {}
        if name in (OWN_IDENTITY, BROKEN):
            ids = [service.make_identity(f"{name}{number}")["id"] for number in range(2 if name == OWN_IDENTITY else 1)]
            body["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {one: {} for one in ids}}
        service.make_account(name, **body)
        for principal in service.principals(name):
            service.grant(principal)
        service.point(version.rpartition("/")[0] if name == FOLLOWING else version, name)
    return service


@dataclass(frozen=True)
class Case:
    """The change that causes the finding, the policy, and the other accounts that have the finding."""

    cause: Callable[[Keys], object]
    policy: Mapping[str, Any] = field(default_factory=dict)
    accounts: tuple[str, ...] = FLEET


def nothing(_service: Keys) -> None:
    """The policy of the audit alone causes the finding."""


def revoked(service: Keys) -> None:
    for name in (*FLEET, BROKEN):
        for principal in service.principals(name):
            service.revoke(principal)


def network_closed(service: Keys) -> None:
    acls = {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "127.0.0.1/32"}]}
    service.change_vault(properties={"networkAcls": acls})


def expires(service: Keys) -> None:
    created = service.key().properties.created_on
    service.keys().update_key_properties("key1", expires_on=created + timedelta(days=20))


def on_microsoft_key(service: Keys) -> None:
    """Accounts that use no customer-managed key yet: their identities have no access, and one has no identity."""
    for name in (*FLEET, BROKEN):
        service.point(None, name)
    revoked(service)
    service.make_account(WITHOUT_IDENTITY, identity={"type": "None"})


def another_vault(service: Keys) -> str:
    """Create vault-two with a hardware-protected key. Returns the identifier of the key's version."""
    service.make_vault("vault-two", properties={"sku": {"family": "A", "name": "premium"}})
    operations = ["wrapKey", "unwrapKey"]
    made = service.keys("vault-two").create_rsa_key("key2", hardware_protected=True, key_operations=operations)
    return str(made.id)


CASES = {
    "account_unavailable": Case(revoked, {"pools": True}),
    "vault_deleted": Case(Keys.delete_vault),
    "network_closed": Case(network_closed, {"pools": True}),
    "key_deleted": Case(lambda service: service.keys().begin_delete_key("key1", _polling_interval=0).wait(30)),
    "version_unusable": Case(Keys.disable),
    "operations_missing": Case(lambda service: service.keys().update_key_properties("key1", key_operations=["sign"])),
    "access_missing": Case(revoked),
    "key_expires_soon": Case(expires),
    "not_on_customer_managed_key": Case(on_microsoft_key, {"required": [{}]}, (*FLEET, WITHOUT_IDENTITY)),
    "vault_not_allowed": Case(another_vault, {"allowed_vaults": ["vault-two"]}),
    "version_too_old": Case(lambda service: service.sandbox.control.advance(41 * DAY), {"max_version_age": "P40D"}),
    "key_type_not_allowed": Case(another_vault, {"key_types": ["RSA-HSM"]}),
    "key_too_small": Case(nothing, {"min_key_size": 4096}),
    "key_without_expiry": Case(nothing, {"expiry_required": True}),
    "follows_without_rotation": Case(nothing, {}, (FOLLOWING,)),
    "newer_version_unused": Case(Keys.make_key, {}, (PINNED, OWN_IDENTITY)),
}
# Neither Batch nor the sandbox accepts a key of such a vault.
OF_VAULTS = ("vault_without_purge_protection", "vault_without_soft_delete")
# Placeholders in a playbook, which the user replaces.
YOURS = {
    "RESOURCE_GROUP_OF_THE_VAULT": VAULTS_GROUP,
    "NAME_OF_THE_VAULT": "vault-one",
    "NAME_OF_THE_KEY": "key1",
}


def test_every_playbook_is_run() -> None:
    assert {*CASES, *OF_VAULTS} == {name for name, rule in RULES.items() if rule.repair}


def audited(roles: RolesRunner, folder: Path, policy: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the role audit. Returns its report, and the accounts of the report by name."""
    options = {"folder": str(folder), "formats": ["json"], **policy}
    run = roles.playbook("azbatch.cmk.audit", extra_vars={f"cmk_audit_{name}": one for name, one in options.items()})
    assert run.rc == 0, run.output
    report = json.loads((folder / "cmk-audit.json").read_text())
    return report, {account["name"]: account for account in report["accounts"]}


# Each runs ansible-playbook. By default, a switch, a rotation, a module and the role provision are tried.
DEFAULT = ("vault_not_allowed", "version_too_old", "access_missing", "not_on_customer_managed_key")
TRIED = [one for one in CASES if PROOF_OF_ALL or one in DEFAULT]


@pytest.mark.parametrize("finding", TRIED)
@pytest.mark.slow(every=2)
def test_a_ready_playbook_repairs(
    ansible: Ansible, roles: RolesRunner, fleet: Keys, tmp_path: Path, finding: str
) -> None:
    case = CASES[finding]
    caused = case.cause(fleet)
    # Every change of this account fails, which does not prevent the repair of the others.
    fleet.identities.user_assigned_identities.delete(GROUP, f"{BROKEN}0")
    report, before = audited(roles, tmp_path, case.policy)
    affected = [one for one in before.values() if finding in [each["id"] for each in one["findings"]]]
    assert {one["name"] for one in affected} - {BROKEN} == set(case.accounts)

    offered = ready(finding, report)
    assert offered is not None
    inventory, playbook = offered
    for text, value in {**YOURS, "https://VAULT.vault.azure.net/keys/KEY/VERSION": str(caused)}.items():
        playbook = playbook.replace(text, value)
    source = ansible.write("repair.batch_accounts.yml", inventory)
    run = ansible.playbook(
        ansible.write("repair.yml", playbook), arguments=["-i", str(source)], extra_vars={"cmk_wait_timeout": 20}
    )

    assert run.writes, run.output
    # The grant does not fail for a deleted identity.
    fails = BROKEN in [one["name"] for one in affected] and finding != "access_missing"
    assert {one.host for one in run.failed} == ({BROKEN} if fails else set()), run.output
    _, after = audited(roles, tmp_path, case.policy)
    for name in case.accounts:
        assert finding not in [each["id"] for each in after[name]["findings"]], run.output
        assert fleet.is_available(name)
        assert bool(after[name]["follows_latest"]) == bool(before[name]["follows_latest"]), name


@pytest.mark.parametrize("finding", OF_VAULTS if PROOF_OF_ALL else OF_VAULTS[:1])
def test_a_ready_playbook_protects_a_vault(
    ansible: Ansible, sandbox: Sandbox, roles: RolesRunner, finding: str
) -> None:
    service = Keys(sandbox)
    group = f"{sandbox.subscription}/resourceGroups/{VAULTS_GROUP}"
    assert sandbox.arm("PUT", group, "2021-04-01", {"location": "westeurope"}).ok
    service.make_vault("vault-two", properties={"enablePurgeProtection": None})
    service.on_key()
    report, before = audited(roles, ansible.folder, {})
    found = {"id": finding, "accepted": False, "remedy": RULES[finding].remedy}
    unprotected = {**before["account1"], "vault": {"id": service.vault_id("vault-two")}, "findings": [found]}

    offered = ready(finding, {**report, "accounts": [unprotected]})
    assert offered is not None
    source = ansible.write("repair.batch_accounts.yml", offered.inventory)
    run = ansible.playbook(
        ansible.write("repair.yml", offered.playbook),
        arguments=["-i", str(source)],
        extra_vars={"cmk_vault_name": "vault-two"},
    )

    assert run.rc == 0, run.output
    assert service.vault("vault-two")["properties"]["enablePurgeProtection"]
