"""What chapters write in plain Markdown, which any viewer reads, and what the site makes of it.

============================================================  ==================================
in the notebook                                               on the site
============================================================  ==================================
``[Frankle et al. (2020)](https://arxiv.org/abs/1912.05671)``   ``{cite:t}``, with its entry
``([Frankle et al., 2020](…); [Ito et al., 2025](…))``          ``{cite}``, with their entries
the list under ``## References``, made by refresh.py          ``{bibliography}``
``[the figure on width](#fig-width)``                         ``{numref}``: Fig. 1.5
``**A**``, ``**B**`` (``__A__`` within bold)                      in their colours
``**[Start](01_interpolation.ipynb)**`` in a line of its own   a button
``{solution-start}``                                          folded: ``:class: dropdown``
``::::{dropdown} The solution in words``, made by refresh.py  as it stands, in that fold
============================================================  ==================================

A link is a citation if it leads to the address of a paper in references.bib. Authors and year are
compared with the entry: a disagreement is a warning, which stops the build. A paper that has no
address is cited by ``#references``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NO_ADDRESS = "#references"
CITATION = re.compile(
    r"(?<!!)\[(?P<authors>[^\[\]]+?)(?:, (?P<year>\d{4})| \((?P<in>\d{4})\))\]"
    r"\((?P<address>[^\s()]+)\)"
)
_PLAIN = re.sub(r"\?P<\w+>", "?:", CITATION.pattern)
IN_BRACKETS = re.compile(rf"\((?:{_PLAIN}; )*{_PLAIN}\)")
REFERENCES = re.compile(r"^## References *(?:\n.*)?\Z", re.DOTALL | re.MULTILINE)
FIGURE = re.compile(r"\[[^\[\]]+\]\(#(fig-[\w-]+)\)")
SOLUTION = re.compile(r"^(:{3,}|`{3,})(\{solution-start\}.*)\n(?!(?::.*\n)*?:class:)", re.MULTILINE)
# A solution's prose, folded in JupyterLab by a box of its own.
IN_WORDS = re.compile(r"\A(:{4,})\{dropdown\} The solution in words\n\n(.*)\n\1\Z", re.DOTALL)
COLOURED = re.compile(r"(?<![\w*_])(\*\*|__)([AB])\1(?![\w*_])")
BUTTON = re.compile(r"^\*\*(\[[^\[\]]+\]\([^\s()]+\))\*\*$", re.MULTILINE)


@dataclass(frozen=True)
class Paper:
    """An entry of references.bib; `authors` as in a citation, `text` as in the References."""

    key: str
    authors: str
    year: str
    address: str
    text: str

    def cite(self, textual: bool = False) -> str:
        """``[Ito et al., 2025](address)``; `textual`: ``[Ito et al. (2025)](address)``."""
        year = f" ({self.year})" if textual else f", {self.year}"
        return f"[{self.authors}{year}]({self.address})"


@cache
def papers(bibliography: Path) -> dict[str, Paper]:
    """Every entry by its key, in the order of a list of references."""
    from pybtex.database import parse_file
    from pybtex.plugin import find_plugin

    entries = parse_file(str(bibliography)).entries
    backend = find_plugin("pybtex.backends", "markdown")()
    formatted = find_plugin("pybtex.style.formatting", "plain")().format_entries(entries.values())
    found = {}
    for entry in formatted:
        raw = entries[entry.key]
        names = [" ".join([*p.prelast_names, *p.last_names]) for p in raw.persons["author"]]
        text = " ".join(entry.text.render(backend).split())
        text = re.sub(r"\\([^\w\s*_`\\])", r"\1", text)  # what needs no backslash within a line
        authors = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        year = raw.fields["year"]
        found[entry.key] = Paper(entry.key, authors, year, _address(raw.fields), text)
    return found


def _address(fields) -> str:
    if "eprint" in fields:
        return f"https://arxiv.org/abs/{fields['eprint']}"
    address = f"https://doi.org/{fields['doi']}" if "doi" in fields else fields.get("url", "")
    return address.replace("(", "%28").replace(")", "%29") or NO_ADDRESS


def cited(citation: re.Match, known: dict[str, Paper]) -> Paper | None:
    """The paper of a citation; None for a link that only looks like one.

    Raises
    ------
    ValueError
        If address, authors and year do not belong together.
    """
    authors, address = citation["authors"], citation["address"]
    year = citation["year"] or citation["in"]
    there = [p for p in known.values() if p.address == address]
    fitting = [p for p in there if (p.authors, p.year) == (authors, year)]
    if len(fitting) == 1:
        return fitting[0]
    if there and address != NO_ADDRESS:
        says = " or ".join(f"{p.authors}, {p.year}" for p in there)
        raise ValueError(f"{citation[0]} is cited, but references.bib says {says}")
    alike = [p.address for p in known.values() if (p.authors, p.year) == (authors, year)]
    if alike or address == NO_ADDRESS:
        raise ValueError(f"{citation[0]} is no paper of references.bib; alike: {alike}")
    return None


def reference_list(markdown: str, known: dict[str, Paper]) -> str:
    """The section of references for all that a text cites, as plain Markdown."""
    keys = {paper.key for c in CITATION.finditer(markdown) if (paper := cited(c, known))}
    items = [f"- {paper.text}" for key, paper in known.items() if key in keys]
    return "\n".join(["## References", "", *items])


def for_site(markdown: str, prefix: str, known: dict[str, Paper]) -> str:
    """A chapter's Markdown with the roles and directives that it stands for."""

    def in_brackets(match: re.Match) -> str:
        found = [cited(c, known) for c in CITATION.finditer(match[0])]
        if None in found:
            return match[0]
        return "{cite}`" + ",".join(prefix + paper.key for paper in found if paper) + "`"

    def alone(match: re.Match) -> str:
        paper = cited(match, known)
        role = "cite:t" if match["in"] else "cite"
        return f"{{{role}}}`{prefix}{paper.key}`" if paper else match[0]

    body = REFERENCES.sub("", IN_WORDS.sub(r"\2", markdown))
    listed = REFERENCES.search(markdown)
    body = CITATION.sub(alone, IN_BRACKETS.sub(in_brackets, body))
    body = SOLUTION.sub(r"\1\2\n:class: dropdown\n", body)
    body = FIGURE.sub(r"{numref}`\1`", body)
    body = COLOURED.sub(lambda m: f"[{m[2]}]{{.mc-{m[2].lower()}}}", body)
    body = BUTTON.sub(r"\1{.mc-start}", body)
    if listed:
        body += "## References\n\n```{bibliography}\n:filter: docname in docnames\n"
        body += f":keyprefix: {prefix}\n```"
    return body


def in_words(prose: str) -> str:
    """A solution's prose in a folded box, if it is not in one yet."""
    if IN_WORDS.match(prose):
        return prose
    fence = ":" * max(4, 1 + max(map(len, re.findall(r"^:+", prose, re.MULTILINE)), default=0))
    return f"{fence}{{dropdown}} The solution in words\n\n{prose}\n{fence}"


def key_prefix(page: str) -> str:
    """``ch1-``, so that each chapter has citations of its own; empty for pages that are none."""
    number = re.match(r"\d+(?=_)", page.rsplit("/", 1)[-1])
    return f"ch{int(number[0])}-" if number else ""


def _read(app, docname, content) -> None:
    from sphinx.util import logging

    if not content[0].lstrip().startswith("{"):
        return  # no notebook
    notebook = json.loads(content[0])
    known = papers(Path(app.srcdir) / "book" / "references.bib")
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            try:
                text = for_site("".join(cell["source"]), key_prefix(docname), known)
            except ValueError as error:
                logging.getLogger(__name__).warning(f"cell {number}: {error}", location=docname)
            else:
                cell["source"] = text
    content[0] = json.dumps(notebook)


def setup(app):
    app.connect("source-read", _read)
    return {"version": "0.1", "parallel_read_safe": True, "parallel_write_safe": True}
