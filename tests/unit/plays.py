# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stages that are run without a cloud."""

from __future__ import annotations

from ansible_collections.azbatch.cmk.plugins.module_utils._errors import CmkError
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._stages import Stage, Stages


class Play:
    """Runs the stages; `answers` are what each comes to, in turn, and there are no more of them than stages.

    That the accounts of all subscriptions can be listed is not among them: they can be.
    """

    def __init__(self, stages: Stages, *answers: Outcome | CmkError) -> None:
        self.seen: list[Stage] = []
        left = list(answers)
        try:
            stage = next(stages)
            while True:
                if isinstance(stage, tuple):
                    self.seen += stage
                    stage = stages.send([left.pop(0) for _stage in stage])
                    continue
                if stage.service == "listing":
                    stage = stages.send(Outcome(False, {}, {}))
                    continue
                self.seen.append(stage)
                answer = left.pop(0)
                stage = stages.throw(answer) if isinstance(answer, CmkError) else stages.send(answer)
        except StopIteration as end:
            self.outcome: Outcome = end.value
        assert left == []

    @property
    def services(self) -> list[str]:
        return [stage.service for stage in self.seen]
