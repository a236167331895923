# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report as files, one for each format. An existing file is replaced atomically.

This module util is private to the collection.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .._core.errors import CmkError, InvalidOption
from .csv_rows import as_csv
from .evidence_page import as_evidence
from .junit import as_junit
from .page import as_page
from .sarif import as_sarif

Report = Mapping[str, Any]


def as_json(report: Report) -> str:
    return json.dumps(report, indent=1) + "\n"


# By format, the suffix of the file name, and the function that returns the text.
Formats: TypeAlias = Mapping[str, tuple[str, Callable[[Report], str]]]
FORMATS: Formats = {
    "json": (".json", as_json),
    "csv": (".csv", as_csv),
    "junit": (".junit.xml", as_junit),
    "sarif": (".sarif", as_sarif),
    "html": (".html", as_page),
    "evidence": (".evidence.html", as_evidence),
}
# What is written if no format is named.
USUAL = ("json", "csv", "junit", "sarif", "html")


def prepared(folder: str) -> Path:
    """Create the folder, and check before any data is read that the report can be written to it."""
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise _not_written(path, "permission denied")
    return path


def write(
    report: Report, folder: Path, name: str, formats: Iterable[str], known: Formats | None = None
) -> dict[str, str]:
    """Write the report, and return the paths by format. `known` are the formats of the report."""
    paths = {}
    for one in formats:
        suffix, text_of = (known or FORMATS)[one]
        paths[one] = _written(folder / f"{name}{suffix}", text_of(report))
    return paths


def write_checksums(paths: Iterable[str], folder: Path, name: str) -> str:
    """Write the SHA-256 of the files in the folder, in the form of `sha256sum --check`. Returns the path."""
    files = [Path(path) for path in paths]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    return _written(folder / f"{name}.sha256", "".join(lines))


def _written(path: Path, text: str) -> str:
    try:
        _replace(path, text)
    except OSError as error:
        raise _not_written(path, error) from error
    return str(path)


def _replace(path: Path, text: str) -> None:
    """Write the file atomically. Other users may be able to write to the folder. Therefore the text is first
    written to a new file with a random name, which cannot be a symbolic link of another user."""
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        # `newline=""` keeps the line ends on all platforms: CSV has its own.
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            os.fchmod(descriptor, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _umask() -> int:
    """The umask of the process. It can be read only by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def read(path: str, option: str, form: str) -> dict[str, Any] | None:
    """An earlier report, whose `format` must be `form`; None if there is no such file."""
    try:
        report = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidOption(option, path, f"it cannot be read ({error}).", "Set it to a report in JSON.") from error
    if not isinstance(report, dict) or report.get("format") != form:
        raise InvalidOption(option, path, f"it is not a report of the form {form}.", "Set it to a report in JSON.")
    return report


def _not_written(path: Path, why: object) -> CmkError:
    return CmkError(
        f"The report {path.name} cannot be written. Set O(folder) to a folder that can be written to.",
        details=str(why),
        code="report_not_written",
        option="folder",
        value=str(path),
        remedy="Set O(folder) to a folder that can be written to.",
    )
