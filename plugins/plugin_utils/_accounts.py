# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Messages about many accounts and keys: those with the same values share one message.

This plugin util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._core import placeholders
from ansible_collections.azbatch.cmk.plugins.module_utils._core.summary import and_text, would
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as document

# Up to this number of accounts, a message always names all of them.
_MOST_NAMES = 3


def messages(results: Iterable[Mapping[str, Any]], prefix: str | None = None) -> list[str]:
    """The summaries of results of batch_encryption or batch_encryption_diagnosis, one for all accounts that differ only
    in their names. Results without a summary, such as those of skipped tasks, have no message. `prefix` begins
    each message, which then says what is true, also after a prediction."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        if "summary" in result:
            alike.setdefault(result["summary"].replace(result.get("name", ""), "", 1), []).append(result)
    return [_message(together, prefix, is_all=len(alike) == 1) for together in alike.values()]


def shown(results: Iterable[Mapping[str, Any]], hosts: int) -> list[Mapping[str, Any]]:
    """The results that a play of this number of hosts shows: of several hosts, the changes, and the accounts that are
    not available or whose availability is not known, because Ansible shows their equal warnings once."""
    return [
        result
        for result in results
        if result and (hosts == 1 or result.get("changed") or not result.get("available", True))
    ]


def unused_messages(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """The summaries of results of keyvault_cmk_unused_versions, one for all keys that have no older enabled version."""
    by_kept: dict[bool, list[str]] = {True: [], False: []}
    for result in results:
        by_kept[bool(result["changed"] or result["kept_versions"])].append(result["summary"])
    nothing = by_kept[False]
    if len(nothing) > 1:
        nothing = [f"No unused version of {len(nothing)} {'other ' if by_kept[True] else ''}keys is enabled."]
    return [*by_kept[True], *nothing]


def _message(results: Sequence[Mapping[str, Any]], prefix: str | None, *, is_all: bool) -> str:
    summary = str(results[0]["summary"])
    if len(results) == 1 and prefix is None:
        return summary
    text = _together(results, is_all=is_all)
    return f"{prefix}{text}" if prefix is not None else would(text) if " would use " in summary else text


def _together(results: Sequence[Mapping[str, Any]], *, is_all: bool) -> str:
    names, after = [result["name"] for result in results], _resolved(results[0])
    is_survey = "causes" in after
    # Who repairs some of the accounts has to know which ones they are.
    needs_names = after["available"] is not True and not (is_survey and is_all)
    name = _named(names, needs_names=needs_names)
    if is_survey:
        return document.survey_summary(name, after, count=len(names))
    before = {**after, **_resolved(after["diff"]["before"])}
    return document.summary(name, before, {**after, "name": name}, count=len(names))


def _named(names: Sequence[str], *, needs_names: bool) -> str:
    if len(names) <= _MOST_NAMES:
        return and_text(names)
    return f"{len(names)} accounts ({', '.join(names)})" if needs_names else f"{len(names)} accounts"


def _resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: placeholders.resolved(value) for name, value in values.items()}
