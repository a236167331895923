# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which accounts there are, found by id, by name in a region, or page by page."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..shared import paging
from .account import Account, Key, account_key

PAGE = 100


@dataclass
class Register:
    _accounts: dict[Key, Account] = field(default_factory=dict)
    # Sorted, so that a page of a long list is quickly found.
    _order: list[Key] = field(default_factory=list)
    # By location and name, which are unique together.
    _names: dict[tuple[str, str], Key] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Account]:
        return iter([self._accounts[key] for key in self._order])

    def __getitem__(self, key: Key) -> Account:
        return self._accounts[key]

    def find(self, subscription: str, group: str, name: str) -> Account | None:
        return self._accounts.get(account_key(subscription, group, name))

    def has_name(self, location: str, name: str) -> bool:
        return (location, name.lower()) in self._names

    def page(self, subscription: str, group: str | None, last: Key | None) -> tuple[list[Account], Key | None]:
        """Up to a page of accounts, and the key to go on after."""
        scope = (subscription.lower(),) if group is None else (subscription.lower(), group.lower())
        start = bisect_left(self._order, scope)
        end = bisect_right(self._order, scope, key=lambda key: key[: len(scope)])
        keys, more = paging.after(self._order[start:end], lambda key: key, last, PAGE)
        return [self._accounts[key] for key in keys], more

    def add(self, account: Account) -> None:
        self._accounts[account.key] = account
        insort(self._order, account.key)
        self._names[account.location, account.name.lower()] = account.key

    def remove(self, account: Account) -> None:
        del self._accounts[account.key]
        del self._order[bisect_left(self._order, account.key)]
        del self._names[account.location, account.name.lower()]
