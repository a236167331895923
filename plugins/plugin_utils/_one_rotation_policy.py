# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Refuses a task that requests another rotation policy for a key than an earlier task of the run: hosts that share a
key would replace each other's policy in every run.

This plugin util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible import constants
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION, without_empty
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import value_or_error
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import key_in_vault
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import goal as key_goal
from ansible_collections.azbatch.cmk.plugins.modules import keyvault_cmk_key


class OneRotationPolicy(ActionBase):  # type: ignore[misc]
    """Each task notes the policy that it requests before its first request."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        goal = self._valid_goal() if self._task.args.get("rotation_policy") else None
        if goal is not None and goal.rotation_policy:
            host = str((task_vars or {}).get("inventory_hostname"))
            first = self._first_request(goal, host)
            if first["policy"] != _text(goal.rotation_policy):
                return {"failed": True, **_refused(goal, **first).result()}
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result

    def _valid_goal(self) -> key_goal.KeyGoal | None:
        """None if the options are not valid: the module reports that."""
        validation = ArgumentSpecValidator({**CONNECTION, **keyvault_cmk_key.ARGUMENTS}).validate(
            without_empty(self._task.args)
        )
        if validation.error_messages:
            return None
        goal = value_or_error(lambda: key_goal.present(validation.validated_parameters), CmkError)
        return None if isinstance(goal, CmkError) else goal

    def _first_request(self, goal: key_goal.KeyGoal, host: str) -> dict[str, str]:
        """The policy that a task of the run has requested for the key first, and the host of that task."""
        files = RunFiles(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
        requested = {"policy": _text(goal.rotation_policy or {}), "host": host}
        first: dict[str, str] = files.first(requested, "rotation policy", key_in_vault(goal.vault, goal.name))
        return first


def _text(policy: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in sorted(policy.items()) if value)


def _refused(goal: key_goal.KeyGoal, policy: str, host: str) -> Refused:
    remedy = f"Set one policy for the key {goal.name} in {goal.vault}."
    return Refused(
        f"O(rotation_policy) is {_text(goal.rotation_policy or {})}, but the host {host} has requested {policy} for "
        f"the same key. {remedy}",
        code="rotation_policy_differs",
        option="rotation_policy",
        value=goal.rotation_policy,
        remedy=remedy,
    )
