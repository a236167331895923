# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each module: check, apply, check again, apply again."""

from __future__ import annotations

from harness import Ansible, ladder, task
from service import GROUP, Service


def test_vault(ansible: Ansible, service: Service, way: str) -> None:
    vault = task("vault", "keyvault_cmk_vault", resource_group=GROUP, name="vault-one", authorization="access_policy")
    run = ansible.play(ladder(vault), way=way)
    run.climbed("vault")
    assert service.vault()["properties"]["enablePurgeProtection"]
