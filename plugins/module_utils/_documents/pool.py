# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pools of a Batch account: what encrypts the disks of their virtual machines.

This module util is private to the collection.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from .identity import Identity


class IdentityReference(TypedDict, total=False):
    resourceId: str


class CustomerManagedKey(TypedDict, total=False):
    keyUrl: str
    identityReference: IdentityReference
    rotationToLatestKeyVersionEnabled: bool | None


class DiskEncryption(TypedDict, total=False):
    targets: list[str] | None
    customerManagedKey: CustomerManagedKey | None


class DiskEncryptionSet(TypedDict, total=False):
    id: str


class DiskSecurity(TypedDict, total=False):
    securityEncryptionType: str | None
    diskEncryptionSet: DiskEncryptionSet | None


class ManagedDisk(TypedDict, total=False):
    diskEncryptionSet: DiskEncryptionSet | None
    securityProfile: DiskSecurity | None


class Disk(TypedDict, total=False):
    managedDisk: ManagedDisk | None


class MachineSecurity(TypedDict, total=False):
    encryptionAtHost: bool | None


class VirtualMachineConfiguration(TypedDict, total=False):
    diskEncryptionConfiguration: DiskEncryption | None
    securityProfile: MachineSecurity | None
    osDisk: Disk | None
    dataDisks: list[Disk] | None


class DeploymentConfiguration(TypedDict, total=False):
    virtualMachineConfiguration: VirtualMachineConfiguration


class PoolProperties(TypedDict, total=False):
    lastModified: str
    deploymentConfiguration: DeploymentConfiguration


class Pool(TypedDict):
    """A pool of a Batch account."""

    id: str
    name: str
    properties: PoolProperties
    identity: NotRequired[Identity]


def disk_encryption(pool: Pool) -> DiskEncryption:
    """The disk encryption settings of a pool's virtual machines. Empty if they are not set."""
    return _machine(pool).get("diskEncryptionConfiguration") or {}


def disks_encrypted_by(pool: Pool) -> list[str]:
    """The settings that encrypt the disks of a pool's virtual machines in addition to Azure's default encryption, by
    their names in the schema of Microsoft.Batch (2025-06-01). Empty if there is none."""
    machine = _machine(pool)
    disks: list[Disk] = [machine.get("osDisk") or {}, *(machine.get("dataDisks") or ())]
    settings = {
        "diskEncryptionConfiguration": disk_encryption(pool).get("targets"),
        "encryptionAtHost": (machine.get("securityProfile") or {}).get("encryptionAtHost"),
        "managedDisk": all(map(_is_encrypted, disks)),
    }
    return [name for name, is_set in settings.items() if is_set]


def _machine(pool: Pool) -> VirtualMachineConfiguration:
    return (pool["properties"].get("deploymentConfiguration") or {}).get("virtualMachineConfiguration") or {}


def _is_encrypted(disk: Disk) -> bool:
    """Whether the disk has a disk encryption set, or is a confidential disk."""
    managed = disk.get("managedDisk") or {}
    security = managed.get("securityProfile") or {}
    # The other types encrypt the state of the virtual machine, but not the disk.
    is_confidential = security.get("securityEncryptionType") == "DiskWithVMGuestState"
    return is_confidential or bool(managed.get("diskEncryptionSet") or security.get("diskEncryptionSet"))
