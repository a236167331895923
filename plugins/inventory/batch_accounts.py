# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: batch_accounts
short_description: Batch accounts inventory source
description:
  - Lists the Batch accounts of subscriptions. Each account becomes a host with the variables of the roles of this
    collection, so the roles can run on all accounts or on a group of accounts without further variables.
  - Uses a YAML configuration file. Its name ends in C(.yml) or C(.yaml).
  - A host has the name of its account. If several accounts in different regions have the same name, the host is named
    by account and region, as in C(mybatch.westeurope).
  - The permission to read the accounts is sufficient. A warning names the subscriptions in which the caller may not
    list accounts.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [azbatch.cmk.batch_accounts]
  subscriptions:
    description:
      - Ids of the subscriptions whose accounts are listed. By default, all subscriptions that the caller can read. If
        Azure lists none, for example because the caller has rights only on a resource group, the subscription of the
        environment variable E(AZURE_SUBSCRIPTION_ID).
    type: list
    elements: str
    default: []
  filters:
    description:
      - Filters that select the accounts which become hosts. Each item is V(include) or V(exclude) with a condition over
        the host's variables.
      - The first condition that is true decides. An account for which no condition is true is included.
      - A condition that cannot be evaluated is an error regardless of O(strict), because the host could be included by
        mistake.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.azure.environment
  - constructed
  - inventory_cache
notes:
  - The sign-in options and O(subscriptions) may be templates. These templates can use extra variables and lookups.
  - An option that this plugin does not have is an error.
  - Extra variables override what O(compose) sets for a host.
"""

EXAMPLES = r"""
# Only this line is required. By default, the hosts are all accounts that the caller can read.
plugin: azbatch.cmk.batch_accounts

# Accounts of two subscriptions, read by a service principal whose secret is in an environment variable
subscriptions:
  - 11111111-2222-3333-4444-555555555555
  - 66666666-7777-8888-9999-000000000000
tenant: contoso.onmicrosoft.com
client_id: aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee
secret: "{{ lookup('ansible.builtin.env', 'BATCH_SECRET') }}"

# Accounts in production that use a customer-managed key, except for one vault
filters:
  - exclude: cmk_key_source == 'microsoft_batch'
  - exclude: cmk_vault_name == 'kv-legacy'
  - include: cmk_tags.environment | default('') == 'production'
  - exclude: true

# Also grouped by their tag `team`, with a variable that depends on their tag `tier`
keyed_groups:
  - key: cmk_tags.team | default('nobody')
    prefix: team
compose:
  cmk_key_max_version_age: "'P30D' if cmk_tags.tier | default('') == 'gold' else 'P90D'"

# Cached for one hour
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/batch_accounts
cache_timeout: 3600
"""

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.template import Templar

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION, ENVIRONMENT, without_empty
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles, begin_run
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sdk import unlogged
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.usage import not_listed
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, link_to
from ansible_collections.azbatch.cmk.plugins.plugin_utils import _inventory
from ansible_collections.azbatch.cmk.plugins.plugin_utils._play_keywords import INVENTORIES

# Since ansible-core 2.19, a string is a template only if it is trusted. Data from Azure is not trusted.
_KNOWS_TRUST = hasattr(Templar, "evaluate_conditional")


def _template(text: str) -> str:
    if not _KNOWS_TRUST:
        return text
    from ansible.template import trust_as_template

    trusted: str = trust_as_template(text)
    return trusted


# The tasks of a host run on the controller with the Python interpreter of the job, like the tasks of the implicit
# localhost. The inventory may have been listed in another environment: AWX does that.
_CONNECTION = {"ansible_connection": "local", "ansible_python_interpreter": _template("{{ ansible_playbook_python }}")}


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "azbatch.cmk.batch_accounts"

    inventory: Any

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith((".yml", ".yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_options(path)
        try:
            filters = _inventory.host_filters(self.get_option("filters"))
            listed = self._cached_or_listed(path, cache)
        except CmkError as failure:
            # Ansible shows only this text of a failure of an inventory.
            message = f"{failure.reported} See {link_to(failure.code)}"
            _note(path, message)
            raise AnsibleParserError(message) from None
        _note(path, "")
        self._warn(listed)
        self._populate(listed["accounts"], filters)

    def _read_options(self, path: str) -> None:
        for name in ENVIRONMENT:
            if os.environ.get(name) == "":
                # Ansible would use the empty string as the value of the option.
                del os.environ[name]
        config = self._read_config_data(path)
        options = self.get_options()
        unknown = ", ".join(sorted(config.keys() - options.keys()))
        if unknown:
            raise AnsibleParserError(f"{self.NAME} has no option {unknown}. It has {', '.join(sorted(options))}.")
        self.templar.available_variables = self._vars or {}
        templates = config.keys() & {*CONNECTION, "subscriptions"}
        evaluated = {name: self.templar.template(config[name]) for name in templates}
        # Set all options again, because ansible-core before 2.19 ignores the type of an option that is set by
        # itself.
        self.set_options(direct=without_empty({**config, **evaluated}), var_options=self._vars)

    def _cached_or_listed(self, path: str, cache: bool) -> dict[str, Any]:
        """The accounts from Azure or from the cache, as plain data in both cases."""
        subscriptions = _inventory.checked_subscriptions(self.get_option("subscriptions"))
        connection = {
            name: self.get_option(name) if self.has_option(name) else option.get("default")
            for name, option in CONNECTION.items()
        }
        connection["subscription_id"] = os.environ.get("AZURE_SUBSCRIPTION_ID")
        if not self.get_option("cache"):
            return self._listed(connection, subscriptions)
        # Another caller may be able to read other accounts, so the key depends on the caller. The key is a hash.
        caller = {**connection, "secret": None}
        key = self.get_cache_key(json.dumps([path, caller, subscriptions]))
        cached: dict[str, Any] | None = self._cache.get(key) if cache else None
        if cached is None:
            cached = self._cache[key] = self._listed(connection, subscriptions)
        return cached

    def _listed(self, connection: Mapping[str, Any], subscriptions: list[str]) -> dict[str, Any]:
        folder = constants.DEFAULT_LOCAL_TMP  # type: ignore[attr-defined]
        begin_run(folder)
        with unlogged():
            listed = Cloud(connection, folder).listed(subscriptions)
        return {**listed, "accounts": _inventory.interleaved(map(_inventory.host_variables, listed["accounts"]))}

    def _warn(self, listed: Mapping[str, Any]) -> None:
        for unlisted in listed["unlisted"]:
            self.display.warning(not_listed(unlisted))
        if not listed["accounts"]:
            self.display.warning(
                "The caller can read no Batch account. Set subscriptions, or grant the caller a role that allows "
                "Microsoft.Batch/batchAccounts/read."
            )
        if shared := _inventory.shared_names(listed["accounts"]):
            names = ", ".join(sorted(shared))
            self.display.warning(f"Several accounts have the same name, so their hosts are named NAME.REGION: {names}.")

    def _populate(self, accounts: Iterable[_inventory.HostVariables], filters: Sequence[_inventory.HostFilter]) -> None:
        shared = _inventory.shared_names(accounts)
        group = functools.cache(self._group)
        constructs = (
            (self._set_composite_vars, self.get_option("compose")),
            (self._add_host_to_composed_groups, self.get_option("groups")),
            (self._add_host_to_keyed_groups, self.get_option("keyed_groups")),
        )
        strict = self.get_option("strict")
        group_names: dict[str, None] = {}
        for account in accounts:
            host = _inventory.host_name(account, shared)
            variables = {**_distrusted(account), **_CONNECTION}
            facts = {**variables, "inventory_hostname": host}
            if not _inventory.is_included(filters, functools.partial(self._holds, host, facts)):
                continue
            self.inventory.add_host(host)
            for name, value in variables.items():
                self.inventory.set_variable(host, name, value)
            for name in map(str.lower, _inventory.groups(account)):
                group_names[name] = None
                self.inventory.add_child(group(name), host)
            for construct, option in constructs:
                construct(option, facts, host, strict=strict)
        self._warn_of_shared_groups(group_names)

    def _warn_of_shared_groups(self, names: Iterable[str]) -> None:
        """Warn if names become the same group because Ansible replaces characters that it does not allow."""
        names_of_group: dict[str, list[str]] = {}
        for name in names:
            names_of_group.setdefault(self._sanitize_group_name(name), []).append(name)
        for group, together in sorted(names_of_group.items()):
            if len(together) > 1:
                self.display.warning(f"The group {group} has the accounts of several groups: {', '.join(together)}.")

    def _group(self, name: str) -> str:
        return str(self.inventory.add_group(self._sanitize_group_name(name)))

    def _holds(self, host: str, variables: dict[str, Any], condition: str | bool) -> bool:
        self.templar.available_variables = variables
        try:
            if _KNOWS_TRUST:
                return bool(self.templar.evaluate_conditional(condition))
            return bool(boolean(self.templar.template(f"{{% if {condition} %}}yes{{% else %}}no{{% endif %}}")))
        except Exception as error:
            raise AnsibleParserError(
                f"filters: the condition {condition!r} cannot be evaluated for the host {host}: {error}. Use "
                "`| default('')` for variables that not every host has."
            ) from None


def _note(path: str, failure: str) -> None:
    """Note whether the accounts could be listed: Ansible continues without the hosts of a source that it could not
    read."""
    files = RunFiles(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
    files.store({**(files.load(INVENTORIES, is_note=True) or {}), path: failure}, INVENTORIES, is_note=True)


def _distrusted(value: Any) -> Any:
    """Data from Azure, with strings that could be read as templates marked as unsafe."""
    if _KNOWS_TRUST:
        return value
    if isinstance(value, dict):
        return {_distrusted(name): _distrusted(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_distrusted(item) for item in value]
    if isinstance(value, str) and "{" in value:
        # ansible-core has deprecated this module.
        from ansible.utils.unsafe_proxy import wrap_var

        return wrap_var(value)
    return value
