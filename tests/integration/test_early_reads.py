# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads that do not depend on each other are sent at the same time, because each is a round trip to Azure."""

from __future__ import annotations

from one_process import OneProcess
from service import GROUP, Service

# The slow response takes so long that all reads that can begin meanwhile have begun.
SLOW = 2


def test_reads_begin_while_another_response_is_slow(runner: OneProcess, service: Service) -> None:
    control = service.sandbox.control
    since, path = control.last, "Microsoft.KeyVault/checkNameAvailability"
    control.fault(match={"method": "POST", "path": path}, delay=SLOW, times=1)

    report = runner.module("keyvault_cmk_vault", {"resource_group": GROUP, "name": "vault-one"})
    assert report["changed"], report

    # The log is in the order of the responses.
    urls = [one["url"] for one in control.requests(since)]
    before = urls[: next(place for place, url in enumerate(urls) if path in url)]
    for part in ("/permissions", "/resourceGroups/rg-sandbox?", "/providers/Microsoft.KeyVault?"):
        assert any(part in url for url in before), (part, before)
