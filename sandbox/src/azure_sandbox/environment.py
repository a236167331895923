# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The credentials of the operator, the environment with which unchanged clients use the sandbox, and who serves it."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Operator:
    """A service principal that may do everything, and where it may do it."""

    tenant_id: str = ""
    client_id: str = ""
    secret: str = ""
    object_id: str = ""
    subscription_id: str = ""
    resource_group: str = ""
    location: str = ""
    # The system-assigned identity of the machine that 169.254.169.254 serves.
    machine_object_id: str = ""
    machine_resource_id: str = ""


# urllib and requests prefer the lower-case names; another proxy in them would win over the sandbox.
IN_THE_WAY = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ALL_PROXY")


def environment(url: str, certificate: Path, operator: Operator) -> dict[str, str]:
    return {
        "HTTPS_PROXY": url,
        "HTTP_PROXY": url,
        # 169.254.169.254 is not in it: the metadata service is the sandbox's as well.
        "NO_PROXY": "127.0.0.1,localhost",
        "REQUESTS_CA_BUNDLE": str(certificate),
        "SSL_CERT_FILE": str(certificate),
        "CURL_CA_BUNDLE": str(certificate),
        "AZURE_TENANT": operator.tenant_id,
        "AZURE_TENANT_ID": operator.tenant_id,
        "AZURE_CLIENT_ID": operator.client_id,
        "AZURE_SECRET": operator.secret,
        "AZURE_CLIENT_SECRET": operator.secret,
        "AZURE_SUBSCRIPTION_ID": operator.subscription_id,
        "AZURE_SANDBOX_URL": url,
    }


# The names of all variables.
NAMES = frozenset(environment("", Path(), Operator()))


# A listener on an IPv6 address may take IPv4 connections, which are then in the second table.
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def user_of(connection: socket.socket) -> int | None:
    """The user id of the process that accepted an IPv4 connection; None if Linux does not show it.

    The connection itself is looked up, not the listener: another process could be the listener a moment later.
    """
    ends = [_written(connection.getpeername()), _written(connection.getsockname())]
    for table in _TABLES:
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
