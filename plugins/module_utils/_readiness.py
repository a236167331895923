# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks whether the tasks of a role can succeed, before the first task changes anything.

The check refuses everything that a later task would refuse, and names the caller's missing rights. Conditions that
depend on an earlier task, such as a vault that does not exist yet, are left to the later task.

Each check takes the `cloud` of the task (cloud.Cloud), returns warnings and changes nothing.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._checks import diagnosis as account_diagnosis
from ._checks import rights, usage
from ._checks.repairs import repaired_text
from ._checks.rights import Needed
from ._core.documents import Account
from ._core.duration import seconds
from ._core.errors import CmkError, Denied, InvalidOption, Refused, Unavailable
from ._core.ids import KeyIdentifier, check_key_name, check_vault_name, key_of, parse_key_identifier, principals_of
from ._core.plan import Step
from ._core.reconcile import predicted
from ._resources.access import goal as access_goal
from ._resources.access import plan as access_plan
from ._resources.access import writes as access_writes
from ._resources.account import document as account_document
from ._resources.account import goal as account_goal_module
from ._resources.account import plan as account_plan
from ._resources.account import writes as account_writes
from ._resources.encryption import document as encryption_document
from ._resources.encryption import goal as encryption_goal_module
from ._resources.encryption import plan as encryption_plan
from ._resources.encryption import writes as encryption_writes
from ._resources.key import goal as key_goal_module
from ._resources.key import plan as key_plan
from ._resources.key import writes as key_writes
from ._resources.vault import document as vault_document
from ._resources.vault import goal as vault_goal_module
from ._resources.vault import plan as vault_plan
from ._resources.vault import writes as vault_writes

if TYPE_CHECKING:
    from ._azure.cloud import Cloud

Params = Mapping[str, Any]


def provision(params: Params, cloud: Cloud, account: Account | None) -> tuple[str, ...]:
    check_key_name(params["key_name"], "key_name")
    vault_goal, account_goal = _vault_goal(params), _account_goal(params)
    options = {name: params[name] for name in _KEY_OPTIONS}
    key_goal = key_goal_module.desired(
        {**_KEY, **options, "name": params["key_name"], "recover": params["recover_key"]}
    )
    has = key_of(account)
    wanted = KeyIdentifier(key_goal.vault.lower(), has.suffix if has else "", key_goal.name)
    if account:
        cloud.encryption.require_known_availability(params["resource_group"], params["account_name"])
        if not params["replace_key"]:
            # If the name of the vault has a typing error, a vault would be created.
            encryption_plan.refuse_other_key(account["name"], has, wanted)
    with _options(recover="recover_vault", name="vault_name"):
        vault = predicted(vault_goal, cloud.vaults, vault_plan)
    with _options(name="account_name"):
        made = predicted(account_goal, cloud.accounts, account_plan)
    needed = [*vault_writes.NEEDED.by(vault.steps), *account_writes.NEEDED.by(made.steps)]
    if vault.before["exists"]:
        if made.steps and account_goal.identity_id is None:
            needed += _to_grant_in(vault_goal)
        with _options(recover="recover_key", name="key_name"):
            key_steps = predicted(key_goal, cloud.keys, key_plan).steps
        makes_version = any(step.write == key_writes.KeyWrites.create for step in key_steps)
        if has and has.version and has.same_key(wanted) and makes_version:
            # The version that the account uses is about to expire, or has expired. The account moves to the new one.
            cloud.encryption.require_available(params["resource_group"], params["account_name"])
            needed += _to_move(params)
        needed += key_writes.NEEDED.by(key_steps)
        needed += access_writes.NEEDED.by(_grants(cloud, vault_goal, account_goal, account))
    else:
        needed += _to_fill_new_vault(params, vault_goal)
    _refuse_hsm_key_in_standard_vault(params, vault.after)
    encryption_goal = encryption_goal_module.Goal(
        params["resource_group"],
        params["account_name"],
        wanted,
        None,
        follow=params["follow_latest"],
        updates_version=False,
    )
    if not encryption_goal.is_satisfied_by(account):
        needed += _to_move(params)
    return cloud.rights.require(needed)


def _refuse_hsm_key_in_standard_vault(params: Params, vault: Mapping[str, Any]) -> None:
    if params["key_type"] == "RSA-HSM" and vault.get("sku") == "standard":
        raise InvalidOption(
            "key_type",
            params["key_type"],
            f"the SKU of the vault {params['vault_name']} is standard, which has no keys of this type.",
            "Set key_type to RSA, or vault_name to an existing vault of the SKU premium.",
        )


@contextmanager
def _options(**names: str) -> Iterator[None]:
    """In errors of the block, replace the names of another module's options by the names of this module's options."""
    try:
        yield
    except CmkError as failure:
        option = failure.facts.get("option")
        if option in names:
            own, remedy = names[option], failure.facts.get("remedy", "")
            named = remedy.replace(f"Set {option}: ", f"Set {own}: ")
            failure.msg = failure.msg.replace(remedy, named) if remedy else failure.msg
            failure.facts.update(option=own, **({"remedy": named} if remedy else {}))
        raise


def read_ahead(params: Params, cloud: Cloud) -> None:
    """Concurrently read the data that the checks and the tasks after them read first, because each read is a round
    trip to Azure."""
    reads: list[Callable[[], Any]] = [lambda: cloud.rights.read_ahead(params["resource_group"])]
    if params["check_before"] == "provision":
        vault_goal, account_goal = _vault_goal(params), _account_goal(params)
        reads += [lambda: cloud.vaults.read(vault_goal), lambda: cloud.accounts.read(account_goal)]
    else:
        group = params["vault_resource_group"] or params["resource_group"]
        reads.append(lambda: cloud.vaults.recent(params["vault_name"], group))
    cloud.read_ahead(*reads, cloud.sign_in_to_key_vault)


def _vault_goal(params: Params) -> vault_goal_module.Goal:
    return vault_goal_module.Goal(
        group=params["vault_resource_group"] or params["resource_group"],
        name=check_vault_name(params["vault_name"], "vault_name"),
        location=params["location"],
        authorization=params["authorization"],
        sku="standard",
        retention_days=90,
        recover=params["recover_vault"],
        trusted_services=False,
        present=True,
        force=False,
    )


def _account_goal(params: Params) -> account_goal_module.Goal:
    return account_goal_module.desired({**params, "name": params["account_name"], **_ACCOUNT})


# Values of the options of other modules that this check does not have.
_ACCOUNT = {"state": "present", "key_identifier": None, "force": False}
_KEY_OPTIONS = ("vault_name", "key_type", "key_size", "expires_in", "rotation_policy", "enable_key")
_KEY: dict[str, Any] = {
    **dict.fromkeys(("key_identifier", "version", "account_name", "resource_group", "moved_to", "grace_period")),
    **dict.fromkeys(("extend_expired_by", "max_version_age", "new_version_for")),
    **dict.fromkeys(("new_version", "remove_rotation_policy", "force", "recover"), False),
    "state": "present",
    "in_use": "fail",
}


def _to_grant_in(goal: vault_goal_module.Goal) -> Iterator[Needed]:
    return rights.to_grant_access(goal.name, goal.group, by_role=_is_by_role(goal))


def _is_by_role(goal: vault_goal_module.Goal) -> bool:
    return goal.authorization != vault_document.ACCESS_POLICY


def _to_fill_new_vault(params: Params, goal: vault_goal_module.Goal) -> Iterator[Needed]:
    """The rights for the later writes to a vault that does not exist yet."""
    yield from _to_grant_in(goal)
    permissions = ["create", "get"]
    if params["rotation_policy"]:
        permissions += ["setrotationpolicy", "getrotationpolicy"]
    for permission in permissions:
        yield rights.to_use_key(permission, goal.name, goal.group, by_role=_is_by_role(goal))


def _grants(
    cloud: Cloud, vault: vault_goal_module.Goal, account_goal: account_goal_module.Goal, account: Account | None
) -> Iterator[Step[access_writes.AccessWrites]]:
    goal = access_goal.Goal(vault.group, vault.name, True, None, account_goal.identity_id, None, force=False)
    principals = principals_of(account.get("identity", {})) if account else ()
    if goal.identity_id and len(principals) < 2:
        yield from predicted(goal, cloud.access, access_plan).steps
        return
    # Azure does not show which identity Batch uses.
    for principal in principals:
        yield from predicted(replace(goal, principal_id=principal), cloud.access, access_plan).steps


def _to_move(params: Params) -> Iterator[Needed]:
    return rights.to_set_encryption(params["resource_group"], params["account_name"])


def rotate(params: Params, cloud: Cloud, account: Account) -> tuple[str, ...]:
    other = params["new_key_identifier"]
    new = parse_key_identifier(other, "new_key_identifier") if other else None
    if params["previous_key_identifier"]:
        parse_key_identifier(params["previous_key_identifier"], "previous_key_identifier")
    seconds(params["grace_period"], "grace_period", or_none=True)
    has = encryption_document.required_key(account, params["vault_name"], params["key_name"], new)
    disables = params["previous_key"] != "keep"
    if disables:
        what = "disable the previous version"
        _require_all_listed(params, cloud, what, "keep the previous version", has.vault)
    needed: list[Needed] = []
    if new:
        needed += _to_switch(params, cloud, account, new)
    elif params["follow_latest"] not in (None, has.version is None):
        needed += _to_move(params)
        needed.append(rights.to_see_access(has.vault, params["vault_resource_group"]))
    if disables:
        # The list of versions shows whether an older version exists.
        needed += [rights.to_use_key(permission, has.vault) for permission in ("list", "update")]
    is_unknown = disables and has.same(new) and params["previous_key_identifier"] is None
    return (*((_previous_unknown(account, has),) if is_unknown else ()), *cloud.rights.require(needed))


def _to_switch(params: Params, cloud: Cloud, account: Account, new: KeyIdentifier) -> Iterator[Needed]:
    """The rights to move the account to a different key. Only the access to the key may be missing, because the
    role grants it."""
    goal = encryption_goal_module.Goal(params["resource_group"], params["account_name"], new, None, replaces=True)
    try:
        yield from encryption_writes.NEEDED.by(predicted(goal, cloud.encryption, encryption_plan).steps)
    except CmkError as failure:
        if failure.facts.get("failed_checks") != ["access_granted"]:
            raise
        yield from _to_move(params)
        yield rights.to_see_access(new.vault, None)
    access = access_goal.Goal(None, new.vault, True, None, None, None, force=False)
    for one in access_goal.of_account(access, account):
        yield from access_writes.NEEDED.by(predicted(one, cloud.access, access_plan).steps)


def revert(params: Params, cloud: Cloud, account: Account) -> tuple[str, ...]:
    takes_key, takes_access = params["previous_key"], params["revokes_access"]
    has, named = key_of(account), params["previous_key_identifier"]
    if named and not parse_key_identifier(named, "previous_key_identifier").is_named(
        params["vault_name"], params["key_name"]
    ):
        raise InvalidOption(
            "previous_key_identifier",
            named,
            f"this is not the key {params['key_name']} in {params['vault_name']}, which vault_name and key_name name.",
            "Correct one of them.",
        )
    needed: list[Needed] = []
    warnings: tuple[str, ...] = ()
    if takes_key != "keep" or takes_access:
        if has and not has.is_named(params["vault_name"], params["key_name"]):
            raise _on_another_key(params, account, has)
        # If the account does not use the vault, only the name of the vault is known, and the name may be wrong.
        vault = has.vault if has and takes_key != "keep" else None
        what = "disable or delete the key, or revoke the access to it"
        _require_all_listed(params, cloud, what, "keep the key and the access", vault)
        if has is None and named is None:
            warnings = (_previous_unknown(account, "a Microsoft-managed key"),)
        else:
            needed += _to_put_away(params, cloud, account)
    if has:
        # The plan below relies on Batch to refuse the change of an account that is unavailable.
        cloud.encryption.require_available(params["resource_group"], params["account_name"])
    back = encryption_goal_module.Goal(params["resource_group"], params["account_name"], None, None)
    needed += encryption_writes.NEEDED.by(predicted(back, cloud.encryption, encryption_plan).steps)
    return (*warnings, *cloud.rights.require(needed))


def _to_put_away(params: Params, cloud: Cloud, account: Account) -> Iterator[Needed]:
    """The rights to disable or delete the previous key and revoke the access to it. If other accounts use the key,
    that is no error, because the role keeps a key that is in use."""
    if params["previous_key"] != "keep":
        state = {"disable": "disabled", "delete": "absent"}[params["previous_key"]]
        wanted = {**_KEY, **_LEFT, "vault_name": params["vault_name"], "name": params["key_name"], "state": state}
        predicted(key_goal_module.desired(wanted), cloud.keys, key_plan)
        yield rights.to_use_key("delete" if state == "absent" else "update", params["vault_name"])
    if params["revokes_access"]:
        group = params["vault_resource_group"] or params["resource_group"]
        goal = access_goal.Goal(group, params["vault_name"], False, None, None, None, force=False, keeps_used=True)
        for one in access_goal.of_account(goal, account):
            predicted(one, cloud.access, access_plan)
        yield rights.to_revoke_access(params["vault_name"])


_LEFT: dict[str, Any] = {**dict.fromkeys(_KEY_OPTIONS), "enable_key": False, "in_use": "keep"}


def _on_another_key(params: Params, account: Account, has: KeyIdentifier) -> Refused:
    remedy = "Correct vault_name and key_name, or keep the key and the access."
    return Refused(
        f"The Batch account {account['name']} uses {has}, not the key {params['key_name']} in {params['vault_name']}. "
        f"That key and the access to that vault are not changed. {remedy}",
        code="account_on_another_key",
        option="key_name",
        value=params["key_name"],
        remedy=remedy,
    )


def _previous_unknown(account: Account, key: KeyIdentifier | str) -> str:
    return (
        f"The Batch account {account['name']} uses {key} already, so Azure does not show which key it used before. "
        "That key and the access to it are not changed. If an earlier run has not finished, name that key with "
        "previous_key_identifier."
    )


def _require_all_listed(params: Params, cloud: Cloud, what: str, otherwise: str, vault: str | None) -> None:
    """Refuse `what` now if not all accounts can be listed. Otherwise the account would be moved to another key
    before a later task refuses `what` for the previous key."""
    # This is first: if the caller may not list the pools of the account, not even the change of its key can be
    # confirmed.
    cloud.encryption.require_known_availability(params["resource_group"], params["account_name"])
    predicted(usage.AllListed(what, otherwise, vault), cloud.listing, usage)


def recover(params: Params, cloud: Cloud, observed: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The repairs that the account needs now and the causes found so far, and warnings.

    A repair may reveal more causes, such as the state of a key in a deleted vault. These are left to the check
    after the repair. If the repairs found now are not possible, the check fails at once and names all reasons.
    """
    name, unavailable = observed["account"]["name"], observed["unavailable_reason"]
    available = account_document.availability(unavailable)
    if isinstance(unavailable, Denied) and available is None:
        raise account_document.availability_unknown(name, unavailable)
    diagnosis, earlier = observed["diagnosis"], params["causes_so_far"]
    causes = account_diagnosis.describe(diagnosis)["causes"] if diagnosis else []
    if available:
        return {"repairs": [], "causes_so_far": earlier}, _about_to_be_lost(name, causes)
    if diagnosis and not (causes or earlier or account_diagnosis.unread(diagnosis)):
        # No data shows that the account has lost its key. The last task of the role waits while Batch fails, or until
        # the account is available, if somebody may have repaired the key a few minutes ago.
        if available is False and not account_diagnosis.may_recover(diagnosis):
            raise _no_cause(name, unavailable)
        return {"repairs": [], "causes_so_far": earlier}, ()
    if not diagnosis:
        reason = f"The Batch account {name} is not available, but uses a Microsoft-managed key."
        remedy = "Fix the problem that Azure reports, and run the role again."
        raise Unavailable(f"{reason} {unavailable.msg} {remedy}", code="account_unavailable", remedy=remedy)
    names = [cause["name"] for cause in causes]
    repairs = list(dict.fromkeys(cause["repair"] for cause in causes if cause["repair"]))
    # If Batch has refused requests, the last task of the role confirms the repairs: it waits until Batch does not.
    is_confirmed_later = bool(earlier) and (available is False or bool(params["pools_show_availability"]))
    refusals = [*_not_repaired(params, causes, repairs), *_unread(diagnosis, repairs, is_confirmed_later)]
    warnings: tuple[str, ...] = ()
    try:
        with_access = "access" in params["allowed_repairs"]
        warnings = cloud.rights.require(account_diagnosis.rights_to_repair(diagnosis, with_access=with_access))
    except Denied as lacking:
        refusals.append(lacking)
    if refusals:
        done = [cause for cause in earlier if cause not in names]
        so_far = repaired_text(done, is_planned=cloud.is_rehearsal) if done else "Nothing was changed."
        evidence_texts = [cause["evidence"] for cause in causes if cause["repair"]]
        message = " ".join([*evidence_texts, *(refusal.msg for refusal in refusals), *warnings, so_far])
        # A copy, because the task may read the same error again from its cache.
        refusal = copy(refusals[0])
        state = "is not available" if available is False else "may not be available"
        refusal.msg = f"The Batch account {name} {state}. {message}"
        refusal.facts = {**refusal.facts, "causes": causes}
        raise refusal
    if cloud.is_rehearsal:
        warnings += tuple(_HIDES[cause] for cause in names if cause in _HIDES)
    return {"repairs": repairs, "causes_so_far": list(dict.fromkeys([*earlier, *names]))}, warnings


def _no_cause(name: str, unavailable: CmkError) -> Unavailable:
    remedy = (
        "If somebody repaired the access to the key a few minutes ago, wait ten minutes and run the role again. "
        "Otherwise fix the problem that Batch reports."
    )
    return Unavailable(
        f"The Batch account {name} is not available, and no cause was found. {unavailable.msg} {remedy} Nothing was "
        "changed.",
        code="account_unavailable",
        remedy=remedy,
    )


def _about_to_be_lost(name: str, causes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Warnings about causes although the account is available: a revocation, for example, takes effect later."""
    if not causes:
        return ()
    message = " ".join(f"{cause['name']}: {cause['evidence']} {cause['remedy']}" for cause in causes)
    return (
        f"The Batch account {name} is available, so nothing is repaired, but it may be about to lose its key. "
        f"{message} Otherwise, run recover again once the account is not available.",
    )


# Causes that hide data from the check before the repair.
_HIDES = {
    "vault_deleted": "Azure does not show the network rules and the keys of a deleted vault, or who may use them. Once "
    "the vault is recovered, a run may find more to repair, or refuse the rest.",
    "key_deleted": "Azure does not show the versions of a deleted key. Once the key is recovered, a run may find more "
    "to repair, or refuse the rest.",
}


def _not_repaired(params: Params, causes: Sequence[Mapping[str, Any]], repairs: Sequence[str]) -> Iterator[CmkError]:
    lost = [cause for cause in causes if cause["repair"] is None]
    if lost:
        message = " ".join(f"{cause['name']}: {cause['evidence']} {cause['remedy']}" for cause in lost)
        yield Refused(f"The account cannot be recovered: {message}", code="not_recoverable", remedy=lost[0]["remedy"])
    excluded = [repair for repair in repairs if repair not in params["allowed_repairs"]]
    if excluded:
        remedy = "Add the missing repairs, or make them in another way."
        yield Refused(
            f"These repairs that the account needs are not in allowed_repairs: {', '.join(excluded)}. {remedy}",
            code="repair_not_allowed",
            option="allowed_repairs",
            value=params["allowed_repairs"],
            remedy=remedy,
        )


def _unread(diagnosis: Mapping[str, Any], repairs: Sequence[str], is_confirmed_later: bool) -> list[CmkError]:
    """The errors of reads, if a repair needs the data, or if the data may show another cause."""
    if "vault" in repairs:
        # Azure does not show the data of a deleted vault before it is recovered.
        return []
    # A caller whom the vault's firewall blocks can still allow Batch in the firewall.
    return [
        error
        for error in account_diagnosis.unread(diagnosis)
        if error.code != "network_denied" or "key" in repairs or not (repairs or is_confirmed_later)
    ]
