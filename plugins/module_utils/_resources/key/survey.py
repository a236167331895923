# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a vault and its keys, and from when on a version or a key may be disabled, by the rules of removal.py.
Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ..._azure.facts import Facts
from ..._checks import usage
from ..._checks.usage import Users, Visible
from ..._core.docs import Docs
from ..._core.duration import instant, seconds
from ..._core.errors import CmkError, Problems
from ..._core.ids import (
    KeyIdentifier,
    check_key_name,
    check_subscriptions,
    check_vault_name,
    read_key_identifier,
    type_of,
)
from ..._core.summary import counted, user_text, version_text
from ..._documents import refs
from ..._documents.account import key_of
from ..._documents.key import KeyItem, is_staged, version_of
from ..._documents.vault import required
from ..._questions import services, users
from .goal import NamedKey, key_not_found
from .seen import Seen, look_for_usable, require_not_deleted, times_of, vault_of, visible_users

_NOTHING = "Nothing uses it."
_UNKNOWN = "Not all users are known."


class Asked(NamedTuple):
    vault: str
    # None: all keys of the vault.
    name: str | None
    vault_used_by: str
    # In seconds.
    unused_for: int


def asked(params: Mapping[str, Any]) -> Asked:
    problems, name = Problems(), params["name"]
    vault = problems.of(check_vault_name, params["vault_name"], "vault_name")
    if name is not None:
        problems.of(check_key_name, name, "name")
    unused_for = problems.of(seconds, params["unused_for"], "unused_for", or_none=True)
    problems.of(check_subscriptions, params["users_in"], "users_in")
    if re.search(r"^$|^\.+$|[/\0]", params["report_name"]):
        problems.add("report_name", params["report_name"], "this is not the name of a file.", "Leave out the folder.")
    problems.refuse()
    return Asked(vault.lower(), name, params["vault_used_by"], unused_for or 0)


def survey(docs: Docs, asked: Asked, facts: Facts) -> dict[str, Any]:
    """The return value of keyvault_cmk_users."""
    vault = vault_of(docs, asked.vault, facts)
    if not isinstance(vault, Mapping):
        _require_may_exist(docs, asked.vault, facts)
    visible = visible_users(docs, asked.vault, facts)
    asks = asked.vault_used_by != usage.BATCH
    visible, using = services.of_vault(docs, facts, asked.vault, visible, asks=asks)
    named = KeyIdentifier(asked.vault, facts.vault_suffix, "")
    listed = docs.known(refs.keys_of(named.vault_url)) if asked.name is None else []
    names = [asked.name] if asked.name else sorted({*_listed(listed), *_used(visible, asked.vault)})
    each = [replace(named, name=one) for one in names]
    docs.want(*map(refs.key, each), *map(refs.versions_of, each))
    is_whole, reports = not visible["unlisted"], [_key(docs, asked, facts, one, visible) for one in names]
    return {
        "vault_name": asked.vault,
        "vault_used_by": asked.vault_used_by,
        # By Azure's clock, once the keys were read.
        "generated_on": instant(docs.now),
        "in_use_by": using,
        "may_be_deleted": is_whole and not using,
        "reason": _in_use(using) if using else _NOTHING if is_whole else _UNKNOWN,
        "vault_keys": reports,
        "unlisted": visible["unlisted"],
        "subscriptions_left_out": users.left_out(docs, facts),
        "not_listed": str(listed) if isinstance(listed, CmkError) else None,
    }


def _require_may_exist(docs: Docs, name: str, facts: Facts) -> None:
    """Raise NotFound if the vault, which the caller cannot read, does not exist: its host does not respond, and its
    name is available."""
    listed = docs.known(refs.keys_of(KeyIdentifier(name, facts.vault_suffix, "").vault_url))
    is_unreachable = isinstance(listed, CmkError) and listed.code == "vault_unreachable"
    if is_unreachable and require_not_deleted(docs, name, facts) is None:
        required(None, name, None)


def _listed(keys: Sequence[KeyItem] | CmkError | None) -> list[str]:
    items = [] if keys is None or isinstance(keys, CmkError) else keys
    return [read_key_identifier(one["kid"]).name.casefold() for one in items]


def _used(visible: Visible, vault: str) -> Iterator[str]:
    """The names of the keys of the vault that something uses."""
    identifiers = [key_of(one) for one in visible["accounts"]]
    identifiers += [read_key_identifier(one["key"]) for one in _uses(visible) if one["key"]]
    yield from (one.name.casefold() for one in identifiers if one is not None and one.vault == vault)


def _uses(visible: Visible) -> list[usage.KeyUse]:
    return [*visible["disks"], *visible["services"]]


def _key(docs: Docs, asked: Asked, facts: Facts, name: str, visible: Visible) -> dict[str, Any]:
    goal = NamedKey(asked.vault, name)
    named = KeyIdentifier(asked.vault, facts.vault_suffix, name)
    named_users = _users(visible, named)
    found = {"name": name, "key_identifier": str(named), "users": named_users, "unknown": None}
    try:
        seen = replace(look_for_usable(docs, goal, facts), visible=visible)
    except CmkError as hidden:
        seen = None
        found["unknown"] = str(hidden)
    if seen is None or seen.key is None:
        ids = [one["id"] for one in named_users]
        # A user whose key is not known counts as a user of each key, but does not name it.
        is_named = any(one["version"] or one["follows_latest"] for one in named_users)
        if seen and asked.name and not seen.deleted and not is_named:
            raise key_not_found(goal)
        reason = _in_use(ids) or (_UNKNOWN if seen is None else "There is no such key.")
        return {**found, "exists": None if seen is None else False, "versions": [], **_state(ids, reason)}
    times = times_of(docs, seen, facts)
    of_key = usage.users_of_key(visible, named, times, seen.now, asked.unused_for)
    seen = replace(seen, times=replace(times, may_have_left=()))
    changed = {name: at for name, at in times.changed_at.items() if at is not None}
    for one in named_users:
        one["changed_on"] = instant(changed[one["id"]]) if one["id"] in changed else one["changed_on"]
    return {
        **found,
        "exists": True,
        "versions": _versions(asked, seen, named_users),
        **_judged(of_key, 0, seen.now, visible),
    }


def _users(visible: Visible, key: KeyIdentifier) -> list[dict[str, Any]]:
    """The users that name the key, or any key, each with its version. A resource may follow the key, and show the
    version that it uses now."""
    found = [_user(one["id"], key_of(one), False) for one in usage.accounts_on_key(visible, key)]
    for use in _uses(visible):
        used = read_key_identifier(use["key"]) if use["key"] else None
        if used is None or used.same_key(key):
            changed = {"changed_on": instant(use["changed_at"] or None)}
            found.append({**_user(use["id"], used, use["follows_latest"]), **changed})
    following = {one["id"] for one in found if one["follows_latest"]}
    pinned = {one["id"] for one in found if one["version"]}
    shown = [one for one in found if one["version"] or one["id"] not in pinned]
    return [{**one, "follows_latest": one["id"] in following} for one in shown]


def _user(resource_id: str, used: KeyIdentifier | None, follows: bool) -> dict[str, Any]:
    return {
        "id": resource_id,
        "name": user_text(resource_id),
        "type": type_of(resource_id),
        "version": used.version if used else None,
        "follows_latest": follows or (used is not None and used.version is None),
        "changed_on": None,
    }


def _versions(asked: Asked, seen: Seen, named: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The newest first. `named` are the users that name the key."""
    versions = seen.all_versions
    replaced = {version_of(item): since for item, since in versions.replaced}
    found = []
    for item in versions.newest_first:
        name = version_of(item)
        of_one = replace(seen.identifier, version=name)
        using = usage.users_of_version(seen.visible, of_one, versions, seen.times, asked.unused_for)
        pinned = [one["id"] for one in named if one["version"] == name]
        judged = _of_version(item, replaced.get(name), using, pinned, asked, seen)
        created = instant(item["attributes"]["created"])
        found.append({"version": name, "enabled": item["attributes"]["enabled"], "created_on": created, **judged})
    return found


def _of_version(
    item: KeyItem, since: float | None, found: Users, pinned: Sequence[str], asked: Asked, seen: Seen
) -> dict[str, Any]:
    if not item["attributes"]["enabled"]:
        return _state(found.ids, "It is disabled.")
    if since is None:
        newest = "It is not valid yet." if is_staged(item, seen.now) else "No newer version can be used."
        return _state(found.ids, newest)
    judged = _judged(found, since + asked.unused_for, seen.now, seen.visible)
    if pinned and found.until is None and not seen.visible["unlisted"]:
        # Those that follow the key are not named as its certain users.
        return {**judged, "reason": _in_use(pinned)}
    return judged


def _judged(found: Users, kept_until: float, now: float, visible: Visible) -> dict[str, Any]:
    """Whether it may be disabled, from when on, and why not earlier. `kept_until` is the end of the margin after its
    replacement."""
    is_used, until = found.exist and found.until is None, max(found.until or 0, kept_until)
    if visible["unlisted"]:
        return _state(found.ids, f"{_in_use(found.ids) if is_used else ''} {_UNKNOWN}".strip())
    if is_used:
        return _state(found.ids, _in_use(found.ids))
    if until <= now:
        return _state([], _NOTHING, now, now)
    if (found.until or 0) < kept_until:
        return _state(found.ids, "A newer version has replaced it only recently.", until, now)
    who = f"{counted(found.ids)} may need it until then" if found.ids else "An account that has left it may need it"
    return _state(found.ids, f"{who}, because of a recent change.", until, now)


def _state(ids: Sequence[str], reason: str, at: float | None = None, now: float = 0) -> dict[str, Any]:
    return {
        "in_use_by": list(ids),
        "may_be_disabled": at is not None and at <= now,
        "may_be_disabled_from": instant(at),
        "reason": reason,
    }


def _in_use(ids: Sequence[str]) -> str:
    each = dict.fromkeys(ids)
    return f"{counted(each)} {'uses' if len(each) == 1 else 'use'} it." if each else ""


def lines(found: Mapping[str, Any]) -> list[str]:
    """The report as lines for a person."""
    shown = [f"Vault {found['vault_name']}: {found['reason']}"]
    for key in found["vault_keys"]:
        shown.append(f"Key {key['name']}: {key['unknown'] or key['reason']}")
        shown += [_line(key["name"], one) for one in key["versions"] if one["enabled"]]
    return shown


def _line(name: str, version: Mapping[str, Any]) -> str:
    what, at = f"{version_text(version['version'])} of key {name}", version["may_be_disabled_from"]
    when = "now" if version["may_be_disabled"] else f"from {at}" if at else ""
    verb = f"may be disabled {when}" if when else "has to stay enabled"
    return f"{what[0].upper()}{what[1:]} {verb}: {version['reason']}"
