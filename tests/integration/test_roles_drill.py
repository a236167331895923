# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role drill by its playbook: each kind of drill, refusals, check mode, and drills that end in the middle."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cases import CLOSED
from harness import Ansible, Run
from role_runs import holdings, wrote
from service import Service

VARS = {
    "cmk_resource_group": "rg-sandbox",
    "cmk_account_name": "account1",
    "cmk_drill_canary": "account1",
    "cmk_drill_folder": "reports",
}
# Batch notices a loss late, and lists the pools of an account without its key.
HARD = {"pools_without_key": "200", "key_loss_noticed": "600"}


def drill(ansible: Ansible, **variables: Any) -> Run:
    check = variables.pop("check", False)
    return ansible.playbook("azbatch.cmk.drill", extra_vars={**VARS, **variables}, check=check)


def state(service: Service) -> dict[str, Any]:
    """All accounts, vaults, keys and role assignments. A version without tags may have an empty tag object."""
    found = holdings(service)
    for versions in found["keys"]["vault-one"].values():
        for one in versions:
            if isinstance(one, dict):
                one["tags"] = one["tags"] or None
    return found


@pytest.mark.parametrize("rbac", [False, True])
@pytest.mark.parametrize("kind", ["disable_key", "revoke_access", "close_firewall"])
def test_a_drill(ansible: Ansible, service: Service, kind: str, rbac: bool) -> None:
    service.on_key(rbac=rbac, follow=True)
    service.make_key()
    service.change_vault(properties={"networkAcls": {**CLOSED, "bypass": "AzureServices"}}, tags={"owner": "ops"})
    service.sandbox.control.behavior(**HARD)
    before = state(service)
    predicted = drill(ansible, cmk_drill_kind=kind, check=True)
    assert predicted.rc == 0, predicted.output
    assert wrote(predicted) == []
    assert state(service) == before

    run = drill(ansible, cmk_drill_kind=kind)
    assert run.rc == 0, run.output
    print(run.output)
    assert service.is_safe()
    assert state(service) == before
    [file] = (ansible.folder / "reports").glob("*.json")
    report = json.loads(file.read_text())["drill"]
    print(report, file.with_suffix(".md").read_text())
    assert report["passed"] and report["kind"] == kind
