# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each playbook of examples/ does what its name says, and a second run changes nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import BIN, Ansible, Run
from role_runs import QUARTER, VARS, second_account
from service import DAY, NEEDED, Service

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run(ansible: Ansible, name: str, *arguments: str, **variables: Any) -> Run:
    return ansible.playbook(EXAMPLES / name, extra_vars={**VARS, **variables}, arguments=arguments)


def succeeds(ansible: Ansible, name: str, *arguments: str, **variables: Any) -> Run:
    """Check that a run succeeds with a change, and that a second run changes nothing. Returns the first run."""
    done = run(ansible, name, *arguments, **variables)
    assert done.rc == 0, done.output
    assert done.changed
    again = run(ansible, name, *arguments, **variables)
    assert again.rc == 0, again.output
    assert again.changed == []
    return done


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [file.name for file in EXAMPLES.glob("*.yml") if f'"{file.name}"' not in source] == []


@pytest.mark.parametrize(
    ("name", "base", "more"),
    [
        ("execution-environment.yml", "registry.access.redhat.com/ubi9/ubi:9.6", set()),
        ("decision-environment.yml", "quay.io/ansible/ansible-rulebook:v1.3.2", {"aiohttp", "PyJWT[crypto]"}),
    ],
)
def test_an_image_contains_the_requirements_of_the_collection(
    name: str, base: str, more: set[str], tmp_path: Path
) -> None:
    """The images are not built. ansible-builder creates the build context, and reads the requirements that it would
    install."""
    context, pip = tmp_path / "context", tmp_path / "pip.txt"
    builder = BIN / "ansible-builder"
    created = (EXAMPLES / name, "-c", context, "--output-filename", "Containerfile")
    subprocess.run([builder, "create", "-f", *created], check=True)
    of_image = context / "_build" / "requirements.txt"
    found = ["--user-pip", of_image] if of_image.exists() else []
    collections = os.environ["ANSIBLE_COLLECTIONS_PATH"]
    subprocess.run([builder, "introspect", *found, "--write-pip", pip, collections], check=True)

    assert f'ARG EE_BASE_IMAGE="{base}"' in (context / "Containerfile").read_text()
    (installed,) = yaml.safe_load((context / "_build" / "requirements.yml").read_text())["collections"]
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    assert installed == {"name": galaxy["repository"], "type": "git", "version": galaxy["version"]}
    required = {line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1] not in ("", "#")}
    assert {line.partition("  #")[0] for line in pip.read_text().splitlines()} == required | more


def test_every_example_is_described() -> None:
    described = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in EXAMPLES.glob("*.yml") if f"]({file.name})" not in described] == []


@pytest.mark.slow
def test_an_account_is_created_with_its_key(ansible: Ansible, service: Service) -> None:
    identity = service.make_identity()["id"]

    succeeds(ansible, "provision_user_assigned.yml", cmk_identity_id=identity)

    assert service.encryption() == service.key().id
    assert service.account()["identity"]["type"] == "UserAssigned"
    assert service.is_available()


def test_an_account_follows_versions_that_key_vault_creates(ansible: Ansible, service: Service) -> None:
    _principal, version = service.on_key()

    succeeds(ansible, "follow.yml")

    assert service.encryption() == version.rpartition("/")[0]
    [rotate] = [
        one
        for one in service.keys().get_key_rotation_policy("key1").lifetime_actions
        if str(getattr(one.action, "value", one.action)).lower() == "rotate"
    ]
    assert rotate.time_after_create == "P1Y"


@pytest.mark.slow
def test_a_nightly_rotation_disables_the_previous_version_seven_days_later(ansible: Ansible, service: Service) -> None:
    _principal, version = service.on_key()
    service.sandbox.control.advance(QUARTER)

    succeeds(ansible, "rotate.yml")
    newest = service.key().id
    assert service.encryption() == newest != version
    assert service.key(version=version.rpartition("/")[2]).properties.enabled

    service.sandbox.control.advance(7 * DAY)
    succeeds(ansible, "rotate.yml")
    assert service.encryption() == newest
    assert not service.key(version=version.rpartition("/")[2]).properties.enabled


@pytest.mark.slow
def test_an_account_is_switched_to_a_new_vault(ansible: Ansible, service: Service) -> None:
    service.on_key()

    succeeds(ansible, "switch.yml", new_vault_name="vault-two")

    assert service.encryption() == service.key("batch-cmk-2", vault="vault-two").id
    assert service.is_available()
    assert service.key().properties.enabled


@pytest.mark.slow
def test_access_that_was_revoked_is_granted_before_the_rotation(ansible: Ansible, service: Service) -> None:
    principal, version = service.on_key()
    service.revoke(principal)

    done = succeeds(ansible, "rotate_or_recover.yml")

    assert len(done["Show the causes"]["msg"]) == 1
    assert (service.permissions(principal) or {})["keys"] == NEEDED
    assert service.encryption() == version
    assert service.is_available()


def test_a_key_that_somebody_disabled_stays_disabled(ansible: Ansible, service: Service) -> None:
    service.on_key()
    service.disable()

    done = run(ansible, "rotate_or_recover.yml")

    assert [one.get("code") for one in done.failed] == ["repair_not_allowed"]
    assert not service.key().properties.enabled


@pytest.mark.slow
def test_an_account_is_reverted_and_its_key_disabled_seven_days_later(ansible: Ansible, service: Service) -> None:
    principal, _version = service.on_key()

    succeeds(ansible, "revert.yml")

    assert service.encryption() is None
    assert service.key().properties.enabled
    assert service.permissions(principal) is not None

    service.sandbox.control.advance(7 * DAY)
    succeeds(ansible, "revert.yml")
    assert not service.key().properties.enabled
    assert service.permissions(principal) is None


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.slow(every=2)
def test_an_audit_fails_for_an_account_at_risk(ansible: Ansible, service: Service, tmp_path: Path, lost: bool) -> None:
    service.on_key(rbac=True)
    if lost:
        service.disable()

    done = run(ansible, "audit.yml", cmk_audit_folder=str(tmp_path / "reports"))

    assert [one.name for one in done.failed] == (["Fail if an account is at risk"] if lost else [])
    assert [one["msg"].count("account1") for one in done.failed] == ([1] if lost else [])
    assert (tmp_path / "reports" / "cmk-audit.html").is_file()


@pytest.mark.slow
def test_all_accounts_but_those_of_tests_are_rotated(ansible: Ansible, service: Service) -> None:
    _principal, version = service.on_key()
    second_account(service, version)
    service.change_account("account2", tags={"environment": "test"})
    service.sandbox.control.advance(QUARTER)
    names = ("cmk_account_name", "cmk_vault_name", "cmk_key_name", "cmk_resource_group")

    # Without the names, because extra variables override the variables of the hosts in the inventory.
    done = ansible.playbook(
        EXAMPLES / "fleet.yml",
        extra_vars={"cmk_hosts": "pinned", **{name: VARS[name] for name in VARS if name not in names}},
        arguments=["-i", str(EXAMPLES / "batch_accounts.yml")],
    )

    assert done.rc == 0, done.output
    assert {one.host for one in done} == {"account1"}
    assert service.encryption() == service.key().id != version
    assert service.encryption("account2") == version


@pytest.mark.slow
def test_a_key_is_configured_with_modules(ansible: Ansible, service: Service) -> None:
    names = {"batch_group": "rg-sandbox", "keys_group": "rg-sandbox", "account_name": "account1"}

    succeeds(ansible, "modules.yml", vault_name="vault-one", **names)

    assert service.encryption() == service.key("batch").id
    assert service.is_available()
    [(scope, _role)] = service.assignments(service.account()["identity"]["principalId"])
    assert scope.lower() == f"{service.vault_id()}/keys/batch".lower()
