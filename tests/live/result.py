# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The result of the experiments: a file for `azure-sandbox --behavior-file`, and a page for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from azure_sandbox.shared.behavior import DEFAULT, POSITIONS

from .experiment import Experiment
from .experiments import NOT_ASKED

RESULT = "RESULT.json"
PAGE = "RESULT.md"


def result(experiments: Sequence[Experiment], outcomes: Mapping[str, Mapping[str, Any]], made: str) -> dict[str, Any]:
    """The measured position of each switch, with the experiments that prove it. `made` is the date."""
    switches: dict[str, Any] = {}
    timing: dict[str, Any] = {}
    for experiment in experiments:
        outcome = outcomes.get(experiment.name)
        if outcome is None:
            continue
        for switch, positions in outcome.get("consistent", {}).items():
            span = outcome["seconds"].get(switch)
            switches[switch] = {
                "position": positions[0] if len(positions) == 1 else None,
                "consistent": positions,
                "contradiction": not positions and span is None,
                # After more than the first and at most the second number, which is null if that was not measured.
                "seconds": span,
                "seen": outcome["seen"],
                "recordings": outcome["recordings"],
            }
        for name, seconds in outcome.get("timing", {}).items():
            timing[name] = {"seconds": round(seconds, 1), "recordings": outcome["recordings"]}
    not_yet = {switch: reason for one in outcomes.values() for switch, reason in one.get("not_yet", {}).items()}
    without = {name: reasons for name, one in outcomes.items() if (reasons := _without_result(one))}
    return {
        "made": made,
        "behavior": {switch: one["position"] for switch, one in switches.items() if one["position"] is not None},
        # By switch whose positions do not have the measured time, this time in seconds.
        "seconds": {
            switch: round(one["seconds"][1], 1)
            for switch, one in switches.items()
            if not one["consistent"] and one["seconds"] is not None and one["seconds"][1] is not None
        },
        "switches": switches,
        "timing": timing,
        "without_result": without,
        "not_asked": {name: reason for name, reason in {**NOT_ASKED, **not_yet}.items() if name not in switches},
    }


def _without_result(outcome: Mapping[str, Any]) -> dict[str, str]:
    """By case, or for the whole experiment, the reason why there is no result."""
    return {**({"experiment": outcome["failed"]} if "failed" in outcome else {}), **outcome["unanswered"]}


def write(
    folder: Path, experiments: Sequence[Experiment], outcomes: Mapping[str, Mapping[str, Any]], made: str
) -> dict[str, Any]:
    found = result(experiments, outcomes, made)
    (folder / RESULT).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page(experiments, outcomes, found), encoding="utf-8")
    return found


def page(experiments: Sequence[Experiment], outcomes: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any]) -> str:
    lines = [
        "# What was measured in Azure",
        "",
        f"Measured on {found['made']}. The recordings are in this folder.",
        "",
        "| Switch of the sandbox | Default | Measured |",
        "|---|---|---|",
        *(f"| `{switch}` | `{getattr(DEFAULT, switch)}` | {_measured(found, switch)} |" for switch in POSITIONS),
        "",
    ]
    if found["timing"]:
        times = (f"| `{name}` | {one['seconds']} |" for name, one in found["timing"].items())
        lines += ["| Duration | Seconds |", "|---|---|", *times, ""]
    for experiment in experiments:
        outcome = outcomes.get(experiment.name)
        if outcome is not None:
            lines += [f"## {experiment.question}", "", experiment.steps, "", _answer(outcome), ""]
            lines += [f"- {what}: {said}" for what, said in outcome["details"].items()]
            lines += [f"- {what}: **no result.** {reason}" for what, reason in outcome["unanswered"].items()]
            lines += [""]
    return "\n".join([*lines, ""])


def _measured(found: Mapping[str, Any], switch: str) -> str:
    one = found["switches"].get(switch)
    if one is None:
        return str(found["not_asked"].get(switch, "not measured yet"))
    if one["contradiction"]:
        return "**no position explains what was found**"
    if not one["consistent"]:
        after, within = one["seconds"]
        return f"more than {after:.0f} s" if within is None else f"{within:.0f} s, which is no position"
    return " or ".join(f"`{position}`" for position in one["consistent"])


def _answer(outcome: Mapping[str, Any]) -> str:
    if "failed" in outcome:
        return f"**No result.** {outcome['failed']}"
    return f"**{outcome['seen']}** Recordings: {', '.join(outcome['recordings'])}."
