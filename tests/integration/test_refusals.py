# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Existing resources that prevent a change: each refusal has a code, the option and a remedy."""

from __future__ import annotations

from typing import Any

from harness import Ansible, checked, fails, key, task
from service import GROUP, Service


def vault(title: str, **options: Any) -> dict[str, Any]:
    return task(title, "keyvault_cmk_vault", **{"resource_group": GROUP, "name": "vault-one", **options})


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
        assert one["option"] == "allowed_repairs"
        assert "Add vault to allowed_repairs" in one["remedy"]
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
