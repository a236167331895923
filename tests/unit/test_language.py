# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of the collection uses the terms of Ansible and Azure, and not words that only this project uses."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# By pattern, the replacement. Only words that are wrong in any context.
WORDS = {
    r"mend(s|ed|ing|able)?": "repair",
    r"anew": "again",
    r"alive|dead": "available, unavailable",
    r"amiss|ails?": "missing, or the name of the cause",
    r"born": "created with",
    r"by heart": "cached",
    r"(does|do|did|must) (not )?answer|whether (it|they|\w+ accounts?) answers?": "available; of a service: respond",
    r"disturbed runs?": "run with an injected fault",
    r"eyes": "rights of the caller",
    r"felt": "takes effect",
    r"for people and programs": "human-readable and machine-readable",
    r"for want of": "because ... lacks",
    r"foresees?|foreseen|foretells?|foretold": "predict; planned change",
    r"former(ly)?": "previous",
    r"front door": "list of all targets, first page",
    r"(give|gives|gave|given|giving) (it |them |that )?back": "restore",
    r"(go|goes|going) by (access )?(roles?|polic(y|ies))": "uses Azure RBAC, uses access policies",
    r"(go|goes|going) by": "uses",
    r"grave(st|r|ly)?": "severe, most severe, higher severity",
    r"had better": "should",
    r"how (it|they|things|(an|the|one) account) stands?|where (\w+ )?accounts stand": "current state",
    r"(account's|whole) life|life of (an|the|one) account": "provision, rotate and revert of an account",
    r"(lies?|lay|lying|lives?|lived|living) (behind|beside|in|on|under)": "is in, is stored in",
    r"in turns?|takes? turns": "one at a time; interleaved",
    r"in vain|to no avail": "without effect",
    r"looked at twice": "checked again after the change",
    r"mishaps?": "incident",
    r"namesakes?": "variable of the same name",
    r"nobody can tell": "is not known",
    r"nobody outside( of)? \w+ knows": "Microsoft does not document",
    r"not all seen": "not fully visible",
    r"of (its|their|his|one's) own": "its own X, a separate X",
    r"outlives?|outlived": "stays valid after ... is deleted",
    r"poses? as|posing as": "emulates",
    r"silent(ly)?|silence": "unavailable, `unavailable_reason`; without an error",
    r"stands? on": "uses",
    r"stand-ins?": "local emulator",
    r"strikes|spares|spared": "applies to, skips",
    r"tells?|told|telling": "reports, shows, returns",
    r"way back": "rollback",
    r"what (it|they) (was|were) before": "previous",
    r"whoever": "the principal or the user who",
    r"whole proof": "full reliability suite",
    r"withdraws?|withdrawn|withdrawing|withdrawals?": "revoke access, disable a key, delete",
}
_WORD = re.compile("|".join(rf"\b({pattern})\b" for pattern in WORDS), re.IGNORECASE)

# Kinds of files with text of the sandbox: its code and its web page.
PAGE = ("py", "jinja", "js", "css")

FILES = sorted(
    file.relative_to(ROOT).as_posix()
    for pattern in (
        *("plugins/**/*.py", "roles/**/*.yml", "roles/*/README.md", "playbooks/**/*.yml", "extensions/**/*.yml"),
        *(
            "changelogs/*.yaml",
            "changelogs/fragments/*.yml",
            "*.md",
            "docs/*.md",
            "docs/*.json",
            "docs/images/*.svg",
            "docs/docsite/*.*",
            "docs/docsite/rst/*.rst",
        ),
        *("galaxy.yml", "meta/*.yml", "pyproject.toml", "requirements*.txt"),
        *("examples/*.yml", "examples/*.md", ".github/**/*.yml", ".github/**/*.md"),
        *("sandbox/README.md", "sandbox/pyproject.toml", *(f"sandbox/src/**/*.{kind}" for kind in PAGE)),
        *("tests/**/*.py", "tests/**/*.txt", "tests/**/*.yml", "demo/*.py", "demo/*.yml", "scripts/*", "Makefile"),
    )
    for file in ROOT.glob(pattern)
    if file.is_file() and file != Path(__file__).resolve()  # This file has the words as data.
)


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """The texts of a file with the numbers of their first lines. Of a Python file, the strings, the comments and
    the names of tests."""
    source = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield 1, source
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def wrong_words(first_line: int, text: str) -> Iterator[tuple[int, str, str]]:
    """The line, the word and the replacement. Code in backticks, such as an old name, is ignored."""
    shown = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", lambda code: re.sub(r"[^\n]", " ", code[0]), text)
    for found in _WORD.finditer(shown):
        [instead, *_others] = [one for pattern, one in WORDS.items() if re.fullmatch(pattern, found[0], re.IGNORECASE)]
        yield first_line + shown[: found.start()].count("\n"), found[0], instead


@pytest.mark.parametrize("name", FILES)
def test_words_are_those_of_ansible_and_azure(name: str) -> None:
    wrong = {one for line, text in texts(ROOT / name) for one in wrong_words(line, text)}

    assert not wrong, "".join(f"\n{name}:{line}: {word!r}: use {instead}" for line, word, instead in sorted(wrong))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A vault that\ngoes by roles.", [(6, "goes by roles", "uses Azure RBAC, uses access policies")]),
        ("Told again.", [(5, "Told", "reports, shows, returns")]),
        ("The option `silence` is replaced by ``told``; a deadline, a formerly_named key.", []),
    ],
)
def test_a_wrong_word_is_named_with_its_line_and_the_right_one(text: str, expected: list[tuple[int, str, str]]) -> None:
    assert list(wrong_words(5, text)) == expected


def test_names_of_tests_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "test_example.py"
    file.write_text("def test_what_is_told() -> None: ...\n", encoding="utf-8")

    assert list(texts(file)) == [(1, "test what is told")]
