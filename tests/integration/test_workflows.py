# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables that a playbook passes to the next node of a workflow."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from cases import FAILING
from harness import Ansible, Run
from service import Service
from test_playbooks import on_one_key, play_all

SHOWN = {"ANSIBLE_SHOW_CUSTOM_STATS": "1"}
IN_AWX = {"awx_job_id": 1, "tower_job_id": 1}
CHANGED, UNCHANGED = {"changed": True, "finished": True}, {"changed": False, "finished": True}
UNFINISHED = {"changed": False, "finished": False}


def passed_on(run: Run) -> dict[str, Any]:
    found = re.search(r"^\tRUN: (.*)$", run.output, re.M)
    variables: dict[str, Any] = json.loads(found[1]) if found else {}
    return variables


def play(ansible: Ansible, playbook: str, **options: Any) -> Run:
    """Run the playbook as a job of AWX does."""
    environment = {**SHOWN, **options.pop("environment", {})}
    return play_all(ansible, playbook, environment=environment, **{**IN_AWX, **options})


def test_a_wave_that_stops_the_play(ansible: Ansible, service: Service) -> None:
    """The result includes the changed account of the wave, although no task runs after the wave."""
    on_one_key(service)
    patch = {"method": "PATCH", "path": "/batchAccounts/account2"}
    service.sandbox.control.fault(match=patch, times=None, answer=FAILING)
    progress = {"ANSIBLE_CALLBACKS_ENABLED": "recorder,azbatch.cmk.progress"}
    wanted = {"cmk_key_new_version": True, "cmk_serial": [1, 1, 1]}
    run = play(ansible, "rotate", environment=progress, **wanted)
    assert run.rc != 0
    (result,) = passed_on(run).values()
    assert result["accounts"] == {"account1": CHANGED, "account2": UNFINISHED}
    assert result["not_started"] == ["account3"]
    assert "azbatch_cmk_purpose" not in passed_on(run)
    assert list(result["new_versions"].values()) == [service.key().properties.version]

    done = re.findall("^PROGRESS: (.*)$", run.output, re.M)[-1]
    assert done.startswith("1 of 3 hosts done, 1 failed; stopped in wave 2: 1 of 1 finished 'Move the account")
    assert ", 1 failed (account2: service_unavailable), 1 not started, in " in run.output.splitlines()[-2]


@pytest.mark.parametrize(
    ("given", "purpose"),
    [
        ({"awx_workflow_job_id": 7}, "awx-workflow-job-7"),
        ({"awx_workflow_job_id": 7, "cmk_key_new_version": "Yes", "cmk_set_stats": False}, "awx-workflow-job-7"),
    ],
)
@pytest.mark.slow(every=3)
def test_the_purpose_of_a_forced_version(
    ansible: Ansible, service: Service, given: dict[str, Any], purpose: str
) -> None:
    """A job of two waves passes the purpose on unchanged, and the next job does not force a further version. Otherwise
    a canary and the slices after it would create several versions, so the purpose does not depend on cmk_set_stats."""
    on_one_key(service)
    wanted = {"cmk_key_new_version": True, **given}
    assert passed_on(play(ansible, "rotate", check=True, **wanted)) == {}
    run = play(ansible, "rotate", **wanted)
    assert run.rc == 0, run.output
    assert passed_on(run)["azbatch_cmk_purpose"] == purpose
    versions = len(service.versions())

    again = play(ansible, "rotate", **{**wanted, "awx_workflow_job_id": 8, **passed_on(run)})
    assert again.rc == 0, again.output
    assert (len(service.versions()), again.changed) == (versions, [])


def test_on_a_terminal_no_statistics_are_set(ansible: Ansible, service: Service) -> None:
    on_one_key(service)

    run = play_all(ansible, "revert", environment=SHOWN, cmk_set_stats="")

    assert (run.rc, passed_on(run), "Pass on" in run.output) == (0, {}, False), run.output


@pytest.mark.slow
def test_an_audit(ansible: Ansible, service: Service) -> None:
    """An audit passes on its result even if a finding makes it fail. It does not pass on a result that it received."""
    service.on_key()

    def audit(**variables: Any) -> Run:
        given = {**IN_AWX, "cmk_audit_rbac_only": True, "cmk_audit_formats": ["json"], **variables}
        return ansible.playbook("azbatch.cmk.audit", extra_vars=given, environment=SHOWN)

    result = {
        "summary": "0 of 1 Batch account at risk, 1 non-compliant, 0 unknown, 0 ok. "
        "Findings: vault_uses_access_policies (1). On customer-managed keys: 1.",
        "findings": ["account1: vault_uses_access_policies (medium): vault-one uses access policies."],
        "files": {"json": "cmk-audit/cmk-audit.json"},
    }
    failed = audit(cmk_audit_fail_on="medium")
    assert failed.rc != 0
    (passed,) = passed_on(failed).values()
    assert passed.pop("counts")["accounts"] == 1
    assert passed == result

    done = audit(**passed_on(failed))
    assert done.rc == 0, done.output
    assert [one.warnings for one in done if one.warnings] == []
    (passed,) = passed_on(done).values()
    assert {**passed, "counts": {}} == {**result, "counts": {}, "findings": []}

    refused = audit(cmk_result=passed)
    assert refused.failed[-1].get("code") == "invalid_option"
    assert passed_on(refused) == {}
    assert passed_on(audit(cmk_audit_fail_on="perhaps")) == {}
