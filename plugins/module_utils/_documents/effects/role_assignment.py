# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The effects of writes to role assignments.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator

from .write import EffectInput, PredictedRefusal, Prediction, deleted

delete = deleted


def put(write: EffectInput) -> Iterator[Prediction]:
    if write.before is not None:
        raise PredictedRefusal("RoleAssignmentExists", "The role assignment already exists.")
    scope, _providers, own = write.ref.rpartition("/providers/")
    assignment = {
        "id": write.ref,
        "name": own.rpartition("/")[2],
        "type": "Microsoft.Authorization/roleAssignments",
        "properties": {"scope": scope, **write.body["properties"]},
    }
    yield Prediction(write.ref, assignment)
