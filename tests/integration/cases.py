# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cases for runs with an injected fault: a role, its initial resources, and the end state of a run without a fault."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness import writes
from role_runs import QUARTER, end_state
from service import Service, reset

# Whether to run the full reliability suite, as `make proof` does.
PROOF_OF_ALL = os.environ.get("PROOF") == "all"
# A firewall that allows no address except this machine.
CLOSED = {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "127.0.0.1"}], "virtualNetworkRules": []}
# Disables unused versions at once, without the margin of seven days.
DISABLE = {"cmk_unused_versions": "disable", "cmk_unused_for": "P0D"}
AT_ONCE = {"cmk_unused_for": "P0D"}
BUSY = {"error": {"code": "Busy", "message": "Try again."}}
# Faults of the sandbox, by name.
_ONCE: dict[str, dict[str, Any]] = {
    "throttled": {"answer": {"status": 429, "headers": {"Retry-After": "1"}, "body": BUSY}},
    "500": {"answer": {"status": 500, "body": BUSY}},
    "503": {"answer": {"status": 503, "body": BUSY}},
    "500 although it took effect": {"answer": {"status": 500, "body": BUSY}, "handled": True},
    "dropped before": {"drop": "before"},
    "dropped after": {"drop": "after"},
    "cut off": {"truncate": 5},
    "token expired": {"expire_tokens": True},
}
# Faults that occur more often than the SDKs retry.
_OFTEN = {f"{name} again and again": {**_ONCE[name], "times": 5} for name in ("503", "dropped before", "dropped after")}
DISTURBANCES = {**_ONCE, **_OFTEN}


@dataclass(frozen=True)
class Case:
    role: str
    # Creates the resources that the run begins with, and returns variables of the run.
    begin: Callable[[Service], dict[str, Any]]
    # The number of writes of a run without faults.
    writes: int
    # Whether the account is available before the run. If so, the account must also be available after a failed run.
    answers: bool = True


def nothing(service: Service) -> dict[str, Any]:
    return {"cmk_vault_authorization": "access_policy"}


def an_identity(service: Service) -> dict[str, Any]:
    service.make_identity()
    return {"cmk_vault_authorization": "rbac", "cmk_identity_id": service.identity_id()}


def an_old_version(service: Service) -> dict[str, Any]:
    """The account uses the second version. Nothing uses the first version any more. The run disables both."""
    service.on_key()
    service.point(service.make_key().id)
    service.sandbox.control.advance(QUARTER)
    return {"cmk_key_max_version_age": "P90D", **DISABLE}


def another_vault(service: Service) -> dict[str, Any]:
    _, first = service.on_key(rbac=True)
    service.make_vault("vault-two", rbac=True)
    other = service.make_key("other", "vault-two").id
    return {"cmk_new_key_identifier": other, "cmk_disable_key": first.rpartition("/")[0], **AT_ONCE}


def an_account_on_its_key(service: Service) -> dict[str, Any]:
    service.on_key()
    return {"cmk_revert_key": "disable", "cmk_revert_access": "revoke", **AT_ONCE}


def a_lost_version(service: Service) -> dict[str, Any]:
    principal, _ = service.on_key(rbac=True)
    service.disable()
    service.revoke(principal)
    return {}


def a_lost_vault(service: Service) -> dict[str, Any]:
    service.on_key()
    service.keys().begin_delete_key("key1").wait()
    service.delete_vault()
    return {}


CASES = {
    "provision": Case("provision", nothing, 5),
    "provision, user-assigned": Case("provision", an_identity, 4),
    "rotate by age": Case("rotate", an_old_version, 6),
    "switch": Case("switch", another_vault, 4),
    "revert": Case("revert", an_account_on_its_key, 4),
    "recover a version": Case("recover", a_lost_version, 2, answers=False),
    "recover a vault": Case("recover", a_lost_vault, 3, answers=False),
}


@dataclass(frozen=True)
class Undisturbed:
    # The state of the resources after the run.
    end_state: Any
    # The number of its requests.
    requests: int


# By the way to run as well, because a playbook and a run in this process send different numbers of requests.
_undisturbed: dict[tuple[Callable[..., Any], str], Undisturbed] = {}


def undisturbed(play: partial[Any], service: Service, name: str) -> Undisturbed:
    """The end state and the number of requests of a run without a fault, by `play`, which has to succeed. Resets the
    sandbox after the run."""
    key = (play.func, name)
    if key not in _undisturbed:
        case = CASES[name]
        wanted = case.begin(service)
        since = service.sandbox.control.last
        play(case.role, **wanted)
        requests = service.sandbox.control.requests(since)
        assert len(writes(requests)) == case.writes
        assert service.is_available()
        # A request to a host that does not exist has only a CONNECT in the log. It is not counted.
        met = [one for one in requests if one["method"] != "CONNECT"]
        _undisturbed[key] = Undisturbed(end_state(service), len(met))
        reset(service.sandbox.control)
    return _undisturbed[key]


def assert_answers(service: Service, case: Case | None = None) -> None:
    if case is None or case.answers:
        assert all(service.is_available(name) for name in service.accounts())
