"""Sphinx extension of this book: what the theme cannot be told in _config.yml.

1. Launch buttons on every page, from the one setting ``repository.url`` of _config.yml; none while
   that is empty.
2. A line under each title, "18 min to skim, about 80 to study · runs in about 25 s on 2 CPU cores",
   and the directive ``{timings}`` with the same figures for the whole book.
3. What is folded away (`folding.py`), figures that stack on a phone (`panels.py`), the page of the
   package (`package_page.py`), the chapters as plain notebooks (`plain.py`).
4. Each style and script of the explorers once a page. (Notebook outputs carry their own: Colab
   shows each in a frame apart.)
5. A silent console: the theme's scripts announce themselves there, ours do not.
6. Citations, and what else chapters write in plain Markdown (`chapter_forms.py`).

`tools/refresh.py` uses the reading functions at the top, which need no Sphinx.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from urllib.parse import quote

import yaml
from chapter_forms import REFERENCES
from package_page import slim
from plain import FOLDER

WORDS_PER_MINUTE = 220
CODE_WEIGHT = 0.3  # to who skims, a word of code counts this much
EXERCISE_MINUTES = 10
TIMINGS = "book/_timings.json"
BINDER = "https://mybinder.org"
COLAB = "https://colab.research.google.com"


# --- Reading the book's sources -----------------------------------------------------------------


def pages(root: Path) -> list[str]:
    """Page names of _toc.yml in reading order, without suffix, as ``book/intro``."""

    def walk(node):
        if isinstance(node, dict):
            for key in ("root", "file"):
                if key in node:
                    yield node[key]
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for item in node:
                yield from walk(item)

    return list(walk(yaml.safe_load((root / "_toc.yml").read_text("utf8"))))


def source(root: Path, page: str) -> Path:
    """The file behind a page name: a notebook if there is one, else Markdown."""
    notebook = root / f"{page}.ipynb"
    return notebook if notebook.exists() else root / f"{page}.md"


FOLDED_BOX = re.compile(r"^(:{3,})\{dropdown\}.*?^\1\s*$", re.DOTALL | re.MULTILINE)
EXERCISE = re.compile(r"\{exercise(-start)?\}")


def reading_minutes(path: Path) -> tuple[int, int | None]:
    """Minutes to skim a page, at least 1, and to study it, None where there is no exercise.

    To skim is to read what stands open, formulas included, and to look at the code. To study is to
    read everything twice, all of the code and what is folded away included, and to do the
    exercises, ten minutes each; rounded up to five.
    """
    open_words = all_words = 0.0
    exercises, in_solution = 0, False
    for kind, text, tags in _cells(path):
        if {"remove-cell", "remove-input"} & set(tags):
            continue  # not on the page
        exercises += len(EXERCISE.findall(text))
        in_solution |= "{solution-start}" in text
        text = REFERENCES.sub("", text)
        words = len(text.split())
        all_words += words
        if kind == "code":
            shown = not in_solution and "hide-input" not in tags
            open_words += CODE_WEIGHT * words * shown
        elif not in_solution:
            open_words += len(FOLDED_BOX.sub("", text).split())
        elif "{solution-end}" in text:
            in_solution = False
            open_words += len(text.split("{solution-end}", 1)[1].split())
    skim = max(1, round(open_words / WORDS_PER_MINUTE))
    study = 2 * all_words / WORDS_PER_MINUTE + EXERCISE_MINUTES * exercises
    return skim, 5 * math.ceil(study / 5) if exercises else None


def _cells(path: Path) -> list[tuple[str, str, list[str]]]:
    """Kind, source and tags of each cell; a Markdown file is one cell."""
    if path.suffix != ".ipynb":
        return [("markdown", path.read_text("utf8"), [])]
    cells = json.loads(path.read_text("utf8"))["cells"]
    return [(c["cell_type"], "".join(c["source"]), c["metadata"].get("tags", [])) for c in cells]


def timings(root: Path) -> dict[str, int]:
    """Measured seconds of each notebook, by page name, as `make refresh` stored them."""
    path = root / TIMINGS
    return json.loads(path.read_text("utf8")) if path.exists() else {}


def time_line(skim: int, study: int | None, seconds: int | None) -> str:
    """The sentence under a title."""
    line = f"{skim} min to skim"
    if study is not None:
        line += f", about {study} to study"
    return line if seconds is None else f"{line} · runs in about {seconds} s on 2 CPU cores"


# --- Launch buttons -----------------------------------------------------------------------------


def launch_links(
    repository: str, branch: str, page: str, notebooks: list[str]
) -> list[dict[str, str]]:
    """Binder and Colab links of one page; an empty list while the repository is not known.

    Binder opens the page itself. Colab opens notebooks only, the plain ones, from the branch to
    which `.github/workflows/publish.yml` pushes them; on a page that is none, the first chapter.
    """
    if not repository:
        return []
    owner, name = repository.rstrip("/").removesuffix(".git").rsplit("/", 2)[-2:]
    is_notebook = page in notebooks
    file = quote(f"{page}.ipynb" if is_notebook else f"{page}.md")
    links = [
        {
            "text": "Binder",
            "tooltip": "Open this page on Binder",
            "icon": "_static/images/logo_binder.svg",
            "url": f"{BINDER}/v2/gh/{owner}/{name}/{branch}?urlpath=lab/tree/{file}",
        }
    ]
    if notebooks:
        chapter = quote((page if is_notebook else notebooks[0]).rpartition("/")[2])
        what = "this page" if is_notebook else "the first chapter"
        links.append(
            {
                "text": "Colab",
                "tooltip": f"Open {what} in Colab",
                "icon": "_static/images/logo_colab.png",
                "url": f"{COLAB}/github/{owner}/{name}/blob/{FOLDER}/{chapter}.ipynb",
            }
        )
    return links


def theme_options(repository: str) -> dict[str, bool]:
    """The theme's repository buttons: all on when the address is known, else all off."""
    known = bool(repository)
    return {
        "use_repository_button": known,
        "use_issues_button": known,
        "use_source_button": known,
        "use_edit_page_button": False,
    }


# A formula in the text, and the punctuation that would else begin the next line.
FORMULA_AND_MARK = re.compile(r'(<span class="math[^"]*">\\\([^<]*\\\)</span>)([,.;:?)\]–-]+)')


def _configure(app, config) -> None:
    options = config.html_theme_options
    options.update(theme_options(options.get("repository_url", "")))


def _add_to_page(app, pagename, templatename, context, doctree) -> None:
    root = Path(app.srcdir)
    book = pages(root)
    if pagename not in book:  # the search page and the index
        return
    options = app.config.html_theme_options
    notebooks = [p for p in book if source(root, p).suffix == ".ipynb"]
    links = launch_links(
        options.get("repository_url", ""),
        options.get("repository_branch") or "main",
        pagename,
        notebooks,
    )
    if links:
        context["header_buttons"].append(
            {
                "type": "group",
                "tooltip": "Run this page yourself",
                "icon": "fas fa-rocket",
                "label": "launch-buttons",
                "buttons": [{"type": "link", **link} for link in links],
            }
        )
    body = context["body"]
    if pagename in notebooks:  # the others are looked up, not read
        _download_plain(context, pagename.rpartition("/")[2])
        line = time_line(*reading_minutes(source(root, pagename)), timings(root).get(pagename))
        body = body.replace("</h1>", f'</h1>\n<p class="mc-time">{line}</p>', 1)
    if "mc-package" in body:
        body = slim(body)
    # A bibliography calls itself a list, but its entries are no list items: a fault for readers
    # who listen to the page.
    body = body.replace('<div role="list" class="citation-list">', "<div>")
    body = FORMULA_AND_MARK.sub(r'<span class="mc-keep">\1\2</span>', body)
    # Every exercise and every solution of a page would have the same id.
    context["body"] = re.sub(r'<section id="(?:exercise|solution)-content">', "<section>", body)


def _download_plain(context, name: str) -> None:
    """The theme's download button leads to the plain notebook, not to the chapter's source."""
    for group in context["header_buttons"]:
        for button in group.get("buttons", []):
            if button.get("label") == "download-source-button":
                button["url"] = context["pathto"](f"{FOLDER}/{name}.ipynb", resource=True)
                button["tooltip"] = "Download this page as a notebook"


# --- The page of timings ------------------------------------------------------------------------


def _timings_directive():
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective

    class Timings(SphinxDirective):
        """Table of every chapter: minutes to skim and to study, seconds to run."""

        def run(self):
            root = Path(self.env.srcdir)
            measured = timings(root)
            table = [":::{list-table}", ":header-rows: 1", ":class: mc-timings", ""]
            table += "* - Page\n  - Skim\n  - Study\n  - Run".splitlines()
            for page in (p for p in pages(root) if source(root, p).suffix == ".ipynb"):
                skim, study = reading_minutes(source(root, page))
                seconds = f"{measured[page]} s" if page in measured else "–"
                table += [f"* - {{doc}}`/{page}`", f"  - {skim} min"]
                table += [f"  - {study} min" if study else "  - –", f"  - {seconds}"]
            table.append(":::")
            self.env.note_reread()  # it tells of other pages: never taken from the cache
            node = nodes.container()
            self.state.nested_parse(StringList(table, self.env.docname), 0, node)
            return node.children

    return Timings


# --- Assets of the explorers once a page ----------------------------------------------------------

ASSET = re.compile(r'<(style|script) data-mc-asset="([^"]+)">.*?</\1>', re.DOTALL)


def once(body: str) -> str:
    """A page's HTML with each asset where it first stands and nowhere else."""
    seen = set()

    def first(match: re.Match) -> str:
        name = match[2]
        if name in seen:
            return ""
        seen.add(name)
        return match[0]

    return ASSET.sub(first, body)


def _drop_repeated_assets(app, pagename, templatename, context, doctree) -> None:
    if "body" in context:
        context["body"] = once(context["body"])


# --- A silent console ---------------------------------------------------------------------------

CHATTY = ["sphinx-book-theme.js", "pydata-sphinx-theme.js", "search.html"]


def silence(script: str) -> str:
    """A script without its announcements; warnings and errors stay."""
    return re.sub(r"console\.(log|info|debug)\(", "void(", script)


def _silence_theme(app, error) -> None:
    if error or app.builder.format != "html":
        return
    for name in CHATTY:
        for path in Path(app.outdir).rglob(name):
            path.write_text(silence(path.read_text("utf8")), "utf8")


def setup(app):
    # Jupyter Book sets this for sphinx_comments, which we leave out.
    app.add_config_value("comments_config", {}, "html")
    app.setup_extension("chapter_forms")
    app.setup_extension("folding")
    app.setup_extension("package_page")
    app.setup_extension("panels")
    app.setup_extension("plain")
    app.add_directive("timings", _timings_directive())
    app.connect("config-inited", _configure)
    # After the theme has begun its list of header buttons (priority 501).
    app.connect("html-page-context", _add_to_page, priority=502)
    app.connect("html-page-context", _drop_repeated_assets)
    app.connect("build-finished", _silence_theme)
    # A page opened as a file may not fetch others: search then shows titles without excerpts,
    # instead of one error for each. After documentation_options.js (200).
    no_excerpts = "DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false"
    app.add_js_file(None, body=f"if (location.protocol === 'file:') {no_excerpts}", priority=201)
    return {"version": "0.1", "parallel_read_safe": True, "parallel_write_safe": True}
