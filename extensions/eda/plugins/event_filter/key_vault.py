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
    See RETURN.
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
  type: str
  sample: key_kv_one__batch_cmk:key_kv_one__other
events:
  description: The events, at least one.
  type: list
  elements: dict
  contains:
    id:
      description: Id of the event. Absent if the event has none.
      type: str
    kind:
      description: As above.
      type: str
    time:
      description: When the event happened, as Azure sent it. Absent if the event has no time.
      type: str
    vault:
      description: Name of the vault.
      type: str
    vault_url:
      description: URL of the vault. Absent for C(access_policy_changed).
      type: str
    key:
      description: Name of the key. Absent for C(access_policy_changed).
      type: str
    version:
      description: Version of the key. Absent for C(access_policy_changed).
      type: str
    key_identifier:
      description: Key identifier without version. Absent for C(access_policy_changed).
      type: str
    expires:
      description: When the version expires, in UTC. Absent if the version does not expire.
      type: str
      sample: "2027-01-31T00:00:00Z"
    subscription:
      description: Id of the vault's subscription. Absent if the event does not name the resource id of the vault.
      type: str
    resource_group:
      description: Name of the vault's resource group. Absent if the event does not name the resource id of the vault.
      type: str
meta:
  description: The metadata of the source, without C(hosts), which would limit the hosts of the playbook.
  type: dict
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
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
    rf"/subscriptions/(?P<subscription>[0-9a-f-]{{36}})/resourceGroups/(?P<resource_group>[-\w.()]{{1,90}})"
    rf"/providers/Microsoft\.KeyVault/vaults/{_VAULT}",
    re.IGNORECASE | re.ASCII,
)
_KEY = re.compile(
    rf"(?P<vault_url>https://{_VAULT}(?:\.[a-z0-9-]+)+)/keys/(?P<key>[0-9A-Za-z-]{{1,127}})/(?P<version>[0-9a-f]{{32}})",
    re.IGNORECASE | re.ASCII,
)
_ID = re.compile(r"[\x21-\x7e]{1,256}")
_TIME = re.compile(r"[0-9T:.Z+-]{1,40}")

# The ids of earlier events, the oldest first.
_known: dict[tuple[str, str], None] = {}


def main(event: Any) -> dict[str, Any] | list[dict[str, Any]]:
    """Combine the events in an event of a source, by their kind.

    Returns one event, or a list of them if there are none or several. ansible-rulebook puts each item of a list into
    the rules. Never raises an exception, because an exception would end the source.
    """
    meta = event.get("meta") if isinstance(event, Mapping) else None
    passed = {name: value for name, value in meta.items() if name != "hosts"} if isinstance(meta, Mapping) else {}
    kinds: dict[str, list[dict[str, Any]]] = {}
    for one in map(_plain, _documents(event)):
        if one and _is_new(one):
            kinds.setdefault(one["kind"], []).append(one)
    combined = [
        # Each event gets its own meta, because ansible-rulebook adds a UUID to it.
        {"kind": kind, "hosts": ":".join(dict.fromkeys(map(_group, events))), "events": events, "meta": dict(passed)}
        for kind, events in kinds.items()
    ]
    return combined[0] if len(combined) == 1 else combined


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


def _plain(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The plain event, or None if the document is not an event that this filter passes on."""
    kind = KINDS.get(_type(document).lower())
    if kind is None:
        return None
    data = _field(document, "data")
    if not isinstance(data, Mapping):
        data = {}
    # The field has the name `topic` in the Event Grid schema, and `source` in the CloudEvents schema.
    topic = _TOPIC.fullmatch(_text(document, "topic") or _text(document, "source"))
    plain: dict[str, Any] = {"kind": kind}
    if kind == "access_policy_changed":
        plain["vault"] = topic["vault"] if topic else _vault(_text(data, "VaultName"))
    elif key := _KEY.fullmatch(_text(data, "Id")):
        plain |= key.groupdict()
        plain["key_identifier"] = f"{key['vault_url']}/keys/{key['key']}"
        plain["expires"] = _expires(_field(data, "EXP"))
    named = {name.lower() for name in (plain.get("vault"), _text(data, "VaultName")) if name}
    if not plain.get("vault") or len({*named, topic["vault"].lower()} if topic else named) > 1:
        logger.warning("Dropped an event of the type %s, because it does not name one vault and its key.", kind)
        return None
    if topic:
        plain |= {"subscription": topic["subscription"], "resource_group": topic["resource_group"]}
    plain["id"] = _matching(_ID, _text(document, "id"))
    plain["time"] = _matching(_TIME, _text(document, "eventTime") or _text(document, "time"))
    return {name: value for name, value in plain.items() if value is not None}


def _group(plain: Mapping[str, Any]) -> str:
    """The group of the inventory with the accounts that use the key, or a key of the vault if the event has no key."""
    group = f"key_{plain['vault']}__{plain['key']}" if "key" in plain else f"vault_{plain['vault']}"
    return group.lower().replace("-", "_")


def _is_new(plain: Mapping[str, Any]) -> bool:
    if "id" not in plain:
        return True
    # Ids are unique for a vault.
    known = (plain["vault"].lower(), plain["id"])
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


def _matching(pattern: re.Pattern[str], text: str) -> str | None:
    return text if pattern.fullmatch(text) else None


def _vault(name: str) -> str | None:
    return name if re.fullmatch(_VAULT, name) else None


def _expires(seconds: Any) -> str | None:
    """The time in seconds since 1970, which is a number or a string, as text. None if there is none."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (TypeError, ValueError, OverflowError, OSError):
        return None
