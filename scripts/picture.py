# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record playbooks in the sandbox as an animated picture: a failing canary, the rotation, and a recovery.

    python scripts/picture.py docs/images/demo.svg

`make picture` runs this. The commands and their output are real. Only the time between two lines is changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

ACCOUNTS = 11
COLUMNS, ROWS = 100, 27
# In pixels. A character of the usual monospace fonts is 0.6 of its size wide.
SIZE, LINE, MARGIN, BAR = 13, 18, 14, 30
WIDTH, HEIGHT = round(COLUMNS * SIZE * 0.61) + 2 * MARGIN, BAR + ROWS * LINE + MARGIN
# In seconds: between two lines, before and after a command (twice), and at the end.
SHORTEST, LONGEST, PAUSE, END = 0.05, 0.2, 1.6, 5.0

ROTATE = """ansible-playbook -i batch_accounts.yml azbatch.cmk.rotate \\
    -e cmk_hosts=pinned -e cmk_key_new_version=CHG0012345"""
RECOVER = "ansible-playbook -i batch_accounts.yml azbatch.cmk.recover -e cmk_hosts=vault_kv_sandbox_1"
DISABLE = "vault_name=kv-sandbox-1 name=batch-cmk state=disabled force=true"
REFUSAL = {"error": {"code": "InvalidPropertyValue", "message": "The key version cannot be used in this region."}}
FAULT = {
    "match": {"method": "PATCH", "path": "batchAccounts"},
    "times": None,
    "answer": {"status": 400, "body": REFUSAL},
}

# The colors of Ansible by number, on a dark background.
COLORS = {30: "#8a93a6", 31: "#ff8f8f", 32: "#86d993", 33: "#e6c86e", 34: "#8ab4ff", 35: "#e2a6ff", 36: "#79d3e0"}
BACKGROUND, TEXT = "#15181f", "#e4e7ed"

# A line with the time in seconds at which it is shown.
Line = tuple[float, str]


def main() -> int:
    if "AZURE_SANDBOX_URL" not in os.environ:
        switches = ("--behavior", "key_loss_noticed=0", "--behavior", "pools_without_key=409")
        command = ["azure-sandbox", "run", "--accounts-on-key", str(ACCOUNTS), *switches]
        return subprocess.call([*command, "--", sys.executable, __file__, *sys.argv[1:]])
    picture = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="picture-") as folder:
        os.chdir(folder)
        Path("batch_accounts.yml").write_text("plugin: azbatch.cmk.batch_accounts\n", encoding="utf-8")
        picture.write_text(svg(list(record())), encoding="utf-8")
    return 0


def record() -> Iterator[Line]:
    """The lines of all scenes, with the times of the picture."""
    now = 0.0
    for comment, command in scenes():
        if now:
            yield now, ""
        yield now, f"\x1b[34m# {comment}"
        now += PAUSE if now else 0
        for number, part in enumerate(command.splitlines()):
            yield now, f"\x1b[1m{'$ ' if number == 0 else '  '}{part.lstrip() if number else part}"
        now += PAUSE
        last = None
        for when, line in run(command):
            now += SHORTEST if last is None else min(max(when - last, SHORTEST), LONGEST)
            last = when
            yield now, line
        now += 2 * PAUSE


def scenes() -> Iterator[tuple[str, str]]:
    """The comment and the command of each scene. The state of the sandbox is changed before each scene."""
    control("POST", "/faults", FAULT)
    yield f"Rotate the key of {ACCOUNTS} accounts. Azure refuses the change of the first, the canary.", ROTATE
    control("DELETE", "/faults")
    yield "The cause is repaired. The same command completes the rotation.", ROTATE
    module = ["ansible", "localhost", "-m", "azbatch.cmk.keyvault_cmk_key_state", "-a", DISABLE]
    subprocess.run(module, check=True, capture_output=True)
    # Batch needs ten minutes after the repair, which `recover` waits for.
    yield f"Somebody disables the key: Batch refuses all {ACCOUNTS} accounts. Recover them.", RECOVER


def run(command: str) -> Iterator[Line]:
    """Run a command in a terminal. Yields each line of its output with the time."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", ANSIBLE_FORCE_COLOR="true")
        os.execvp("bash", ["bash", "-c", command])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    unfinished = b""
    while True:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # The command has ended.
            break
        *lines, unfinished = (unfinished + read).split(b"\n")
        for line in lines:
            yield time.monotonic(), line.decode().rstrip()
    os.waitpid(process, 0)


def control(method: str, path: str, body: Any = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["AZURE_SANDBOX_URL"] + path, data, method=method)
    # Without the proxy, which is for requests to Azure.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request):
        pass


def rows(lines: list[Line]) -> Iterator[Line]:
    """The rows of the terminal, which wraps long lines, as SVG."""
    for when, line in lines:
        style, column, row = "", 0, ""
        for code, text in re.findall(r"\x1b\[([\d;]*)m|([^\x1b]+)", line):
            if not text:
                style = styled(code)
                continue
            while text:
                part, text = text[: COLUMNS - column], text[COLUMNS - column :]
                row += f"<tspan{style}>{escape(part, quote=False)}</tspan>" if style else escape(part, quote=False)
                column += len(part)
                if text:
                    yield when, row
                    column, row = 0, ""
        yield when, row


def styled(code: str) -> str:
    """The attributes of a text after an escape sequence."""
    numbers = [int(number) for number in code.split(";") if number]
    color = next((number for number in numbers if number in COLORS), None)
    return (f' class="c{color}"' if color else "") + (' font-weight="bold"' if 1 in numbers else "")


def svg(lines: list[Line]) -> str:
    drawn = list(rows(lines))
    duration = drawn[-1][0] + END
    # Each step shows the rows up to one time. The rows of a full terminal move up. Before, a cover hides the next rows.
    shown = {when: number for number, (when, _row) in enumerate(drawn, 1)}
    moves = "".join(step(when / duration, -above(number)) for when, number in shown.items())
    covers = "".join(
        step(when / duration, min(number, ROWS) * LINE) for when, number in shown.items() if number <= ROWS
    )
    covers += step(min(when for when, number in shown.items() if number >= ROWS) / duration, ROWS * LINE)
    text = "\n".join(f'<text y="{number * LINE}">{row}</text>' for number, (_when, row) in enumerate(drawn, 1) if row)
    colors = "".join(f".c{number}{{fill:{color}}}" for number, color in COLORS.items())
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title desc">
<!--
Copyright (c) 2026, the azbatch.cmk authors
GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
-->
<title id="title">A terminal in which playbooks of azbatch.cmk run against the sandbox</title>
<desc id="desc">A rotation stops because the canary fails, and no other account is changed. The same command then \
rotates all accounts. Somebody disables the key, and recover makes the accounts available again.</desc>
<style>
text{{font:{SIZE}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}}
text{{fill:{TEXT};white-space:pre}}
{colors}
#log{{transform:translateY({-above(len(drawn))}px);animation:log {duration:.1f}s step-end infinite}}
#cover{{transform:translateY({ROWS * LINE}px);animation:cover {duration:.1f}s step-end infinite}}
@keyframes log{{{moves}}}
@keyframes cover{{{covers}}}
@media (prefers-reduced-motion:reduce){{#log,#cover{{animation:none}}}}
</style>
<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{BACKGROUND}"/>
<circle cx="18" cy="15" r="5" fill="#ff6b60"/><circle cx="36" cy="15" r="5" fill="#e6b73c"/>\
<circle cx="54" cy="15" r="5" fill="#4fbf5f"/>
<svg x="{MARGIN}" y="{BAR}" width="{WIDTH - MARGIN}" height="{ROWS * LINE + 6}">
<g id="log">
{text}
</g>
<rect id="cover" y="4" width="100%" height="100%" fill="{BACKGROUND}"/>
</svg>
</svg>
"""


def above(row: int) -> int:
    """The pixels by which the rows are moved up if this row is the last one that is shown."""
    return max(row - ROWS, 0) * LINE


def step(part: float, pixels: int) -> str:
    """The keyframe after a part of the time."""
    return f"{part:.3%}{{transform:translateY({pixels}px)}}"


if __name__ == "__main__":
    sys.exit(main())
