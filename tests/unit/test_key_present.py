# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans for usable keys: repair a version, or create a new version if rotation is due."""

from __future__ import annotations

from typing import Any

import pytest
from documents import DAY, KEY, NEW, NOW, OLD, account, deleted_key, key, listed, observed_key, rotation_policy, visible
from goals import key_goal, rotation
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome, Plan, Step
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.key import TAG
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import plan as key_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.goal import KeyWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.plan import recovered_first

WRAP = ["wrapKey", "unwrapKey"]
NEWEST = "d" * 32


def plan(bundle: dict[str, Any] | None, **options: Any) -> Plan:
    observed = observed_key(bundle) if bundle else observed_key()
    return key_plan.plan(key_goal(**options), observed)


def create(**body: Any) -> Step:
    return Step(KeyWrites.create, {"vault": "myvault", "name": "batch", "body": body})


def update(**body: Any) -> Step:
    return Step(KeyWrites.update, {"vault": "myvault", "name": "batch", "version": NEW, "body": body})


# A key that does not exist


@pytest.mark.parametrize(
    ("options", "body"),
    [
        pytest.param({}, {}, id="defaults"),
        pytest.param({"key_type": "RSA-HSM"}, {"kty": "RSA-HSM"}, id="type"),
        pytest.param({"key_size": 4096}, {"key_size": 4096}, id="size"),
        pytest.param(
            {"expires_in": "P1Y"}, {"attributes": {"enabled": True, "exp": NOW + 365 * DAY}}, id="expiry from now on"
        ),
        pytest.param({"max_version_age": "P1D", "new_version": True}, {}, id="one version at a time"),
    ],
)
def test_key_is_created(options: dict[str, Any], body: dict[str, Any]) -> None:
    made = plan(None, **options)

    default = {"kty": "RSA", "key_size": 2048, "key_ops": WRAP, "attributes": {"enabled": True}}
    assert made.steps == (create(**{**default, **body}),)
    assert made.before == {"exists": False, "soft_deleted": False}
    assert made.after["exists"] is True
    assert made.after["enabled"] is True
    assert made.after["key_ops"] == WRAP
    # Values that only Key Vault can set.
    assert made.after["key_identifier"] is made.after["version"] is made.after["created_on"] is None


def test_name_of_a_deleted_key_is_not_used_again() -> None:
    with pytest.raises(Refused) as refused:
        key_plan.plan(key_goal(), observed_key(deleted=deleted_key()))

    assert refused.value.code == "key_soft_deleted"
    assert refused.value.facts["option"] == "recover"
    assert "recover: true" in plain(refused.value.facts["remedy"])


def test_a_deleted_key_is_recovered_with_the_option_recover() -> None:
    planned = key_plan.plan(key_goal(recover=True), observed_key(deleted=deleted_key()))

    recover = Step(KeyWrites.recover, {"vault": "myvault", "name": "batch"})
    assert planned.steps == (recover, update(attributes={"enabled": True}))
    assert (planned.before["soft_deleted"], planned.after) == (True, {"exists": True, "soft_deleted": False})
    # A recovered version that is not usable yet does not make the recovery unconfirmed.
    assert not key_plan.plan(planned.goal, observed_key(key(enabled=False))).changed


@pytest.mark.parametrize("recover", [True, False])
@pytest.mark.parametrize("exists", [True, False])
def test_a_key_that_was_not_deleted_is_treated_as_without_recovery(recover: bool, exists: bool) -> None:
    observed = observed_key(key(enabled=exists)) if exists else observed_key()

    assert key_plan.plan(key_goal(recover=recover), observed).steps == key_plan.plan(key_goal(), observed).steps


DELETED = {"exists": False, "soft_deleted": True}
FOUND = {"exists": True, "soft_deleted": False}


@pytest.mark.parametrize(
    ("first", "recover", "calls", "before"),
    [
        pytest.param(Outcome(True, DELETED, FOUND, ("one",)), True, 2, DELETED, id="recovered"),
        pytest.param(
            Outcome(True, {**FOUND, "exists": False}, FOUND), True, 1, {**FOUND, "exists": False}, id="created"
        ),
        pytest.param(Outcome(False, FOUND, FOUND), True, 1, FOUND, id="nothing to do"),
        pytest.param(Outcome(False, DELETED, DELETED), True, 1, DELETED, id="stays deleted"),
        pytest.param(Outcome(True, DELETED, FOUND), False, 1, DELETED, id="only recovered"),
    ],
)
def test_a_recovered_key_is_read_again(first: Outcome, recover: bool, calls: int, before: dict[str, Any]) -> None:
    outcomes = [first, Outcome(False, FOUND, {**FOUND, "enabled": True}, ("two",))]
    asked: list[Any] = []

    def ensure(goal: Any) -> Outcome:
        asked.append(goal)
        return outcomes[len(asked) - 1]

    outcome = recovered_first(key_goal(recover=recover), ensure)

    assert asked == [key_goal(recover=recover)] * calls
    assert outcome.before == before
    assert outcome.changed is first.changed
    assert outcome.warnings == (("one", "two") if calls == 2 else first.warnings)
    assert outcome.after.get("enabled", False) is (calls == 2)


# A usable key


@pytest.mark.parametrize(
    ("options", "bundle"),
    [
        pytest.param({}, key(), id="nothing asked"),
        pytest.param({}, key(exp=NOW + 9 * DAY + 1), id="expires in more than nine days"),
        pytest.param({}, key(kty="RSA-HSM"), id="in hardware"),
        pytest.param({"key_type": "RSA", "key_size": 3072}, key(size=3072), id="as asked"),
        pytest.param({"max_version_age": "P10D"}, key(created=NOW - 10 * DAY), id="as old as it may be"),
        pytest.param({"expires_in": "P20D"}, key(created=NOW - DAY, exp=NOW + 19 * DAY), id="expires as asked"),
        pytest.param({"expires_in": "P20D"}, key(exp=NOW + 300 * DAY), id="expires later"),
        pytest.param({"expires_in": "P20D"}, key(exp=NOW + 10 * DAY), id="expires sooner"),
        pytest.param({"expires_in": "P20D"}, key(), id="does not expire"),
        pytest.param({"expires_in": "P20D", "force": True}, key(), id="does not expire, by force"),
        pytest.param({"expires_in": "P20D"}, key(created=NOW - 30 * DAY), id="would have expired by now"),
        pytest.param({}, key(key_ops=["encrypt", "decrypt", *WRAP]), id="may do more"),
        pytest.param({"force": True}, key(), id="forced to nothing"),
    ],
)
def test_a_usable_key_is_not_changed(options: dict[str, Any], bundle: dict[str, Any]) -> None:
    made = plan(bundle, **options)

    assert not made.changed
    assert made.before == made.after
    assert made.before["version"] == NEW


# A new version


@pytest.mark.parametrize(
    ("options", "bundle"),
    [
        pytest.param({"new_version": True}, key(created=NOW), id="asked for"),
        pytest.param({"max_version_age": "P10D"}, key(created=NOW - 10 * DAY - 1), id="too old"),
        pytest.param({}, key(exp=NOW), id="expired this second"),
        pytest.param({}, key(exp=NOW - DAY), id="expired"),
        pytest.param({}, key(exp=NOW + 3600), id="expires in an hour"),
        pytest.param(
            {"max_version_age": "P10D", "enable": True},
            key(created=NOW - 11 * DAY, enabled=False),
            id="too old, disabled",
        ),
    ],
)
def test_new_version_is_made_when_it_is_due(options: dict[str, Any], bundle: dict[str, Any]) -> None:
    made = plan(bundle, **options)

    assert made.steps == (create(kty="RSA", key_size=2048, key_ops=WRAP, attributes={"enabled": True}),)
    assert made.after["previous_version"] == NEW
    assert made.after["version"] is made.after["key_identifier"] is made.after["created_on"] is None
    assert made.after["versionless_identifier"] == KEY
    assert made.after["expires_on"] is None


def test_a_new_version_has_the_properties_of_the_previous_version() -> None:
    previous = key(kty="RSA-HSM", size=4096, key_ops=["sign", "unwrapKey"], tags={"owner": "me"}, exp=NOW - DAY)

    assert plan(previous).steps == (
        create(
            kty="RSA-HSM",
            key_size=4096,
            key_ops=["sign", "unwrapKey", "wrapKey"],
            attributes={"enabled": True},
            tags={"owner": "me"},
        ),
    )


def test_new_version_may_have_another_size() -> None:
    [step] = plan(key(size=2048), new_version=True, key_size=4096, expires_in="P1Y").steps

    assert step.arguments["body"]["key_size"] == 4096
    assert step.arguments["body"]["attributes"]["exp"] == NOW + 365 * DAY


def test_any_newer_version_satisfies_new_version() -> None:
    wanted = key_goal(new_version=True)
    previous, newer = key(OLD, created=NOW - DAY), key(NEW, created=NOW)

    first = key_plan.plan(wanted, observed_key(previous))

    assert first.goal.new_version is False
    assert not key_plan.plan(first.goal, observed_key(previous, newer)).changed
    # The service has accepted the request, but still returns the previous version.
    assert key_plan.plan(first.goal, observed_key(previous)).changed


def test_new_version_is_satisfied_by_the_first_version() -> None:
    first = key_plan.plan(key_goal(new_version=True), observed_key())

    assert not key_plan.plan(first.goal, observed_key(key(created=NOW))).changed


# A version that is forced for a purpose

FORCED: dict[str, Any] = {"new_version": True, "new_version_for": "CHG1"}
MADE = {"owner": "me", TAG: "CHG1"}


@pytest.mark.parametrize(
    ("bundles", "tags"),
    [
        pytest.param([key(created=NOW - 60, tags={"owner": "me"})], MADE, id="not made yet"),
        pytest.param([key(created=NOW - 60, tags={**MADE, TAG: "CHG0"})], MADE, id="for another purpose"),
        pytest.param([key(created=NOW - 7 * DAY, tags=MADE)], MADE, id="a week ago"),
        pytest.param(
            [key(OLD, created=NOW - 60, tags=MADE, enabled=False), key(NEW, created=NOW - 9, tags={"owner": "me"})],
            MADE,
            id="disabled since",
        ),
        pytest.param(
            [key(OLD, created=NOW - 60, tags=MADE), key(NEW, created=NOW - 9, enabled=False)],
            {TAG: "CHG1"},
            id="made, and a newer one that is disabled",
        ),
        pytest.param([key(created=NOW - 7 * DAY + 1, tags=MADE)], None, id="made"),
        pytest.param(
            [key(OLD, created=NOW - 60, tags=MADE), key(NEW, created=NOW - 9)], None, id="made, and a newer one"
        ),
    ],
)
def test_a_version_is_forced_once_for_a_purpose(bundles: list[dict[str, Any]], tags: dict[str, str] | None) -> None:
    made = key_plan.plan(key_goal(**FORCED), observed_key(*bundles))

    assert [step.arguments["body"]["tags"] for step in made.steps] == ([tags] if tags else [])
    assert made.warnings == ()
    # If the versions cannot be listed, the newest version decides.
    if len(bundles) == 1:
        assert key_plan.plan(key_goal(**FORCED), observed_key(*bundles, versions=None)).changed is made.changed


def test_a_version_that_is_due_is_made_although_one_was_forced_for_the_same_purpose() -> None:
    """The version that is due has no tag of the purpose."""
    expired = plan(key(created=NOW - DAY, exp=NOW, tags=MADE), **FORCED)

    assert expired.steps[0].arguments["body"]["tags"] == {"owner": "me"}
    assert "tags" not in plan(key(tags={TAG: "CHG1"}), new_version=True).steps[0].arguments["body"]


@pytest.mark.parametrize(("count", "has_room"), [(14, True), (15, False)])
def test_no_tag_of_others_is_lost(count: int, has_room: bool) -> None:
    others = {f"tag{number}": "theirs" for number in range(count)}
    made = plan(key(tags={**others, **({TAG: "CHG0"} if has_room else {})}), **FORCED)

    assert made.steps[0].arguments["body"]["tags"] == {**others, **({TAG: "CHG1"} if has_room else {})}
    assert ["15 tags" in warning for warning in made.warnings] == ([] if has_room else [True])


def test_a_purpose_without_force_means_nothing() -> None:
    assert not plan(key(), new_version_for="CHG1").changed
    assert key_goal(new_version_for="").new_version_for is None
    with pytest.raises(InvalidOption) as refused:
        key_goal(new_version_for="x" * 257)
    assert refused.value.facts["option"] == "new_version_for"


# A version that is repaired


@pytest.mark.parametrize(
    ("options", "bundle", "body", "after"),
    [
        pytest.param(
            {"enable": True},
            key(enabled=False),
            {"attributes": {"enabled": True}},
            {"enabled": True},
            id="disabled",
        ),
        pytest.param(
            {}, key(key_ops=["wrapKey"]), {"key_ops": ["wrapKey", "unwrapKey"]}, {"key_ops": WRAP}, id="may not unwrap"
        ),
        pytest.param(
            {}, key(key_ops=["sign"]), {"key_ops": ["sign", *WRAP]}, {"key_ops": ["sign", *WRAP]}, id="others kept"
        ),
        pytest.param(
            {"expires_in": "P30D", "enable": True},
            key(created=NOW - DAY, exp=NOW + 10 * DAY, enabled=False, key_ops=[]),
            {"key_ops": WRAP, "attributes": {"enabled": True}},
            {"enabled": True, "key_ops": WRAP, "expires_on": "2026-06-07T20:26:40Z"},
            id="all at once",
        ),
    ],
)
def test_version_is_repaired_and_nothing_else_is_sent(
    options: dict[str, Any], bundle: dict[str, Any], body: dict[str, Any], after: dict[str, Any]
) -> None:
    made = plan(bundle, **options)

    assert made.steps == (update(**body),)
    assert {name: made.after[name] for name in after} == after
    assert made.after["version"] == NEW


def test_check_mode_predicts_the_enabled_versions() -> None:
    assert plan(key(enabled=False), enable=True).after["enabled_versions"] == [NEW]


DISABLED = key(created=NOW - 20 * DAY, enabled=False)
OLDER = key(OLD, created=NOW - 40 * DAY)


@pytest.mark.parametrize(
    ("observed", "options", "code"),
    [
        pytest.param(observed_key(DISABLED), {}, "key_disabled", id="the only version"),
        pytest.param(observed_key(DISABLED), {"new_version": True}, "key_disabled", id="the whole key, forced"),
        pytest.param(observed_key(DISABLED), {"max_version_age": "P1D"}, "key_disabled", id="the whole key, too old"),
        pytest.param(
            observed_key(key(OLD, created=NOW - 40 * DAY, enabled=False), DISABLED),
            {"new_version": True},
            "key_disabled",
            id="all versions",
        ),
        pytest.param(
            observed_key(OLDER, DISABLED, versions=None), {"new_version": True}, "key_disabled", id="not to be listed"
        ),
        pytest.param(observed_key(OLDER, DISABLED), {"new_version": True}, None, id="one version, forced"),
        pytest.param(observed_key(OLDER, DISABLED), {"max_version_age": "P1D"}, None, id="one version, too old"),
        pytest.param(observed_key(DISABLED), {"enable": True}, None, id="asked for"),
        pytest.param(observed_key(DISABLED), {"enable": True, "new_version": True}, None, id="asked for, forced"),
    ],
)
def test_a_disabled_key_is_enabled_only_with_cmk_key_enable(
    observed: dict[str, Any], options: dict[str, Any], code: str | None
) -> None:
    if code is None:
        assert key_plan.plan(key_goal(**options), observed).changed
        return
    with pytest.raises(Refused) as refused:
        key_plan.plan(key_goal(**options), observed)

    assert refused.value.code == code
    assert refused.value.facts["option"] == "enable"
    assert "enable: true" in plain(refused.value.facts["remedy"])


@pytest.mark.parametrize("options", [{"new_version": True}, {"max_version_age": "P19D"}])
def test_an_expiry_in_the_past_is_allowed_if_a_new_version_is_due(options: dict[str, Any]) -> None:
    [step] = plan(key(created=NOW - 20 * DAY), expires_in="P20D", **options).steps

    assert step.arguments["body"]["attributes"]["exp"] == NOW + 20 * DAY


def test_a_key_whose_only_version_is_valid_later_gets_a_version_that_can_be_used() -> None:
    [step] = plan(key(nbf=NOW + DAY)).steps

    assert step.write is KeyWrites.create


# A key that cannot be made usable


@pytest.mark.parametrize("options", [{}, {"new_version": True}, {"max_version_age": "P1D"}])
@pytest.mark.parametrize(
    ("kty", "asked"),
    [("EC", None), ("EC-HSM", None), ("EC", "RSA"), ("RSA", "RSA-HSM"), ("RSA-HSM", "RSA")],
)
def test_key_of_another_type_is_refused(options: dict[str, Any], kty: str, asked: str | None) -> None:
    with pytest.raises(Refused) as refused:
        plan(key(kty=kty), key_type=asked, **options)

    assert refused.value.code == "key_type_differs"
    assert kty in str(refused.value)


@pytest.mark.parametrize(("has", "asked"), [(2048, 3072), (4096, 2048)])
def test_version_of_another_size_is_refused_unless_a_new_one_is_due(has: int, asked: int) -> None:
    with pytest.raises(Refused) as refused:
        plan(key(size=has), key_size=asked)

    assert refused.value.code == "key_size_differs"
    assert refused.value.facts["value"] == asked
    assert str(has) in plain(refused.value.facts["remedy"])


# Rotation policy


def test_rotation_policy_of_a_new_key() -> None:
    wanted = rotation(time_before_expiry="P30D", expiry_time="P1Y")

    created, policy = plan(None, rotation_policy=wanted).steps

    assert created.write == KeyWrites.create
    assert policy == Step(
        KeyWrites.set_rotation_policy,
        {
            "vault": "myvault",
            "name": "batch",
            "policy": {
                "lifetimeActions": [{"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Rotate"}}],
                "attributes": {"expiryTime": "P1Y"},
            },
        },
    )


def test_rotation_policy_is_changed_and_its_notification_kept() -> None:
    previous = rotation_policy(timeBeforeExpiry="P10D")
    wanted = rotation(time_after_create="P90D")

    made = key_plan.plan(key_goal(rotation_policy=wanted), observed_key(key(), policy=previous))

    [step] = made.steps
    assert step.write == KeyWrites.set_rotation_policy
    assert [action["action"]["type"] for action in step.arguments["policy"]["lifetimeActions"]] == ["Rotate", "Notify"]
    assert made.before["rotation_policy"] == rotation(time_before_expiry="P10D")
    assert made.after["rotation_policy"] == wanted


def test_an_equal_rotation_policy_is_not_changed() -> None:
    observed = observed_key(key(), policy=rotation_policy(timeAfterCreate="P90D"))

    assert not key_plan.plan(key_goal(rotation_policy=rotation(time_after_create="P90D")), observed).changed


# From any state


def as_azure_does(observed: dict[str, Any], steps: tuple[Step, ...]) -> dict[str, Any]:
    """The state after the steps, two seconds after they were planned."""
    bundles = [observed["key"]] if observed["key"] else []
    policy = observed["policy"]
    for step in steps:
        arguments = step.arguments
        if step.write == KeyWrites.create:
            body = arguments["body"]
            fields = {**body["attributes"], "key_ops": body["key_ops"], "created": NOW + 1}
            bundles.append(key(NEWEST, kty=body["kty"], size=body["key_size"], **fields))
        elif step.write == KeyWrites.update:
            body, last = arguments["body"], bundles[-1]
            attributes = {**last["attributes"], **body.get("attributes", {})}
            operations = body.get("key_ops", last["key"]["key_ops"])
            bundles[-1] = {**last, "attributes": attributes, "key": {**last["key"], "key_ops": operations}}
        else:
            policy = arguments["policy"]
    return {**observed, "key": bundles[-1], "versions": list(map(listed, bundles)), "policy": policy, "now": NOW + 2}


BUNDLES = st.builds(
    key,
    kty=st.sampled_from(["RSA", "RSA-HSM", "EC"]),
    size=st.sampled_from([2048, 3072]),
    created=st.integers(NOW - 400 * DAY, NOW),
    enabled=st.booleans(),
    key_ops=st.lists(st.sampled_from(["wrapKey", "unwrapKey", "sign", "encrypt"]), unique=True),
)
EXPIRING = st.builds(
    lambda bundle, exp: {**bundle, "attributes": {**bundle["attributes"], "exp": exp}},
    BUNDLES,
    st.integers(NOW - 10 * DAY, NOW + 400 * DAY),
)
POLICIES = st.sampled_from([rotation_policy(), rotation_policy(timeAfterCreate="P90D"), None])
OPTIONS = st.fixed_dictionaries(
    {
        "key_type": st.sampled_from([None, "RSA", "RSA-HSM"]),
        "key_size": st.sampled_from([None, 2048, 3072]),
        "expires_in": st.sampled_from([None, "P30D", "P1Y"]),
        "max_version_age": st.sampled_from([None, "P30D", "P90D"]),
        "new_version": st.booleans(),
        "rotation_policy": st.sampled_from([None, rotation(time_after_create="P90D")]),
    }
)


def falls_due_meanwhile(bundle: dict[str, Any]) -> bool:
    """Whether a version expires, or becomes too old, between the two plans, so that the second plan correctly has a
    step."""
    created = bundle["attributes"]["created"]
    moments = [bundle["attributes"].get("exp", 0), *(created + days * DAY for days in (30, 90, 365))]
    return any(NOW <= moment <= NOW + 2 for moment in moments)


@given(st.none() | BUNDLES | EXPIRING, POLICIES, OPTIONS)
def test_second_plan_is_empty_and_the_first_predicted_its_state(
    bundle: dict[str, Any] | None, policy: dict[str, Any] | None, options: dict[str, Any]
) -> None:
    assume(not bundle or not falls_due_meanwhile(bundle))
    observed = {**(observed_key(bundle) if bundle else observed_key()), "policy": policy}
    try:
        first = key_plan.plan(key_goal(**options), observed)
    except Refused:
        return

    second = key_plan.plan(first.goal, as_azure_does(observed, first.steps))

    assert not second.changed
    for name in ("exists", "key_type", "key_size", "key_ops", "enabled", "previous_version"):
        assert second.before[name] == first.after.get(name)
    if first.changed and options["rotation_policy"]:
        assert second.before["rotation_policy"] == first.after["rotation_policy"] == options["rotation_policy"]


# The users of the key


def in_use(bundle: dict[str, Any], *accounts: dict[str, Any], policy: Any = None, **options: Any) -> Plan:
    observed = observed_key(bundle, visible=visible(*accounts), policy=policy)
    return key_plan.plan(key_goal(**options), observed)


PINNED, FOLLOWS = account("pinned", key=f"{KEY}/{NEW}"), account("follows", key=KEY)


@pytest.mark.parametrize("expires", [{}, {"exp": NOW + 300 * DAY}], ids=["never", "later"])
def test_the_expiry_of_a_version_that_exists_is_never_brought_forward(expires: dict[str, int]) -> None:
    """The users of the key do not matter, so they are not listed."""
    plan = key_plan.plan(key_goal(expires_in="P20D"), observed_key(key(**expires), visible=None))

    assert not plan.changed
    # A new version has the requested expiry.
    made = key_plan.plan(key_goal(expires_in="P20D", new_version=True), observed_key(key(**expires), visible=None))
    [step] = made.steps
    assert step.arguments["body"]["attributes"]["exp"] == NOW + 20 * DAY
    # The plan without a step is confirmed by the same state.
    assert not key_plan.plan(plan.goal, observed_key(key(**expires))).changed


def test_rotation_policy_is_not_removed_if_accounts_follow_the_key() -> None:
    rotates = rotation_policy(timeAfterCreate="P90D")
    with pytest.raises(Refused) as refused:
        in_use(key(), PINNED, FOLLOWS, policy=rotates, remove_rotation_policy=True)
    assert [name.rsplit("/", 1)[-1] for name in refused.value.facts["accounts"]] == ["follows"]

    plan = in_use(key(), PINNED, policy=rotates, remove_rotation_policy=True)
    [step] = plan.steps
    assert step.write == KeyWrites.set_rotation_policy
    assert [action["action"]["type"] for action in step.arguments["policy"]["lifetimeActions"]] == ["Notify"]
    assert plan.before["rotation_policy"]["time_after_create"] == "P90D"
    assert plan.after["rotation_policy"]["time_after_create"] is None
    assert not in_use(key(), FOLLOWS, policy=rotation_policy(), remove_rotation_policy=True).changed


@pytest.mark.parametrize(
    ("left", "steps", "warnings"),
    [
        (9 * DAY + 1, [], 0),
        (9 * DAY, ["create"], 0),
        (7 * DAY, ["create"], 0),
        (7 * DAY - 1, ["create"], 1),
        (0, ["create"], 0),
    ],
)
def test_a_version_is_replaced_nine_days_before_it_expires(left: int, steps: list[str], warnings: int) -> None:
    """Accounts may need the previous version for seven days after that."""
    made = key_plan.plan(key_goal(), observed_key(key(created=NOW - 90 * DAY, exp=NOW + left)))

    assert [step.name for step in made.steps] == steps
    assert ["Set a later expiry" in warning for warning in made.warnings] == [True] * warnings
