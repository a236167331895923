# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print the page of the docs site that lists each operation and behavior of the sandbox with its source.

The rows are those of sandbox/fidelity, and the recordings are those of tests/sandbox/recorded.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
LABELS = ("recorded", "specification", "documentation", "reported", "inferred", "invented")
# By the name of a list of rows, the members of a row that describe it. The first one identifies it.
KINDS: Mapping[str, Sequence[str]] = {
    "operations": ("operation", "requests"),
    "behaviors": ("behavior",),
    "refusals": ("code", "status", "when"),
    "switches": ("switch", "decides", "values"),
    "delays": ("delay", "realistic"),
    "differences": ("difference", "requests", "reason"),
}
SERVICE = ("operations", "behaviors", "refusals")
Row = Mapping[str, Any]


def documents() -> dict[str, dict[str, Any]]:
    """The files of sandbox/fidelity, by their names without the suffix."""
    files = sorted((ROOT / "sandbox" / "fidelity").glob("*.yml"))
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


def rows(document: Mapping[str, Any], *kinds: str) -> Iterator[Row]:
    """The rows of one file; all rows, or those of some kinds."""
    for kind in kinds or KINDS:
        yield from document.get(kind, ())


def name(row: Row) -> str:
    """The text that identifies a row. Several refusals can have the same code."""
    if "code" in row:
        return f"{row['code']}: {row['when']}"
    [found] = [row[first] for first, *_others in KINDS.values() if first in row]
    return str(found)


def labels(row: Row) -> tuple[str, ...]:
    return tuple(label for label in LABELS if label in row or row.get("source") == label)


def citations(row: Row) -> list[str]:
    """The recorded requests that the row names, as `RECORDING #NUMBER`."""
    return [f"{recording} #{number}" for recording, numbers in row.get("recorded", {}).items() for number in numbers]


def _source(row: Row) -> str:
    parts = []
    for label in labels(row):
        text = row.get(label, "")
        if label == "recorded":
            text = ", ".join(f"{one} {' '.join(f'#{number}' for number in numbers)}" for one, numbers in text.items())
        parts.append(f"*{label}*: {text}" if text else f"*{label}*")
    return f"Source: {'; '.join(parts)}"


def _beginning(text: str) -> str:
    """The text with a capital letter, unless it begins with a name such as `keyIdentifier`."""
    return re.sub(r"^[a-z]+(?![\w.])", lambda word: word[0].capitalize(), text)


def _item(row: Row) -> Iterator[str]:
    """The lines of one row: what it is, its source, the note."""
    if "code" in row:
        yield f"**`{row['code']}`**, {row['status']}: {row['when']}"
    elif "switch" in row:
        yield f"**`{row['switch']}`**: {row['decides']}"
        values = row["values"]
        meanings = values.items() if isinstance(values, Mapping) else ((value, "") for value in values)
        shown = (f"`{value}`: {meaning}" if meaning else f"`{value}`" for value, meaning in meanings)
        yield f"Values: {'; '.join(shown)}"
    elif "delay" in row:
        yield f"**`{row['delay']}`**: {str(row['realistic']).lower()}"
    elif "operation" in row:
        yield f"**{_beginning(row['operation'])}**"
        yield from (f"`{request}`" for request in row["requests"])
    else:
        yield _beginning(name(row))
    if "reason" in row:
        yield f"Requests: {row['requests']}"
        yield f"Reason: {row['reason']}"
        return
    yield _source(row)
    if "note" in row:
        yield f"Note: {row['note']}"


def _list(items: Iterable[Iterable[str]]) -> Iterator[str]:
    yield from ("- " + "\\\n  ".join(lines) + "\n" for lines in items)


def _section(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {document['title']}\n"
    if "about" in document:
        yield f"{document['about']}\n"
    if "not_emulated" in document:
        yield f"Not emulated: {document['not_emulated']}\n"
    for kind in KINDS:
        if found := list(rows(document, kind)):
            if kind in SERVICE:
                yield f"### {kind.capitalize()}\n"
            yield from _list(map(_item, found))


def _table(titles: Sequence[str], lines: Iterable[Sequence[object]]) -> Iterator[str]:
    for line in (titles, ["---"] * len(titles), *lines):
        yield f"| {' | '.join(map(str, line))} |"
    yield ""


def page() -> str:
    found = documents().values()
    services = sorted((one for one in found if any(kind in one for kind in SERVICE)), key=lambda one: one["title"])
    others = [one for one in found if one not in services]
    by_service = {one["title"]: [labels(row) for row in rows(one)] for one in services}
    counts = [
        (title, len(each), *(sum(label in one for one in each) for label in ("recorded", "invented")))
        for title, each in by_service.items()
    ]
    recordings = json.loads((ROOT / "tests" / "sandbox" / "recorded.json").read_text(encoding="utf-8"))
    lines = [
        "# Operations and behaviors of the sandbox\n",
        "[Fidelity of the sandbox](sandbox-fidelity.md#labels) explains the labels. If a label has a text, it applies",
        "to that part of the row.\n",
        *_table(("Service", "Rows", "With a recording", "With an invented part"), counts),
        *(line for document in (*services, *others) for line in _section(document)),
        "## Recordings\n",
        "The requests of a recording are numbered from 0.\n",
        *_list((title, f"`{one['source']}` {one['date']}".strip()) for title, one in recordings.items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())
