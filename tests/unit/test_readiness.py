# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused before the first task of a role, with the real plans and an Azure that is a few dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from documents import (
    CALLER,
    DAY,
    DEFINITIONS,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
    account,
    deleted_vault,
    diagnosed,
    evidence,
    identity_id,
    key,
    listed,
    not_listed,
    observed_key,
    policy,
    system_assigned,
    user_assigned,
    vault,
    visible,
)
from wishes import check_before, rotation

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cache import Cache
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.rights import Rights
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import rights
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.rights import Needed, Right, VaultRight
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import value_or_error
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    InvalidOption,
    NotFound,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import key_of
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import document as account_document
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import document as encryption_document
from ansible_collections.azbatch.cmk.plugins.modules import batch_encryption_info

PINNED_OLD, PINNED_NEW = f"{KEY}/{OLD}", f"{KEY}/{NEW}"
ELSEWHERE = f"https://vault2.vault.azure.net/keys/other/{OLD}"
UNAVAILABLE = Rejected("Azure says: (Forbidden) the key cannot be read.")
HIDDEN = Denied("Azure says: (AuthorizationFailed) no.", azure={"code": "AuthorizationFailed"})
EVERYTHING = [{"actions": ["*"], "dataActions": ["*"]}]
READS = [{"actions": ["*/read"], "dataActions": ["*/read"]}]


def versions(**newest: Any) -> tuple[dict[str, Any], ...]:
    return key(OLD, created=NOW - 100 * DAY), key(MIDDLE, created=NOW - 50 * DAY), key(NEW, **newest)


def policies(*others: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """A vault whose keys the caller may manage."""
    return vault(*others, policy("caller", ["all"]), **properties)


@dataclass
class Azure:
    """What each service reads. Nothing can be written: there are no such methods."""

    account: dict[str, Any] | None = None
    unavailable_reason: CmkError | None = None
    vault: dict[str, Any] | None = field(default_factory=lambda: policies(policy()))
    deleted_vault: dict[str, Any] | None = None
    deleted_key: dict[str, Any] | None = None
    keys: tuple[dict[str, Any], ...] = field(default_factory=versions)
    others: tuple[dict[str, Any], ...] = ()
    unlisted: tuple[str, ...] = ()
    checks: dict[str, Any] = field(default_factory=dict)
    diagnosis: dict[str, Any] | None = None
    allowed: Any = field(default_factory=lambda: EVERYTHING)
    is_rehearsal: bool = False
    # What was asked, and the rights that were asked for.
    asked: list[str] = field(default_factory=list)
    needed: list[Needed] = field(default_factory=list)

    def service(self, name: str, read: Any, **methods: Any) -> SimpleNamespace:
        def noted(goal: Any) -> Any:
            self.asked.append(name)
            return read(goal)

        return SimpleNamespace(read=noted, **methods)

    @property
    def visible(self) -> dict[str, Any]:
        own = [self.account] if self.account else []
        return visible(*own, *self.others, unlisted=self.unlisted)

    @property
    def encryption(self) -> Any:
        def read(_goal: Any) -> dict[str, Any]:
            return {
                "account": self.account,
                "unavailable_reason": self.unavailable_reason,
                "evidence": evidence(**self.checks),
            }

        return self.service(
            "encryption",
            read,
            require_known_availability=self._require_known_availability,
            require_available=self._require_answer,
            survey=self._survey,
        )

    def _require_answer(self, group: str, name: str) -> None:
        self.asked.append("availability")
        assert (group, name) == ("rg-batch", "mybatch")
        if self.unavailable_reason is HIDDEN:
            raise account_document.availability_unknown(name, self.unavailable_reason)
        if self.unavailable_reason is not None:
            raise encryption_document.account_unavailable(name, key_of(self.account or {}), self.unavailable_reason)

    def _survey(self, group: str, name: str, *, diagnose: bool) -> dict[str, Any]:
        assert (group, name, diagnose) == ("rg-batch", "mybatch", True)
        if isinstance(self.account, CmkError):
            raise self.account
        return {"account": self.account, "unavailable_reason": self.unavailable_reason, "diagnosis": self.diagnosis}

    def _require_known_availability(self, group: str, name: str) -> None:
        self.asked.append("availability")
        assert (group, name) == ("rg-batch", "mybatch")
        if self.unavailable_reason is HIDDEN:
            raise HIDDEN

    @property
    def accounts(self) -> Any:
        regions = {"regions": ["westeurope"], "group": {"location": "westeurope"}}
        found = self.service("accounts", lambda _goal: {"account": self.account, **regions})
        found.seen = self._seen
        return found

    def _seen(self, group: str, name: str, *, refresh_if: Any, group_may_be_missing: bool = False) -> Any:
        assert (group, name) == ("rg-batch", "mybatch")
        self.group_may_be_missing, self.refresh_if = group_may_be_missing, refresh_if
        return self.account

    @property
    def vaults(self) -> Any:
        known = {"caller": CALLER, "regions": ["westeurope"], "group": {"location": "westeurope"}}
        return self.service(
            "vaults",
            lambda _goal: {"vault": self.vault, "deleted": self.deleted_vault, **known},
            get=lambda _group, _name: self.vault,
            recent=lambda _name, _group: self.vault,
        )

    @property
    def keys_service(self) -> Any:
        return self.service(
            "keys", lambda _goal: observed_key(*self.keys, visible=self.visible, deleted=self.deleted_key)
        )

    @property
    def access(self) -> Any:
        def read(goal: Any) -> dict[str, Any]:
            self.asked.append(f"access of {goal.principal_id or goal.identity_id} to {goal.vault}")
            found = {"vault": self.vault, "principal_id": goal.principal_id or OTHER, "assignments": []}
            return {**found, "definitions": DEFINITIONS, "visible": self.visible}

        return self.service("access", read)

    @property
    def listing(self) -> Any:
        def read(goal: Any) -> dict[str, Any]:
            self.asked.append(f"users of {goal.vault}")
            return {"accounts": [], "unlisted": [not_listed(one) for one in self.unlisted]}

        return self.service("listing", read)

    @property
    def rights(self) -> Any:
        return SimpleNamespace(require=self._require)

    def _require(self, needed: Any) -> tuple[str, ...]:
        self.needed = list(needed)
        rehearsal = object() if self.is_rehearsal else None
        cache = Cache(RunFiles(None), lambda: "me")
        session: Any = SimpleNamespace(subscription_id=SUBSCRIPTION, rehearsal=rehearsal, cache=cache)
        resources: Any = SimpleNamespace(permissions=lambda _scope: self.allowed)
        return Rights(session, resources, self.vaults).require(self.needed)


class Cloud:
    """The services by the names that they have for a module."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure

    def change_nothing(self) -> None:
        pass

    def read_ahead(self, *reads: Any) -> None:
        """What is not read ahead is read later."""

    def sign_in_to_key_vault(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._azure, "keys_service" if name == "keys" else name)


def on(used: str | None, identity: dict[str, Any] | None = None) -> dict[str, Any]:
    return account(key=used, identity=identity or system_assigned())


def check(role: str, azure: Azure, **options: Any) -> Outcome:
    cloud: Any = Cloud(azure)
    return batch_encryption_info.run(check_before(role, **options), cloud)


def refused(role: str, azure: Azure, **options: Any) -> CmkError:
    with pytest.raises(CmkError) as failed:
        check(role, azure, **options)
    # The caller's rights are the last thing that is asked for, so that all else has been looked at by then.
    assert failed.value.code == "permission_denied" or azure.needed == []
    return failed.value


def needs(role: str, azure: Azure, **options: Any) -> list[str]:
    """The rights that a caller lacks who may only read."""
    azure.allowed = READS
    outcome = value_or_error(lambda: check(role, azure, **options), Denied)
    if isinstance(outcome, Outcome):
        return []
    assert outcome.code == "permission_denied"
    return [one["action"] for one in outcome.facts["missing_rights"]]


def planned(azure: Azure) -> list[str]:
    """The writes whose rights were asked for, by their actions: each has one that is no read."""
    return [right.action for right in azure.needed if not right.action.endswith("/read")]


WRITE = "Microsoft.Batch/batchAccounts/write"
VAULTS, ASSIGNMENTS = "Microsoft.KeyVault/vaults", "Microsoft.Authorization/roleAssignments"
POLICIES = f"{VAULTS}/accessPolicies/write"
CREATE_KEY, UPDATE_KEY = f"{VAULTS}/keys/create/action", f"{VAULTS}/keys/update/action"
SET_ROTATION = f"{VAULTS}/keyrotationpolicies/write"
ASSIGN = f"{ASSIGNMENTS}/write"
ASSIGN_IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"
TO_MOVE = [*rights.to_set_encryption("rg-batch", "mybatch")]
EACH_ROLE = pytest.mark.parametrize("role", ["provision", "rotate", "revert"])


# All roles


@EACH_ROLE
@pytest.mark.parametrize("option", ["vault_name", "key_name"])
def test_a_check_needs_the_names_of_all(role: str, option: str) -> None:
    with pytest.raises(InvalidOption) as failed:
        check(role, Azure(on(KEY)), **{option: None})

    assert failed.value.facts["option"] == option


def test_ansible_requires_the_names_of_the_account() -> None:
    required = {name for name, option in batch_encryption_info.ARGUMENTS.items() if option.get("required")}

    assert required == {"resource_group", "account_name"}


def test_a_malformed_name_is_refused() -> None:
    for role in ("provision", "rotate", "revert", "recover"):
        assert refused(role, Azure(on(KEY)), account_name="my-batch").facts["option"] == "account_name"
    assert refused("provision", Azure(), vault_name="v").facts["option"] == "vault_name"
    assert refused("provision", Azure(), key_name="my_key").facts["option"] == "key_name"


@pytest.mark.parametrize("role", ["rotate", "revert"])
def test_an_account_that_is_missing(role: str) -> None:
    assert refused(role, Azure()).code == "account_not_found"
    azure = Azure()
    skipped = check(role, azure, missing="skip", previous_key="disable")

    assert (skipped.changed, skipped.after["exists"]) == (False, False)
    assert "mybatch" in skipped.warnings[0]
    assert azure.group_may_be_missing
    # Nothing is looked at.
    assert azure.asked == []


@pytest.mark.parametrize("missing", ["fail", "skip"])
def test_an_account_that_is_to_be_created_may_be_missing_and_its_group_may_not(missing: str) -> None:
    azure = Azure()

    assert check("provision", azure, missing=missing).after == {"exists": False}
    assert not azure.group_may_be_missing


@EACH_ROLE
def test_the_account_is_reported_as_it_is(role: str) -> None:
    told = check(role, Azure(on(PINNED_NEW))).after

    assert (told["exists"], told["key_identifier"], told["principal_ids"]) == (True, PINNED_NEW, [PRINCIPAL])
    assert "available" not in told
    assert ("previous_key_identifier" in told) is (role == "revert")


@EACH_ROLE
@pytest.mark.parametrize(
    ("used", "is_read_again"),
    [(KEY, False), (PINNED_OLD.upper().replace("HTTPS", "https"), False), (f"{KEY}2", True), (ELSEWHERE, True)],
)
def test_an_account_on_another_key_is_read_again(role: str, used: str, is_read_again: bool) -> None:
    """The run's list may show it as it was."""
    azure = Azure(on(KEY))
    check(role, azure)

    assert azure.refresh_if(on(used)) is is_read_again
    assert azure.refresh_if(on(None)) is True


@EACH_ROLE
def test_in_check_mode_missing_rights_are_warnings(role: str) -> None:
    """Another caller may run it."""
    azure = Azure(on(None if role == "provision" else PINNED_OLD), allowed=READS, is_rehearsal=True)
    outcome = check(role, azure, follow_latest=True)

    assert any(WRITE in warning for warning in outcome.warnings)
    assert outcome.after["exists"]


# Provision


def provision(azure: Azure, **options: Any) -> list[str]:
    assert check("provision", azure, **options).warnings == ()
    return planned(azure)


def test_provisioning_from_nothing() -> None:
    azure = Azure(vault=None, keys=())

    assert provision(azure) == [f"{VAULTS}/write", WRITE, ASSIGN, CREATE_KEY, WRITE]
    # Keys and access of a vault that is not there cannot be read.
    assert azure.asked[:2] == ["vaults", "accounts"]
    assert not {"keys", "access"} & set(azure.asked)
    # Nothing is there to be moved, so nothing has to be available.
    assert "availability" not in azure.asked


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        pytest.param({}, [f"{ASSIGNMENTS}/write", CREATE_KEY], id="rbac by default"),
        pytest.param({"authorization": "rbac"}, [f"{ASSIGNMENTS}/write", CREATE_KEY], id="rbac"),
        # The creator of a vault with access policies may use its keys.
        pytest.param({"authorization": "access_policy"}, [POLICIES], id="access policies"),
        pytest.param(
            {"rotation_policy": rotation(time_after_create="P90D")},
            [f"{ASSIGNMENTS}/write", CREATE_KEY, SET_ROTATION],
            id="a rotation policy",
        ),
    ],
)
def test_rights_to_provision_from_nothing(options: dict[str, Any], needed: list[str]) -> None:
    assert needs("provision", Azure(vault=None, keys=()), **options) == [
        *[f"{VAULTS}/write", WRITE],
        *needed,
        # Of the account, which is not there yet.
        WRITE,
    ]


def test_rights_to_provision_with_a_user_assigned_identity() -> None:
    needed = needs("provision", Azure(vault=None, keys=()), identity_id=identity_id())

    assert "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action" in needed
    assert f"{ASSIGNMENTS}/write" in needed


def test_the_group_of_the_vault_is_that_of_the_account_unless_another_one_is_named() -> None:
    for options, group in (({}, "rg-batch"), ({"vault_resource_group": "rg-keys"}, "rg-keys")):
        azure = Azure(vault=None, keys=())
        check("provision", azure, **options)
        at = [right.scope.split("/")[2] for right in azure.needed if isinstance(right, Right)]
        in_new_vault = {right.group for right in azure.needed if isinstance(right, VaultRight)}
        # The vault, then the account and its encryption.
        assert (at[0], set(at[1:]), in_new_vault) == (group, {"rg-batch"}, {group})


@pytest.mark.parametrize(
    ("identity", "grants"),
    [
        # The identity is there, and what it lacks is seen.
        pytest.param(identity_id(), [POLICIES], id="user-assigned"),
        pytest.param(None, [ASSIGN], id="system-assigned"),
    ],
)
def test_access_to_a_vault_that_exists_for_an_account_that_does_not(identity: str | None, grants: list[str]) -> None:
    created = [WRITE, *([ASSIGN_IDENTITY] if identity else [])]

    assert provision(Azure(vault=policies()), identity_id=identity) == [*created, *grants, WRITE]


def test_an_account_on_its_key_needs_nothing() -> None:
    azure = Azure(on(PINNED_OLD))

    assert provision(azure) == []
    assert azure.asked[0] == "availability"
    assert f"access of {PRINCIPAL} to myvault" in azure.asked
    assert needs("provision", Azure(on(PINNED_OLD))) == []


@pytest.mark.parametrize(
    ("used", "follow", "moves"),
    [
        (None, None, True),
        (PINNED_OLD, None, False),
        (KEY, None, False),
        (KEY.replace("batch", "BATCH"), None, False),
        (PINNED_OLD, True, True),
        (KEY, True, False),
        (KEY, False, True),
        (PINNED_OLD, False, False),
    ],
)
def test_who_moves_an_account_needs_the_rights_to(used: str | None, follow: bool | None, moves: bool) -> None:
    azure = Azure(on(used))

    assert provision(azure, follow_latest=follow) == ([WRITE] if moves else [])
    assert needs("provision", Azure(on(used)), follow_latest=follow) == ([WRITE] if moves else [])


@pytest.mark.parametrize("used", [ELSEWHERE, f"{KEY}2", "https://vault2.vault.azure.net/keys/batch"])
def test_an_account_on_another_key_is_refused_before_a_vault_is_planned(used: str) -> None:
    """With a typing error in its name there is no such vault, and none is made."""
    azure = Azure(on(used), vault=None)
    failure = refused("provision", azure)

    assert (failure.code, failure.facts["option"]) == ("account_on_another_key", "replace_key")
    assert azure.asked == ["availability"]
    moved = Azure(on(used))
    assert provision(moved, replace_key=True) == [WRITE]


@pytest.mark.parametrize("name", [{"vault_name": "MyVault"}, {"key_name": "BATCH"}])
def test_a_key_is_the_same_in_any_letter_case(name: dict[str, str]) -> None:
    assert provision(Azure(on(PINNED_OLD)), **name) == []


@pytest.mark.parametrize(
    ("azure", "option"),
    [
        (Azure(vault=None, deleted_vault=deleted_vault()), "recover_vault"),
        (Azure(keys=(), deleted_key=key()), "recover_key"),
    ],
)
def test_an_option_of_a_later_task_is_named_as_this_one_names_it(azure: Azure, option: str) -> None:
    failure = refused("provision", azure)

    assert failure.facts["option"] == option
    assert failure.facts["remedy"].startswith(f"Set {option}: true")
    assert failure.msg.endswith(failure.facts["remedy"])


def test_availability_that_is_not_known_is_refused_before_a_vault_is_planned() -> None:
    azure = Azure(on(None), HIDDEN, vault=None)

    assert refused("provision", azure) is HIDDEN
    assert azure.asked == ["availability"]


@pytest.mark.parametrize(
    ("azure", "options", "code"),
    [
        pytest.param(Azure(vault=None, deleted_vault=deleted_vault()), {}, "vault_soft_deleted", id="deleted vault"),
        pytest.param(Azure(), {"authorization": "rbac"}, "vault_authorization_differs", id="authorization"),
        pytest.param(Azure(account()), {}, "account_without_identity", id="no identity"),
        pytest.param(Azure(on(None)), {"identity_id": identity_id()}, "identity_differs", id="another identity"),
        pytest.param(Azure(on(None), keys=versions(enabled=False)), {}, "key_disabled", id="disabled key"),
        pytest.param(Azure(on(None)), {"key_size": 4096}, "key_size_differs", id="another size"),
        pytest.param(Azure(on(None)), {"key_type": "RSA-HSM"}, "key_type_differs", id="another type"),
        pytest.param(Azure(on(None)), {"key_size": 1024}, "key_size_not_supported", id="a size that Batch refuses"),
        pytest.param(Azure(on(None)), {"expires_in": "90 days"}, "invalid_option", id="a malformed duration"),
        pytest.param(Azure(on(None)), {"identity_id": "mine"}, "invalid_identity_id", id="a malformed identity"),
        pytest.param(Azure(vault=None), {"location": "moon"}, "location_not_available", id="region"),
    ],
)
def test_what_a_later_task_would_refuse(azure: Azure, options: dict[str, Any], code: str) -> None:
    assert refused("provision", azure, **options).code == code


@pytest.mark.parametrize(
    ("azure", "options", "writes"),
    [
        pytest.param(
            Azure(vault=None, deleted_vault=deleted_vault()),
            {"recover_vault": True},
            [f"{VAULTS}/write", WRITE, ASSIGN, CREATE_KEY, WRITE],
            id="deleted vault",
        ),
        pytest.param(Azure(account(), vault=policies()), {"adopt_existing": True}, [WRITE, ASSIGN, WRITE]),
        pytest.param(
            Azure(on(KEY), keys=versions(enabled=False)), {"enable_key": True}, [UPDATE_KEY], id="disabled key"
        ),
        pytest.param(Azure(on(KEY), keys=()), {}, [CREATE_KEY], id="no key"),
        pytest.param(Azure(on(KEY), vault=policies()), {}, [POLICIES], id="no access"),
        pytest.param(
            Azure(on(KEY, user_assigned(one=PRINCIPAL, two=OTHER)), vault=policies()),
            {"identity_id": identity_id("one")},
            [POLICIES],
            id="the access of the identity that is named",
        ),
        pytest.param(
            Azure(on(KEY), vault=policies(policy(), enablePurgeProtection=None)),
            {},
            [f"{VAULTS}/write"],
            id="a vault that is changed",
        ),
    ],
)
def test_what_is_asked_for_is_not_refused(azure: Azure, options: dict[str, Any], writes: list[str]) -> None:
    assert provision(azure, **options) == writes


def test_the_access_of_each_identity_is_checked_if_the_identity_is_the_accounts_own() -> None:
    azure = Azure(on(KEY, user_assigned(one=PRINCIPAL, two=OTHER)))
    provision(azure, identity_id=identity_id("one"))

    assert f"access of {identity_id('one')} to myvault" in azure.asked
    assert f"access of {OTHER} to myvault" not in azure.asked


# Rotate


def rotate(azure: Azure, **options: Any) -> list[str]:
    assert check("rotate", azure, **options).warnings == ()
    return planned(azure)


@pytest.mark.parametrize(
    ("used", "options", "code"),
    [
        pytest.param(None, {}, "account_not_on_cmk", id="Microsoft-managed"),
        pytest.param(None, {"new_key_identifier": ELSEWHERE}, "account_not_on_cmk", id="Microsoft-managed, new key"),
        pytest.param(ELSEWHERE, {}, "account_on_another_key", id="another key"),
        pytest.param(f"{KEY}2", {}, "account_on_another_key", id="another name"),
        pytest.param(ELSEWHERE, {"new_key_identifier": f"{KEY}2"}, "account_on_another_key", id="a third key"),
        pytest.param(
            ELSEWHERE,
            {"new_key_identifier": ELSEWHERE.replace(OLD, NEW)},
            "account_on_another_key",
            id="another version of the new key",
        ),
        pytest.param(KEY, {"new_key_identifier": "other"}, "invalid_key_identifier", id="malformed new key"),
        pytest.param(KEY, {"previous_key_identifier": "other"}, "invalid_key_identifier", id="malformed previous key"),
    ],
)
def test_a_rotation_that_cannot_be(used: str | None, options: dict[str, Any], code: str) -> None:
    azure = Azure(on(used))

    assert refused("rotate", azure, previous_key="disable", **options).code == code
    assert azure.asked == []


@pytest.mark.parametrize(
    ("used", "follow", "moves"),
    [
        # Only if a version is made: the task that makes it asks for the right.
        (PINNED_OLD, None, False),
        (PINNED_OLD, False, False),
        (PINNED_OLD, True, True),
        (KEY, None, False),
        (KEY, False, True),
        (KEY, True, False),
    ],
)
def test_rights_to_have_an_account_follow_its_key_or_not(used: str, follow: bool | None, moves: bool) -> None:
    azure = Azure(on(used), vault=vault(policy(), rbac=True))

    assert rotate(azure, follow_latest=follow, vault_resource_group="rg-keys") == ([WRITE] if moves else [])
    if moves:
        # Who may use the key has to be visible before there is a new version.
        assert azure.needed == [*TO_MOVE, rights.to_see_access("myvault", "rg-keys")]
    assert needs("rotate", Azure(on(used)), follow_latest=follow) == ([WRITE] if moves else [])


def test_rights_to_disable_the_previous_version() -> None:
    azure = Azure(on(PINNED_OLD), vault=vault(policy(), rbac=True))

    assert rotate(azure, previous_key="disable") == [UPDATE_KEY]
    assert azure.needed == [rights.to_use_key(permission, "myvault") for permission in ("list", "update")]
    assert azure.asked == ["listing", "users of myvault"]
    needed = needs("rotate", Azure(on(PINNED_OLD), vault=vault(rbac=True)), previous_key="disable")
    assert needed == [UPDATE_KEY]
    # By access policies, the permission list is one of its own.
    listless = vault(policy("caller", ["get"]))
    assert needs("rotate", Azure(on(PINNED_OLD), vault=listless), previous_key="disable") == [
        *["the key permission list", "the key permission update"]
    ]


@pytest.mark.parametrize("options", [{}, {"new_key_identifier": ELSEWHERE}])
def test_a_rotation_that_disables_something_is_refused_if_not_all_are_listed(options: dict[str, Any]) -> None:
    azure = Azure(on(PINNED_OLD), unlisted=("/subscriptions/hidden",))
    failure = refused("rotate", azure, previous_key="disable", **options)

    assert failure.code == "users_unknown"
    assert "keep the previous version" in failure.facts["remedy"]
    assert azure.asked == ["listing", "users of myvault"]
    # Who takes nothing away need not list.
    assert "listing" not in asked("rotate", Azure(on(PINNED_OLD), unlisted=("/subscriptions/hidden",)), **options)


def asked(role: str, azure: Azure, **options: Any) -> list[str]:
    check(role, azure, **options)
    return azure.asked


OTHER_KEY: dict[str, Any] = {"new_key_identifier": ELSEWHERE}


def test_rights_to_move_an_account_to_a_different_key() -> None:
    azure = Azure(on(PINNED_OLD), vault=vault())

    assert rotate(azure, **OTHER_KEY) == [WRITE, POLICIES]
    assert azure.asked[-1] == f"access of {PRINCIPAL} to vault2"
    assert needs("rotate", Azure(on(PINNED_OLD), vault=vault()), **OTHER_KEY) == [WRITE, POLICIES]


@pytest.mark.parametrize("identifier", [ELSEWHERE, "https://vault2.vault.azure.net/keys/other"])
def test_a_different_key_that_lacks_only_access_is_granted_it(identifier: str) -> None:
    azure = Azure(on(PINNED_OLD), vault=vault(), checks={"vault": vault(policy(OTHER))})

    assert rotate(azure, new_key_identifier=identifier) == [WRITE, POLICIES]
    assert azure.needed[:-1] == [*TO_MOVE, rights.to_see_access("vault2", None)]


@pytest.mark.parametrize(
    ("checks", "failed"),
    [
        ({"bundle": key(enabled=False)}, ["key_enabled"]),
        ({"bundle": key(enabled=False), "vault": vault(policy(OTHER))}, ["key_enabled", "access_granted"]),
    ],
)
def test_a_different_key_that_fails_otherwise_is_refused(checks: dict[str, Any], failed: list[str]) -> None:
    azure = Azure(on(PINNED_OLD), vault=vault(), checks=checks)

    assert refused("rotate", azure, **OTHER_KEY).facts["failed_checks"] == failed
    assert "access" not in azure.asked


@pytest.mark.parametrize("unavailable_reason", [UNAVAILABLE, HIDDEN])
def test_an_account_that_cannot_be_moved_is_not_granted_access(unavailable_reason: CmkError) -> None:
    azure = Azure(on(PINNED_OLD), unavailable_reason)
    code = "account_unavailable" if unavailable_reason is UNAVAILABLE else "availability_unknown"

    assert refused("rotate", azure, **OTHER_KEY).code == code


def test_access_is_granted_to_each_identity() -> None:
    azure = Azure(on(PINNED_OLD, user_assigned(one=PRINCIPAL, two=OTHER)), vault=policies())

    assert rotate(azure, **OTHER_KEY) == [WRITE, *[POLICIES] * 2]


def test_an_account_without_an_identity_is_not_moved_to_a_different_key() -> None:
    azure = Azure(account(key=PINNED_OLD))

    assert refused("rotate", azure, **OTHER_KEY).code == "account_without_identity"


@pytest.mark.parametrize(
    ("used", "options", "is_unknown"),
    [
        pytest.param(ELSEWHERE, {**OTHER_KEY, "previous_key": "disable"}, True, id="it is there already"),
        pytest.param(ELSEWHERE.upper().replace("HTTPS", "https"), {**OTHER_KEY, "previous_key": "disable"}, True),
        pytest.param(ELSEWHERE, {**OTHER_KEY}, False, id="nothing is to be disabled"),
        pytest.param(
            ELSEWHERE,
            {**OTHER_KEY, "previous_key": "disable", "previous_key_identifier": KEY},
            False,
            id="it is named",
        ),
        pytest.param(PINNED_OLD, {**OTHER_KEY, "previous_key": "disable"}, False, id="it is still to be moved"),
        pytest.param(PINNED_OLD, {"previous_key": "disable"}, False, id="a new version"),
    ],
)
def test_a_previous_key_that_is_not_known_is_a_warning(used: str, options: dict[str, Any], is_unknown: bool) -> None:
    warnings = check("rotate", Azure(on(used)), **options).warnings

    assert any("cmk_previous_key_identifier" in one and "mybatch" in one for one in warnings) is is_unknown
    assert bool(warnings) is is_unknown


# Revert

TAKES = [{"previous_key": "disable"}, {"previous_key": "delete"}, {"revokes_access": True}]
EACH_TAKE = pytest.mark.parametrize("options", TAKES, ids=["disable", "delete", "revoke"])


def revert(azure: Azure, **options: Any) -> list[str]:
    assert check("revert", azure, **options).warnings == ()
    return planned(azure)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, []),
        ({"previous_key": "disable"}, [UPDATE_KEY]),
        ({"previous_key": "delete"}, [f"{VAULTS}/keys/delete"]),
        ({"revokes_access": True}, [f"{ASSIGNMENTS}/delete"]),
        ({"previous_key": "delete", "revokes_access": True}, [f"{VAULTS}/keys/delete", f"{ASSIGNMENTS}/delete"]),
    ],
)
def test_rights_to_revert(options: dict[str, Any], needed: list[str]) -> None:
    by_role = vault(rbac=True)

    assert revert(Azure(on(PINNED_NEW), vault=by_role), **options) == [*needed, WRITE]
    assert needs("revert", Azure(on(PINNED_NEW), vault=by_role), **options) == [*needed, WRITE]


@EACH_TAKE
@pytest.mark.parametrize("used", [ELSEWHERE, f"{KEY}2"])
def test_a_key_that_the_account_does_not_use_is_not_taken_away(options: dict[str, Any], used: str) -> None:
    azure = Azure(on(used))
    failure = refused("revert", azure, **options)

    assert failure.code == "account_on_another_key"
    assert used in failure.msg
    assert azure.asked == []
    # If nothing is taken away, it does not matter.
    assert revert(Azure(on(used))) == [WRITE]


@EACH_TAKE
@pytest.mark.parametrize("used", [PINNED_NEW, None])
def test_a_revert_that_takes_something_is_refused_if_not_all_are_listed(
    options: dict[str, Any], used: str | None
) -> None:
    azure = Azure(on(used), unlisted=("/subscriptions/hidden",))
    failure = refused("revert", azure, **options)

    assert failure.code == "users_unknown"
    assert "keep the key and the access" in failure.facts["remedy"]
    # Of a vault that the account does not use, nothing but its name is known.
    is_known = used is not None and "previous_key" in options
    assert azure.asked == ["listing", f"users of {'myvault' if is_known else None}"]


def test_who_takes_nothing_away_need_not_list() -> None:
    assert "listing" not in asked("revert", Azure(on(KEY), unlisted=("/subscriptions/hidden",)))


@EACH_TAKE
def test_nothing_tells_which_key_an_account_used_that_is_back_already(options: dict[str, Any]) -> None:
    """It may never have been on the key that is named."""
    azure = Azure(on(None))
    outcome = check("revert", azure, **options)

    [warning] = outcome.warnings
    assert "cmk_previous_key_identifier" in warning
    assert outcome.after["previous_key_identifier"] is None
    # Nothing of the key or the access is even looked at.
    assert not {"keys", "access"} & set(azure.asked)
    assert planned(azure) == []
    assert check("revert", Azure(on(None))).warnings == ()


@EACH_TAKE
@pytest.mark.parametrize("named", [KEY, PINNED_NEW, PINNED_NEW.upper().replace("HTTPS", "https")])
def test_an_account_that_is_back_already_leaves_the_key_behind_that_somebody_confirms(
    options: dict[str, Any], named: str
) -> None:
    azure = Azure(on(None))
    outcome = check("revert", azure, previous_key_identifier=named, **options)

    assert outcome.warnings == ()
    assert outcome.after["previous_key_identifier"] == named
    assert len(azure.needed) == 1


def test_the_previous_key_is_the_one_that_the_account_uses() -> None:
    told = check("revert", Azure(on(PINNED_NEW)), previous_key_identifier=PINNED_OLD).after

    assert told["previous_key_identifier"] == PINNED_NEW


@pytest.mark.parametrize("used", [PINNED_NEW, None])
@pytest.mark.parametrize("named", [f"{KEY}2", KEY.replace("myvault", "vault2"), "batch"])
def test_the_previous_key_is_the_one_that_the_names_say(named: str, used: str | None) -> None:
    azure = Azure(on(used))
    failure = refused("revert", azure, previous_key_identifier=named)

    assert failure.facts["option"] == "previous_key_identifier"
    assert azure.asked == []


def test_users_are_no_obstacle_because_what_they_use_is_kept() -> None:
    """This account is one of them until it has moved."""
    others = (account("another", key=PINNED_NEW, identity=system_assigned()),)
    for options in TAKES:
        azure = Azure(on(PINNED_NEW), others=others)
        assert revert(azure, **options)[-1] == WRITE


@pytest.mark.parametrize(
    ("azure", "options", "code"),
    [
        pytest.param(Azure(on(PINNED_NEW), keys=()), {"previous_key": "disable"}, "key_not_found", id="no key"),
        pytest.param(Azure(on(PINNED_NEW), vault=None), {"revokes_access": True}, "vault_not_found", id="no vault"),
        pytest.param(Azure(on(PINNED_NEW), UNAVAILABLE), {}, "account_unavailable", id="unavailable"),
        pytest.param(Azure(on(PINNED_NEW), UNAVAILABLE), TAKES[0], "account_unavailable", id="unavailable, disable"),
        pytest.param(Azure(on(PINNED_NEW), HIDDEN), {}, "availability_unknown", id="availability unknown"),
        pytest.param(Azure(on(PINNED_NEW), HIDDEN), TAKES[1], "availability_unknown", id="unknown, delete"),
        pytest.param(Azure(on(PINNED_NEW)), {**TAKES[0], "key_name": "a_key"}, "account_on_another_key", id="name"),
    ],
)
def test_what_a_later_task_of_a_revert_would_refuse(azure: Azure, options: dict[str, Any], code: str) -> None:
    assert refused("revert", azure, **options).code == code


def test_access_of_each_identity_is_looked_at() -> None:
    azure = Azure(on(PINNED_NEW, user_assigned(one=PRINCIPAL, two=OTHER)))
    revert(azure, revokes_access=True)

    for principal in (PRINCIPAL, OTHER):
        assert f"access of {principal} to myvault" in azure.asked


# Recover


def lost(*versions: dict[str, Any], **observed: Any) -> Azure:
    """An account that cannot use its key, for the reason that is named, if any."""
    diagnosis = diagnosed(PINNED_NEW, *versions, **observed)
    return Azure(on(PINNED_NEW), UNAVAILABLE, vault=vault(rbac=True), diagnosis=diagnosis)


def repairs(azure: Azure, **options: Any) -> list[str]:
    needed: list[str] = check("recover", azure, **options).after["repairs"]
    return needed


DISABLED = key(enabled=False)
CLOSED = vault(policy(), networkAcls={"bypass": "None", "defaultAction": "Deny"})
GONE: dict[str, Any] = {
    **{"vault": None, "versions": None, "deleted_vault": deleted_vault()},
    "bundle": Unavailable("No answer.", code="vault_unreachable"),
}
ALL_REPAIRS = ["vault", "network", "key", "access"]


def without(*excluded: str) -> list[str]:
    return [repair for repair in ALL_REPAIRS if repair not in excluded]


@pytest.mark.parametrize(
    ("observed", "needed"),
    [
        pytest.param({"vault": CLOSED}, ["network"], id="network"),
        pytest.param({"bundle": DISABLED, "versions": [listed(DISABLED)]}, ["key"], id="version"),
        pytest.param({"bundle": None, "versions": [], "deleted_key": key()}, ["key"], id="deleted key"),
        pytest.param({"vault": vault()}, ["access"], id="access"),
        # Each repair once, in the order of the tasks.
        pytest.param(
            {
                **{"vault": vault(networkAcls=CLOSED["properties"]["networkAcls"])},
                **{"bundle": key(enabled=False, key_ops=["sign"]), "versions": [listed(DISABLED)]},
            },
            ["network", "key", "access"],
            id="several",
        ),
        pytest.param({}, [], id="nothing that can be seen"),
    ],
)
def test_repairs_are_those_that_the_causes_need(observed: dict[str, Any], needed: list[str]) -> None:
    azure = lost(**observed)
    outcome = check("recover", azure)

    assert (outcome.changed, outcome.after["repairs"], outcome.warnings) == (False, needed, ())
    assert (outcome.after["available"], outcome.after["diagnosis"]["recoverable"]) == (False, True)
    # The repairs that are needed are enough to be allowed.
    assert repairs(lost(**observed), allowed_repairs=needed) == needed


def test_a_deleted_vault_is_followed_by_a_look_at_the_key_and_the_access() -> None:
    """Only once the vault is recovered can they be read."""
    assert repairs(lost(**GONE)) == ["vault", "key", "access"]


@pytest.mark.parametrize(
    ("allowed", "needed"),
    [(["vault"], ["vault"]), (without("key"), ["vault", "access"]), (without("access"), ["vault", "key"])],
)
def test_a_recovered_vault_is_no_reason_for_a_repair_that_is_not_allowed(allowed: list[str], needed: list[str]) -> None:
    """Somebody may have disabled the key on purpose before the vault was deleted."""
    assert repairs(lost(**GONE), allowed_repairs=allowed) == needed


def test_an_available_account_needs_no_repair() -> None:
    """Whatever its key looks like: Batch may not have noticed yet, or may use another version."""
    azure = lost(DISABLED, bundle=DISABLED)
    azure.unavailable_reason = None

    assert repairs(azure, allowed_repairs=[]) == []
    assert azure.needed == []


def test_an_account_on_a_microsoft_managed_key_needs_no_repair() -> None:
    assert repairs(Azure(on(None), UNAVAILABLE)) == []
    assert repairs(Azure(on(None))) == []


@pytest.mark.parametrize("allowed", [ALL_REPAIRS, []])
@pytest.mark.parametrize(
    ("observed", "cause"),
    [
        ({"principals": ()}, "identity_missing"),
        ({"vault": None, "bundle": GONE["bundle"], "versions": None}, "vault_missing"),
        ({"bundle": None, "versions": []}, "key_missing"),
    ],
)
def test_an_account_that_cannot_be_recovered_is_not_touched(
    observed: dict[str, Any], cause: str, allowed: list[str]
) -> None:
    failure = refused("recover", lost(**observed), allowed_repairs=allowed)

    assert failure.code == "not_recoverable"
    [found] = [one for one in failure.facts["causes"] if one["name"] == cause]
    assert found["repair"] is None
    assert failure.facts["remedy"] == found["remedy"]
    assert all(part in failure.msg for part in ("mybatch", cause, found["evidence"], found["remedy"]))


def test_one_cause_without_a_repair_is_enough() -> None:
    """The access is not granted to an account that stays unavailable."""
    failure = refused("recover", lost(vault=vault(), bundle=None, versions=[]))

    assert failure.code == "not_recoverable"
    assert [(one["name"], one["repair"]) for one in failure.facts["causes"]] == [
        *[("key_missing", None), ("access_missing", "access")]
    ]
    # The message and the remedy are about the cause that has no repair.
    assert "access_missing" not in failure.msg
    assert failure.facts["remedy"] == failure.facts["causes"][0]["remedy"]


@pytest.mark.parametrize(
    ("observed", "allowed", "excluded"),
    [
        ({"bundle": DISABLED, "versions": [listed(DISABLED)]}, without("key"), "key"),
        ({"vault": vault()}, without("access"), "access"),
        ({"vault": CLOSED}, without("network"), "network"),
        (GONE, without("vault"), "vault"),
        ({"vault": vault(), "bundle": DISABLED, "versions": [listed(DISABLED)]}, ["access"], "key"),
        ({"vault": vault(), "bundle": DISABLED, "versions": [listed(DISABLED)]}, [], "key, access"),
    ],
)
def test_a_repair_that_is_not_allowed_is_refused(observed: dict[str, Any], allowed: list[str], excluded: str) -> None:
    failure = refused("recover", lost(**observed), allowed_repairs=allowed)

    assert failure.code == "repair_not_allowed"
    assert (failure.facts["option"], failure.facts["value"]) == ("allowed_repairs", allowed)
    assert f"allowed_repairs: {excluded}. " in failure.msg
    assert all(cause["evidence"] in failure.msg for cause in failure.facts["causes"])


@pytest.mark.parametrize("observed", [{}, {"vault": vault()}, {"principals": ()}])
def test_nobody_repairs_an_account_of_which_nothing_tells_whether_it_is_available(observed: dict[str, Any]) -> None:
    azure = lost(**observed)
    azure.unavailable_reason = HIDDEN

    assert refused("recover", azure).code == "availability_unknown"
    assert refused("recover", Azure(on(None), HIDDEN)).code == "availability_unknown"


def test_what_cannot_be_read_is_a_warning() -> None:
    azure = lost(vault=HIDDEN, bundle=HIDDEN, assignments=HIDDEN, versions=None)
    outcome = check("recover", azure)

    assert outcome.after["repairs"] == []
    assert all(HIDDEN.msg in warning for warning in outcome.warnings)
    assert outcome.warnings


@pytest.mark.parametrize(
    ("observed", "allowed", "rights"),
    [
        ({"bundle": DISABLED, "versions": [listed(DISABLED)]}, ALL_REPAIRS, [UPDATE_KEY]),
        ({"bundle": None, "versions": [], "deleted_key": key()}, ALL_REPAIRS, [f"{VAULTS}/keys/recover/action"]),
        ({"vault": vault()}, ALL_REPAIRS, [f"{ASSIGNMENTS}/write"]),
        ({"vault": CLOSED}, ALL_REPAIRS, [f"{VAULTS}/write"]),
        (GONE, ALL_REPAIRS, [f"{VAULTS}/write", f"{ASSIGNMENTS}/write"]),
        # An access that is not granted needs no right.
        (GONE, without("access"), [f"{VAULTS}/write"]),
        ({}, ALL_REPAIRS, []),
    ],
)
def test_rights_to_recover(observed: dict[str, Any], allowed: list[str], rights: list[str]) -> None:
    assert needs("recover", lost(**observed), allowed_repairs=allowed) == rights
    rehearsed = lost(**observed)
    rehearsed.allowed, rehearsed.is_rehearsal = READS, True
    warnings = check("recover", rehearsed, allowed_repairs=allowed).warnings
    assert len(warnings) == len(rights)
    assert all(right in warning for right, warning in zip(rights, warnings, strict=True))


def test_rights_to_recover_are_required_only_if_that_is_asked() -> None:
    azure = lost(DISABLED, bundle=DISABLED)
    azure.allowed = READS
    cloud: Any = Cloud(azure)
    surveyed = batch_encryption_info.run({**check_before("recover"), "check_before": None, "diagnose": True}, cloud)

    assert (surveyed.warnings, azure.needed) == ((), [])
    assert "repairs" not in surveyed.after
    assert surveyed.after["diagnosis"]["causes"][0]["repair"] == "key"


NO_GROUP = NotFound("There is no such resource group.", code="resource_group_not_found")
NO_SUBSCRIPTION = NotFound("There is no such subscription.", code="subscription_not_found")


@pytest.mark.parametrize("found", [None, NO_GROUP])
def test_an_account_to_recover_that_is_missing(found: Any) -> None:
    code = found.code if found else "account_not_found"
    assert refused("recover", Azure(found)).code == code
    skipped = check("recover", Azure(found), missing="skip")

    assert (skipped.changed, skipped.after["exists"]) == (False, False)
    assert "repairs" not in skipped.after
    assert "mybatch" in skipped.warnings[0]


def test_a_missing_subscription_is_no_missing_account() -> None:
    gone: Any = NO_SUBSCRIPTION

    assert refused("recover", Azure(gone), missing="skip").code == "subscription_not_found"
