# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rulebook key_rotation in ansible-rulebook, with events that the sandbox delivers as Event Grid does."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from accounts import are_on, on_one_key
from eda import certificate
from harness import writes
from rulebook import SECRET, Rulebook, until
from sandbox_client import Control
from service import DAY, Service

ROTATE = "Move Batch accounts to a new version of their key"
AUDIT = "Audit the keys of Batch accounts"
RECOVER = "Recover Batch accounts that lost their key"


def settled(rulebook: Rulebook, runs: int) -> None:
    """Wait until the playbooks of all events have finished. Then no further event and no further run may follow."""

    def is_settled() -> bool:
        return len(rulebook.runs) >= runs and not rulebook.subscription()["pending"]

    until(is_settled, lambda: f"{rulebook.subscription()}\n{rulebook.output}")
    time.sleep(3)
    assert len(rulebook.runs) == runs, rulebook.output
    assert not rulebook.subscription()["pending"]


@pytest.mark.parametrize("schema", ["event_grid", "cloud_events"])
def test_all_pinned_accounts_move_to_the_new_version(
    rulebook: Rulebook, service: Service, tmp_path: Path, schema: str
) -> None:
    """With each event delivered twice and in another order, over TLS."""
    certfile, keyfile = certificate(tmp_path)
    rulebook.variables = {"cmk_event_certfile": certfile, "cmk_event_keyfile": keyfile}
    before = on_one_key(service)
    other = service.encryption("other")
    rulebook.start()
    rulebook.subscribe(schema=schema, duplicates=True, reorder=True, certificate=Path(certfile).read_text())

    service.sandbox.control.advance(1)
    version = service.keys().rotate_key("key1").id
    started = time.monotonic()
    until(lambda: are_on(service, version), lambda: rulebook.output)

    assert version != before
    assert time.monotonic() - started < 30
    settled(rulebook, runs=1)
    assert rulebook.subscription()["delivered"] == 2
    assert service.encryption("following") == version.rpartition("/")[0]
    assert service.encryption("other") == other
    assert len(service.versions()) == 2


@pytest.mark.parametrize("folder", [None, "reports"])
def test_a_changed_policy_is_audited_and_nothing_is_changed(
    rulebook: Rulebook, service: Service, control: Control, folder: str | None
) -> None:
    principal, _ = service.on_key()
    reports = rulebook.folder / (folder or "cmk-audit")
    rulebook.variables = {"cmk_event_audit_folder": str(reports)} if folder else {}
    rulebook.start()
    rulebook.subscribe()

    service.revoke(principal)
    last = control.last
    until(lambda: rulebook.runs == [AUDIT], lambda: rulebook.output)

    settled(rulebook, runs=1)
    assert writes(control.requests(last)) == []
    assert "access_missing" in rulebook.output
    assert "failed=0" in rulebook.output
    assert [path.name for path in reports.glob("*.json")] == (["cmk-audit.json"] if folder else [])
    assert not service.is_available()


def test_a_key_that_expires_soon_gets_one_new_version(rulebook: Rulebook, service: Service, control: Control) -> None:
    """The new version sends an event, whose playbook has nothing to do. If the first event arrives a second time, after
    a restart of the rulebook, it creates no further version."""
    on_one_key(service, expires_on=datetime.now(UTC) + timedelta(days=60))
    rulebook.start()
    rulebook.subscribe()

    control.advance(31 * DAY)
    service.sign_in_again()
    until(lambda: len(rulebook.runs) == 2, lambda: rulebook.output)
    settled(rulebook, runs=2)
    first, second = service.versions()
    assert are_on(service, second.id)
    assert second.expires_on is None

    control.advance(DAY)
    rulebook.stop()
    rulebook.start()
    _post(rulebook, service, "KeyNearExpiry", first.id)
    settled(rulebook, runs=3)
    assert len(service.versions()) == 2
    assert are_on(service, second.id)


def test_an_account_is_recovered_if_the_variable_allows_it(rulebook: Rulebook, service: Service) -> None:
    principal, _ = service.on_key()
    rulebook.variables = {"cmk_event_recover": True}
    rulebook.start()
    rulebook.subscribe()

    service.revoke(principal)
    until(lambda: service.is_available() and RECOVER in rulebook.runs, lambda: rulebook.output)

    # The recovery changes the policy, which is another event: its playbook has nothing to do.
    settled(rulebook, runs=2)
    assert rulebook.runs == [RECOVER, RECOVER]


def _post(rulebook: Rulebook, service: Service, what: str, *identifiers: str) -> None:
    """Send events of key versions as Event Grid does."""
    events = [
        {
            "id": identifier,
            "topic": service.vault_id(),
            "subject": "key1",
            "eventType": f"Microsoft.KeyVault.{what}",
            "eventTime": "2026-01-01T00:00:00Z",
            "data": {
                "Id": identifier,
                "VaultName": "vault-one",
                "ObjectType": "Key",
                "ObjectName": identifier.split("/")[4],
            },
        }
        for identifier in identifiers
    ]
    session = requests.Session()
    session.trust_env = False
    response = session.post(
        f"http://127.0.0.1:{rulebook.port}/", json=events, headers={"X-Event-Secret": SECRET}, timeout=10
    )
    assert response.ok
