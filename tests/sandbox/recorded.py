# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded traffic of Azure: a table of requests and the answers to them, and how an answer is compared with it.

recorded.json has excerpts of public test recordings. Each recording has its source, the headers that it left out
(`unrecorded`), the requests that make its beginning (`given`), and its cases in the order in which they are sent.
`number` is the position of the request in the recording. `sent` is the address that is sent instead of the recorded
one. `at_once` means that the recording saw unfinished work, `part` that entries of others are left out of a list.

In texts, `{subscription}` and the like are the sandbox's own; `<guid>`, `<hex>`, `<time>`, `<number>`, `<integer>`
and `<text>` are random or of the recording's time. If an object has the member `<others>`, only its other members are
compared, in any order. `<any>` is not compared: it is the subscription's own, simplified by the sandbox, or
shown by Azure only since then.
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
    """The sandbox's answer, with the masks of the recorded one where it fits them."""
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
    """The template with what is known in place of names in braces."""
    if isinstance(template, dict):
        return {filled(name, known): filled(value, known) for name, value in template.items()}
    if isinstance(template, list):
        return [filled(value, known) for value in template]
    if isinstance(template, str):
        for name, value in known.items():
            template = template.replace(f"{{{name}}}", value)
    return template
