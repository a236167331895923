# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the experiments: says what they will do, asks, runs or resumes them, and writes the result."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from azure.core.exceptions import ClientAuthenticationError
from azure.identity import DefaultAzureCredential

from azure_sandbox.recording.placeholders import claims_of
from azure_sandbox.recording.recorder import RecordingProblem
from azure_sandbox.running import InThread, Options, Running

from . import cleaning, result, rights
from .azure import GROUPS, Azure, Credential, Disturbed, NoResponse, NoResult
from .caller import credential, session_through
from .clock import Clock, RealClock, SandboxClock
from .experiment import Experiment, Length
from .experiments import EXPERIMENTS
from .lab import RETENTION_DAYS, Bounds, Lab, Place, random_name
from .recording import OwnRecorder
from .requests import Requests
from .state import State, locked

FOLDER = Path("live")
# How often an experiment begins again in a run if Azure has disturbed it.
_ROUNDS = 3
_AGAIN = "Run it again to continue, or `make live-clean` to delete everything."


def main(arguments: Sequence[str] | None = None, *, clock: Clock | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make live", description=__doc__)
    parser.add_argument("action", choices=["run", "clean"])
    parser.add_argument(
        "--class", dest="length", type=Length, choices=[*Length], default=Length.SHORT, metavar="short|hours|days"
    )
    parser.add_argument("--location", default="westeurope")
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER", help="(default: %(default)s)")
    parser.add_argument("--only", action="append", default=[], metavar="EXPERIMENT")
    parser.add_argument("--without", action="append", default=[], metavar="EXPERIMENT", help="with wildcards")
    parser.add_argument("--again", action="store_true", help="run also what has a result")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="print the requests, and send none to Azure")
    parsed = parser.parse_args(arguments)
    # They would print many lines without a sign-in, before the name of a new vault resolves, and if an interrupt ends a
    # request.
    for name in ("azure", "azure_sandbox", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    wanted = _wanted(parsed.length, parsed.only, parsed.without)
    if parsed.dry_run:
        return _dry_run(wanted, parsed.location)
    subscription = os.environ.get("AZURE_SUBSCRIPTION_ID", "")
    if not subscription:
        print("AZURE_SUBSCRIPTION_ID is not set. Set it to the id of the subscription.", file=sys.stderr)
        return 2
    try:
        with locked(parsed.to), InThread(_recorder(parsed.to, subscription, Requests())) as recorder:
            kit = Kit(recorder, credential, subscription, parsed.to, clock or RealClock())
            if parsed.action == "clean":
                return kit.clean(asks=not parsed.yes)
            return kit.run(wanted, parsed.location, asks=not parsed.yes, again=parsed.again)
    except BlockingIOError:
        problem = f"Another run uses the folder {parsed.to}. Wait until it ends, or use another folder with --to."
    except EOFError:
        problem = "There is no terminal to ask at. Set YES=1 if the command may start without a question."
    except KeyboardInterrupt:
        problem = f"Interrupted. {_AGAIN}"
    except ClientAuthenticationError:
        problem = "Nobody is signed in to Azure. Sign in, for example with `az login`, and run it again."
    except (NoResponse, NoResult, RecordingProblem) as error:
        problem = f"{error} {_AGAIN}"
    print(problem, file=sys.stderr)
    return 1


def _recorder(folder: Path, subscription: str, sent: Requests) -> OwnRecorder:
    texts = " ".join(f"{one.question} {one.steps}" for one in EXPERIMENTS)
    return OwnRecorder(folder, os.environ, subscription, texts, sent.note)


def _dry_run(wanted: Sequence[Experiment], location: str) -> int:
    """Print the requests that the experiments send, after running them in a sandbox."""
    print("These requests are sent, if Azure responds as the sandbox does. Running the experiments in a sandbox ...")
    sent = Requests()
    with tempfile.TemporaryDirectory() as folder, InThread(Running(Options())) as sandbox:
        for name in ("https_proxy", "http_proxy", "no_proxy"):
            os.environ.pop(name, None)
        os.environ.update(sandbox.environment)
        subscription = os.environ["AZURE_SUBSCRIPTION_ID"]
        output = io.StringIO()
        with InThread(_recorder(Path(folder), subscription, sent)) as recorder, contextlib.redirect_stdout(output):
            kit = Kit(recorder, DefaultAzureCredential, subscription, Path(folder), SandboxClock(sandbox.url))
            status = kit.run(wanted, location, asks=False)
    print(output.getvalue() if status else sent.text(wanted), end="")
    return status


def _wanted(length: Length, only: Sequence[str], without: Sequence[str]) -> list[Experiment]:
    lengths = [*Length][: [*Length].index(length) + 1]

    def matches(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    named = (one for one in EXPERIMENTS if (not only or matches(one.name, only)) and not matches(one.name, without))
    return [one for one in named if one.length in lengths]


class Kit:
    def __init__(
        self, recorder: OwnRecorder, sign_in: Callable[[], Credential], subscription: str, folder: Path, clock: Clock
    ) -> None:
        self._recorder = recorder
        # With these environment variables, the requests of a command are recorded.
        self._environment = recorder.environment
        self._folder = folder
        self._clock = clock
        self._azure = Azure(session_through(recorder.environment), sign_in, subscription, clock)

    def clean(self, *, asks: bool) -> int:
        """Delete the resource group of this folder and, if the caller agrees, those of other runs."""
        state = State.load(self._folder)
        own = {state.group} - {""}
        others = {*cleaning.groups(self._azure)} - own
        wanted = [
            name
            for name in (*own, *sorted(others))
            if (_agrees(f"Delete the resource group {name} {_whose(name in own)}?") if asks else name in own)
        ]
        if not own and not others:
            print("There is nothing to delete.")
        left = {name: self._deleted(name) for name in wanted}
        if own <= {*wanted} and not any(left[name] for name in own):
            State(self._folder).remove()
        for name in sorted(others - {*wanted}):
            print(f"{name} of another run is left.")
        return 1 if any(left.values()) else 0

    def _deleted(self, name: str) -> str:
        """Delete a resource group. Returns why it is left; empty if it is not."""
        print(f"Deleting the resource group {name} ...", flush=True)
        reason = cleaning.delete(self._azure, self._clock, name)
        if reason:
            print(f"The resource group {name} is left: {reason}. Delete it with `make live-clean`.", file=sys.stderr)
        else:
            print(f"The resource group {name} does not exist any more.")
        return reason

    def run(self, experiments: Sequence[Experiment], location: str, *, asks: bool, again: bool = False) -> int:
        lacking = rights.missing(self._azure)
        if lacking:
            print("The caller lacks these rights at the subscription:", *lacking, sep="\n  ", file=sys.stderr)
            print("Grant the role Owner, or Contributor and User Access Administrator.", file=sys.stderr)
            return 1
        unregistered = rights.unregistered(self._azure)
        if unregistered:
            print("These resource providers are not registered in the subscription. Register them:", file=sys.stderr)
            for provider in unregistered:
                print(f"  az provider register --wait --namespace {provider}", file=sys.stderr)
            return 1
        state = State.load(self._folder)
        if again:
            state.forget(one.name for one in experiments)
        left = [one for one in experiments if not is_complete(state.outcomes.get(one.name))]
        free = rights.free_accounts(self._azure, state.location or location, state.group)
        left = self._allowed(left, free, state.location or location)
        self._announce(left, state.location or location)
        if asks and not _agrees(f"{self._signed_in()} Continue?"):
            return 1
        place = self._place(state, location)
        minutes = sum(one.minutes for one in left)
        for number, experiment in enumerate(left, 1):
            print(f"[{number}/{len(left)}, about {_time(minutes)} left] {experiment.question}", flush=True)
            self._perform(experiment, place, state, free)
            minutes -= experiment.minutes
        found = result.write(self._folder, EXPERIMENTS, state.outcomes, f"{datetime.now(UTC):%Y-%m-%d}")
        print(f"The result is in {self._folder / result.PAGE}.")
        is_left = self._end(state)
        return 1 if found["without_result"] or is_left else 0

    @staticmethod
    def _allowed(experiments: Sequence[Experiment], free: int, where: str) -> list[Experiment]:
        """The experiments without those that need more accounts than the quota allows."""
        for one in experiments:
            if one.accounts > free:
                print(
                    f"{one.name} is left out: it needs {one.accounts} Batch accounts at once, and the quota of {where} "
                    f"allows {max(free, 0)} more. Request a higher quota, or use another region with --location."
                )
        return [one for one in experiments if one.accounts <= free]

    def _end(self, state: State) -> bool:
        """Delete the resources, and return whether some are left. The outcomes are kept for a later run of longer
        experiments."""
        reason = self._deleted(state.group)
        if not reason:
            state.group = ""
        state.memories = {}
        state.save()
        return bool(reason)

    def _announce(self, experiments: Sequence[Experiment], location: str) -> None:
        print(f"The experiments create a resource group {cleaning.PREFIX}... in {location}, and in it:")
        for one in experiments:
            cost = f", {one.creates}: at most {_dollars(one.cents)}" if one.cents else ""
            print(f"  {one.name}: about {_time(one.minutes)}{cost}. {one.steps}")
        print(
            f"In all about {_time(sum(one.minutes for one in experiments))} and at most "
            f"{_dollars(sum(one.cents for one in experiments))}. Then everything is deleted. Because of their purge "
            f"protection, the vaults and keys stay soft-deleted for {RETENTION_DAYS} days, and cost nothing then."
        )
        print(
            "Your alerts may fire: for new role assignments and locks, for deleted locks, keys, "
            "vaults and Batch accounts, for changed access policies, and in Microsoft Defender for Key Vault."
        )

    def _signed_in(self) -> str:
        """Who uses which subscription. Not printed without a question, because the output of a workflow is public."""
        claims = claims_of(self._azure.token())
        names = (claims.get(name) for name in ("upn", "unique_name", "preferred_username", "app_displayname", "appid"))
        caller = " ".join(filter(None, (next(filter(None, names), ""), f"(object id {claims['oid']})")))
        subscription = self._azure.subscription.rpartition("/")[2]
        return f"Tenant {claims['tid']}, subscription {subscription}, caller {caller}."

    def _place(self, state: State, location: str) -> Place:
        claims = claims_of(self._azure.token())
        if not state.group:
            state.group, state.location = random_name(cleaning.PREFIX), location
            # Before the group is created, so that a run that is killed is found again.
            state.save()
        self._recorder.ground.group = state.group
        body = {"location": state.location, "tags": cleaning.TAGS}
        path = f"{self._azure.subscription}/resourcegroups/{state.group}"
        self._azure.arm("PUT", path, GROUPS, body).required()
        caller_type = "ServicePrincipal" if claims.get("idtyp", "app") == "app" else "User"
        return Place(state.group, state.location, claims["tid"], claims["oid"], caller_type)

    def _perform(self, experiment: Experiment, place: Place, state: State, free: int) -> None:
        """Run an experiment, or continue it. Without a result, or if it is interrupted, the next run continues it."""
        name = experiment.name
        answers = state.answers.setdefault(name, {})
        for _ in range(_ROUNDS):
            state.starts[name] = state.starts.get(name, 0) + 1
            state.save()
            memory = state.memories.setdefault(name, {})
            lab = Lab(
                self._azure,
                self._clock,
                place,
                memory,
                answers,
                state.save,
                _known(state),
                free,
                self._environment,
                self._folder,
            )
            kept, is_disturbed = self._performed(experiment, lab, f"live-{name}-{state.starts[name]}", not memory)
            recordings = [f"live-{name}-{start}.json" for start in range(1, state.starts[name] + 1)]
            kept["recordings"] = [one for one in recordings if (self._folder / one).exists()]
            state.outcomes[name] = kept
            state.memories.pop(name, None)
            state.save()
            if not is_disturbed:
                return

    def _performed(self, experiment: Experiment, lab: Lab, recording: str, is_new: bool) -> tuple[dict[str, Any], bool]:
        """The outcome, and whether the experiment should begin again because Azure has disturbed it."""
        failure: NoResult | None = None
        outcome: dict[str, Any] = {}
        try:
            with self._recorder.into(recording):
                if is_new:
                    # The quota of a region can be low, so those of the previous experiment are not kept.
                    lab.delete_accounts()
                outcome = experiment.run(lab).document()
        except NoResult as error:
            failure = error
            outcome = {"failed": str(error)}
        outcome["details"] = {**lab.answers, **outcome.get("details", {})}
        outcome["unanswered"] = {case: str(reason) for case, reason in lab.unanswered.items()}
        kept = self._public(outcome)
        print(f"  No result: {kept['failed']}" if "failed" in kept else f"  {kept['seen']}", flush=True)
        for case, reason in kept["unanswered"].items():
            print(f"  No result for {case}: {reason}", flush=True)
        reasons = [*lab.unanswered.values(), *([failure] if failure else [])]
        return kept, any(isinstance(one, Disturbed) for one in reasons)

    def _public(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """The outcome without names and ids, which are not published."""
        if self._recorder.left_out:
            print(f"  {self._recorder.left_out} requests are not recorded, because they would name others.", flush=True)
            self._recorder.left_out = 0
        try:
            kept: dict[str, Any] = self._recorder.public(outcome)
        except RecordingProblem as problem:
            kept = {"failed": f"The result is not published: {problem}", "details": {}, "unanswered": {}}
        return kept


def _whose(is_own: bool) -> str:
    return "of this folder" if is_own else "of another run, which may still be in progress"


def _agrees(question: str) -> bool:
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def is_complete(outcome: Mapping[str, Any] | None) -> bool:
    return outcome is not None and not ("failed" in outcome or outcome["unanswered"] or outcome.get("not_yet"))


def _known(state: State) -> dict[str, Bounds]:
    """By switch whose positions are times, the time that was measured."""
    known: dict[str, Bounds] = {}
    for outcome in state.outcomes.values():
        for switch, (after, within) in outcome.get("seconds", {}).items():
            times = [float(position) for position in outcome["consistent"][switch]] or [after, within or after]
            known[switch] = min(times), max(times)
    return known


def _dollars(cents: int) -> str:
    return f"{cents / 100:.2f} US dollars"


def _time(minutes: float) -> str:
    if minutes < 90:
        return f"{minutes:.0f} minutes"
    return f"{minutes / 60:.0f} hours" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"
