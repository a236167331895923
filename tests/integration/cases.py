# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables, settings of a vault, and faults that several tests use."""

from __future__ import annotations

import os
from typing import Any

# Whether to run the full reliability suite, as `make proof` does.
PROOF_OF_ALL = os.environ.get("PROOF") == "all"
# A firewall that allows no address except this machine.
CLOSED = {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "127.0.0.1"}], "virtualNetworkRules": []}
# Disables unused versions at once, without the margin of seven days.
DISABLE = {"cmk_unused_versions": "disable", "cmk_unused_for": "P0D"}
AT_ONCE = {"cmk_unused_for": "P0D"}
BUSY = {"error": {"code": "Busy", "message": "Try again."}}
# After these responses the SDKs try again at once. Without the header, they wait for 12 s until they give up.
_SOON = {"retry-after-ms": "1"}
FAILING = {"status": 500, "headers": _SOON, "body": BUSY}
UNAVAILABLE = {"status": 503, "headers": _SOON, "body": BUSY}
# Faults of the sandbox, by name.
_ONCE: dict[str, dict[str, Any]] = {
    "throttled": {"answer": {"status": 429, "headers": {"Retry-After": "1"}, "body": BUSY}},
    "500": {"answer": FAILING},
    "503": {"answer": UNAVAILABLE},
    "500 although it took effect": {"answer": FAILING, "handled": True},
    "dropped before": {"drop": "before"},
    "dropped after": {"drop": "after"},
    "cut off": {"truncate": 5},
    "token expired": {"expire_tokens": True},
}
# Faults that occur more often than the SDKs retry.
_OFTEN = {f"{name} again and again": {**_ONCE[name], "times": 5} for name in ("503", "dropped before", "dropped after")}
DISTURBANCES = {**_ONCE, **_OFTEN}
