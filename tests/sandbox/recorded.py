# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded traffic of Azure: requests with their responses, and the comparison of responses with the recordings.

recorded.json has excerpts of public test recordings. Each recording has its source and the headers that were not
recorded (`unrecorded`). It also has the requests that create the initial state (`given`), and its cases in the
order of their requests. `number` is the position of the request in the recording. `sent` is the URL that is sent
instead of the recorded URL. `at_once` means that an operation was unfinished in the recording. `part` means that a
list lacks the entries of other users.

In texts, values of the sandbox replace `{subscription}` and similar names. `<guid>`, `<hex>`, `<time>`, `<number>`,
`<integer>` and `<text>` match values that are random or depend on the time. If an object has the member `<others>`,
only its other members are compared, in any order. `<any>` is not compared: the value belongs to the recorded
subscription, is simplified by the sandbox, or is newer than the recording.
"""

from __future__ import annotations

import json
import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

RECORDINGS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("recorded.json").read_text())
HEADERS = (
    "location",
    "azure-asyncoperation",
    "retry-after",
    "etag",
    "last-modified",
    "content-type",
    "www-authenticate",
    "x-ms-failure-cause",
    "x-ms-user-quota-remaining",
    "x-ms-user-quota-resets-after",
)
OTHERS = "<others>"
_MASKS = {
    "<guid>": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "<hex>": "[0-9a-f]{32}",
    "<time>": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z",
    "<number>": r"\d{10}",
    "<integer>": r"\d+",
    "<text>": ".*",
}


def compared(own: Any, recorded: Any) -> Any:
    """The response of the sandbox. Values that match a mask of the recorded response are replaced by the mask."""
    if recorded == "<any>":
        return recorded
    if isinstance(own, dict) and isinstance(recorded, dict) and OTHERS in recorded:
        return {name: compared(own.get(name), value) for name, value in recorded.items()}
    if isinstance(own, dict) and isinstance(recorded, dict):
        return {name: compared(value, recorded.get(name)) for name, value in own.items()}
    if isinstance(own, list) and isinstance(recorded, list):
        return [compared(one, other) for one, other in zip_longest(own, recorded)]
    if isinstance(recorded, str) and re.fullmatch(_pattern(recorded), str(own)):
        return recorded
    return own


def _pattern(recorded: str) -> str:
    pattern = re.escape(recorded)
    for mask, text in _MASKS.items():
        pattern = pattern.replace(re.escape(mask), text)
    return pattern


def filled(template: Any, known: dict[str, str]) -> Any:
    """The template with known values in place of names in braces."""
    if isinstance(template, dict):
        return {filled(name, known): filled(value, known) for name, value in template.items()}
    if isinstance(template, list):
        return [filled(value, known) for value in template]
    if isinstance(template, str):
        for name, value in known.items():
            template = template.replace(f"{{{name}}}", value)
    return template
