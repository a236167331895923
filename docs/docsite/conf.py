# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of Sphinx for `scripts/docs`: the Markdown pages of the collection and the reference by antsibull-docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes

project = "azbatch.cmk"
copyright = "2026, the azbatch.cmk authors"
html_title = project
REPOSITORY = "https://github.com/azbatch/azbatch.cmk"
_GALAXY = Path(__file__).parents[2] / "galaxy.yml"
[release] = re.findall(r"^version: (.+)$", _GALAXY.read_text(encoding="utf-8"), re.MULTILINE)

# The pages keep their places in the collection, so that a relative link works in the site, on GitHub and on a disk.
root_doc = "docs/README"
include_patterns = [
    *("docs/*.md", "docs/reference/**.rst", "examples/README.md"),
    *("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"),
]

extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinx_copybutton"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("versions.js", {"defer": "defer"})]
# The address of the site itself.
html_extra_path = ["index.html"]

# `EXTERNAL=1 make docs` does not check links to the project, because tests/unit/test_links.py checks them, links to the
# sandbox, and the link to the page on Galaxy, because the page does not exist before the release.
linkcheck_ignore = [
    re.escape(REPOSITORY),
    r"http://127\.0\.0\.1",
    r"https://galaxy\.ansible\.com/ui/repo/published/azbatch/cmk/",
]
linkcheck_anchors = False

# The generated list of operations and behaviors of the sandbox, beside the page about them.
FIDELITY = "sandbox-fidelity-list"

ANSIBLE_PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "callback_plugins": "plugins/callback.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def menu(app: Any, name: str, text: list[str]) -> None:
    """Make the lists of links of the first page the menu of the site: a section of the menu for each heading."""
    if name != root_doc:
        return
    found = []
    for section in re.split(r"^## ", text[0], flags=re.MULTILINE)[1:]:
        caption, _newline, body = section.partition("\n")
        pages = re.findall(r"^- \[(.+?)\]\((.+?)\.md\)", body, re.MULTILINE)
        # Generated for the site only. `to_reference` makes the link of the page lead there.
        of_site = [("Modules and plugins", "reference/index"), ("Variables and options", "names")]
        generated = of_site if caption == "Reference" else []
        entries = "\n".join(f"{title} <{page}>" for title, page in [*generated, *pages])
        found.append(f"```{{toctree}}\n:caption: {caption}\n:hidden:\n:titlesonly:\n\n{entries}\n```\n")
    text[0] += "\n" + "\n".join(found)


def examples(app: Any, name: str, text: list[str]) -> None:
    """Show the files that the page of examples links to."""
    if name == "examples/README":
        for file in re.findall(r"^\| \[(.+\.yml)\]", text[0], re.MULTILINE):
            # Without the copyright.
            text[0] += f"\n## {file}\n\n```{{literalinclude}} {file}\n:language: yaml\n:lines: 6-\n```\n"


def to_reference(app: Any, name: str, text: list[str]) -> None:
    """Link the generated reference instead of the files that a page links to on GitHub and on a disk."""
    if name == root_doc:
        text[0] = text[0].replace("(../README.md#contents)", "(reference/index.rst)")
    if name == "docs/sandbox-fidelity":
        # `scripts/docs` generates the list from the files.
        files = re.escape(f"({REPOSITORY}/") + r"(?:blob|tree)/main/sandbox/fidelity(?:/(\w+)\.yml)?\)"
        text[0] = re.sub(files, lambda file: f"({FIDELITY}.md{f'#{file[1]}' if file[1] else ''})", text[0])
        text[0] += f"\n```{{toctree}}\n:hidden:\n\n{FIDELITY}\n```\n"
    if name.startswith("docs/") and not name.startswith("docs/reference/"):
        text[0] = re.sub(r"\(\.\./roles/(\w+)/meta/argument_specs\.yml\)", r"(reference/\1_role.rst)", text[0])


def to_site(app: Any, doctree: Any, name: str) -> None:
    """Link pages of the site, not of GitHub, and each page that the reference names as a file. Install the collection
    as the guides do: antsibull-docs assumes that the collection is on Galaxy."""
    for node in list(doctree.findall(nodes.reference)):
        page = re.fullmatch(re.escape(REPOSITORY) + r"/blob/main/(.+)\.md(#.*)?", node.get("refuri", ""))
        if page and page[1] in app.env.found_docs:
            node["refuri"] = app.builder.get_relative_uri(name, page[1]) + (page[2] or "")
            # The attributes and classes of a link to another site.
            node["internal"] = True
            node["link_external"] = False
    if not name.startswith("docs/reference/"):
        return
    for node in list(doctree.findall(nodes.literal)):
        if node.astext() == f"ansible-galaxy collection install {project}":
            node.replace_self(nodes.literal("", f"ansible-galaxy collection install git+{REPOSITORY},{release}"))
            continue
        page = re.fullmatch(r"(docs/[\w-]+)\.md", node.astext())
        if page and page[1] in app.env.found_docs and not isinstance(node.parent, nodes.reference):
            uri = app.builder.get_relative_uri(name, page[1])
            node.replace_self(nodes.reference("", "", node.deepcopy(), internal=True, refuri=uri))


def without_contents(app: Any, name: str, text: list[str]) -> None:
    """Drop the table of contents of antsibull-docs: the theme shows one beside the page."""
    if name.startswith("docs/reference/"):
        text[0] = re.sub(r"^\.\. contents::.*\n(?: +\S.*\n)*", "", text[0], flags=re.MULTILINE)


def of_ansible(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Link what antsibull-docs names of Ansible's own documentation, without its index, which is on the internet."""
    target = node["reftarget"]
    if node["reftype"] == "envvar":
        page = f"reference_appendices/config.html#envvar-{target}"
    elif target in ANSIBLE_PAGES:
        page = ANSIBLE_PAGES[target]
    else:
        return None
    return nodes.reference("", "", text, internal=False, refuri=f"https://docs.ansible.com/ansible/latest/{page}")


def setup(app: Any) -> None:
    app.connect("source-read", menu)
    app.connect("source-read", examples)
    app.connect("source-read", to_reference)
    app.connect("source-read", without_contents)
    app.connect("doctree-resolved", to_site)
    app.connect("missing-reference", of_ansible)
