# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every request of every role answered wrongly, late or not at all: the same run again ends as an undisturbed one.

By default a few of them are tried. PROOF=all tries each kind of disturbance at each request, which takes hours;
`make proof` does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cases import CASES, DISTURBANCES, Case, assert_answers, undisturbed
from harness import Ansible
from role_runs import play_role, run_role, standing
from service import Service

ALL = os.environ.get("PROOF") == "all"
# In the short version: each case and each kind of disturbance at least once, at requests all over the run.
FEW = [(name, kind, 3 + 5 * n) for n, (name, kind) in enumerate(zip([*CASES, *CASES], DISTURBANCES, strict=False))]


def trials() -> Iterator[Any]:
    if ALL:
        for name in CASES:
            for kind in DISTURBANCES:
                yield pytest.param(name, kind, None, id=f"{name}, {kind}")
    else:
        for name, kind, n in FEW:
            yield pytest.param(name, kind, n, id=f"{name}, {kind}")


@pytest.mark.parametrize(("name", "kind", "at"), list(trials()))
def test_disturbed(ansible: Ansible, service: Service, name: str, kind: str, at: int | None) -> None:
    expected = undisturbed(ansible, service, name)
    requests = range(expected.requests) if at is None else [at % expected.requests]
    for n in requests:
        service.sandbox.control.reset()
        disturb(ansible, service, CASES[name], {**DISTURBANCES[kind], "skip": n})
        left = without_one_more_version(standing(service), expected.standing)
        assert left == expected.standing, f"{kind} at request {n + 1}"


def disturb(ansible: Ansible, service: Service, case: Case, fault: dict[str, Any]) -> None:
    wish = case.begin(service)
    control = service.sandbox.control
    control.fault(**fault)
    disturbed = run_role(ansible, case.role, **wish)
    (met,) = control.call("GET", "/faults")["faults"]
    control.call("DELETE", "/faults")
    assert met["struck"] or not fault["skip"], "the run was too short"
    assert_answers(service, case)
    assert disturbed.rc in (0, 2), disturbed.output
    assert "Traceback" not in disturbed.output
    play_role(ansible, case.role, **wish)
    assert_answers(service)


def without_one_more_version(found: Any, expected: Any) -> Any:
    """A version that was made although the answer said otherwise stands beside the one that is used."""
    if found == expected:
        return found
    vaults = found["keys"]
    for vault, keys in vaults.items():
        for key, versions in keys.items():
            wanted = expected["keys"].get(vault, {}).get(key)
            if key != "deleted" and wanted is not None and len(versions) == len(wanted) + 1:
                return _renumbered(found, vault, key, len(versions))
    return found


def _renumbered(found: Any, vault: str, key: str, newest: int) -> Any:
    """Without the version before the newest, whose place the newest takes."""
    before, last = f"<{vault} {key} {newest - 1}>", f"<{vault} {key} {newest}>"

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: renamed(one) for name, one in value.items()}
        if isinstance(value, list):
            return [renamed(one) for one in value if not (isinstance(one, dict) and one.get("version") == before)]
        return re.sub(re.escape(last), before, value) if isinstance(value, str) else value

    return renamed(found)
