# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's own main job, with each kind of identity and both permission models of a vault."""

from __future__ import annotations

import json
import os
import subprocess
from functools import partial
from typing import Any

from ..azure import NoResult
from ..experiment import Experiment, Outcome
from ..lab import CRYPTO_OFFICER, KEY, RETENTION_DAYS, Lab, random_name

_SECONDS = 3600


def _job(identity: str, authorization: str, lab: Lab) -> Outcome:
    # The caller cannot create a key in a vault with access policies without its own policy.
    vault = lab.once("vault", lambda: lab.vault() if authorization == "access_policy" else random_name("kv"))
    name = lab.once("account", lambda: random_name("ba"))
    account: dict[str, Any] = {
        "cmk_resource_group": lab.place.group,
        "cmk_account_name": name,
        "cmk_vault_name": vault,
        "cmk_key_name": KEY,
    }
    new = {
        "cmk_location": lab.place.location,
        "cmk_vault_authorization": authorization,
        "cmk_vault_retention_days": RETENTION_DAYS,
        **({"cmk_identity_id": lab.once("identity", lab.identity)["id"]} if identity == "user_assigned" else {}),
    }
    if authorization == "rbac":
        # For the keys. It ends with the resource group.
        lab.once("crypto officer", lambda: lab.grant_caller(CRYPTO_OFFICER))
        lab.once("crypto officer for keys", lab.wait_for_roles)

    def play(playbook: str, **variables: Any) -> None:
        lab.settle()
        lab.once(playbook, lambda: _played(lab, playbook, {**account, **variables}))

    play("provision", **new)
    play("rotate", cmk_key_new_version=True)
    other = lab.once("other", lambda: lab.key(vault, "other"))
    play("switch", cmk_new_key_identifier=other)
    lab.once("disabled", lambda: lab.enable(other, enabled=False))
    account["cmk_key_name"] = "other"
    play("recover")
    play("audit", cmk_audit_pools=True, cmk_audit_formats=[], cmk_audit_folder=str(lab.folder.resolve()))
    play("revert")
    return Outcome("The playbooks provision, rotate, switch, recover, audit and revert succeeded.")


def _played(lab: Lab, playbook: str, variables: dict[str, Any]) -> str:
    done = subprocess.run(
        ["ansible-playbook", f"azbatch.cmk.{playbook}", "-e", json.dumps(variables)],
        env={**os.environ, **lab.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        # The output may name resources of others, so it is only for the caller.
        log = lab.folder / f"{playbook}.log"
        log.touch(0o600)
        log.write_text(done.stdout, encoding="utf-8")
        raise NoResult(f"The playbook {playbook} ended with {done.returncode}. Its output is in {log.name}.")
    return "done"


EXPERIMENTS = tuple(
    Experiment(
        f"job_{identity}_{authorization}",
        f"Does the collection do its main job with a {identity.replace('_', '-')} identity and {title}?",
        "Run the playbooks provision, rotate, switch, recover (after the key was disabled), audit and revert.",
        partial(_job, identity, authorization),
        minutes=5,
        cost="a vault, two keys: some cents",
    )
    for identity in ("system_assigned", "user_assigned")
    for authorization, title in (("access_policy", "access policies"), ("rbac", "Azure RBAC"))
)
