# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and modules in messages, marked as in Ansible's documentation: `O(vault_name)`, `O(force=true)`, and
`M(azbatch.cmk.keyvault_cmk_key)`.

A task of a role shows the variable of the option, and the role that does what the module does. Other tasks show the
names of the option and the module.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# The option may have a part, as in `O(rotation_policy.expiry_time)` or `O(exceptions[0].finding)`.
_MARKED = re.compile(r"\bO\((?P<option>\w+)(?P<part>[.\[][^=()]*)?(?:=(?P<value>[^()]*))?\)|\bM\((?P<module>[\w.]+)\)")
_TEXTS = ("msg", "remedy", "evidence")
_INNER = ("problems", "preflight", "causes", "restore_failure", "diagnosis")


@dataclass(frozen=True)
class Names:
    """What a message shows. `options` are the names of options, such as `cmk_vault_name`, `places` what follows an
    option with its value, such as ` in azbatch.cmk.provision`, and `modules` the names of roles by module."""

    options: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)

    def shown(self, text: str) -> str:
        return _MARKED.sub(self._of, text) if "(" in text else text

    def _of(self, found: re.Match[str]) -> str:
        module, option, value = found["module"], found["option"], found["value"]
        if module is not None:
            return self.modules.get(module, module)
        name = f"{self.options.get(option, option)}{found['part'] or ''}"
        return f"{name}{'' if value is None else f': {value}'}{self.places.get(option, '')}"

    def in_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """The result of a task with these names in its messages. Other values are not changed."""
        shown = {name: self.shown(result[name]) for name in _TEXTS if isinstance(result.get(name), str)}
        for name in ("warnings", *_INNER):
            if result.get(name):
                shown[name] = self._inner(result[name])
        return {**result, **shown}

    def _inner(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.shown(value)
        if isinstance(value, dict):
            return self.in_result(value)
        return [self._inner(one) for one in value] if isinstance(value, list | tuple) else value


def messages(result: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a result that may have marks."""
    return {name: result[name] for name in (*_TEXTS, *_INNER, "warnings") if name in result}


def has_marks(result: Mapping[str, Any]) -> bool:
    return _MARKED.search(str(messages(result))) is not None


def plain(text: str) -> str:
    """The text with the names of the options and modules."""
    return Names().shown(text)
