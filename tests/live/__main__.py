# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make live` and `make live-clean`."""

from __future__ import annotations

import signal
import sys


def run() -> int:
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        # An interrupt during the imports ends the process, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .command import main

    signal.signal(signal.SIGINT, handler)
    return main()


sys.exit(run())
