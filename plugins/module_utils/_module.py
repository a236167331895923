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
from ._core import markup, placeholders
from ._core.errors import documented
from ._core.interrupts import as_failure
from ._core.markup import Names
from ._core.outcome import Outcome

# The action plugin passes on what earlier tasks of the run have written, and takes what this task has written.
JOURNAL = "_journal"
# The action plugin shows the messages of the task with the variables of a role.
MESSAGES = "_messages"


class _Module(AnsibleModule):
    """Takes what the action plugin adds from the arguments before they are checked: it is no option."""

    def _load_params(self) -> None:
        super()._load_params()
        self.handed = self.params.pop(JOURNAL, None)
        self.is_shown_later = self.params.pop(MESSAGES, False)

    def returned(self, result: dict[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
        """The result with names in its messages, and with what the action plugin takes from it."""
        # Since ansible-core 2.22, Ansible masks secrets only when it shows a result, and not in registered variables.
        result = without(self.no_log_values, result)
        journal = {} if self.handed is None else {JOURNAL: written}
        messages = {MESSAGES: markup.messages(result)} if self.is_shown_later else {}
        shown = documented(Names().in_result(result))
        for warning in shown.pop("warnings", []):
            if not self.is_shown_later:
                self.warn(warning)
        return {**shown, **journal, **messages}


def execute(arguments: Mapping[str, Any], run: Callable[..., Outcome]) -> None:
    module = _Module(argument_spec={**CONNECTION, **arguments}, supports_check_mode=True)
    written = dict[str, Any]()
    try:
        with unlogged():
            cloud = Cloud(module.params, predicts=module.check_mode, handed=module.handed)
            try:
                with cloud.task():
                    result = run(cloud.resolved(module.params), cloud).result(planned=module.check_mode)
            finally:
                written = cloud.written()
    except BaseException as ended:
        # An interrupted module also returns a result, and the process ends.
        failure: dict[str, Any] = placeholders.shown(as_failure(ended).result())
        module.fail_json(**module.returned(failure, written))
    module.exit_json(**module.returned(result, written))
