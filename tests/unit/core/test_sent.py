# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counting of the write requests of a task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._core.sent_writes import SentWrites


def answering(status: int) -> Any:
    return lambda: SimpleNamespace(http_response=SimpleNamespace(status_code=status))


@pytest.mark.parametrize(
    ("status", "accepted", "may_have_changed"),
    [(200, 1, True), (399, 1, True), (400, 0, False), (499, 0, False), (500, 0, True)],
)
def test_a_write_that_azure_has_not_refused_may_have_changed_something(
    status: int, accepted: int, may_have_changed: bool
) -> None:
    sent = SentWrites()
    assert not sent.may_have_changed

    assert sent.send(answering(status)).http_response.status_code == status

    assert (sent.accepted, sent.may_have_changed, sent.is_abandoned) == (accepted, may_have_changed, False)


@pytest.mark.parametrize(("ended", "is_abandoned"), [(OSError("Lost."), False), (KeyboardInterrupt(), True)])
def test_a_write_without_a_response_may_have_changed_something(ended: BaseException, is_abandoned: bool) -> None:
    def fail() -> Any:
        raise ended

    sent = SentWrites()
    with pytest.raises(type(ended)):
        sent.send(fail)

    assert (sent.accepted, sent.may_have_changed, sent.is_abandoned) == (0, True, is_abandoned)
