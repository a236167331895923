# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Existing resources that prevent a change: each refusal has a code, the option and a remedy."""

from __future__ import annotations

from typing import Any

from harness import Ansible, advance, checked, fails, key, task
from service import DAY, GROUP, OFFICER, Service


def vault(title: str, **options: Any) -> dict[str, Any]:
    return task(title, "keyvault_cmk_vault", **{"resource_group": GROUP, "name": "vault-one", **options})


# Task -> code, option
KEYS = {
    "another type": ("key_type_differs", "key_type"),
    "another type than named": ("key_type_differs", "key_type"),
    "another size": ("key_size_differs", "key_size"),
    "deleted": ("key_soft_deleted", "recover"),
    "disabled": ("key_disabled", "enable"),
    "disabled, and a new version": ("key_disabled", "enable"),
    "no such version": ("version_not_found", "version"),
    "disable a missing key": ("key_not_found", "name"),
    "recover a missing key": ("key_not_found", "name"),
}


def test_keys(ansible: Ansible, service: Service, way: str) -> None:
    service.make_vault()
    service.make_key()
    service.keys().create_ec_key("curve")
    service.make_key("deleted")
    service.keys().begin_delete_key("deleted", _polling_interval=0.1).result()
    service.make_key("off")
    service.disable("off")
    before = [(one.version, one.updated_on) for name in ("key1", "curve", "off") for one in service.versions(name)]
    tasks = [
        key("another type", name="curve"),
        key("another type than named", key_type="RSA-HSM"),
        key("another size", key_size=3072),
        key("deleted", name="deleted"),
        key("disabled", name="off"),
        key("disabled, and a new version", name="off", new_version=True),
        key("no such version", state="disabled", version="0" * 32),
        key("disable a missing key", name="nothing", state="disabled"),
        key("recover a missing key", name="nothing", state="recovered"),
    ]
    run = ansible.play(
        [
            advance("two days later", service.sandbox, 2 * DAY),
            *(fails(one) for one in tasks),
            fails(checked(tasks[2])),
            key("nothing to delete", name="nothing", state="absent"),
        ],
        way=way,
    )
    for name, (code, option) in KEYS.items():
        one = run[name].refused(code)
        assert one["option"] == option, str(one)
        assert one["remedy"], str(one)
    assert run["another size (check)"].refused("key_size_differs")
    assert run["nothing to delete"].untouched()["changed"] is False
    after = [(one.version, one.updated_on) for name in ("key1", "curve", "off") for one in service.versions(name)]
    assert after == before


def test_vaults(ansible: Ansible, service: Service, way: str) -> None:
    service.make_vault()
    service.make_vault("deleted-one")
    service.delete_vault("deleted-one")
    service.make_vault("shut", properties={"networkAcls": {"bypass": "AzureServices", "defaultAction": "Deny"}})
    before = service.vault()
    run = ansible.play(
        [
            fails(vault("roles", authorization="rbac")),
            fails(vault("deleted", name="deleted-one")),
            fails(checked(vault("deleted", name="deleted-one"))),
            fails(key("firewall", vault_name="shut")),
        ],
        way=way,
    )
    one = run["roles"].refused("vault_authorization_differs")
    assert (one["option"], one["value"]) == ("authorization", "rbac")
    assert "authorization: access_policy" in one["remedy"]
    for name in ("deleted", "deleted (check)"):
        one = run[name].refused("vault_soft_deleted")
        assert one["option"] == "recover"
        assert "recover: true" in one["remedy"]
    one = run["firewall"].refused("network_denied")
    assert one["azure"]["inner_code"] == "ForbiddenByFirewall"
    assert "firewall" in one["remedy"]
    assert service.vault() == before


def test_requests_that_azure_refuses(ansible: Ansible, service: Service, way: str) -> None:
    """The error has Azure's code and message, and lists the changes that were made before it."""
    service.make_vault()
    refusal = {"status": 400, "body": {"error": {"code": "BadParameter", "message": "No such policy, says the test."}}}
    service.sandbox.control.fault(match={"method": "PUT", "path": "rotationpolicy"}, answer=refusal, times=None)
    service.sandbox.control.fault(match={"method": "POST", "path": "/keys/none/create"}, answer=refusal, times=None)
    run = ansible.play(
        [
            fails(key("no key", name="none")),
            fails(key("no such policy", name="policy", rotation_policy={"time_after_create": "P90D"})),
        ],
        way=way,
    )
    for one in run:
        assert one["code"] == "rejected_by_service", str(one)
        assert one["changed"] is False
        assert one["azure"]["status"] == 400, str(one)
        assert one["azure"]["code"], str(one)
        assert one["azure"]["message"] in one["msg"]
    assert run["no key"]["applied"] == []
    # The key was created before Azure refused its rotation policy, and the error reports that.
    assert run["no such policy"]["applied"] == ["create"]
    assert service.key("policy").properties.enabled


def test_requests_that_azure_would_refuse(ansible: Ansible, service: Service, way: str) -> None:
    """The tasks fail before their first write request."""
    service.make_vault()
    group = f"{service.sandbox.subscription}/resourceGroups/rg-other"
    assert service.sandbox.arm("PUT", group, "2021-04-01", {"location": "westeurope"}).ok
    service.make_account()
    elsewhere = {"resource_group": "rg-other", "wait_timeout": 1}
    short_lived = {"expiry_time": "P7D", "time_after_create": "P5D"}
    run = ansible.play(
        [
            fails(task("account's name is taken", "batch_account_identity", name="account1", **elsewhere)),
            fails(vault("vault's name is taken", **elsewhere)),
            fails(task("no such region", "batch_account_identity", name="new1", location="atlantis", **elsewhere)),
            fails(vault("no such region for a vault", name="new-one", location="atlantis")),
            fails(key("too short", name="policy", rotation_policy=short_lived)),
        ],
        way=way,
    )
    codes = {one.name: (one["code"], one["option"]) for one in run}
    assert codes == {
        "account's name is taken": ("account_name_taken", "name"),
        "vault's name is taken": ("vault_name_taken", "name"),
        "no such region": ("location_not_available", "location"),
        "no such region for a vault": ("location_not_available", "location"),
        "too short": ("invalid_option", "rotation_policy.expiry_time"),
    }
    assert run.writes == []
    assert service.accounts() == ["account1"]


def test_a_caller_with_less_than_all(ansible: Ansible, service: Service, way: str) -> None:
    """Without the permission `list`, previous versions are unknown and none is disabled."""
    modest = service.sandbox.control.principal("modest", roles=[])
    service.make_vault()
    permissions = [permission for permission in OFFICER if permission != "list"]
    service.set_policy("add", service.policy(modest["object_id"], *permissions))
    first = service.make_key().properties.version
    who = {"client_id": modest["client_id"], "secret": modest["secret"]}
    run = ansible.play(
        [
            key("as it is", **who),
            key("one more", new_version=True, **who),
            fails(key("disabled", state="disabled", version=first, **who)),
        ],
        way=way,
    )
    assert run["as it is"]["changed"] is False
    assert run["as it is"]["previous_version"] is None
    assert run["one more"]["changed"] is True
    assert run["disabled"].refused("permission_denied")
    assert all(one.enabled for one in service.versions())
