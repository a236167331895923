# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway in check mode. A write is a prediction for the later tasks of the run, and no request.

A prediction is a document by its ref. The effect of a write on documents is a function of `_documents.effects`. A write
without an effect fails the task. Reads complete Azure's documents and lists with the predictions of the run.

This module util is private to the collection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from .._core import placeholders
from .._core.concurrent import value_or_error
from .._core.docs import Ref
from .._core.errors import CmkError, NotFound
from .._core.ids import KeyIdentifier, key_in_vault, place_of, within
from .._documents.account import Account, encryption_body, is_failed, is_of_caller, key_of
from .._documents.effects import account as account_effects
from .._documents.effects import key as key_effects
from .._documents.effects import role_assignment as assignment_effects
from .._documents.effects import vault as vault_effects
from .._documents.effects.write import (
    HIDDEN,
    NEW,
    SHOWN,
    Effect,
    EffectContext,
    EffectInput,
    PredictedRefusal,
    Prediction,
    changed,
    is_listed,
    missing,
    region,
)
from .._documents.key import item_of
from . import sdk
from .driver import Driver
from .gateway import LOCKS, Answer, Gateway, Operation
from .predictions import Predictions
from .session import Session

_CLOCKS_DIFFER_SECONDS = 5
_ACCOUNTS, _VAULTS, _DELETED_VAULTS, _ASSIGNMENTS = "batchaccounts", "vaults", "deletedvaults", "roleassignments"
_KEYS = "keys"
_BATCH = "/providers/Microsoft.Batch"

# By method, type, and the part that the request names.
EFFECTS: dict[tuple[str, str, str], Effect] = {
    ("PUT", _ACCOUNTS, ""): account_effects.put,
    ("PATCH", _ACCOUNTS, ""): account_effects.patch,
    ("DELETE", _ACCOUNTS, ""): account_effects.delete,
    ("PUT", _VAULTS, ""): vault_effects.put,
    ("PATCH", _VAULTS, ""): vault_effects.patch,
    ("DELETE", _VAULTS, ""): vault_effects.delete,
    ("PUT", _VAULTS, "accesspolicies/add"): partial(vault_effects.set_policies, "add"),
    ("PUT", _VAULTS, "accesspolicies/replace"): partial(vault_effects.set_policies, "replace"),
    ("PUT", _VAULTS, "accesspolicies/remove"): partial(vault_effects.set_policies, "remove"),
    ("PUT", _ASSIGNMENTS, ""): assignment_effects.put,
    ("DELETE", _ASSIGNMENTS, ""): assignment_effects.delete,
    ("POST", _KEYS, "create"): key_effects.create,
    ("PATCH", _KEYS, "version"): key_effects.update,
    ("PUT", _KEYS, "rotationpolicy"): key_effects.set_rotation_policy,
    ("DELETE", _KEYS, ""): key_effects.delete,
    ("POST", _KEYS, "deleted/recover"): key_effects.recover,
}


_IN_VAULT = re.compile(r"(https://([^./]+)[^/]*)/(keys|deletedkeys)/([^/]+)/?(.*)", re.IGNORECASE)
_IN_ARM = re.compile(
    r"(.*)/providers/[^/]+/(?:locations/[^/]+/(?=deletedvaults))?([^/]+)/?([^/]*)/?(.*)", re.IGNORECASE
)


class Target(NamedTuple):
    """What a ref names: a resource, or a part of it such as `pools`.

    `name` is the name of the resource, of a key with that of its vault. `document` is the ref of the document that a
    request for the part reads or changes. `scope` is what the resource is in; of a key, the ref of the key itself.
    """

    kind: str = ""
    name: str = ""
    part: str = ""
    document: str = ""
    scope: str = ""


def target(ref: str) -> Target:
    if found := _IN_VAULT.fullmatch(ref):
        return _target_in_vault(*found.groups())
    if found := _IN_ARM.fullmatch(ref):
        scope, kind, name, part = found.groups()
        document = ref[: -len(part) - 1] if part else ref
        return Target(kind.lower(), name.lower(), part.lower(), document, scope)
    return Target(document=ref)


def _target_in_vault(url: str, vault: str, kind: str, name: str, part: str) -> Target:
    part, at = part.lower(), f"{url.lower()}/keys/{name}"
    of_key = partial(Target, _KEYS, key_in_vault(vault, name), scope=at)
    if kind.lower() == "deletedkeys":
        return of_key(f"deleted/{part}".rstrip("/"), f"{url.lower()}/deletedkeys/{name}")
    if part in ("", "create", "versions"):
        return of_key(part, at)
    return of_key(part if part == "rotationpolicy" else "version", f"{at}/{part}")


class Predicting(Gateway):
    """`failed_checks` returns the names of the checks that fail for an account, each a reason why it could not use its
    key."""

    def __init__(
        self, session: Session, predictions: Predictions, failed_checks: Callable[[Account], list[str]]
    ) -> None:
        super().__init__(session)
        self._azure = Driver(session, Gateway(session))
        self._predictions = predictions
        self._failed_checks = failed_checks
        # Responses of Azure by ref, in lower case. In check mode, a task reads each document once.
        self._known: dict[str, Answer] = {}
        # The names, in lower case, of the vaults for which this task sets `authorization` to access policies.
        self.with_policies: Collection[str] = ()

    # Reads

    def answer(self, what: str, ref: str) -> Answer:
        at = target(ref)
        if at.kind == _KEYS:
            return Answer(self._key(what, at), self.now)
        if at.kind == _ACCOUNTS and at.part == "pools":
            return self._pools(what, at, lambda: self._read(what, ref), Answer({"value": []}))
        if not at.part and (predicted := self._prediction(at)):
            return Answer(predicted.document if predicted.exists else None, self.now, predicted.changed_at)
        in_azure = self._in_azure(ref)
        return Answer(None) if at.kind == _ASSIGNMENTS and in_azure != ref else self._read(what, in_azure)

    def get(self, what: str, ref: str) -> Any:
        found = self.find(what, ref)
        if found is None:
            # The error has Azure's own message. If Azure has the resource, its deletion is predicted.
            super().get(what, ref)
            raise _error(what, missing(ref))
        return found

    def list(self, what: str, ref: str, filter: str | None = None) -> list[Any]:
        at, read = target(ref), partial(super().list, what, self._in_azure(ref), filter)
        if at.kind == _KEYS:
            return self._versions(what, at, read)
        if at.kind == _ACCOUNTS and at.part == "pools":
            return self._pools(what, at, read, [])
        return self._completed(at, read(), filter or "")

    def ask(self, what: str, ref: str, body: Mapping[str, Any]) -> Any:
        """Whether a name is available: that of a deleted account is available in its region, that of a deleted vault
        is not."""
        at = target(ref)
        kind = _ACCOUNTS if at.kind == "locations" else _VAULTS
        for one in self._predictions.of(kind, str(body.get("name"))).values():
            if kind == _VAULTS or (within(at.scope, one.ref) and one.document["location"] == at.name):
                return {"nameAvailable": kind == _ACCOUNTS and not one.exists, "reason": "AlreadyExists"}
        return super().ask(what, ref, body)

    def _read(self, what: str, ref: str) -> Answer:
        """The response of Azure."""
        if ref.lower() not in self._known:
            self._known[ref.lower()] = answer = super().answer(what, ref)
            if answer.at is not None:
                # The header is in whole seconds, and the response is some time old: a small difference is not one of
                # the clocks.
                ahead = answer.at - time.time()
                self._session.files.store(ahead if abs(ahead) > _CLOCKS_DIFFER_SECONDS else 0, "ahead")
        return self._known[ref.lower()]

    def _recent(self, what: str, ref: str) -> Any:
        """A list of Azure, as a task of the run has read it some seconds ago, or the error."""
        listed: Ref[list[Any]] = Ref("recent", ref, what, is_list=True)
        return self._azure.check(lambda docs: docs.known(listed))

    @property
    def now(self) -> float:
        """The current time by Azure's clock, from the stored clock difference: if all resources of a task are
        predicted, the task gets no time from Azure."""
        return time.time() + float(self._session.files.load("ahead") or 0)

    def _prediction(self, at: Target) -> Prediction | None:
        return self._predictions.of(at.kind, at.name).get(at.document.lower())

    def _completed(self, at: Target, listed: Sequence[Any], filter: str = "") -> Any:
        """A list of Azure with the predictions."""
        predictions = self._predictions.all(at.kind)
        if not predictions:
            return listed
        items = {item["id"].lower(): item for item in listed}
        for ref, one in predictions.items():
            if not one.exists:
                items.pop(ref, None)
            elif is_listed(one.document, at.scope, filter):
                items[ref] = one.document
        return [*items.values()]

    def _in_azure(self, ref: str) -> str:
        """The same ref at a scope that exists in Azure: the resource group, from which roles are inherited, of a vault
        or account that does not exist in Azure, or of a vault that has lost its role assignments."""
        scope = target(ref).scope
        at = _resource_of(scope)
        above = self._prediction(at) if at.kind in (_ACCOUNTS, _VAULTS) else None
        if above is None:
            return ref
        was_deleted = at.kind == _VAULTS and self._predictions.of(_DELETED_VAULTS, at.name)
        return f"{at.scope}{ref[len(scope) :]}" if was_deleted or above.contents != SHOWN else ref

    # Keys

    def _key(self, what: str, at: Target) -> Any:
        """The document of a key, of a version, of the rotation policy, or of the deleted key."""
        contents, predicted = self._contents(what, at), self._predictions.of(_KEYS, at.name)
        if at.part != "deleted" and _is_deleted(at, predicted):
            return None
        if not at.part:
            newest = self._version(what, at, contents, predicted)
            versions = {newest["key"]["kid"].lower(): newest} if newest else {}
            return max({**versions, **_versions(predicted)}.values(), key=key_effects.created, default=None)
        if own := predicted.get(at.document.lower()):
            return own.document if own.exists else None
        if at.part == "version":
            return self._version(what, at, contents, predicted)
        found = self._read(what, at.document).document if contents == SHOWN else None
        if found is None and at.part == "rotationpolicy" and (predicted or contents != SHOWN):
            return key_effects.default_policy(at.document)
        return found

    def _version(self, what: str, at: Target, contents: str, predicted: Mapping[str, Prediction]) -> Any:
        """The version, by default the newest, without its predicted changes. Azure does not show the versions of a
        deleted key or the keys of a deleted vault. After a predicted recovery, all versions that a task names are
        assumed to exist and to be enabled."""
        version = at.document[len(at.scope) + 1 :]
        # A placeholder is from a task that shares no predictions with this task.
        known = "" if placeholders.is_placeholder(version) else version
        found = self._read(what, f"{at.scope}/{known}".rstrip("/")).document if contents == SHOWN else None
        if found is None and at.scope.lower() in predicted:
            found = predicted[at.scope.lower()].document
        if found is None and contents == HIDDEN:
            found = key_effects.usable(at.scope, self.now)
        return found and key_effects.assumed(found, version)

    def _versions(self, what: str, at: Target, read: Callable[[], Any]) -> Any:
        """The list of the versions of a key."""
        contents, predicted = self._contents(what, at), self._predictions.of(_KEYS, at.name)
        if _is_deleted(at, predicted):
            raise _error(what, missing(at.scope))
        try:
            listed = read() if contents == SHOWN else []
        except NotFound:
            if not predicted:
                raise
            listed = []
        if not listed and (newest := self._version(what, at, contents, predicted)):
            listed = [item_of(newest)]
        items = {item["kid"].lower(): item for item in listed}
        return [*{**items, **{ref: item_of(one) for ref, one in _versions(predicted).items()}}.values()]

    def _contents(self, what: str, at: Target) -> str:
        """Whether Azure shows the keys of the key's vault (SHOWN, NEW or HIDDEN)."""
        vault = self._vault(at.name.partition("/")[0])
        if vault is not None and not vault.exists:
            message = f"the vault is deleted, so there is no host {urlsplit(at.scope).hostname}"
            raise sdk.no_response(what, message, unreachable="vault_unreachable")
        return vault.contents or SHOWN if vault else SHOWN

    def _vault(self, name: str) -> Prediction | None:
        return next(iter(self._predictions.of(_VAULTS, name).values()), None)

    # Whether an account is available

    def _pools(self, what: str, at: Target, read: Callable[[], Any], none: Any) -> Any:
        """The pools, as `read` returns them, or `none`. The list of pools shows whether an account is available. If a
        prediction affects availability, the preflight checks decide."""
        predicted, touched = self._prediction(at), self._predictions.touched
        if predicted is None and not touched:
            return read()
        account: Any = value_or_error(lambda: self.find(what, at.document), CmkError)
        used = None if isinstance(account, CmkError) else key_of(account)
        if predicted is None and not (used and touched & {used.vault, key_in_vault(used.vault, used.name)}):
            return read()
        if account is None:
            raise _error(what, missing(at.document))
        failed = self._failed_checks(account)
        if used and failed and (named := _named_version(read, used)):
            # Before it uses the newest version of a key that the account follows, Batch needs the version that it
            # names. The newest version may be of a type that Batch does not use.
            pinned = {"encryption": encryption_body(replace(used, version=named))}
            failed = self._failed_checks(cast(Account, changed(account, {"properties": pinned})))
        if failed:
            raise _error(what, _unavailable(account, failed))
        if predicted is not None and predicted.contents == NEW:
            return none
        pools = value_or_error(read, CmkError)
        if not isinstance(pools, CmkError):
            return pools
        # The account can use its key, whatever Batch responds now. If the caller may not list pools, Resource
        # Manager refuses the request, and that response stays.
        said = pools.facts.get("azure", {})
        if said.get("status", 429) == 429 or is_of_caller(said.get("code")):
            raise pools
        return none

    def complete_operations(self) -> None:
        """Predict that the accounts which the task has read are created or deleted, if that is under way."""
        # Other threads of the task may read more documents meanwhile.
        for ref, answer in [*self._known.items()]:
            at = target(ref)
            state = (answer.document or {}).get("properties", {}).get("provisioningState")
            is_under_way = at.kind == _ACCOUNTS and not at.part and state in ("Creating", "Deleting")
            if is_under_way and self._prediction(at) is None:
                properties = {**answer.document["properties"], "provisioningState": "Succeeded"}
                self._put(Prediction(ref, {**answer.document, "properties": properties}, exists=state == "Creating"))

    # Writes

    def write(
        self,
        what: str,
        method: str,
        ref: str,
        body: Mapping[str, Any] | None = None,
        *,
        if_late: Callable[[], None] | None = None,
        undoes: bool = False,
    ) -> Any:
        with self._session.journal.writing(method, ref, body, undoes=undoes):
            document = self._predict(what, method, ref, body or {})
        self._session.sent.accepted += 1
        return document

    def begin(self, what: str, method: str, ref: str, *request: Any, **options: Any) -> Operation:
        return Operation(method, ref, self.write(what, method, ref, *request, **options))

    def finish(self, what: str, operation: Operation) -> bool:
        return True

    def _predict(self, what: str, method: str, ref: str, body: Mapping[str, Any]) -> Any:
        """Store the effects of the write. Returns the document in the response."""
        at = target(ref)
        effect = EFFECTS.get((method, at.kind, at.part))
        if effect is None:
            raise AssertionError(f"check mode does not know the request {method} {ref}, so it was not sent")
        with self._predictions.locked(at.kind, at.name):
            try:
                if at.kind != _KEYS:
                    self._require_unlocked(what, method, ref)
                before = self.find(what, at.document)
                if at.kind == _ACCOUNTS:
                    self._require_accepted(what, method, at, before, body)
                predicted = [*effect(EffectInput(at.document, before, body, self._facts(what)))]
            except PredictedRefusal as refusal:
                raise _error(what, refusal) from None
            for one in predicted:
                self._put(one)
        of = at if at.kind in (_VAULTS, _KEYS) else _resource_of(at.scope)
        if predicted and of.kind in (_VAULTS, _KEYS):
            self._predictions.touch(of.name)
        return next((one.document for one in predicted if one.exists), None)

    def _put(self, one: Prediction) -> None:
        at = target(one.ref)
        previous = self._prediction(at)
        contents = one.contents or (previous.contents if previous else SHOWN)
        # As in a header, in whole seconds.
        changed_at = int(self.now) if one.exists else None
        self._predictions.put(at.kind, at.name, one._replace(contents=contents, changed_at=changed_at))

    def _facts(self, what: str) -> EffectContext:
        return EffectContext(
            now=self.now,
            find=partial(self.find, what),
            list=partial(self.list, what),
            vault=self._vault,
            caller=lambda: self._session.caller,
            vault_suffix=lambda: self._session.environment.vault_suffix,
            number=self._predictions.next_number,
            placeholder=self._predictions.keep_placeholder,
            with_policies=self.with_policies,
        )

    # Requests that Azure would refuse

    def _require_unlocked(self, what: str, method: str, ref: str) -> None:
        """A lock may forbid the request, as far as the caller may read locks."""
        locks = self._recent("list the locks", "/".join(ref.split("/")[:3]) + LOCKS)
        for lock in [] if isinstance(locks, CmkError) else locks:
            scope, level = lock["id"].rpartition(LOCKS)[0], lock["properties"]["level"]
            if within(scope, ref) and (level == "ReadOnly" or method == "DELETE"):
                operation = "delete" if method == "DELETE" else "write"
                message = (
                    f"The scope '{ref}' cannot perform {operation} operation because following scope(s) are locked: "
                    f"'{scope}'."
                )
                raise PredictedRefusal(sdk.LOCKED, message)

    def _require_accepted(self, what: str, method: str, at: Target, before: Any, body: Mapping[str, Any]) -> None:
        """Batch creates no account above the quota, and changes no account that is not available. A PUT repeats a
        creation that has failed."""
        if before is None and method == "PUT":
            self._require_quota(what, at, region(body))
        elif before is not None and method != "DELETE" and not (method == "PUT" and is_failed(before)):
            self._require_available(what, before)

    def _require_quota(self, what: str, at: Target, location: str) -> None:
        """The quota is that of the subscription in the region. Not every caller may read it. An account whose creation
        has failed does not count."""
        scope = f"/subscriptions/{place_of(at.document)[0]}{_BATCH}"
        limits = value_or_error(lambda: self._read(what, f"{scope}/locations/{location}/quotas").document, CmkError)
        listed = self._recent(what, f"{scope}/batchAccounts")
        if limits is None or isinstance(limits, CmkError) or isinstance(listed, CmkError):
            return
        listed = self._completed(target(f"{scope}/batchAccounts"), listed)
        there = [one for one in listed if one["location"] == location and not is_failed(one)]
        if len(there) >= limits["accountQuota"]:
            message = "The regional Batch account quota for the specified subscription has been reached."
            raise PredictedRefusal(sdk.QUOTA_EXCEEDED, message)

    def _require_available(self, what: str, account: Account) -> None:
        if failed := self._failed_checks(account):
            raise _unavailable(account, failed)
        pools = value_or_error(lambda: self.answer(what, f"{account['id']}/pools"), CmkError)
        if isinstance(pools, CmkError) and pools.facts.get("azure", {}).get("status") == 409:
            raise pools


def _resource_of(scope: str) -> Target:
    """The resource of Resource Manager that the scope names or is in."""
    return target("/".join(scope.split("/")[:9]))


def _is_deleted(at: Target, predicted: Mapping[str, Prediction]) -> bool:
    """Whether the deletion of the key is predicted."""
    return at.scope.lower() in predicted and not predicted[at.scope.lower()].exists


def _versions(predicted: Mapping[str, Prediction]) -> dict[str, Any]:
    """The predicted versions of a key, by their refs in lower case."""
    return {ref: one.document for ref, one in predicted.items() if target(ref).part == "version"}


def _named_version(read: Callable[[], Any], key: KeyIdentifier) -> str | None:
    """The version that Batch names in its refusal to list the pools of an account that follows this key."""
    pools = None if key.version else value_or_error(read, CmkError)
    said = pools.facts.get("azure", {}).get("message", "") if isinstance(pools, CmkError) else ""
    found = re.search(rf"/keys/{re.escape(key.name)}/([0-9a-f]{{32}})\b", said, re.IGNORECASE)
    return found[1] if found else None


def _unavailable(account: Account, failed: list[str]) -> PredictedRefusal:
    message = f"The key {key_of(account)} that the account is encrypted with is not accessible: {', '.join(failed)}."
    return PredictedRefusal("KeyVaultKeyNotAccessible", message)


def _error(what: str, refusal: PredictedRefusal) -> CmkError:
    said = {"status": refusal.status, "code": refusal.code, "inner_code": None, "message": refusal.message}
    return sdk.service_error(what, said)
