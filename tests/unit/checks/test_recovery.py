# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the allowed repairs can recover an account. All reasons against it are reported in one error."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, NEW, NOW, VAULT_ID, account, key, policy, symptoms, vault

from ansible_collections.azbatch.cmk.plugins.module_utils._checks.diagnosis import AccountState
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.recovery import require_recoverable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, Rejected, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.account import NotShown, availability

ALL = ("vault", "network", "key", "access")
LOST = Rejected("Batch refuses.", azure={"code": "KeyVaultKeyNotAccessible"})
UNREACHABLE = Unavailable("No response.", code="vault_unreachable")
DISABLED, EXPIRED = key(enabled=False), key(exp=NOW - 1)
CLOSED = vault(policy(), networkAcls={"bypass": "None", "defaultAction": "Deny"})
BLOCKED = Denied("The firewall blocks the caller.", code="network_denied")
DELETED_VAULT = {"properties": {"vaultId": VAULT_ID, "scheduledPurgeDate": "2026-09-01T00:00:00Z"}}
GONE: dict[str, Any] = {"vault": None, "bundle": UNREACHABLE, "versions": None}


def survey(
    reason: CmkError | None = LOST, *versions: dict[str, Any], was_refused: bool = False, **problems: Any
) -> AccountState:
    """An account that is pinned to the version NEW, and its problems."""
    state = {"available": availability(reason), "unavailable_reason": reason, "is_report": True}
    found = symptoms(f"{KEY}/{NEW}", *versions, **problems, **state)
    return AccountState(account(key=f"{KEY}/{NEW}"), reason, found, was_refused)


def unusable(reason: CmkError | None = LOST, **more: Any) -> AccountState:
    return survey(reason, DISABLED, bundle=DISABLED, **more)


def refused(observed: AccountState, allowed: tuple[str, ...] = ALL) -> CmkError:
    with pytest.raises(CmkError) as failed:
        require_recoverable("mybatch", observed, allowed)
    return failed.value


@pytest.mark.parametrize(
    ("observed", "allowed"),
    [
        pytest.param(unusable(), ("key",), id="version disabled"),
        pytest.param(survey(LOST, EXPIRED, bundle=EXPIRED), ("key",), id="version expired"),
        pytest.param(survey(bundle=None, versions=[], deleted_key=key()), ("key",), id="key deleted"),
        pytest.param(survey(**GONE, deleted_vault=DELETED_VAULT), ("vault",), id="vault deleted"),
        pytest.param(survey(vault=CLOSED), ("network",), id="firewall"),
        pytest.param(survey(vault=vault()), ("access",), id="access revoked"),
        pytest.param(unusable(vault=vault()), ("key", "access"), id="several"),
        pytest.param(survey(vault=CLOSED, bundle=BLOCKED, versions=None), ("network",), id="blocked by the firewall"),
    ],
)
def test_an_account_that_the_allowed_repairs_recover(observed: AccountState, allowed: tuple[str, ...]) -> None:
    require_recoverable("mybatch", observed, allowed)

    for missing in allowed:
        failure = refused(observed, tuple(one for one in ALL if one != missing))
        assert (failure.code, failure.facts["option"]) == ("repair_not_allowed", "allowed_repairs")
        assert missing in failure.msg


@pytest.mark.parametrize(
    ("observed", "warned"),
    [
        pytest.param(survey(**GONE, deleted_vault=DELETED_VAULT), True, id="vault deleted"),
        pytest.param(survey(bundle=None, versions=[], deleted_key=key()), True, id="key deleted"),
        pytest.param(unusable(), False, id="version disabled"),
    ],
)
def test_a_cause_that_hides_other_causes_has_a_warning(observed: AccountState, warned: bool) -> None:
    warnings = require_recoverable("mybatch", observed, ALL)

    assert ["more repairs may" in warning for warning in warnings] == [True] * warned


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(survey(principals=()), id="no identity"),
        pytest.param(survey(**GONE), id="vault purged"),
        pytest.param(survey(bundle=None, versions=[]), id="key purged"),
    ],
)
def test_an_account_that_nothing_recovers(observed: AccountState) -> None:
    failure = refused(observed)

    assert failure.code == "not_recoverable"
    [cause] = failure.facts["causes"]
    assert failure.msg.splitlines()[:2] == [
        "The Batch account mybatch is not available. This task changed nothing.",
        f"{cause['evidence']} {cause['remedy']}",
    ]


def test_all_reasons_are_reported() -> None:
    failure = refused(unusable(principals=(), vault=CLOSED), ("access",))

    assert failure.code == "not_recoverable"
    for part in ("identity", "Add network and key to allowed_repairs", "is disabled", "firewall"):
        assert part in str(failure)
    assert [cause["name"] for cause in failure.facts["causes"]] == [
        "identity_missing",
        "network_closed",
        "version_unusable",
    ]


@pytest.mark.parametrize("what", ["versions", "assignments"])
def test_data_that_may_show_another_cause_has_to_be_readable(what: str) -> None:
    error = Denied("You may not read it.")
    failure = refused(survey(vault=vault(rbac=True), **{"assignments": {}, what: error}))

    assert (failure.code, error.msg in failure.msg) == ("permission_denied", True)
    # The error may be in a cache, so it is not changed.
    assert error.msg == "You may not read it."


def test_a_blocked_caller_cannot_repair_the_key() -> None:
    said = Rejected("No key.", azure={"code": "KeyVaultKeyNotAccessible", "message": "The version is disabled."})
    observed = survey(said, vault=CLOSED, bundle=BLOCKED, versions=None)

    assert refused(observed).code == "network_denied"


@pytest.mark.parametrize("was_refused", [True, False])
def test_a_blocked_caller_may_wait_for_a_repair_of_others_that_the_pools_confirm(
    was_refused: bool,
) -> None:
    recent = {**vault(policy()), "systemData": {"lastModifiedAt": "2026-05-28T20:26:00Z"}}
    observed = survey(was_refused=was_refused, vault=recent, bundle=BLOCKED, versions=None)

    if was_refused:
        assert require_recoverable("mybatch", observed, ALL) == ()
    else:
        assert refused(observed).code == "network_denied"
        assert refused(observed).msg.endswith("The vault allows trusted Microsoft services.")


@pytest.mark.parametrize(
    ("changed_at", "is_refused"), [("2026-05-28T20:26:00Z", False), ("2026-05-01T00:00:00Z", True)]
)
def test_an_unavailable_account_without_a_cause(changed_at: str, is_refused: bool) -> None:
    """It may become available again if the vault was changed a few minutes ago."""
    observed = survey(vault={**vault(policy()), "systemData": {"lastModifiedAt": changed_at}})

    if is_refused:
        failure = refused(observed)
        assert (failure.code, "no cause was found" in failure.msg) == ("account_unavailable", True)
    else:
        assert require_recoverable("mybatch", observed, ALL) == ()


def test_an_account_that_may_be_unavailable_is_repaired() -> None:
    doubtful = NotShown(["The version is disabled."])

    require_recoverable("mybatch", unusable(doubtful), ALL)
    assert "may not be available" in refused(unusable(doubtful), ()).msg


def test_availability_that_the_caller_may_not_read() -> None:
    hidden = Denied("You may not.", azure={"code": "AuthorizationFailed"})

    assert refused(unusable(hidden)).code == "availability_unknown"


def test_an_available_account_is_not_repaired() -> None:
    assert require_recoverable("mybatch", survey(None), ALL) == ()
    (warning,) = require_recoverable("mybatch", survey(None, vault=vault()), ())

    assert all(part in warning for part in ("access_missing", "so nothing is repaired"))


@pytest.mark.parametrize("reason", [None, LOST])
def test_an_account_on_a_microsoft_managed_key(reason: CmkError | None) -> None:
    observed = AccountState(account(), reason)

    if reason is None:
        assert require_recoverable("mybatch", observed, ALL) == ()
    else:
        assert refused(observed).code == "account_unavailable"
