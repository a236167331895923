# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The requests of a run, in a form that a person can read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from .experiment import Experiment

# Values that differ in each run, and what is printed instead.
_VALUES = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE), "{id}"),
    (re.compile(r"azbatch-live-[a-z0-9]{12}"), "{group}"),
    (re.compile(r"\b(kv|ba|id|k)[a-z0-9]{12}\b"), r"{\1}"),
    (re.compile(r"[?&]t=\d+&c=.*"), ""),
)
_NAMES = {"{kv}": "{vault}", "{ba}": "{account}", "{id}": "{id}", "{k}": "{key}"}


class Requests:
    """Counts requests, by experiment."""

    def __init__(self) -> None:
        self._counted: dict[str, Counter[str]] = {}

    def note(self, recording: str, method: str, url: str) -> None:
        """Count a request of a recording `live-EXPERIMENT-NUMBER`, or of the time before and after the experiments."""
        parts = urlsplit(url)
        address = unquote(f"{parts.netloc}{parts.path}")
        for pattern, placeholder in _VALUES:
            address = pattern.sub(placeholder, address)
        for name, readable in _NAMES.items():
            address = address.replace(name, readable)
        experiment = recording.removeprefix("live-").rpartition("-")[0]
        self._counted.setdefault(experiment, Counter())[f"{method} {address}"] += 1

    def text(self, experiments: Sequence[Experiment]) -> str:
        """The requests with their counts, in the order of the experiments."""
        lines = ["Before and after the experiments:", *self._lines("")]
        for one in experiments:
            lines += [f"{one.name}: {one.question}", *self._lines(one.name)]
        return "\n".join([*lines, ""])

    def _lines(self, experiment: str) -> list[str]:
        counted = self._counted.get(experiment, Counter())
        return [f"  {request}{f' ({count} times)' if count > 1 else ''}" for request, count in counted.items()]
