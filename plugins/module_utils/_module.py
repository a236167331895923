# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The interface between a module and Ansible: arguments and result. Only this file uses AnsibleModule.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ._arguments import CONNECTION
from ._azure.sdk import unlogged
from ._azure.secrets import without
from ._cloud import Cloud
from ._core import placeholders
from ._core.interrupts import as_failure
from ._core.plan import Outcome

# The action plugin passes on what earlier tasks of the run have written, and takes what this task has written.
JOURNAL = "_journal"


class _Module(AnsibleModule):
    """Takes the journal from the arguments before they are checked: it is no option."""

    def _load_params(self) -> None:
        super()._load_params()
        self.handed = self.params.pop(JOURNAL, None)


def execute(arguments: Mapping[str, Any], run: Callable[..., Outcome]) -> None:
    module = _Module(argument_spec={**CONNECTION, **arguments}, supports_check_mode=True)
    handed, written = module.handed, dict[str, Any]()
    try:
        with unlogged():
            cloud = Cloud(module.params, predicts=module.check_mode, handed=handed)
            try:
                with cloud.task():
                    result = run(cloud.resolved(module.params), cloud).result(planned=module.check_mode)
            finally:
                written = cloud.written()
    except BaseException as ended:
        # An interrupted module also returns a result, and the process ends.
        failure: dict[str, Any] = without(module.no_log_values, placeholders.shown(as_failure(ended).result()))
        module.fail_json(**failure, **_returned(handed, written))
    for warning in result.pop("warnings", []):
        module.warn(warning)
    # Since ansible-core 2.22, Ansible masks secrets only when it shows a result, and not in registered variables.
    module.exit_json(**without(module.no_log_values, result), **_returned(handed, written))


def _returned(handed: Mapping[str, Any] | None, written: Mapping[str, Any]) -> dict[str, Any]:
    return {} if handed is None else {JOURNAL: written}
