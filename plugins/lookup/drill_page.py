# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: drill_page
short_description: HTML page of the report of a drill
description:
  - Returns the report of a drill as an HTML page with a timeline. The playbook azbatch.cmk.drill writes the page.
  - The page needs no network, no script and no other file.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  _terms:
    description:
      - The report, which has the values of C(drill) of M(azbatch.cmk.batch_encryption_drill), C(summary), and the
        C(job) and C(user) of AWX or null.
    type: list
    elements: dict
    required: true
  folder:
    description:
      - Folder of the controller. The page compares the drill with earlier drills of the account whose JSON reports are
        in the folder. Other files are ignored.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Write the report of a drill as a page
  ansible.builtin.copy:
    content: "{{ lookup('azbatch.cmk.drill_page', report, folder='cmk-drill') }}"
    dest: cmk-drill/drill.html
    mode: "0640"
  vars:
    report: "{{ cmk_result.drill | combine({'summary': cmk_result.summary, 'job': none, 'user': none}) }}"
"""

RETURN = r"""
_raw:
  description: The page.
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.azbatch.cmk.plugins.module_utils._audit.drill_page import as_page, earlier


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        folder = Path(self.get_option("folder"))
        return [as_page(report, earlier(report, folder)) for report in terms]
