# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The user whose process is at the other end of a connection to this machine."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

# A listener on an IPv6 address may take IPv4 connections, which are then in the second table.
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def user_id(connection: socket.socket) -> int | None:
    """The user id of the process that accepted an IPv4 connection; None if Linux does not show it.

    The connection itself is looked up, not the listener: another process could be the listener a moment later.
    """
    ends = [_written(connection.getpeername()), _written(connection.getsockname())]
    for table in TABLES:
        for line in table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else ():
            fields = line.split()
            # An address of IPv4 in the table of IPv6 has a prefix. A socket without inode has no process any more, and
            # its user id is 0.
            if [end[-len("0100007F:0000") :] for end in fields[1:3]] == ends and fields[9] != "0":
                return int(fields[7])
    return None


def _written(end: tuple[str, int]) -> str:
    """An address and a port as the tables have them: the address in the byte order of the machine."""
    address, port = end
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
