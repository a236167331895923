# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments that measure when reads and lists show a change, and whether they show the previous state again."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import Any

from azure_sandbox.shared.behavior import POSITIONS

from ..azure import BATCH, ROLES, VAULTS, Response
from ..experiment import Experiment, Outcome
from ..lab import Lab, Span, common, random_name

# How often a changed account is read after all of its reads have shown the change, and another resource.
_READS, _OTHER_READS = 200, 40
# How many seconds a change, and a new account, can be missing until the experiment ends.
_SHOWN_WITHIN, _FOUND_WITHIN = 180, 600

# By name of a read, a function that returns the resource, or None if the response does not have it.
Places = Mapping[str, Callable[[], Any]]
# When a read was sent and when it ended, in seconds after the change, and whether it showed the change.
Read = tuple[float, float, bool]


def value_lag(lab: Lab) -> Outcome:
    identity, other = lab.once("identity", lab.identity), lab.once("other", lab.identity)
    vault = lab.once("vault", lambda: lab.vault(identity["principal"]))
    first, second, unused = lab.once("versions", lambda: [lab.key(vault) for _ in range(3)])
    account = lab.once("account", lambda: lab.account_on_key(first, identity))
    role = lab.once("role", lambda: str(uuid.uuid4()))
    vault_path, principal = lab.vault_path(vault), other["principal"]
    version = unused.partition(".vault.azure.net")[2]
    assignments = f"{vault_path}/providers/Microsoft.Authorization/roleAssignments"
    read_role = partial(lab.azure.arm, "GET", version=ROLES)
    role_places = _places(lab, read_role, f"{assignments}/{role}", {"list of the vault": assignments})
    created = _watched(
        lab,
        "new role assignment",
        role_places,
        lambda: lab.assign(vault_path, principal, name=role).required(),
        lambda one: one is not None,
    )
    changed = {
        **_watched(
            lab,
            "account on another version",
            _account_places(lab, account),
            lambda: lab.change(account, properties=lab.encryption(second)).required(),
            # A read may show the account before it had a key.
            lambda one: one and second.lower() in str(one["properties"]["encryption"]).lower(),
            reads=_READS,
        ),
        **_watched(
            lab,
            "disabled version",
            _places(
                lab,
                partial(lab.azure.vault, "GET", vault),
                version,
                {"list of the versions": f"{version.rpartition('/')[0]}/versions"},
            ),
            lambda: lab.enable(unused, enabled=False),
            lambda one: one and not one["attributes"]["enabled"],
        ),
        **_watched(
            lab,
            "new access policy",
            _places(
                lab,
                partial(lab.azure.arm, "GET", version=VAULTS),
                vault_path,
                {"list of the resource group": vault_path.rpartition("/")[0]},
            ),
            lambda: lab.admit(vault, principal),
            lambda one: one and principal in str(one["properties"]["accessPolicies"]),
        ),
        **_watched(
            lab,
            "deleted role assignment",
            role_places,
            lambda: lab.azure.arm("DELETE", f"{assignments}/{role}", ROLES).required(),
            lambda one: one is None,
        ),
    }
    return outcome({**created, **changed}, value_lag=common([span for _, span in _spans(changed)]))


def new_names(lab: Lab) -> Outcome:
    name = lab.once("name", lambda: random_name("ba"))
    found = _watched(
        lab,
        "new account",
        _account_places(lab, name),
        lambda: lab.make_account(name),
        lambda one: one is not None,
        limit=_FOUND_WITHIN,
        step=2,
    )
    read, *lists = (span for _, span in _spans(found))
    return outcome(found, name_lag=read, list_lag=max(lists, key=lambda span: span.within))


def _account_places(lab: Lab, account: str) -> Places:
    lists = {
        "list of the resource group": lab.accounts_path,
        "list of the subscription": f"{lab.azure.subscription}/providers/Microsoft.Batch/batchAccounts",
    }
    return _places(lab, partial(lab.azure.arm, "GET", version=BATCH), lab.account_path(account), lists)


def _places(lab: Lab, get: Callable[[str], Response], path: str, lists: Mapping[str, str]) -> Places:
    """The read of a resource, and lists that have it."""

    def itself() -> Any:
        response = get(path)
        return None if response.status == 404 else response.required()

    def listed(above: str) -> Any:
        page = get(above).required()
        while True:
            for one in page["value"]:
                if str(one.get("id") or one["kid"]).lower().endswith(path.lower()):
                    return one
            if not page.get("nextLink"):
                return None
            page = lab.azure.send("GET", page["nextLink"]).required()

    return {"GET": itself, **{name: partial(listed, above) for name, above in lists.items()}}


def _watched(
    lab: Lab,
    what: str,
    places: Places,
    change: Callable[[], object],
    shows: Callable[[Any], bool | None],
    *,
    reads: int = _OTHER_READS,
    limit: float = _SHOWN_WITHIN,
    step: float = 0.5,
) -> dict[str, list[Read]]:
    """Make a change, and read all places until they show it, and then `reads` times. Returns the reads by place.
    `shows` is called with a resource, and returns whether it shows the change. A place that does not have the resource
    before the change is left out."""
    asked = lab.once(f"{what}, before", lambda: [place for place, read in places.items() if shows(read()) is False])
    sent, done = lab.once(f"{what}, change", lambda: lab.precisely(change))

    def watch() -> dict[str, list[Read]]:
        made: dict[str, list[Read]] = {f"{what}, {place}": [] for place in places}
        left, now = reads, lab.clock.now()
        while left and (left < reads or now - done < limit):
            for place in asked:
                began, is_shown = now, bool(shows(places[place]()))
                now = lab.clock.now()
                made[f"{what}, {place}"].append((began - done, now - sent, is_shown))
            left -= all(any(is_shown for *_, is_shown in made[f"{what}, {place}"]) for place in asked)
            lab.clock.wait(step)
            now = lab.clock.now()
        return made

    return lab.once(f"{what}, reads", watch)


def outcome(found: Mapping[str, Sequence[Read]], **switches: Span) -> Outcome:
    shown = (
        f"{place} {span.within:.1f} s" if math.isfinite(span.within) else f"{place} more than {span.after:.1f} s"
        for place, span in _spans(found)
    )
    seen = f"Time until the change was shown: {'; '.join(shown)}."
    back = [place for place, reads in found.items() if any(one[2] and not later[2] for one, later in pairwise(reads))]
    if back:
        seen += f" The previous state was shown again: {'; '.join(back)}."
    return Outcome(seen, details={place: _told(reads) for place, reads in found.items()}, spans=switches)


def _spans(found: Mapping[str, Sequence[Read]]) -> Iterator[tuple[str, Span]]:
    """By place that was read, the time after which it always showed the change."""
    for place, reads in found.items():
        if reads:
            after, within = 0.0, math.inf
            for sent, ended, is_shown in reads:
                after, within = (after, min(within, ended)) if is_shown else (max(sent, 0.0), math.inf)
            yield place, Span(after, within)


def _told(reads: Sequence[Read]) -> str:
    """What all reads showed, in their order."""
    runs = ((is_shown, [*run]) for is_shown, run in groupby(reads, key=lambda read: read[2]))
    told = (
        f"{len(run)} reads {'with' if is_shown else 'without'} the change until {run[-1][1]:.1f} s"
        for is_shown, run in runs
    )
    return ", then ".join(told) or "not read, because it did not have the resource before the change"


EXPERIMENTS = (
    Experiment(
        "value_lag",
        "How soon do reads and lists show a change, and do they show the previous state again?",
        "Move an account to another version of its key, and read and list it 200 times. Disable a version, add an "
        "access policy, and create and delete a role assignment, and read and list each of them 40 times.",
        value_lag,
        minutes=10,
        switches={"value_lag": {one: f"after {one} s" for one in POSITIONS["value_lag"]}},
        creates="a vault, a key",
        cents=1,
    ),
    Experiment(
        "new_names",
        "How soon do reads and lists show a new account?",
        "Create an account, and read and list it every two seconds.",
        new_names,
        minutes=10,
        switches={name: {one: f"after {one} s" for one in POSITIONS[name]} for name in ("name_lag", "list_lag")},
    ),
)
