# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a test with the mark `on_azure` runs: in the sandbox, or in the resource group of the experiments with Azure.

In both, the `Lab` of the experiments creates what the test begins with, reads what it has changed, and waits. The names
are random in both, because the names of vaults and accounts are unique in Azure."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import Ansible, Run
from live.azure import Azure
from live.caller import credential, session_through
from live.clock import SandboxClock, clock_at
from live.lab import CRYPTO_OFFICER, KEY, Lab, Place
from one_process import RolesRunner
from role_runs import things
from sandbox_client import Control, Sandbox, plain_environment
from service import GROUP, LOCATION, Service

# The limit of a playbook in Azure, in seconds. It waits for roles, and for Batch.
_LIMIT = 3600


@dataclass(frozen=True)
class World:
    lab: Lab
    roles: RolesRunner

    def play(self, role: str, *, check: bool = False, **variables: Any) -> Run:
        """Run the playbook of the role, which has to succeed. Reads show all earlier changes."""
        self.lab.settle()
        run = self.roles.playbook(f"azbatch.cmk.{role}", extra_vars=variables, check=check)
        assert run.rc == 0, run.output
        return run

    def uses(self, account: str) -> str | None:
        """The identifier of the customer-managed key that the account uses, or None for a Microsoft-managed key."""
        self.lab.settle()
        encryption = self.lab.read(account)["properties"]["encryption"]
        key: str | None = encryption.get("keyVaultProperties", {}).get("keyIdentifier")
        return key

    def assert_available(self, account: str) -> None:
        """Check that Batch does what needs the account's key. It may need minutes after a repair."""
        self.lab.until(lambda: not self.lab.refusal(account), f"The account {account} is available")

    def account(self, name: str, vault: str) -> dict[str, Any]:
        """Variables of a role."""
        return {
            "cmk_resource_group": self.lab.place.group,
            "cmk_account_name": name,
            "cmk_vault_name": vault,
            "cmk_key_name": KEY,
            "cmk_wait_timeout": 1800,
        }

    def on_key(self, *, versions: int = 1) -> dict[str, Any]:
        """Variables of a role, for an account with a user-assigned identity that uses the newest version of a key. The
        vault has access policies, because a role may take minutes."""
        identity = self.lab.identity()
        vault = self.lab.vault(identity["principal"])
        kid = self.lab.key(vault)
        for _ in range(versions - 1):
            # Key Vault has the time of a version in whole seconds.
            self.lab.clock.wait(1)
            kid = self.lab.key(vault)
        return self.account(self.lab.account_on_key(kid, identity), vault)

    def enabled(self, vault: str) -> list[bool]:
        """Whether each version of the key is enabled, the oldest first."""
        listed = self.lab.azure.vault("GET", vault, f"/keys/{KEY}/versions").required()["value"]
        found = [version["attributes"] for version in listed]
        return [one["enabled"] for one in sorted(found, key=lambda one: one["created"])]

    def let_caller_create_keys(self) -> None:
        """Assign the role that a caller needs for the keys of vaults that use Azure RBAC."""
        self.lab.grant_caller(CRYPTO_OFFICER)
        self.lab.wait_for_roles()


def wrote(run: Run) -> list[str]:
    """The writes of the run, without those that Azure has refused or not processed: the method and the resource."""
    return things(one for one in run.requests if one["write"])


def in_sandbox(sandbox: Sandbox, roles: RolesRunner, folder: Path) -> World:
    service = Service(sandbox)
    clock = SandboxClock(sandbox.url)
    azure = Azure(sandbox.session(), lambda: service.credential, sandbox.subscription_id, clock)
    place = Place(GROUP, LOCATION, sandbox.tenant_id, service.operator, "ServicePrincipal")
    return World(Lab.in_another_process(azure, clock, {"place": asdict(place), "known": {}}, folder), roles)


def on_azure(place: Path, folder: Path) -> World:
    """The world of an experiment that has started pytest. `place` is the file with the document of its lab."""
    document = json.loads(place.read_text(encoding="utf-8"))
    clock = clock_at(document["clock"])
    azure = Azure(session_through(os.environ), credential, os.environ["AZURE_SUBSCRIPTION_ID"], clock)
    return World(Lab.in_another_process(azure, clock, document, folder), _OnAzure(_Recorder(clock.url), folder))


class _Recorder:
    """The recorder of the experiments, with what `Ansible` uses of a sandbox."""

    def __init__(self, sandbox_url: str) -> None:
        """`sandbox_url` is the address of the sandbox that plays Azure, whose clock advances; empty in Azure."""
        self.url = os.environ["HTTPS_PROXY"]
        self.control = Control(self.url)
        elsewhere = {name: value for name, value in os.environ.items() if name not in plain_environment()}
        elsewhere.pop("AZURE_SANDBOX_URL", None)
        self.environment = {**elsewhere, **({"AZURE_SANDBOX_URL": sandbox_url} if sandbox_url else {})}


class _OnAzure(Ansible):
    """Runs playbooks as the caller of the experiments, who is signed in."""

    def environment(self, **more: str | None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name == "HOME" or name.startswith("ANSIBLE_AZURE")}
        return super().environment(**{**kept, **more})

    def playbook(self, playbook: Any, **options: Any) -> Run:
        return super().playbook(playbook, **{"timeout": _LIMIT, **options})
