# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows the verdict of a playbook of this collection, and the accounts of a wave in which it has stopped. Ansible loads
this plugin with these playbooks."""

from __future__ import annotations

from typing import Any

from ansible import constants

from ansible_collections.azbatch.cmk.plugins.callback import progress

# Ansible reads the options of the plugin from this name.
DOCUMENTATION = progress.DOCUMENTATION


class CallbackModule(progress.CallbackModule):
    CALLBACK_NAME = "azbatch_cmk_overview"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self, display: Any = None, options: Any = None) -> None:
        super().__init__(display, options)
        # The callback plugin azbatch.cmk.progress shows the same lines.
        self.disabled = progress.CallbackModule.CALLBACK_NAME in constants.CALLBACKS_ENABLED  # type: ignore[attr-defined]

    def v2_playbook_on_play_start(self, play: Any) -> None:
        super().v2_playbook_on_play_start(play)
        if not self._is_of_collection:
            self._progress = None

    def _show(self, line: str) -> None:
        if self._progress is not None and self._progress.stopped:
            # Programs may read stdout, for example with the callback plugin ansible.posix.json.
            self._display.display(f"PROGRESS: {line}", stderr=True)
