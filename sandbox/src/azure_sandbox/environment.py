# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operator's credentials, the environment variables that make unmodified clients use the sandbox, and the user
whose process serves a connection."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Operator:
    """A service principal with full access to a subscription, and the resource group in this subscription."""

    tenant_id: str = ""
    client_id: str = ""
    secret: str = ""
    object_id: str = ""
    subscription_id: str = ""
    resource_group: str = ""
    location: str = ""
    # The system-assigned managed identity of the emulated machine. 169.254.169.254 issues its tokens.
    machine_object_id: str = ""
    machine_resource_id: str = ""


# urllib and requests prefer the lower-case names, so another proxy in them would be used instead of the sandbox.
IN_THE_WAY = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ALL_PROXY")


def environment(url: str, certificate: Path, operator: Operator) -> dict[str, str]:
    return {
        "HTTPS_PROXY": url,
        "HTTP_PROXY": url,
        # 169.254.169.254 is not listed, because the sandbox also emulates the metadata service.
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


# If a listener on an IPv6 address accepts an IPv4 connection, the connection is in the second table.
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def user_of(connection: socket.socket) -> int | None:
    """The user id of the process that accepted an IPv4 connection; None if Linux does not show it.

    The connection is looked up instead of the listener, because another process could be the listener a moment later.
    """
    ends = [_written(connection.getpeername()), _written(connection.getsockname())]
    for table in _TABLES:
        for line in table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else ():
            fields = line.split()
            # In the table of IPv6, an IPv4 address has a prefix. If the inode is 0, the socket no longer belongs to a
            # process, and its user id is shown as 0.
            if [end[-len("0100007F:0000") :] for end in fields[1:3]] == ends and fields[9] != "0":
                return int(fields[7])
    return None


def _written(end: tuple[str, int]) -> str:
    """Format an address and a port as in the tables: in hexadecimal, the address in the byte order of the machine."""
    address, port = end
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
