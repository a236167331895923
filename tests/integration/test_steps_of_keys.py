# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules for keys and encryption: check, apply, check again, apply again. Azure's SDK reads the resulting
resources."""

from __future__ import annotations

from harness import Ansible, four_steps, key, task, two_steps
from service import DAY, GROUP, Service


def test_key(ansible: Ansible, service: Service, way: str) -> None:
    service.make_vault()
    policy = {"expiry_time": "P1Y", "time_before_expiry": "P30D"}
    run = ansible.play(
        [
            *four_steps(key("plain", name="plain")),
            *four_steps(key("full", key_type="RSA", key_size=3072, expires_in="P90D", rotation_policy=policy)),
            key("longer", expires_in="P120D"),
            key("shorter", expires_in="P30D"),
        ],
        way=way,
    )

    made = run.checked_steps("plain")
    found = service.key("plain")
    assert made["key_identifier"] == found.id
    assert made["versionless_identifier"] == found.id.rpartition("/")[0]
    assert made["version"] == found.properties.version
    assert made["key_type"] == found.key_type == "RSA"
    assert made["key_size"] == len(found.key.n) * 8 == 2048
    assert set(made["key_ops"]) == set(found.key_operations) == {"wrapKey", "unwrapKey"}
    assert made["enabled"] is True
    assert made["created_on"] == f"{found.properties.created_on:%Y-%m-%dT%H:%M:%SZ}"
    assert made["expires_on"] is None
    assert made["previous_version"] is None
    assert made["enabled_versions"] == [found.properties.version]
    assert len(service.versions("plain")) == 1

    made = run.checked_steps("full")
    found = service.key()
    assert made["key_size"] == len(found.key.n) * 8 == 3072
    assert made["rotation_policy"] == {"expiry_time": "P1Y", "time_after_create": None, "time_before_expiry": "P30D"}
    rotation = service.keys().get_key_rotation_policy("key1")
    assert rotation.expires_in == "P1Y"
    rotating = next(a for a in rotation.lifetime_actions if "rotate" in str(a.action).lower())
    assert (rotating.time_after_create, rotating.time_before_expiry) == (None, "P30D")

    lasts = found.properties.expires_on - found.properties.created_on
    assert 0 <= 90 * DAY - lasts.total_seconds() <= 300
    # A version that exists keeps its expiry.
    for name in ("longer", "shorter"):
        one = run[name].untouched()
        assert one["changed"] is False
        assert one["expires_on"] == made["expires_on"] == f"{found.properties.expires_on:%Y-%m-%dT%H:%M:%SZ}"
    assert len(service.versions()) == 1


def test_key_is_disabled_and_deleted(ansible: Ansible, service: Service, way: str) -> None:
    service.make_vault()
    versions = [service.make_key().properties.version for _ in range(3)]
    run = ansible.play(
        [
            *four_steps(key("one off", state="disabled", version=versions[0])),
            *two_steps(key("all off", state="disabled")),
            *four_steps(key("gone", state="absent")),
            # Azure does not list the versions of a deleted key, so check mode cannot predict them.
            *two_steps(key("back", state="recovered")),
        ],
        way=way,
    )
    assert set(run.checked_steps("one off")["enabled_versions"]) == set(versions[1:])
    made = run.checked_steps("all off")
    assert made["enabled_versions"] == []
    assert made["enabled"] is False
    made = run.checked_steps("gone")
    assert (made["exists"], made["soft_deleted"]) == (False, True)
    made = run.checked_steps("back")
    assert (made["exists"], made["soft_deleted"]) == (True, False)
    # The recovery of a key does not enable its disabled versions.
    assert service.enabled() == [False] * 3
    assert {one.version for one in service.versions()} == set(versions)


def test_info_of_a_missing_account(ansible: Ansible, way: str) -> None:
    look = task("account", "batch_encryption_info", resource_group=GROUP, account_name="nothere")
    run = ansible.play(
        [look, task("group", "batch_encryption_info", resource_group="rg-nowhere", account_name="nothere")], way=way
    )
    assert [(one["exists"], one["changed"]) for one in run] == [(False, False)] * 2
