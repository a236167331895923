# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A program in which threads read a key, and no model of the SDK has been used before. Fails if a read fails.

Each read runs in a forked process that has imported the SDK, as a worker of Ansible.
"""

from __future__ import annotations

import builtins
import importlib
import os
import random
import sys
import time
from email.utils import formatdate
from threading import Barrier, Thread
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.driver import Driver
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Gateway
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sdk import transport
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.warm_up import answering
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import KeyIdentifier
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs

PROCESSES, THREADS = 10, 4
# A key for each thread, because a read of the same key would be shared.
KEYS = [KeyIdentifier("vault-one", "vault.azure.net", f"batch{number}") for number in range(THREADS)]
KEY = KEYS[0]
ITEM: dict[str, Any] = {"kid": f"{KEY}/1", "attributes": {"enabled": True, "created": 1}}
# The response of a key and of a list of versions in one document.
DOCUMENT = {"key": {"kid": ITEM["kid"], "kty": "RSA", "key_ops": []}, "attributes": ITEM["attributes"], "value": [ITEM]}


class Credential:
    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("token", 2**31)


def adapter(_to_azure: bool) -> Any:
    """Sends nothing. All threads receive their first response at the same time."""
    one, together = answering(DOCUMENT), Barrier(THREADS)
    send = one.send

    def send_together(*arguments: Any, **options: Any) -> Any:
        together.wait(30)
        response = send(*arguments, **options)
        response.headers["Date"] = formatdate(usegmt=True)
        return response

    one.send = send_together
    return one


def with_pauses(instance: Any, name: str, has: Any = hasattr) -> bool:
    """An SDK calls hasattr for each attribute of a model that it completes. A pause lets another thread run."""
    if name == "_type":
        time.sleep(random.random() / 1000)
    return bool(has(instance, name))


def read_keys() -> list[str]:
    """Read the key and its versions in several threads. Returns the errors."""
    given = {"auth_source": "msi", "cloud_environment": "AzureCloud", "wait_timeout": 600}
    session = Session({**dict.fromkeys(CONNECTION), **given})
    driver, errors = Driver(session, Gateway(session)), []

    def read(ref: Any, key: KeyIdentifier) -> None:
        try:
            driver.get(ref(key))
        except BaseException as error:
            errors.append(repr(error))

    kinds = [refs.versions_of, refs.key] * (THREADS // 2)
    threads = [Thread(target=read, args=one) for one in zip(kinds, KEYS, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def read_in_a_fork() -> bool:
    """Whether all reads succeed."""
    child = os.fork()
    if not child:
        errors = read_keys()
        print(*errors, file=sys.stderr, flush=True)
        os._exit(bool(errors))
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    importlib.import_module("azure.keyvault.keys")
    Session.credential = Credential()  # type: ignore[assignment]
    Session._transport = transport(adapter)  # type: ignore[method-assign]
    sys.setswitchinterval(1e-5)
    builtins.hasattr = with_pauses
    failed = [read_in_a_fork() for _process in range(PROCESSES)].count(False)
    sys.exit(f"{failed} of {PROCESSES} processes failed" if failed else 0)
