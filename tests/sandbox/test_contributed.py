# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recordings that contributors have made with `make live`: the sandbox responds as Azure did."""

from __future__ import annotations

from pathlib import Path

import pytest
from contributed import FOLDER, Replay, cases
from sandbox_client import serving
from test_live import live

MEASURED = FOLDER / "RESULT.json"


@pytest.mark.parametrize("recording", sorted(FOLDER.glob("live-*.json")), ids=lambda recording: recording.stem)
def test_the_sandbox_responds_as_azure_did(recording: Path) -> None:
    with serving("--behavior-file", str(MEASURED)) as sandbox:
        assert list(Replay(sandbox, recording).differences()) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings, made with a sandbox instead of Azure."""
    folder = tmp_path_factory.mktemp("live")
    with serving("--behavior", "new_principal=known", "--behavior", "identities_on_put=merged") as azure:
        only = ("--only", "identities_on_put", "--only", "new_principal", "--only", "refused_keys")
        done = live(azure, folder, "run", "--yes", *only)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("name", ["identities_on_put", "new_principal", "refused_keys"])
def test_a_recording_agrees_with_a_sandbox_that_has_the_measured_positions(made: Path, name: str) -> None:
    with serving("--behavior-file", str(made / "RESULT.json")) as sandbox:
        assert list(Replay(sandbox, made / f"live-{name}-1.json").differences()) == []


@pytest.mark.parametrize("name", ["identities_on_put", "new_principal"])
def test_a_recording_differs_from_a_sandbox_with_another_position(made: Path, name: str) -> None:
    with serving() as sandbox:
        assert list(Replay(sandbox, made / f"live-{name}-1.json").differences())


def test_the_rows_of_the_fidelity_tables_can_cite_a_recording(made: Path) -> None:
    cited = cases(made)
    assignments = [name for name, one in cited.items() if "/roleAssignments/" in one["path"] and one["method"] == "PUT"]
    assert len(assignments) == 1
    assert assignments[0].startswith("live-new_principal-1 #")
