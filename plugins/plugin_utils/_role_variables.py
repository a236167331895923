# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of the roles behind the options of a task: blank ones count as not set, wrong ones are reported before
the first task, and messages show them.

This plugin util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, several
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import has_marks
from ansible_collections.azbatch.cmk.plugins.plugin_utils import _variable_warnings
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_checks import (
    VariableChecks,
    tasks_in,
    without_blanks,
)
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_names import passed_on
from ansible_collections.azbatch.cmk.plugins.plugin_utils._variable_warnings import RESULT

PRESET_RESULT = CmkError(
    f"The extra variable {RESULT} would hide the result of the role. The role changed nothing. Remove it from the "
    "extra variables. In a workflow of AWX, pass it on under another name.",
    code="invalid_option",
    variable=RESULT,
    remedy=f"Remove {RESULT} from the extra variables, and from set_stats of earlier nodes of the workflow.",
)


class RoleVariables(VariableChecks):
    """Names the role's variables in the messages of a task, and reports unknown variables. Blank variables count as
    not set. A result variable that is set before the role is refused."""

    module: ModuleType

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        variables = passed_on(self._task.get_ds(), str(self._task.action))
        role = self._task._role.get_name() if self._task._role else ""
        is_ours = role.startswith("azbatch.cmk.")
        is_first = False
        if is_ours:
            if RESULT in self._task.get_variable_manager().extra_vars:
                return {"failed": True, **PRESET_RESULT.result()}
            given = self._templar.available_variables
            # The defaults that other values replaced. A default that is blank itself is not evaluated a second time.
            defaults = {k: v for k, v in self._task._role.get_default_vars().items() if given.get(k) != v}
            self._task.args = without_blanks(self._task.args, variables, defaults, self._templar.template)
            tasks = [task for block in self._task._role.get_task_blocks() for task in tasks_in(block)]
            # The first task of a role that uses a module of this collection has no condition.
            is_first = tasks[0].name == self._task.name
            problems = self._problems(role, [*tasks[1:], *self._elsewhere(tasks)], defaults) if is_first else []
            if problems:
                failure = several(problems).result() if len(problems) > 1 else problems[0]
                return self._with_warnings({"failed": True, **failure}, role, task_vars or {})
        result: dict[str, Any] = super().run(tmp, task_vars)
        if result.get("failed") or has_marks(result):
            result = self._names(self._task, self.module.ARGUMENTS).in_result(result, self._task.args)
        return self._with_warnings(result, role, task_vars or {}) if is_first else result

    def _with_warnings(self, result: dict[str, Any], role: str, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        failed = bool(result.get("failed"))
        defaults = self._task._role.get_default_vars()
        new = _variable_warnings.about(task_vars, role, defaults, self._templar.template, failed=failed)
        return {**result, "warnings": [*result.get("warnings", []), *new]} if new else result
