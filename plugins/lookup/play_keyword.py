# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: play_keyword
short_description: Value of a play keyword from the variables of the playbooks
description:
  - Returns the value of a play keyword from its variable, as the playbooks of this collection do. If the variable is
    missing or blank, the default is returned. AWX passes a blank value for a survey question that was left blank.
  - If Ansible would misinterpret the value, or would run the play on no host without an error, the lookup fails and
    names the variable.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  _terms:
    description:
      - Name of the keyword. V(hosts) uses C(cmk_hosts), C(cmk_hosts_required) and the limit. V(serial) uses
        C(cmk_serial). V(max_fail_percentage) uses C(cmk_max_fail_percentage).
      - V(is_left_alone) returns whether the playbook has left the account of the host alone.
        V(left_alone) returns the hosts that fail the run because earlier plays have left their accounts alone, or a
        pattern that matches no host.
      - V(set_stats) uses C(cmk_set_stats) and returns whether the run passes on its result, by default in AWX only. A
        run in check mode does not pass on its result. V(passes_on) returns whether it may pass on anything. In AWX,
        that includes the purpose of a forced version, also without the result. V(report) returns the result so far.
    type: list
    elements: str
    required: true
    choices:
      - hosts
      - serial
      - max_fail_percentage
      - is_left_alone
      - left_alone
      - passes_on
      - report
      - set_stats
  default:
    description: The value of V(serial) or V(max_fail_percentage) if its variable is missing or blank.
    type: raw
"""

EXAMPLES = r"""
- name: Rotate in waves that a survey can set, in a custom playbook
  hosts: "{{ lookup('azbatch.cmk.play_keyword', 'hosts') }}"
  gather_facts: false
  strategy: linear
  serial: "{{ query('azbatch.cmk.play_keyword', 'serial', default=[1, '25%']) }}"
  max_fail_percentage: "{{ lookup('azbatch.cmk.play_keyword', 'max_fail_percentage', default=0) }}"
  tasks:
    - name: Rotate
      ansible.builtin.import_role:
        name: azbatch.cmk.rotate
"""

RETURN = r"""
_raw:
  description:
    - The pattern of V(hosts), the percentage or the boolean, or one item for each size of a wave.
  type: list
  elements: raw
"""

from typing import Any

from ansible import constants
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError
from ansible_collections.azbatch.cmk.plugins.plugin_utils import _play_keywords as keywords
from ansible_collections.azbatch.cmk.plugins.plugin_utils._left_alone import (
    failing,
    left_alone_accounts,
    playbook_number,
)


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        given = variables or {}
        # Ansible sets its constants at run time, so mypy does not know them.
        files = RunFiles(constants.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]
        if terms == ["is_left_alone"]:
            # Each task of each host asks this, so no options are read.
            here = given["inventory_hostname"], playbook_number(files)
            return [here in [(note["host"], note["playbook"]) for note in left_alone_accounts(files)]]
        self.set_options(direct=kwargs)

        def value_of(name: str) -> Any:
            return self._templar.template(given.get(name))  # type: ignore[union-attr] # Ansible sets it

        def matching(pattern: str) -> list[str]:
            lookup = lookup_loader.get("ansible.builtin.inventory_hostnames", self._loader, self._templar)
            return list(lookup.run([pattern], variables=given))

        try:
            [keyword] = terms
            if keyword == "hosts":
                # Used at the end of the run. An invalid value is an error before the first change.
                keywords.left_alone_fails(value_of(keywords.LEFT_ALONE_FAILS))
                keywords.require_report_folder(value_of(keywords.REPORT_FILE))
                required = keywords.flag("cmk_hosts_required", value_of("cmk_hosts_required"), default=True)
                limit = given.get("ansible_limit")
                listed = given.get("groups", {}).get("all", ())
                # Without an account, the role reports that cmk_hosts is not set.
                is_named = not keywords.is_blank(given.get("cmk_account_name"))
                is_for_localhost = is_named and keywords.is_blank(value_of("cmk_hosts"))
                extra = load_extra_vars(self._loader).get("cmk_account_name")  # type: ignore[arg-type] # Ansible sets it
                if is_for_localhost and any(host != "localhost" for host in listed):
                    # Together, they would be refused for several hosts.
                    first = "" if keywords.is_blank(extra) else "remove the extra variable cmk_account_name, and "
                    Display().warning(
                        f"cmk_hosts is not set, so the play runs only on localhost, and not on the {len(listed)} hosts "
                        f"of the inventory. To use them, {first}set cmk_hosts to a pattern, such as all."
                    )
                wanted = value_of("cmk_hosts")
                if not keywords.is_blank(wanted):
                    # AWX has read the inventory before the job.
                    may_be_empty = required or keywords.in_awx(given) or matching(keywords.pattern_of(wanted))
                    is_empty = not may_be_empty and not given.get("groups", {}).keys() - {"all", "ungrouped"}
                    listed_by = files.load(keywords.INVENTORIES, is_note=True) or {}
                    keywords.require_inventory(listed_by, is_empty=is_empty)
                pattern = keywords.hosts(wanted, limit, required=required, matching=matching)
                keywords.require_own_account(extra, pattern, limit, matching)
                return [pattern]
            if keyword == "serial":
                return keywords.serial(value_of("cmk_serial"), self.get_option("default"))
            if keyword == "left_alone":
                return [failing(files) or ["!all"]]
            if keyword == "clean_up":
                by_value = files.load(keywords.CLEAN_UP, str(playbook_number(files)), is_note=True) or {}
                return [list(by_value.values()) or ["!all"]]
            if keyword == "max_fail_percentage":
                given_or_not = value_of("cmk_max_fail_percentage")
                return [keywords.max_fail_percentage(given_or_not, self.get_option("default"))]
            sets_stats = keywords.sets_stats(value_of("cmk_set_stats"), given)
            if keyword == "passes_on":
                return [sets_stats or (keywords.in_awx(given) and not given.get("ansible_check_mode"))]
            if keyword == "report":
                return [(files.load(keywords.REPORT, is_note=True) or {}) if sets_stats else {}]
            return [sets_stats]
        except CmkError as wrong:
            raise AnsibleLookupError(str(wrong)) from wrong
