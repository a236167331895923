# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lines that the playbooks show in a terminal, and the verdict at their end."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from typing import Any

from harness import Ansible, until
from role_runs import QUARTER, VARS
from service import Service
from test_playbooks import ACCOUNTS, on_one_key, play_all

SECONDS = r"\d+ s\."
AGED = {"cmk_key_max_version_age": "P90D"}


def lines(output: str) -> list[str]:
    """Without empty lines."""
    return [line.rstrip() for line in output.splitlines() if line.strip()]


def test_a_run_that_changes_nothing(ansible: Ansible, service: Service) -> None:
    """Of each wave, its headings: a fleet of 120 hosts has six waves."""
    on_one_key(service)
    # Until Batch must have noticed that access was granted, the runs warn.
    service.sandbox.control.advance(3600)
    run = play_all(ansible, "rotate", **AGED)
    wave = [
        "PLAY [Move Batch accounts to a new version of their key]",
        "TASK [azbatch.cmk.rotate : Ensure a current version of the key]",
        "TASK [azbatch.cmk.rotate : Move the account to the key]",
    ]
    *shown, recap, hosts, verdict = (line.rstrip(" *") for line in lines(run.output))
    assert shown == [*wave, *wave]
    assert recap == "PLAY RECAP"
    assert re.match(r"3 hosts +: ok=6 +changed=0 .* failed=0 ", f"{hosts} ")
    assert re.fullmatch(f"Nothing to change: 3 accounts unchanged, in {SECONDS}", verdict)


def test_changes_and_their_prediction(ansible: Ansible, service: Service) -> None:
    """Also the progress line of a wave, which is above the heading of the next one."""
    on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    check = play_all(ansible, "rotate", check=True, **AGED)
    expected = f"Would create 1 version, move 3 accounts. Checked 3 accounts in {SECONDS}"
    assert re.fullmatch(expected, lines(check.output)[-1]), check.output
    assert "\nWould create a new version of key key1 in vault vault-one " in check.output

    enabled = {"ANSIBLE_CALLBACKS_ENABLED": "recorder,azbatch.cmk.progress"}
    run = play_all(ansible, "rotate", environment=enabled, **AGED)
    version = str(service.key().id).rpartition("/")[2][:8]
    assert re.fullmatch(f"Rotated 3 of 3 accounts to version {version}… of key1 in {SECONDS}", lines(run.output)[-1])
    assert "\nchanged: [account1]\n" in run.output
    assert "\nchanged: 2 hosts\n" in run.output
    shown = [line[:8] for line in lines(run.output) if line.startswith(("PLAY [", "PROGRESS"))]
    assert shown == ["PLAY [Mo", "PROGRESS", "PLAY [Mo"]


def test_hosts_that_fail_for_the_same_cause_share_a_line(ansible: Ansible, service: Service) -> None:
    on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    own = {"account1": {"cmk_wait_timeout": -1}, "account2": {"cmk_wait_timeout": -1}}
    run = play_all(ansible, "rotate", own=own, cmk_serial="100%", **AGED)
    fatal = [line for line in lines(run.output) if line.startswith("fatal: ")]
    assert len(fatal) == 2, run.output
    assert re.match(r"fatal: \[account[12]\]: invalid_option: cmk_wait_timeout is -1: .* Use seconds, ", fatal[0])
    assert re.fullmatch(r"fatal: \[account[12]\]: invalid_option, for the same cause", fatal[1])
    assert "[ERROR]" not in run.output
    counts, remedy = lines(run.output)[-2:]
    failed = r"2 failed \(account1: invalid_option, account2: invalid_option\)"
    assert re.fullmatch(rf"0 rotated, {failed}, 1 not finished, 1 new version, in {SECONDS}", counts)
    assert remedy == "Repair the cause, and rerun with --limit account1,account2,account3."


def test_one_account_at_localhost(ansible: Ansible, service: Service) -> None:
    """Less than 15 lines, and the inventory `localhost,` has no warning."""
    variables = {**VARS, "cmk_vault_authorization": "access_policy"}
    run = ansible.playbook("azbatch.cmk.provision", extra_vars=variables)
    assert run.rc == 0, run.output
    assert len(run.output.strip().splitlines()) < 15, run.output
    assert "changed: [localhost] Move the account to the key" in run.output
    version = str(service.key().id).rpartition("/")[2][:8]
    verdict = f"Provisioned 1 of 1 account to version {version}… of key1 in {SECONDS}"
    assert re.fullmatch(verdict, lines(run.output)[-1])


def test_recover_names_what_it_has_repaired(ansible: Ansible, service: Service) -> None:
    on_one_key(service)
    service.disable()
    run = play_all(ansible, "recover")
    repaired, verdict = lines(run.output)[-2:]
    version = str(service.key().id).rpartition("/")[2][:8]
    assert repaired == f"Repaired: Enabled version {version}… of key key1 in vault vault-one."
    assert re.fullmatch(f"Recovered 3 of 3 accounts in {SECONDS}", verdict)


def test_ctrl_c(ansible: Ansible, service: Service) -> None:
    on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    control = service.sandbox.control
    control.fault(match={"method": "PATCH", "path": "/batchAccounts/account2"}, delay=20)
    since = control.last
    run = start(ansible, "cmk_serial=1")

    def is_waiting() -> bool:
        """The second wave has begun, and sends no more requests, because it waits for the change of its account. While
        Ansible starts a process, a signal may end with a traceback of ansible-core."""
        last = control.last
        time.sleep(3)
        return control.last == last and any("account2" in request["url"] for request in control.requests(since))

    until(lambda: is_waiting() or run.poll() is not None)
    run.send_signal(signal.SIGINT)
    output = run.communicate(timeout=60)[0]
    assert run.returncode == 99, output
    counts, remedy = (line for line in lines(output)[-4:] if line.startswith(("Interrupted ", "Rerun ")))
    assert re.fullmatch(r"Interrupted after \d+ s: 1 rotated, 1 not finished, 1 not started\.", counts)
    assert remedy == "Rerun the same command. It leaves finished accounts unchanged."


def test_other_plays_and_more_verbose_runs_are_shown_by_ansible(ansible: Ansible, service: Service) -> None:
    on_one_key(service)
    # Until Batch must have noticed that access was granted, the runs warn.
    service.sandbox.control.advance(3600)
    own: dict[str, Any] = {
        "name": "Own",
        "hosts": "accounts",
        "gather_facts": False,
        "tasks": [{"name": "Set", "ansible.builtin.set_fact": {"own": True}}],
    }
    site = ansible.write(
        "site.json", [own, {"ansible.builtin.import_playbook": "azbatch.cmk.rotate", "vars": AGED}, own]
    )
    run = play_all(ansible, "rotate", **AGED)
    arguments = ["-i", str(ansible.folder / "inventory.yml")]
    run = ansible.playbook(site, extra_vars={"cmk_hosts": "accounts"}, arguments=arguments)
    assert run.rc == 0, run.output
    assert re.findall(r"^ok: \[(\w+)\]$", run.output, re.M).count("account1") == 2
    assert len(re.findall(r"^ok: ", run.output, re.M)) == 2 * len(ACCOUNTS)
    assert re.search(f"^Nothing to change: 3 accounts unchanged, in {SECONDS}$", run.output, re.M)

    verbose = ansible.playbook(
        "azbatch.cmk.rotate", extra_vars={"cmk_hosts": "accounts", **AGED}, arguments=arguments, verbosity=1
    )
    assert len(re.findall(r"^ok: \[account\d\] => ", verbose.output, re.M)) == 2 * len(ACCOUNTS)
    assert len(re.findall(r"^account\d +: ok=", verbose.output, re.M)) == len(ACCOUNTS)


def start(ansible: Ansible, *extra_vars: str) -> subprocess.Popen[str]:
    """Start a rotation of all accounts."""
    hosts = {name: {"cmk_account_name": name} for name in ACCOUNTS}
    shared = {name: value for name, value in VARS.items() if name != "cmk_account_name"}
    inventory = ansible.write("inventory.yml", {"accounts": {"hosts": hosts, "vars": shared}})
    more = [argument for one in extra_vars for argument in ("-e", one)]
    return subprocess.Popen(
        ansible.arguments(
            "azbatch.cmk.rotate",
            extra_vars={"cmk_hosts": "accounts", **AGED},
            arguments=["-i", str(inventory), *more],
        ),
        env=ansible.environment(ANSIBLE_CALLBACKS_ENABLED=None),
        cwd=ansible.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell without job control, such as one of CI, lets the processes in its background ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
