# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of Sphinx for `scripts/docs`: the Markdown pages of the collection and the reference by antsibull-docs."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes

project = "azbatch.cmk"
copyright = "2026, the azbatch.cmk authors"
html_title = project
REPOSITORY = "https://github.com/azbatch/azbatch.cmk"
SOURCE = Path(__file__).parents[2]
[release] = re.findall(r"^version: (.+)$", (SOURCE / "galaxy.yml").read_text(encoding="utf-8"), re.MULTILINE)

# The pages keep their places in the collection, so that a relative link works in the site, on GitHub and on a disk.
# Only the first page is copied, by `scripts/docs` from docs/docsite.
root_doc = "index"
# The list of all pages, and the reference by antsibull-docs.
PAGES, REFERENCE = "docs/README", "docs/reference/index"
include_patterns = [
    *("index.md", "docs/*.md", "docs/reference/**.rst", "examples/README.md"),
    *("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"),
]

extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinx_copybutton"]
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_block"]
nitpicky = True

# No scheme of antsibull-docs follows the button of the theme that switches between light and dark. site.css has the
# colors.
antsibull_ext_color_scheme = "none"
html_theme = "furo"
html_theme_options = {
    "top_of_page_buttons": ["edit"],
    "light_css_variables": {
        "site-blue": "#0000c8",
        "site-green": "#006400",
        "site-purple": "#7a1fa2",
        "site-red": "#b00020",
        "site-yellow": "#6b5900",
    },
    "dark_css_variables": {
        "site-blue": "#adadff",
        "site-green": "#71d471",
        "site-purple": "#e0a0ff",
        "site-red": "#ff9c9c",
        "site-yellow": "#cfcf30",
    },
}
html_show_sphinx = False
html_copy_source = False
html_favicon = "static/favicon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [(name, {"defer": "defer"}) for name in ("accessible.js", "versions.js")]
templates_path = ["templates"]

# `EXTERNAL=1 make docs` does not check links to the project, because tests/unit/project/test_links.py checks them,
# links to the sandbox, and the link to the page on Galaxy, because the page does not exist before the release.
linkcheck_ignore = [
    re.escape(REPOSITORY),
    r"http://127\.0\.0\.1",
    r"https://galaxy\.ansible\.com/ui/repo/published/azbatch/cmk/",
]
linkcheck_anchors = False

# Generated: the list of variables and options, and the list of operations and behaviors of the sandbox, beside the page
# about them.
NAMES, FIDELITY = "docs/names", "sandbox-fidelity-list"

ANSIBLE_PAGES = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "callback_plugins": "plugins/callback.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def sections() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The headings of the list of pages, each with the titles and the names of its pages."""
    text = (SOURCE / f"{PAGES}.md").read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        caption, _newline, body = section.partition("\n")
        # Generated for the site only. `to_reference` makes the link of the page lead there.
        of_site = [("Modules and plugins", REFERENCE), ("Variables and options", NAMES)]
        pages = of_site if caption == "Reference" else []
        for title, page in re.findall(r"^- \[(.+?)\]\(([^():]+)\.md\)", body, re.MULTILINE):
            pages.append((title, posixpath.normpath(posixpath.join(posixpath.dirname(PAGES), page))))
        yield caption, pages


def menu(app: Any, name: str, text: list[str]) -> None:
    """Make the list of pages the menu of the site: a section of the menu for each heading."""
    if name != root_doc:
        return
    text[0] += menu_of([("All pages", PAGES)])
    for caption, pages in sections():
        if pages:
            text[0] += menu_of(pages, f":caption: {caption}\n")


def menu_of(pages: list[tuple[str, str]], caption: str = "") -> str:
    entries = "\n".join(f"{title} </{page}>" for title, page in pages)
    return f"\n```{{toctree}}\n{caption}:hidden:\n:titlesonly:\n\n{entries}\n```\n"


def breadcrumb(app: Any, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Name the section of the menu that has the page or the page above it; templates/page.html shows it."""
    above = [posixpath.normpath(posixpath.join(posixpath.dirname(name), one["link"])) for one in context["parents"]]
    names = {name, *(one.removesuffix(".html") for one in above)}
    captions = [caption for caption, pages in sections() if names & {page for _title, page in pages}]
    context["section"] = captions[0] if captions else ""


def edit_link(app: Any, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Link the source of a page on GitHub: of the reference, the plugin or the role."""
    path = f"docs/docsite/{name}.md" if name == root_doc else f"{name}.md"
    link: str | None = f"{REPOSITORY}/edit/main/{path}"
    if name.startswith("docs/reference/"):
        # Without the text that antsibull-docs proposes for the pull request.
        link = (context["meta"] or {}).get("github_url", "").partition("?")[0]
    elif name in (NAMES, f"docs/{FIDELITY}"):
        link = None
    context["theme_source_edit_link"] = link
    if not link:
        # The theme then shows no link.
        context["page_source_suffix"] = ""


def examples(app: Any, name: str, text: list[str]) -> None:
    """Show the files that the page of examples links to."""
    if name == "examples/README":
        for file in re.findall(r"^\| \[(.+\.yml)\]", text[0], re.MULTILINE):
            # Without the copyright.
            text[0] += f"\n## {file}\n\n```{{literalinclude}} {file}\n:language: yaml\n:lines: 6-\n```\n"


def to_reference(app: Any, name: str, text: list[str]) -> None:
    """Link the generated reference instead of the files that a page links to on GitHub and on a disk."""
    if name == PAGES:
        text[0] = text[0].replace("(../README.md#contents)", "(reference/index.rst)")
    if name == "docs/sandbox-fidelity":
        # `scripts/docs` generates the list from the files.
        files = re.escape(f"({REPOSITORY}/") + r"(?:blob|tree)/main/sandbox/fidelity(?:/(\w+)\.yml)?\)"
        text[0] = re.sub(files, lambda file: f"({FIDELITY}.md{f'#{file[1]}' if file[1] else ''})", text[0])
        text[0] += f"\n```{{toctree}}\n:hidden:\n\n{FIDELITY}\n```\n"
    if name.startswith("docs/") and not name.startswith("docs/reference/"):
        text[0] = re.sub(r"\(\.\./roles/(\w+)/meta/argument_specs\.yml\)", r"(reference/\1_role.rst)", text[0])


def titles(app: Any, name: str, text: list[str]) -> None:
    """Complete the titles of antsibull-docs: the name of the collection, and the descriptions of roles."""

    def described(role: re.Match[str]) -> str:
        page = (SOURCE / "docs" / "reference" / f"{role[1]}_role.rst").read_text(encoding="utf-8")
        return f"{role[0].rstrip()} {re.findall('^Entry point .* -- (.+)', page, re.MULTILINE)[0]}"

    if name == REFERENCE:
        text[0] = re.sub(r"^Azbatch\.Cmk\n=+$", "Modules and plugins\n===================", text[0], flags=re.MULTILINE)
        text[0] = re.sub(r"^\* :ansplugin:`(\w+) role <.*>` -- ?$", described, text[0], flags=re.MULTILINE)


def to_site(app: Any, doctree: Any, name: str) -> None:
    """Link pages of the site, not of GitHub, and each page that the reference names as a file."""
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
    for change in (menu, examples, to_reference, titles, without_contents):
        app.connect("source-read", change)
    for addition in (breadcrumb, edit_link):
        app.connect("html-page-context", addition)
    app.connect("doctree-resolved", to_site)
    app.connect("missing-reference", of_ansible)
