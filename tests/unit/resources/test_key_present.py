# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions for usable keys: a version is repaired or, if rotation is due, a new version is created."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from documents import (
    DAY,
    KEY,
    NEW,
    NOW,
    OLD,
    SUBSCRIPTION,
    account,
    deleted_key,
    deleted_vault,
    key,
    rotation_policy,
    vault,
)
from goals import key_goal, options_of, rotation
from key_table import ACCOUNTS, IDENTIFIER, VERSIONS, KeyTable, confirmed, create, decided, sent, update

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    InvalidOption,
    Refused,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.key import TAG
from ansible_collections.azbatch.cmk.plugins.modules import keyvault_cmk_key

WRAP = ["wrapKey", "unwrapKey"]
RECOVER = ("POST", "/deletedkeys/batch/recover", None)


def make(*bundles: dict[str, Any], **options: Any) -> Change:
    """The change of a key with these versions."""
    return decided(KeyTable(*bundles), key_goal(**options))


def body_of(change: Change) -> Any:
    """The body of the only request."""
    [request] = change.requests
    return request.body


def set_policy(**body: Any) -> tuple[str, str, Any]:
    return "PUT", "/keys/batch/rotationpolicy", body


# A key that does not exist


@pytest.mark.parametrize(
    ("options", "body"),
    [
        pytest.param({}, {}, id="defaults"),
        pytest.param({"key_size": 4096}, {"key_size": 4096}, id="size"),
        pytest.param(
            {"expires_in": "P1Y"}, {"attributes": {"enabled": True, "exp": NOW + 365 * DAY}}, id="expiry from now on"
        ),
    ],
)
def test_key_is_created(options: dict[str, Any], body: dict[str, Any]) -> None:
    made = make(**options)

    default = {"kty": "RSA", "key_size": 2048, "key_ops": WRAP, "attributes": {"enabled": True}}
    assert sent(made) == [create(**{**default, **body})]
    assert made.before == {"exists": False, "soft_deleted": False}
    assert made.after["exists"] is True
    assert made.after["enabled"] is True
    assert made.after["key_ops"] == WRAP
    # Values that only Key Vault can set.
    assert made.after["key_identifier"] is made.after["version"] is made.after["created_on"] is None


@pytest.mark.parametrize(
    ("found", "is_refused"),
    [
        pytest.param([vault(sku={"name": "standard"})], True, id="standard"),
        pytest.param([vault(sku={"name": "Premium"})], False, id="premium"),
    ],
)
def test_a_key_of_an_hsm_is_created_unless_the_vault_is_of_another_sku(found: Any, is_refused: bool) -> None:
    table = KeyTable().having(refs.vaults_of(SUBSCRIPTION), found)

    if is_refused:
        with pytest.raises(Refused) as refused:
            decided(table, key_goal(key_type="RSA-HSM"))
        assert refused.value.code == "vault_not_premium"
        return
    assert body_of(decided(table, key_goal(key_type="RSA-HSM")))["kty"] == "RSA-HSM"


def test_name_of_a_deleted_key_is_not_used_again() -> None:
    with pytest.raises(Refused) as refused:
        decided(KeyTable(deleted=deleted_key()), key_goal())

    assert refused.value.code == "key_soft_deleted"
    assert refused.value.facts["option"] == "allowed_repairs"
    assert "Add key to allowed_repairs" in plain(refused.value.facts["remedy"])


def test_a_deleted_key_is_recovered_on_request() -> None:
    change = decided(KeyTable(deleted=deleted_key()), key_goal(allowed_repairs=["key"]))

    assert sent(change) == [RECOVER, update(NEW, attributes={"enabled": True})]
    assert (change.before["soft_deleted"], change.after) == (True, {"exists": True, "soft_deleted": False})
    # A recovered version that is not usable yet does not make the recovery unconfirmed.
    assert not confirmed(KeyTable(key(enabled=False)), change).requests


DELETED = {"exists": False, "soft_deleted": True}
FOUND = {"exists": True, "soft_deleted": False, "enabled": False, "version": NEW, "staged_versions": []}


@pytest.mark.parametrize(
    ("first", "repairs", "calls", "before"),
    [
        pytest.param(Outcome(True, DELETED, FOUND, ("one",)), ["key"], 2, DELETED, id="recovered"),
        pytest.param(Outcome(False, FOUND, FOUND), ["key"], 1, FOUND, id="nothing to do"),
    ],
)
def test_a_recovered_key_is_read_again(first: Outcome, repairs: list[str], calls: int, before: dict[str, Any]) -> None:
    outcomes = [first, Outcome(False, FOUND, {**FOUND, "enabled": True}, ("two",))]
    asked: list[Any] = []

    def ensure(task: Any) -> Outcome:
        asked.append(task)
        return outcomes[len(asked) - 1]

    cloud: Any = SimpleNamespace(facts=None, changes=SimpleNamespace(ensure=ensure))
    given = {"vault_name": "myvault", "name": "batch", "allowed_repairs": repairs}
    outcome = keyvault_cmk_key.run(options_of(keyvault_cmk_key, **given), cloud)

    assert len(asked) == calls
    assert (outcome.changed, outcome.before) == (first.changed, before)
    assert outcome.warnings == (("one", "two") if calls == 2 else first.warnings)
    assert outcome.after["enabled"] is (calls == 2)


# A usable key


@pytest.mark.parametrize(
    ("options", "bundle"),
    [
        pytest.param({}, key(exp=NOW + 9 * DAY + 1), id="expires in more than nine days"),
        pytest.param({"max_version_age": "P10D"}, key(created=NOW - 10 * DAY), id="as old as it may be"),
        pytest.param({"expires_in": "P20D"}, key(exp=NOW + 10 * DAY), id="expires sooner"),
        pytest.param({}, key(key_ops=["encrypt", "decrypt", *WRAP]), id="may do more"),
    ],
)
def test_a_usable_key_is_not_changed(options: dict[str, Any], bundle: dict[str, Any]) -> None:
    made = make(bundle, **options)

    assert not made.requests
    assert made.before == made.after
    assert made.before["version"] == NEW


# A new version


@pytest.mark.parametrize(
    ("options", "bundle"),
    [
        pytest.param({"max_version_age": "P10D"}, key(created=NOW - 10 * DAY - 1), id="too old"),
        pytest.param({}, key(exp=NOW), id="expired this second"),
        pytest.param(
            {"max_version_age": "P10D", "allowed_repairs": ["key"]},
            key(created=NOW - 11 * DAY, enabled=False),
            id="too old, disabled",
        ),
    ],
)
def test_new_version_is_made_when_it_is_due(options: dict[str, Any], bundle: dict[str, Any]) -> None:
    made = make(bundle, **options)

    assert sent(made) == [create(kty="RSA", key_size=2048, key_ops=WRAP, attributes={"enabled": True})]
    assert made.after["previous_version"] == NEW
    assert made.after["version"] is made.after["key_identifier"] is made.after["created_on"] is None
    assert made.after["versionless_identifier"] == KEY
    assert made.after["expires_on"] is None


def test_a_new_version_has_the_properties_of_the_previous_version() -> None:
    previous = key(kty="RSA-HSM", size=4096, key_ops=["sign", "unwrapKey"], tags={"owner": "me"}, exp=NOW - DAY)

    assert sent(make(previous)) == [
        create(
            kty="RSA-HSM",
            key_size=4096,
            key_ops=["sign", "unwrapKey", "wrapKey"],
            attributes={"enabled": True},
            tags={"owner": "me"},
        )
    ]


def test_any_newer_version_satisfies_new_version() -> None:
    previous, newer = key(OLD, created=NOW - DAY), key(NEW, created=NOW)

    change = make(previous, new_version=True)

    assert not confirmed(KeyTable(previous, newer), change).requests
    # The service has accepted the request, but still returns the previous version.
    assert confirmed(KeyTable(previous), change).requests


# A version that is forced for a purpose

FORCED: dict[str, Any] = {"new_version": "CHG1"}
MADE = {"owner": "me", TAG: "CHG1"}


@pytest.mark.parametrize(
    ("bundles", "tags"),
    [
        pytest.param([key(created=NOW - 60, tags={"owner": "me"})], MADE, id="not made yet"),
        pytest.param([key(created=NOW - 7 * DAY, tags=MADE)], MADE, id="a week ago"),
        pytest.param(
            [key(OLD, created=NOW - 60, tags=MADE, enabled=False), key(NEW, created=NOW - 9, tags={"owner": "me"})],
            MADE,
            id="disabled since",
        ),
        pytest.param(
            [key(OLD, created=NOW - 60, tags=MADE), key(NEW, created=NOW - 9, enabled=False)],
            None,
            id="made, and a newer one that is disabled",
        ),
    ],
)
def test_a_version_is_forced_once_for_a_purpose(bundles: list[dict[str, Any]], tags: dict[str, str] | None) -> None:
    made = make(*bundles, **FORCED)

    assert [one.body and one.body["tags"] for one in made.requests] == ([tags] if tags else [])
    assert made.warnings == ()
    # If the versions cannot be listed, the newest version decides.
    if len(bundles) == 1:
        unlisted = decided(KeyTable(*bundles).having(VERSIONS, Denied("403")), key_goal(**FORCED))
        assert sent(unlisted) == sent(made)


def test_a_version_that_was_forced_does_not_count_if_a_disabled_one_is_enabled() -> None:
    bundles = key(OLD, created=NOW - 60, tags=MADE), key(NEW, created=NOW - 9, enabled=False)

    assert body_of(make(*bundles, **FORCED, allowed_repairs=["key"]))["tags"] == {TAG: "CHG1"}


def test_a_version_that_is_due_is_made_although_one_was_forced_for_the_same_purpose() -> None:
    """The version that is due has no tag of the purpose."""
    expired = make(key(created=NOW - DAY, exp=NOW, tags=MADE), **FORCED)

    assert body_of(expired)["tags"] == {"owner": "me"}
    assert "tags" not in body_of(make(key(tags={TAG: "CHG1"}), new_version=True))


@pytest.mark.parametrize(("count", "has_room"), [(14, True), (15, False)])
def test_no_tag_of_others_is_lost(count: int, has_room: bool) -> None:
    others = {f"tag{number}": "theirs" for number in range(count)}
    made = make(key(tags={**others, **({TAG: "CHG0"} if has_room else {})}), **FORCED)

    assert body_of(made)["tags"] == {**others, **({TAG: "CHG1"} if has_room else {})}
    assert ["15 tags" in warning for warning in made.warnings] == ([] if has_room else [True])


def test_a_purpose_fits_a_tag() -> None:
    with pytest.raises(InvalidOption) as refused:
        key_goal(new_version="x" * 257)

    assert refused.value.facts["option"] == "new_version"


# A version that is repaired


@pytest.mark.parametrize(
    ("options", "bundle", "body", "after"),
    [
        pytest.param(
            {}, key(key_ops=["sign"]), {"key_ops": ["sign", *WRAP]}, {"key_ops": ["sign", *WRAP]}, id="others kept"
        ),
    ],
)
def test_version_is_repaired_and_nothing_else_is_sent(
    options: dict[str, Any], bundle: dict[str, Any], body: dict[str, Any], after: dict[str, Any]
) -> None:
    made = make(bundle, **options)

    assert sent(made) == [update(NEW, **body)]
    assert {name: made.after[name] for name in after} == after
    assert made.after["version"] == NEW


DISABLED = key(created=NOW - 20 * DAY, enabled=False)
OLDER = key(OLD, created=NOW - 40 * DAY)


@pytest.mark.parametrize(
    ("table", "options", "code"),
    [
        pytest.param(
            KeyTable(key(OLD, created=NOW - 40 * DAY, enabled=False), DISABLED),
            {"new_version": True},
            "key_disabled",
            id="all versions",
        ),
        pytest.param(
            KeyTable(OLDER, DISABLED).having(VERSIONS, Denied("403")),
            {"new_version": True},
            "key_disabled",
            id="not to be listed",
        ),
        pytest.param(
            KeyTable(DISABLED), {"allowed_repairs": ["key"], "new_version": True}, None, id="asked for, forced"
        ),
    ],
)
def test_a_disabled_key_is_enabled_only_on_request(table: KeyTable, options: dict[str, Any], code: str | None) -> None:
    if code is None:
        assert decided(table, key_goal(**options)).requests
        return
    with pytest.raises(Refused) as refused:
        decided(table, key_goal(**options))

    assert refused.value.code == code
    assert refused.value.facts["option"] == "allowed_repairs"
    assert "Add key to allowed_repairs" in plain(refused.value.facts["remedy"])


@pytest.mark.parametrize(
    ("options", "is_made"),
    [
        pytest.param({"new_version": True}, True, id="forced"),
        pytest.param({"max_version_age": "P30D"}, True, id="too old"),
        pytest.param({}, False, id="not due"),
    ],
)
def test_if_only_the_newest_version_is_disabled_the_version_before_it_counts(
    options: dict[str, Any], is_made: bool
) -> None:
    made = make(OLDER, DISABLED, **options)

    assert ([one.name for one in made.requests], made.before["version"]) == (["create"] * is_made, OLD)


# A key that cannot be made usable


@pytest.mark.parametrize(("is_deleted", "code"), [(True, "vault_deleted"), (False, "vault_unreachable")])
def test_a_deleted_vault_is_the_error_if_its_host_does_not_respond(is_deleted: bool, code: str) -> None:
    table = KeyTable().having(refs.key(IDENTIFIER), Unavailable("No host.", code="vault_unreachable"))
    table[refs.deleted_vaults_of(SUBSCRIPTION)] = [deleted_vault()] if is_deleted else []

    with pytest.raises(CmkError) as failed:
        decided(table, key_goal())

    assert failed.value.code == code


@pytest.mark.parametrize(
    ("kty", "asked"),
    [("EC", None), ("RSA", "RSA-HSM"), ("RSA-HSM", "RSA")],
)
def test_key_of_another_type_is_refused(kty: str, asked: str | None) -> None:
    with pytest.raises(Refused) as refused:
        make(key(kty=kty), key_type=asked, new_version=True)

    assert refused.value.code == "key_type_differs"
    assert kty in str(refused.value)


@pytest.mark.parametrize(("has", "asked"), [(2048, 3072), (4096, 2048)])
def test_version_of_another_size_is_refused_unless_a_new_one_is_due(has: int, asked: int) -> None:
    with pytest.raises(Refused) as refused:
        make(key(size=has), key_size=asked)

    assert refused.value.code == "key_size_differs"
    assert refused.value.facts["value"] == asked
    assert str(has) in plain(refused.value.facts["remedy"])


# Rotation policy


def test_rotation_policy_of_a_new_key() -> None:
    wanted = rotation(time_before_expiry="P30D", expiry_time="P1Y")

    created, policy = sent(make(rotation_policy=wanted))

    assert created[:2] == create()[:2]
    assert policy == set_policy(
        lifetimeActions=[{"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Rotate"}}],
        attributes={"expiryTime": "P1Y"},
    )


def test_rotation_policy_is_changed_and_its_notification_kept() -> None:
    table = KeyTable(key(), policy=rotation_policy(timeBeforeExpiry="P10D"))
    wanted = rotation(time_after_create="P90D")

    made = decided(table, key_goal(rotation_policy=wanted))

    assert sent(made) == [set_policy(**body_of(made))]
    assert [action["action"]["type"] for action in body_of(made)["lifetimeActions"]] == ["Rotate", "Notify"]
    assert made.before["rotation_policy"] == rotation(time_before_expiry="P10D")
    assert made.after["rotation_policy"] == wanted


# The users of the key


PINNED, FOLLOWS = account("pinned", key=f"{KEY}/{NEW}"), account("follows", key=KEY)


def test_the_expiry_of_a_version_that_exists_is_never_brought_forward() -> None:
    """The users of the key do not matter, so they are not listed."""
    table = KeyTable(key(exp=NOW + 300 * DAY), accounts=[PINNED])

    assert not decided(table, key_goal(expires_in="P20D")).requests
    # A new version has the requested expiry.
    made = decided(table, key_goal(expires_in="P20D", new_version=True))
    assert body_of(made)["attributes"]["exp"] == NOW + 20 * DAY
    assert table.reads_of(ACCOUNTS) == 0


def test_rotation_policy_is_not_removed_if_accounts_follow_the_key() -> None:
    def remove(*accounts: dict[str, Any], rotates: bool = True) -> Change:
        policy = rotation_policy(**({"timeAfterCreate": "P90D"} if rotates else {}))
        return decided(KeyTable(key(), accounts=accounts, policy=policy), key_goal(remove_rotation_policy=True))

    with pytest.raises(Refused) as refused:
        remove(PINNED, FOLLOWS)
    assert [name.rsplit("/", 1)[-1] for name in refused.value.facts["accounts"]] == ["follows"]

    change = remove(PINNED)
    assert sent(change) == [set_policy(**body_of(change))]
    assert [action["action"]["type"] for action in body_of(change)["lifetimeActions"]] == ["Notify"]
    assert change.before["rotation_policy"]["time_after_create"] == "P90D"
    assert change.after["rotation_policy"]["time_after_create"] is None
    assert not remove(FOLLOWS, rotates=False).requests


@pytest.mark.parametrize(
    ("left", "names", "warnings"),
    [
        (9 * DAY + 1, [], 0),
        (9 * DAY, ["create"], 0),
        (7 * DAY, ["create"], 0),
        (7 * DAY - 1, ["create"], 1),
        (0, ["create"], 0),
    ],
)
def test_a_version_is_replaced_nine_days_before_it_expires(left: int, names: list[str], warnings: int) -> None:
    """Accounts may need the previous version for seven days after that."""
    made = make(key(created=NOW - 90 * DAY, exp=NOW + left))

    assert [one.name for one in made.requests] == names
    assert ["Set a later expiry" in warning for warning in made.warnings] == [True] * warnings
