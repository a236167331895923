# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations on keys and their versions."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from ..authorization.rules import RoleAssignment
from ..event_grid.events import KEY_NEW_VERSION
from ..event_grid.rules import EventGrid
from ..key_vault.rules import Vaults
from ..key_vault.vault import Vault
from ..shared import world as shared
from ..shared.lag import Lag
from ..shared.world import Principal
from . import documents, errors, material, operations, request, rotation
from .key import Key, KeySettings, KeyVersion, Safe

# The algorithm with which Batch wraps data-encryption keys.
WRAP_ALGORITHM = "RSA-OAEP"


class World(shared.World, Protocol):
    """The parts of other services that keys need."""

    vaults: Vaults
    event_grid: EventGrid


@dataclass
class Keys:
    world: World
    _safes: dict[str, Safe] = field(default_factory=dict)
    # The key in each backup, by the content of the backup.
    _backups: dict[str, Key] = field(default_factory=dict)
    # How many rotations were due. A read makes the version that is due, so a read may change the state.
    rotations: int = 0
    # By the vault and the name of the key. Changes by Azure itself are shown at once.
    _lag: Lag[tuple[str, str], Key] = field(init=False)

    def __post_init__(self) -> None:
        self._lag = Lag(self.world, "keys")

    # Access to a vault

    def vault_at(self, host: str) -> Vault:
        vault = self.world.vaults.by_name(host.partition(".")[0])
        if vault is None or vault.host != host or self.world.vaults.is_registering(vault):
            raise errors.vault_not_found(host)
        return vault

    def enter(
        self, vault: Vault, principal: Principal, permission: str, key_name: str, *, trusted_service: bool = False
    ) -> RoleAssignment | None:
        """Check first the network rules and then the permission. Whether the key exists is checked later. Raises
        KeyVaultDenied."""
        self.world.vaults.admits(vault, principal, trusted_service=trusted_service)
        return self.world.vaults.permits(vault, principal, permission, key_name)

    # For other services

    def look(self, key_identifier: str) -> dict[str, Any]:
        """The document of a key as its owner reads it. Rotates the key if rotation is due. Raises AzureError."""
        vault, name, version = self._parts(key_identifier)
        return documents.bundle(vault, *self.version(vault, name, version))

    def wrap(self, principal: Principal, key_identifier: str, data: bytes) -> tuple[str, bytes]:
        """Wrap `data`. Returns the identifier of the key version that was used, and the wrapped data. Raises
        AzureError."""
        vault, name, version = self._parts(key_identifier)
        for permission in ("get", "wrapKey"):
            self.enter(vault, principal, permission, name, trusted_service=True)
        key, used = self.version(vault, name, version)
        wrapped = operations.encrypt(used, "wrapKey", WRAP_ALGORITHM, data, self.world.clock.time())
        return documents.kid(vault, key, used), wrapped

    def unwrap(self, principal: Principal, key_identifier: str, wrapped: bytes) -> bytes:
        vault, name, version = self._parts(key_identifier)
        for permission in ("get", "unwrapKey"):
            self.enter(vault, principal, permission, name, trusted_service=True)
        _key, used = self.version(vault, name, version)
        return operations.decrypt(used, "unwrapKey", WRAP_ALGORITHM, wrapped, self.world.clock.time())

    def forget(self, vault: Vault) -> None:
        """Delete the keys of a vault that was purged."""
        self._safes.pop(vault.uid, None)

    # Reads without side effects: they do not rotate or purge keys

    def peek(self, vault: Vault, name: str, wanted: str = "") -> tuple[Key, KeyVersion] | None:
        key = self.live_key(vault, name)
        if key is None or key.visible_from > self.world.clock.time():
            return None
        version = key.version(wanted)
        return (key, version) if version else None

    def live_key(self, vault: Vault, name: str) -> Key | None:
        """The key, including a key that is being recovered."""
        return self._stored(vault).live.get(name.lower())

    def stored(self, vault: Vault) -> tuple[list[Key], list[Key]]:
        """The live and the deleted keys, including keys that are being recovered or deleted."""
        safe, gone = self._stored(vault), self.world.clock.time() - vault.retention_days * 86400
        return [*safe.live.values()], [key for key in safe.deleted.values() if (key.deleted_at or 0) > gone]

    def check_unwrap(self, version: KeyVersion) -> None:
        """Raise the error that an unwrap with this version would raise, without unwrapping anything."""
        known = material.ENCRYPTION_ALGORITHMS
        operations.check(version, "unwrapKey", WRAP_ALGORITHM, known, self.world.clock.time())

    # Reading

    def key(self, vault: Vault, name: str) -> Key:
        key = self._safe(vault).live.get(name.lower())
        if key is None or key.visible_from > self.world.clock.time():
            raise errors.key_not_found(name)
        return key

    def version(self, vault: Vault, name: str, wanted: str = "") -> tuple[Key, KeyVersion]:
        key = self.key(vault, name)
        found = key.version(wanted)
        if found is None:
            raise errors.key_not_found(f"{name}/{wanted}")
        return key, found

    def keys(self, vault: Vault) -> list[Key]:
        now = self.world.clock.time()
        live = self._safe(vault).live
        return [live[name] for name in sorted(live) if live[name].visible_from <= now]

    def shown(self, vault: Vault, name: str, wanted: str = "") -> tuple[Key, KeyVersion]:
        """The version as a read returns it."""
        key = self._shown(vault, self.key(vault, name))
        found = key.version(wanted)
        if found is None:
            raise errors.key_not_found(f"{name}/{wanted}")
        return key, found

    def versions(self, vault: Vault, name: str) -> list[KeyVersion]:
        """The versions of a key as a list returns them, sorted by identifier and not by age. Empty if the key does not
        exist."""
        key = self._safe(vault).live.get(name.lower())
        if key is None or key.visible_from > self.world.clock.time():
            return []
        return sorted(self._shown(vault, key).versions, key=lambda version: version.version)

    def _shown(self, vault: Vault, key: Key) -> Key:
        return self._lag.shown((vault.uid, key.name.lower()), key) or key

    def _note(self, vault: Vault, key: Key) -> None:
        """Called just before a change of the key."""
        self._lag.note((vault.uid, key.name.lower()), key)

    def deleted_key(self, vault: Vault, name: str) -> Key:
        key = self._safe(vault).deleted.get(name.lower())
        if key is None or key.deleted_from > self.world.clock.time():
            raise errors.deleted_key_not_found(name)
        return key

    def deleted_keys(self, vault: Vault) -> list[Key]:
        now = self.world.clock.time()
        deleted = self._safe(vault).deleted
        return [deleted[name] for name in sorted(deleted) if deleted[name].deleted_from <= now]

    # Creating and changing

    async def create(self, vault: Vault, name: str, settings: KeySettings) -> tuple[Key, KeyVersion]:
        self._check_new(vault, name, settings)
        private_key = await asyncio.to_thread(
            material.generate, settings.family, settings.size, settings.curve, settings.exponent
        )
        # Other requests may have used the name in the meantime.
        self._check_new(vault, name, settings)
        return self._add(vault, name, self._made(settings, private_key))

    def import_key(self, vault: Vault, name: str, settings: KeySettings, private_key: bytes) -> tuple[Key, KeyVersion]:
        self._check_new(vault, name, settings)
        size = material.rsa_size(private_key)
        if size is not None and size not in (2048, 3072, 4096):
            raise errors.size_not_supported(size)
        return self._add(vault, name, self._made(settings, private_key))

    def update(self, vault: Vault, name: str, wanted: str, document: dict[str, Any]) -> tuple[Key, KeyVersion]:
        key, version = self.version(vault, name, wanted)
        self._note(vault, key)
        request.apply(document, version)
        version.updated = int(self.world.clock.time())
        return key, version

    async def rotate(self, vault: Vault, name: str) -> tuple[Key, KeyVersion]:
        key = self.key(vault, name)
        private_key = await asyncio.to_thread(_like, key.latest)
        successor = self._successor(key, private_key, int(self.world.clock.time()))
        self._note(vault, key)
        self._append(vault, key, successor)
        return key, successor

    def set_policy(self, vault: Vault, name: str, document: dict[str, Any]) -> Key:
        key = self.key(vault, name)
        key.policy = rotation.read(document, key.policy, int(self.world.clock.time()))
        return key

    async def catch_up(self, vault: Vault) -> None:
        """Rotate the keys of a vault whose rotation is due. A key gets one version, even if several rotations are
        due."""
        for key in [*self._safe(vault).live.values()]:
            if (moment := self._due(key)) is not None:
                private_key = await asyncio.to_thread(_like, key.latest)
                if self._due(key) == moment:
                    self._rotate_when_due(vault, key, private_key, moment)

    # Events

    async def announce(self) -> bool:
        """Rotate all keys whose rotation is due, and publish which keys expire soon or have expired. Returns whether
        anything has changed. Only Event Grid needs this before the next read of a vault."""
        changed = False
        for vault in self.world.vaults.live_and_deleted()[0]:
            rotations = self.rotations
            await self.catch_up(vault)
            changed |= rotations != self.rotations
            now = self.world.clock.time()
            for key in self._stored(vault).live.values():
                for version, kind, moment in [*key.announcements()]:
                    if moment <= now:
                        version.announced.add((kind, version.expires))
                        self._publish(kind, vault, key, version, moment)
                        changed = True
        return changed

    def next_announcement(self) -> float:
        """The next time at which `announce` has an effect; infinity if there is none."""
        times: list[float] = [float("inf")]
        for vault in self.world.vaults.live_and_deleted()[0]:
            for key in self._stored(vault).live.values():
                times += [moment for _version, _kind, moment in key.announcements()]
                if key.policy and (rotation := key.policy.next(key.latest.created, key.latest.expires)):
                    times.append(rotation)
        return min(times)

    # Deleting, recovering and purging

    def delete(self, vault: Vault, name: str) -> Key:
        key, safe, now = self.key(vault, name), self._safe(vault), self.world.clock.time()
        key.deleted_at, key.deleted_from = now, now + self.world.timing.key_delete
        safe.deleted[name.lower()] = safe.live.pop(name.lower())
        return key

    def recover(self, vault: Vault, name: str) -> Key:
        safe, now = self._safe(vault), self.world.clock.time()
        key = safe.deleted.get(name.lower())
        if key is None:
            raise errors.key_not_found(name)
        if key.deleted_from > now:
            raise errors.key_is_being_deleted()
        key.deleted_at, key.visible_from = None, now + self.world.timing.key_recover
        safe.live[name.lower()] = safe.deleted.pop(name.lower())
        return key

    def purge(self, vault: Vault, name: str) -> None:
        safe = self._safe(vault)
        key = safe.deleted.get(name.lower())
        if key is None:
            raise errors.deleted_key_not_found(name)
        if vault.purge_protection:
            raise errors.purge_protected(vault.name, vault.location)
        if key.deleted_from > self.world.clock.time():
            raise errors.key_is_being_deleted()
        del safe.deleted[name.lower()]

    def backup(self, vault: Vault, name: str) -> bytes:
        key = self.key(vault, name)
        blob = b"azure-sandbox key backup " + uuid.uuid4().hex.encode()
        self._backups[blob.decode()] = key.copy()
        return blob

    def restore(self, vault: Vault, blob: bytes) -> Key:
        key = self._backups.get(blob.decode(errors="replace"))
        if key is None:
            raise errors.bad_parameter("The backup is not one of this sandbox.")
        self._check_name_free(vault, key.name)
        if key.name.lower() in self._safe(vault).live:
            raise errors.restore_conflict(documents.kid(vault, key, key.latest))
        restored = key.copy()
        self._safe(vault).live[key.name.lower()] = restored
        return restored

    def _parts(self, key_identifier: str) -> tuple[Vault, str, str]:
        """The vault, key name and version of a key identifier. Rotates the key if rotation is due."""
        url = urlsplit(key_identifier)
        segments = url.path.strip("/").split("/")
        if len(segments) not in (2, 3) or segments[0].lower() != "keys":
            raise errors.bad_parameter(f"{key_identifier} does not identify a key")
        vault = self.vault_at((url.hostname or "").lower())
        key = self._safe(vault).live.get(segments[1].lower())
        if key is not None and (moment := self._due(key)) is not None:
            self._rotate_when_due(vault, key, _like(key.latest), moment)
        return vault, segments[1], segments[2] if len(segments) == 3 else ""

    def _rotate_when_due(self, vault: Vault, key: Key, private_key: bytes, due: int) -> None:
        self._append(vault, key, self._successor(key, private_key, due))
        self.rotations += 1

    def _stored(self, vault: Vault) -> Safe:
        return self._safes.get(vault.uid) or Safe()

    def _safe(self, vault: Vault) -> Safe:
        safe = self._safes.setdefault(vault.uid, Safe())
        now = self.world.clock.time()
        for name, key in [*safe.deleted.items()]:
            if (key.deleted_at or 0) + vault.retention_days * 86400 <= now:
                del safe.deleted[name]
        return safe

    def _check_new(self, vault: Vault, name: str, settings: KeySettings) -> None:
        request.check_name(name)
        if settings.kty.endswith("-HSM") and vault.sku != "premium":
            raise errors.hardware_key_on_standard_vault()
        self._check_name_free(vault, name)

    def _check_name_free(self, vault: Vault, name: str) -> None:
        safe, now = self._safe(vault), self.world.clock.time()
        deleted = safe.deleted.get(name.lower())
        if deleted is not None:
            raise (errors.name_is_being_deleted if deleted.deleted_from > now else errors.name_is_deleted)(name)
        live = safe.live.get(name.lower())
        if live is not None and live.visible_from > now:
            raise errors.name_is_being_recovered(name)

    def _made(self, settings: KeySettings, private_key: bytes) -> KeyVersion:
        now = int(self.world.clock.time())
        return KeyVersion(
            settings.kty,
            [*settings.key_ops],
            private_key,
            material.public_jwk(private_key),
            material.rsa_size(private_key),
            now,
            now,
            settings.enabled,
            settings.not_before,
            settings.expires,
            settings.tags,
        )

    def _add(self, vault: Vault, name: str, version: KeyVersion) -> tuple[Key, KeyVersion]:
        key = self._safe(vault).live.setdefault(name.lower(), Key(name, []))
        if key.versions:
            self._note(vault, key)
        self._append(vault, key, version)
        return key, version

    def _append(self, vault: Vault, key: Key, version: KeyVersion) -> None:
        key.versions.append(version)
        self._publish(KEY_NEW_VERSION, vault, key, version, version.created)

    def _publish(self, kind: str, vault: Vault, key: Key, version: KeyVersion, moment: int) -> None:
        data = documents.event_data(vault, key, version)
        self.world.event_grid.publish(kind, vault.id, key.name, data, moment)

    def _due(self, key: Key) -> int | None:
        if key.policy is None:
            return None
        return key.policy.due(key.latest.created, key.latest.expires, self.world.clock.time())

    @staticmethod
    def _successor(key: Key, private_key: bytes, created: int) -> KeyVersion:
        previous = key.latest
        return KeyVersion(
            previous.kty,
            [*previous.key_ops],
            private_key,
            material.public_jwk(private_key),
            previous.size,
            created,
            created,
            expires=key.policy.expires(created) if key.policy else None,
            tags=dict(previous.tags) if previous.tags else None,
        )


def _like(version: KeyVersion) -> bytes:
    return material.generate(version.family, version.size, version.public.get("crv"))
