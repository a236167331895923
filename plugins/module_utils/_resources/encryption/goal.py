# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The goal of azbatch.cmk.batch_encryption, the data that its plan depends on, and the writes of its steps,
with the rights that each of them needs.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

from ..._checks import rights
from ..._checks.preflight import Evidence
from ..._checks.rights import Needed, NeededRights
from ..._core.documents import Account
from ..._core.errors import CmkError, Problems
from ..._core.ids import (
    KeyIdentifier,
    check_account_name,
    check_key_name,
    check_vault_name,
    key_of,
    parse_key_identifier,
)
from ..._core.plan import Service
from .document import BATCH, KEY_VAULT

NEEDED = NeededRights()


@dataclass(frozen=True)
class Goal:
    group: str
    account: str
    # None: a Microsoft-managed key.
    key: KeyIdentifier | None
    vault_group: str | None
    # Whether to wait if the account uses the key and is not available.
    patient: bool = False
    # Whether an account that uses a different customer-managed key may be moved.
    replaces: bool = False
    # Whether the account follows the latest version of the key. None: the key identifier decides.
    follow: bool | None = None
    # If `follow` is None: whether an account that follows the key keeps following it, and one that is pinned to any key
    # is pinned to a version (`of_pinned_account`).
    keeps_follow: bool = False
    # Whether an account that is pinned to another version of the key is moved to this version.
    updates_version: bool = True
    # If this is the rollback of a failed change: the goal of that change. A rollback is tried even if the account
    # is not available. It changes nothing if another task or user has moved the account meanwhile.
    undoes: Goal | None = None
    # The vault and the name of the only key that the account may use before the change.
    previous: tuple[str, str] | None = None
    # Whether it is an error if the caller cannot read whether the account is available.
    requires_readable: bool = False

    @property
    def target(self) -> KeyIdentifier | None:
        """The key identifier that is set on an account that does not meet the goal."""
        return self.key.versionless if self.key and self.follow else self.key

    def is_satisfied_by(self, account: Account | None) -> bool:
        has = key_of(account)
        if self.key is None or has is None:
            return self.key is has
        if not self.key.same_key(has):
            return False
        if has.version is None:
            return self.follow is True or (self.follow is None and (self.keeps_follow or not self.updates_version))
        return not self.follow and (self.key.same(has) or not self.updates_version)

    def leaves_alone(self, account: Account) -> bool:
        """Whether nothing is changed: the account meets the goal or, in a rollback, another task or user has moved
        it."""
        return self.is_satisfied_by(account) or (self.undoes is not None and not self.undoes.has_set(account))

    def has_set(self, account: Account) -> bool:
        """Whether the account uses exactly the key identifier that this goal sets."""
        has, target = key_of(account), self.target
        return has.same(target) if has else target is None

    def allows_previous(self, key: KeyIdentifier | None) -> bool:
        """Whether the account may be moved from this key."""
        return self.previous is None or (key is not None and key.is_named(*self.previous))

    def described(self, current: Mapping[str, Any]) -> str:
        """A sentence on the state of the account after a rollback."""
        on = current["key_identifier"] or "a Microsoft-managed key"
        state = {True: "is available", False: "is not available", None: "its availability is not known"}
        return f"The account uses {on} now and {state[current['available']]}."


def desired(params: Mapping[str, Any]) -> Goal:
    source, key, problems = params["key_source"], params["key_identifier"], Problems()
    if source == KEY_VAULT and not key:
        problems.add("key_identifier", key, f"key_source: {source} requires it.", "Set it to the key to use.")
    if source == BATCH and key:
        problems.add(
            "key_identifier", key, f"it has no meaning with key_source: {source}.", "Leave out one of the two."
        )
    identifier = problems.of(parse_key_identifier, key, "key_identifier") if key else None
    follow, previous = params["follow_latest"], (params["previous_vault_name"], params["previous_key_name"])
    if (previous[0] is None) != (previous[1] is None):
        option = "previous_vault_name" if previous[0] is None else "previous_key_name"
        problems.add(option, None, "previous_vault_name and previous_key_name require each other.", f"Set {option}.")
    if identifier and identifier.version is None:
        if follow is False:
            problems.add(
                "follow_latest", follow, "key_identifier names no version.", "Add the version, or leave it out."
            )
        follow = None if follow is None and params["keep_follow_latest"] else True
    account = problems.of(check_account_name, params["account_name"], "account_name")
    for name, check, option in zip(
        previous, (check_vault_name, check_key_name), ("previous_vault_name", "previous_key_name"), strict=True
    ):
        if name is not None:
            problems.of(check, name, option)
    problems.refuse()
    return Goal(
        group=params["resource_group"],
        account=account,
        key=identifier,
        vault_group=params["vault_resource_group"],
        patient=params["wait_until_available"],
        replaces=params["replace_key"],
        follow=follow,
        keeps_follow=params["keep_follow_latest"],
        updates_version=params["update_version"],
        previous=previous if previous[0] is not None else None,
        requires_readable=params["require_readable"],
    )


class Observed(TypedDict, total=False):
    """For the plan. Without `expires_soon` and `may_be_stale`, both are false."""

    account: Account | None
    # Why the account is not available, or why that is not known.
    unavailable_reason: CmkError | None
    # Whether the version that the account would keep expires soon.
    expires_soon: bool
    # Whether the read of the account may be older than a write of the run.
    may_be_stale: bool
    evidence: Evidence


class EncryptionWrites(Service, Protocol):
    def set_encryption(
        self,
        *,
        group: str,
        name: str,
        body: Mapping[str, Any],
        previous: KeyIdentifier | None,
        evidence: Evidence | None,
        even_if_unavailable: bool,
    ) -> None:
        """Change the encryption of an account, and wait until Batch has accepted the key."""

    def wait_until_available(self, *, group: str, name: str) -> None:
        """Wait until the account is available."""


@NEEDED.of(EncryptionWrites.set_encryption)
def _set_encryption(*, group: str, name: str, **_rest: object) -> Iterator[Needed]:
    yield from rights.to_set_encryption(group, name)


@NEEDED.of(EncryptionWrites.wait_until_available)
def _wait_until_available(**_rest: object) -> Iterator[Needed]:
    yield from ()
