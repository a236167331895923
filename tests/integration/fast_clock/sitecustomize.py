# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Python runs this file at its start if its folder is on PYTHONPATH. Long sleeps of ansible-playbook and of its modules
then take no time: they advance the clock of the sandbox, and the monotonic clock of all processes of the run.

TEST_CLOCK is a file with the time by which the monotonic clock is ahead. All processes of a run map the file."""

import http.client
import json
import mmap
import os
import struct
import time
import urllib.parse

# Sleeps up to this are real: Ansible (async: 5 s) and the tests of waits use them.
_LONG = 5


def _install(path: str, sandbox: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(descriptor, 8)
    ahead = mmap.mmap(descriptor, 8)
    sleep, monotonic = time.sleep, time.monotonic

    def now() -> float:
        return monotonic() + float(struct.unpack("d", ahead[:8])[0])

    def slept(seconds: float) -> None:
        if seconds <= _LONG:
            sleep(seconds)
            return
        ahead[:8] = struct.pack("d", struct.unpack("d", ahead[:8])[0] + seconds)
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(sandbox).netloc)
        body = json.dumps({"seconds": seconds})
        connection.request("POST", "/clock/advance", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        connection.close()

    time.sleep, time.monotonic = slept, now


if os.environ.get("TEST_CLOCK") and os.environ.get("AZURE_SANDBOX_URL"):
    _install(os.environ["TEST_CLOCK"], os.environ["AZURE_SANDBOX_URL"])
