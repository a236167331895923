# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Event filter of ansible-rulebook: plain events of the keys of Azure Key Vault."""

from __future__ import annotations

DOCUMENTATION = r"""
---
short_description: Turn events of Azure Key Vault into events for rules
description:
  - An event filter plugin of ansible-rulebook for the events of Azure Key Vault about a key or an access policy. All
    other events are dropped.
  - The events of an array become one event of the rulebook for each kind, so that one playbook runs for all of them.
    See RETURN. It names only vaults and keys, because ansible-rulebook needs seconds for the details of thousands of
    events, and a playbook reads them from Azure.
  - The filter accepts the Event Grid schema and the CloudEvents schema, single events and arrays. The events may be at
    the top level, below C(payload) (azbatch.cmk.event_grid, event streams of Ansible Automation Platform), or below
    C(body) (azure.azcollection.azure_service_bus and azure.azcollection.azure_event_hub).
  - Event Grid may deliver an event several times. The filter drops events whose id it knows. It keeps the last 10,000
    ids in memory, until the rulebook ends.
  - The filter drops an event whose names are not valid in Azure. Rules can therefore use the fields in patterns of
    hosts and in variables of playbooks without further checks.
  - The filter has no options.
"""

EXAMPLES = r"""
- azbatch.cmk.event_grid:
    port: 5000
    secret: "{{ cmk_event_secret }}"
  filters:
    - azbatch.cmk.key_vault:

- azure.azcollection.azure_service_bus:
    conn_str: "{{ connection_string }}"
    queue_name: key-events
  filters:
    - azbatch.cmk.key_vault:
"""

RETURN = r"""
kind:
  description: What happened.
  type: str
  choices: [new_version, near_expiry, expired, access_policy_changed]
hosts:
  description:
    - Pattern of the hosts of the inventory azbatch.cmk.batch_accounts that the events concern. The hosts are the
      accounts that use one of the keys, and for C(access_policy_changed) a key of one of the vaults.
    - A single regular expression, because Ansible evaluates each pattern of a list separately.
  type: str
  sample: ~(key_kv_one__batch_cmk|key_kv_one__other)$
vaults:
  description: Names of the vaults, at least one.
  type: list
  elements: str
keys:
  description: Identifiers of the keys, without versions. An empty list for C(access_policy_changed).
  type: list
  elements: str
  sample: ["https://kv-one.vault.azure.net/keys/batch-cmk"]
meta:
  description: The metadata of the source, without C(hosts), which would limit the hosts of the playbook.
  type: dict
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

# Source: https://learn.microsoft.com/azure/event-grid/event-schema-key-vault
KINDS = {
    "microsoft.keyvault.keynewversioncreated": "new_version",
    "microsoft.keyvault.keynearexpiry": "near_expiry",
    "microsoft.keyvault.keyexpired": "expired",
    "microsoft.keyvault.vaultaccesspolicychanged": "access_policy_changed",
}
KNOWN_IDS = 10_000
# As in the event source event_grid.
MAX_DEPTH = 16

# Source: https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
_VAULT = r"(?P<vault>[A-Za-z](?:-?[A-Za-z0-9]){2,23})"
_TOPIC = re.compile(
    rf"/subscriptions/[0-9a-f-]{{36}}/resourceGroups/[-\w.()]{{1,90}}/providers/Microsoft\.KeyVault/vaults/{_VAULT}",
    re.IGNORECASE | re.ASCII,
)
_KEY = re.compile(
    rf"(?P<vault_url>https://{_VAULT}(?:\.[a-z0-9-]+)+)/keys/(?P<key>[0-9A-Za-z-]{{1,127}})/[0-9a-f]{{32}}",
    re.IGNORECASE | re.ASCII,
)
_ID = re.compile(r"[\x21-\x7e]{1,256}")

# The ids of earlier events, the oldest first.
_known: dict[tuple[str, str], None] = {}


@dataclass(frozen=True)
class _Event:
    kind: str
    vault: str
    # The identifier without version; empty for access_policy_changed.
    key: str
    # The group of the inventory.
    group: str
    # Empty if the event has none that is valid.
    id: str


def main(event: Any) -> dict[str, Any] | list[dict[str, Any]]:
    """Combine the events in an event of a source, by their kind.

    Returns one event, or a list of them if there are none or several. ansible-rulebook puts each item of a list into
    the rules. Never raises an exception, because an exception would end the source.
    """
    meta = event.get("meta") if isinstance(event, Mapping) else None
    passed = {name: value for name, value in meta.items() if name != "hosts"} if isinstance(meta, Mapping) else {}
    kinds: dict[str, list[_Event]] = {}
    for one in map(_plain, _documents(event)):
        if one and _is_new(one):
            kinds.setdefault(one.kind, []).append(one)
    combined = [
        {
            "kind": kind,
            "hosts": f"~({'|'.join(_distinct(one.group for one in events))})$",
            "vaults": _distinct(one.vault for one in events),
            "keys": _distinct(one.key for one in events if one.key),
            # Each event gets its own meta, because ansible-rulebook adds a UUID to it.
            "meta": dict(passed),
        }
        for kind, events in kinds.items()
    ]
    return combined[0] if len(combined) == 1 else combined


def _distinct(names: Iterable[str]) -> list[str]:
    return [*dict.fromkeys(names)]


def _documents(event: Any) -> Iterator[Mapping[str, Any]]:
    """The events within the event of a source."""
    body = event
    if isinstance(event, Mapping) and not _type(event):
        body = event.get("payload", event.get("body"))
    if isinstance(body, str | bytes):
        try:
            body = _parsed(body if isinstance(body, str) else body.decode())
        except ValueError:
            body = None
    for one in body if isinstance(body, list) else [body]:
        if isinstance(one, Mapping):
            yield one


def _parsed(text: str) -> Any:
    """The JSON document. Raises ValueError if there is none, or if it has more than MAX_DEPTH levels."""
    depth = 0
    # The brackets outside of strings.
    for bracket in re.findall(r"[][{}]", re.sub(r'"[^"]*"?', "", re.sub(r"(?s)\\.", "", text))):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"It has more than {MAX_DEPTH} levels.")
    return json.loads(text)


def _plain(document: Mapping[str, Any]) -> _Event | None:
    """The event, or None if the document is not an event that this filter passes on."""
    kind = KINDS.get(_type(document).lower())
    if kind is None:
        return None
    data = _field(document, "data")
    if not isinstance(data, Mapping):
        data = {}
    # The field has the name `topic` in the Event Grid schema, and `source` in the CloudEvents schema.
    topic = _TOPIC.fullmatch(_text(document, "topic") or _text(document, "source"))
    named = _text(data, "VaultName")
    key = None
    if kind == "access_policy_changed":
        vault = topic["vault"] if topic else named if re.fullmatch(_VAULT, named) else ""
    else:
        key = _KEY.fullmatch(_text(data, "Id"))
        vault = key["vault"] if key else ""
    names = {name.lower() for name in (vault, named, topic["vault"] if topic else "") if name}
    if not vault or len(names) > 1:
        logger.warning("Dropped an event of the type %s, because it does not name one vault and its key.", kind)
        return None
    # The accounts that use the key, or a key of the vault if the event has no key.
    group = f"key_{vault}__{key['key']}" if key else f"vault_{vault}"
    identifier = f"{key['vault_url']}/keys/{key['key']}" if key else ""
    given = _text(document, "id")
    return _Event(kind, vault, identifier, group.lower().replace("-", "_"), given if _ID.fullmatch(given) else "")


def _is_new(event: _Event) -> bool:
    if not event.id:
        return True
    # Ids are unique for a vault.
    known = (event.vault.lower(), event.id)
    if known in _known:
        return False
    _known[known] = None
    if len(_known) > KNOWN_IDS:
        del _known[next(iter(_known))]
    return True


def _type(document: Mapping[str, Any]) -> str:
    return _text(document, "eventType") or _text(document, "type")


def _field(document: Mapping[str, Any], name: str) -> Any:
    """Microsoft's examples and specifications differ in the case of names, and an example has a blank after a name."""
    return next((value for key, value in document.items() if str(key).strip().lower() == name.lower()), None)


def _text(document: Mapping[str, Any], name: str) -> str:
    value = _field(document, name)
    return value.strip() if isinstance(value, str) else ""
