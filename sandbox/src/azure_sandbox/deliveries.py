# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Publishes the events that the clock causes, and delivers events to the webhooks of subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from .event_grid import webhook
from .event_grid.subscription import Subscription
from .world import World

logger = logging.getLogger("azure_sandbox")


class Deliveries:
    """Delivers events until it is stopped; `wake` reports that the world or its clock has changed.

    Each subscription has at most one request at a time, so that a slow webhook delays only its own events.
    """

    def __init__(self, world: Callable[[], World]) -> None:
        self._world = world
        self._woken = asyncio.Event()
        # The requests that are being sent, by the id of their subscription.
        self._requests: dict[str, asyncio.Task[None]] = {}
        self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        # Without subscriptions, a write costs no more than this check. The last one may have been deleted.
        if self._requests or self._world().event_grid.subscriptions:
            self._woken.set()

    async def stop(self) -> None:
        for task in (self._task, *self._requests.values()):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            seconds = None
            try:
                seconds = await self._step(self._world())
            except Exception:
                logger.exception("Events could not be delivered. This is a defect of the sandbox.")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), seconds)

    async def _step(self, world: World) -> float | None:
        """Do what is due. Returns the seconds until something else is due; None if nothing will be."""
        subscriptions = world.event_grid.subscriptions
        for gone in self._requests.keys() - subscriptions.keys():
            self._requests.pop(gone).cancel()
        if not subscriptions:
            return None
        await world.keys.announce()
        now = world.clock.time()
        for subscription in subscriptions.values():
            if subscription.id not in self._requests and subscription.next_due() <= now:
                task = asyncio.get_running_loop().create_task(self._deliver(world, subscription))
                self._requests[subscription.id] = task
        idle = (one.next_due() for one in subscriptions.values() if one.id not in self._requests)
        next_at = min([world.keys.next_announcement(), *idle])
        return None if next_at == float("inf") else max(next_at - world.clock.time(), 0)

    async def _deliver(self, world: World, subscription: Subscription) -> None:
        """Deliver the events of a subscription that are due."""
        try:
            while pending := subscription.due(world.clock.time()):
                status, failure = None, ""
                try:
                    status = await webhook.deliver(subscription, pending)
                except webhook.Unreachable as error:
                    failure = str(error)
                subscription.record(pending, status, failure, world.clock.time())
        except Exception:
            logger.exception("Events could not be delivered. This is a defect of the sandbox.")
        else:
            # A later event of this subscription may be due, or a retry.
            self._requests.pop(subscription.id, None)
            self._woken.set()
