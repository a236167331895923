# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of the collection uses the terms of Ansible and Azure, and not words that only this project uses."""

from __future__ import annotations

import ast
import functools
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

ROOT = Path(__file__).resolve().parents[3]

_AMERICAN = "American English, as Ansible does"
# By pattern, the replacement. Only words that are wrong in any context.
WORDS = {
    # A survey of AWX has answers, and so has a list of questions. In quotes, it is a field of the sandbox's control
    # API. "Key Vault answered" is a message of Batch that the sandbox imitates.
    r"(?<!survey )(?<!questions and )(?<!Key Vault )(?<![\"'])answer(s|ed|ing)?(?![\"'])": (
        "response, respond; available"
    ),
    r"(Azure|Batch|Vault|Entra|Resource Manager|Microsoft|Graph) says?": "reports, returns, documents",
    r"(behavi|col|fav|hon|lab|neighb)ours?(al|ed|ing)?|licences?|centres?|catalogues?|artefacts?|grey": _AMERICAN,
    r"judgements?|(mis)?spelt|learnt|whilst|defences?|fulfil|(cancell|labell|modell|signall)(ed|ing)": _AMERICAN,
    r"(author|custom|initial|minim|normal|optim|organ|real|recogn|serial|summar|synchron)is(e[ds]?|ing|ations?)": (
        _AMERICAN
    ),
    r"comes?|came|coming": "is, follows, runs, arrives",
    r"draws?|drew|drawn|drawing": "acquire a token; select",
    r"houses?|rooms?|laws?|nouns?|ladders?": "the technical term",
    r"(is|are|was|were|be|been) (not )?seen": "is reported, returned, visible or cached",
    r"(is|are|was|were) (not |already )?there(?! (are|is|a|an|any|no)\b)": "exists, does not exist",
    r"of (your|our) own": "your own X",
    r"paces?|paced|pacing": "rate limit",
    r"(?<!\.)pipes?|piped|piping": "the technical term",
    r"recent (reads?|values?|lists?)": "cached",
    r"stands?|stood|standing": "current state; is",
    r"\| what \|": "a noun as the heading of a column",
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
    r"strikes|spares|spared|sparing": "applies to, skips",
    r"tells?|told|telling": "reports, shows, returns",
    r"way back": "rollback",
    r"what (it|they) (was|were) before": "previous",
    r"whoever": "the principal or the user who",
    r"whole proof": "full reliability suite",
    r"withdraws?|withdrawn|withdrawing|withdrawals?": "revoke access, disable a key, delete",
}

# Files that are no text of this project, and this file, which has the words as data.
EXCLUDED = {"LICENSE", "tests/sandbox/recorded.json", "tests/unit/project/test_language.py"}


def _files() -> list[str]:
    """All files that git does not ignore, without images; none outside of a git checkout."""
    command = ["git", "ls-files", "-coz", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    names = {name for name in listed.split("\0") if name and not name.endswith(".png")} - EXCLUDED
    # git lists a file that was deleted since the last commit.
    return sorted(name for name in names if (ROOT / name).is_file())


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """The texts of a file with the numbers of their first lines. Of a Python file, the strings and the comments."""
    source = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield 1, source
        return
    for node in ast.walk(ast.parse(source)):
        # An identifier is code, such as "answer", a field of the control API of the sandbox.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def names_of_tests(file: Path) -> Iterator[tuple[int, str]]:
    """The names of the tests of a Python file as text, with the numbers of their lines."""
    if file.suffix == ".py":
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.lineno, node.name.replace("_", " ")


@functools.cache
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)", re.IGNORECASE)


def wrong_words(
    first_line: int, text: str, words: Mapping[str, str] = MappingProxyType(WORDS)
) -> Iterator[tuple[int, str, str]]:
    """The line, the word and the replacement. Code in backticks, such as an old name, is ignored."""
    shown = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", lambda code: re.sub(r"[^\n]", " ", code[0]), text)
    for found in _compiled(tuple(words)).finditer(shown):
        [instead, *_others] = [one for pattern, one in words.items() if re.fullmatch(pattern, found[0], re.IGNORECASE)]
        yield first_line + shown[: found.start()].count("\n"), found[0], instead


def test_words_are_those_of_ansible_and_azure() -> None:
    wrong = {
        f"{name}:{line}: {word!r}: use {instead}"
        for name in _files()
        for first_line, text in (*texts(ROOT / name), *names_of_tests(ROOT / name))
        for line, word, instead in wrong_words(first_line, text)
    }

    assert not wrong, "\n".join(["", *sorted(wrong)])


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
