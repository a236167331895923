# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page with all variables and options, and what it says about their names."""

from __future__ import annotations

from names_page import options, variables

# What the options of a role's variable are named in the module, without the words for the resource: `cmk_vault_sku`
# is the option `sku` of a vault.
RESOURCES = ("cmk_key_", "cmk_vault_", "cmk_audit_", "cmk_users_", "cmk_recover_", "cmk_drill_", "cmk_")
# A variable that names a resource is passed on to each module that needs the resource.
OF_RESOURCES = {"cmk_account_name", "cmk_key_name", "cmk_vault_name", "cmk_resource_group", "cmk_vault_resource_group"}
# A role switches to one key, and leaves another one.
OTHERS = {"cmk_new_key_identifier", "cmk_previous_key", "cmk_subscription_id"}


def test_a_variable_has_the_name_of_its_option() -> None:
    differing = {
        name: passed
        for name, _roles, _meaning, passed in variables()
        if name not in OF_RESOURCES | OTHERS
        and passed
        and not set(passed) & {name.removeprefix(prefix) for prefix in RESOURCES if name.startswith(prefix)}
    }

    assert differing == {}


def test_each_variable_and_option_has_a_meaning() -> None:
    assert all(meaning for _name, _roles, meaning, _options in variables())
    assert all(meaning for _name, _modules, meaning in options())
    assert {"cmk_key_version_mode", "cmk_unused_for"} <= {name for name, *_others in variables()}
