# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rulebook key_rotation_jobs in ansible-rulebook, which launches the job templates of the playbook awx."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from accounts import are_on, on_one_key
from controller import TOKEN, Controller, serving
from harness import ended, writes
from rulebook import Rulebook, until
from sandbox_client import Control
from service import Service

# How long a job may take.
SECONDS = 120


@pytest.fixture
def controller(rulebook: Rulebook) -> Iterator[Controller]:
    """The rulebook is started with the controller."""

    def play(playbook: str, limit: str, variables: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        command = [rulebook.venv / "bin" / "ansible-playbook", f"azbatch.cmk.{playbook}", "--limit", limit]
        given = ["--inventory", rulebook.inventory, "-e", json.dumps(variables)]
        return ended([*command, *given], rulebook.environment, rulebook.folder, SECONDS)

    with serving(play, organization="Operations") as controller:
        rulebook.name = "key_rotation_jobs"
        rulebook.variables = {"cmk_event_organization": "Operations"}
        rulebook.arguments = ("--controller-url", controller.url, "--controller-token", TOKEN)
        yield controller


def settled(rulebook: Rulebook, controller: Controller, templates: list[str]) -> None:
    """Wait until the jobs of these templates have succeeded. No further job may follow."""

    def is_settled() -> bool:
        ended = [one for one in controller.jobs if one.status != "running"]
        return controller.refused != [] or (len(ended) >= len(templates) and not rulebook.subscription()["pending"])

    until(is_settled, lambda: f"{controller.jobs}\n{rulebook.output}")
    time.sleep(3)
    assert controller.refused == []
    assert [(one.template, one.status) for one in controller.jobs] == [(one, "successful") for one in templates], [
        one.output for one in controller.jobs
    ]


def test_all_pinned_accounts_move_to_the_new_version(
    rulebook: Rulebook, controller: Controller, service: Service
) -> None:
    on_one_key(service)
    other = service.encryption("other")
    rulebook.start()
    rulebook.subscribe(duplicates=True)

    service.sandbox.control.advance(1)
    version = service.keys().rotate_key("key1").id
    until(lambda: are_on(service, version) or controller.refused, lambda: rulebook.output)

    settled(rulebook, controller, ["rotate"])
    assert are_on(service, version)
    assert service.encryption("following") == version.rpartition("/")[0]
    assert service.encryption("other") == other
    assert len(service.versions()) == 2


@pytest.mark.parametrize("recovers", [False, True])
def test_a_changed_policy_is_audited_or_the_account_is_recovered(
    rulebook: Rulebook, controller: Controller, service: Service, control: Control, recovers: bool
) -> None:
    principal, _ = service.on_key()
    rulebook.variables["cmk_event_recover"] = recovers
    rulebook.start()
    rulebook.subscribe()

    service.revoke(principal)
    last = control.last
    until(
        lambda: [one for one in controller.jobs if one.status != "running"] or controller.refused,
        lambda: rulebook.output,
    )

    assert controller.refused == []
    assert controller.jobs[0].template == ("recover" if recovers else "audit")
    assert service.is_available() == recovers
    # The finding fails the job, as the survey of the job template wants it.
    assert controller.jobs[0].status == ("successful" if recovers else "failed"), controller.jobs[0].output
    assert bool(writes(control.requests(last))) == recovers
