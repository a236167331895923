# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A write in check mode, and its effect: the documents after the write.

An effect is a pure function of the document before the write, of the body, and of facts. It is a function of the owner
of the document's type, for all who write such a document.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..._core.errors import Denied
from ..._core.ids import within

# A JSON document of Azure, or its predicted copy.
Document = dict[str, Any]
# Whether Azure shows what belongs to a resource, such as the keys of a vault. A resource whose creation is predicted is
# NEW. A resource is HIDDEN if it is deleted in Azure, and its recovery is predicted.
SHOWN, NEW, HIDDEN = "shown", "new", "hidden"


class Prediction(NamedTuple):
    ref: str
    document: Document
    # False if the deletion of the resource is predicted. The document is then the document before the deletion.
    exists: bool = True
    # SHOWN, NEW or HIDDEN; None if the write does not change it.
    contents: str | None = None
    # The time of the write, in seconds since 1970.
    changed_at: int | None = None


@dataclass(frozen=True)
class EffectContext:
    """The facts that effects depend on. Documents are those of Azure with the predictions.

    `now` is the time by Azure's clock, in seconds since 1970. `find` returns a document by its ref, or None. `vault`
    returns the prediction for a vault by its name, or None. `caller` returns the caller's `object_id` and `tenant_id`.
    `number` returns the next number of a kind, from 1 on. `placeholder` keeps a placeholder for the other tasks of the
    run, and returns it. `with_policies` are the names, in lower case, of the vaults that are assumed to have access
    policies if Azure does not show their permission model.
    """

    now: float
    find: Callable[[str], Any]
    list: Callable[[str], Sequence[Any]]
    vault: Callable[[str], Prediction | None]
    caller: Callable[[], Mapping[str, str]]
    vault_suffix: Callable[[], str]
    number: Callable[[str], int]
    placeholder: Callable[[str], str]
    with_policies: Collection[str]


class EffectInput(NamedTuple):
    """`ref` names the resource, and `before` is its document, None if it is missing."""

    ref: str
    before: Any
    body: Mapping[str, Any]
    facts: EffectContext

    @property
    def required(self) -> Any:
        """The document before the write. Raises PredictedRefusal if the resource is missing."""
        if self.before is None:
            raise missing(self.ref)
        return self.before


Effect = Callable[[EffectInput], Iterator[Prediction]]


class PredictedRefusal(Exception):
    """The error of Azure for a request that it would refuse."""

    def __init__(self, code: str, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


def missing(ref: str, code: str | None = None) -> PredictedRefusal:
    code = code or ("KeyNotFound" if ref.startswith("https://") else "ResourceNotFound")
    return PredictedRefusal(code, f"The Resource '{ref}' was not found.", 404)


def deleted(write: EffectInput) -> Iterator[Prediction]:
    """The effect of the deletion of a resource. Azure accepts the deletion of a resource that is missing."""
    if write.before is not None:
        yield Prediction(write.ref, write.before, exists=False)


def changed(document: Document, body: Mapping[str, Any]) -> Document:
    """The document of Resource Manager with the properties and tags of the body."""
    tags = {"tags": body["tags"]} if "tags" in body else {}
    return {**document, **tags, "properties": {**document["properties"], **body.get("properties", {})}}


def is_listed(document: Document, scope: str, filter: str) -> bool:
    """Whether a list at the scope has the document: of a resource below the scope, and of a role assignment also above
    the scope. The filters are those of role assignments."""
    properties, holder = document["properties"], filter.partition("assignedTo('")[2].partition("'")[0].lower()
    if holder and properties["principalId"].lower() != holder:
        return False
    own = properties.get("scope", document["id"])
    return within(own, scope) or ("atscope()" not in filter.lower() and within(scope, own))


def region(body: Mapping[str, Any]) -> str:
    """The location in the body, as documents of Azure have it."""
    return str(body["location"]).replace(" ", "").lower()


def new_id(write: EffectInput) -> str:
    """The id of a new resource. Its resource group has Azure's letter case if the caller may read the group."""
    group = write.ref.partition("/providers/")[0]
    try:
        found = write.facts.find(group)
    except Denied:
        return write.ref
    if found is None:
        raise missing(group, "ResourceGroupNotFound")
    return f"{found['id']}{write.ref[len(group) :]}"
