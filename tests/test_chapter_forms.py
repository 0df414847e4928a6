"""What chapters say in plain Markdown, and what the site reads there."""

from __future__ import annotations

import re

import nbformat
import pytest
import refresh
from chapter_forms import for_site, in_words, key_prefix, papers, reference_list
from conftest import ROOT

KNOWN = papers(ROOT / "book" / "references.bib")
FRANKLE = "https://arxiv.org/abs/1912.05671"
ITO = "https://arxiv.org/abs/2510.08023"
# What only the site understands, and jupyterlab-myst does not: it would be seen raw.
RAW = re.compile(r"\{cite(?::\w+)?\}`|\{doc\}`|\{numref\}`fig|\]\{[.#]|\{bibliography\}")


def site(text: str) -> str:
    return for_site(text, "ch7-", KNOWN)


@pytest.mark.parametrize(
    ("plain", "role"),
    [
        (f"[Frankle et al. (2020)]({FRANKLE}) say", "{cite:t}`ch7-frankle2020linear` say"),
        (f"known ([Frankle et al., 2020]({FRANKLE}))", "known {cite}`ch7-frankle2020linear`"),
        (
            f"([Frankle et al., 2020]({FRANKLE}); [Ito et al., 2025]({ITO})).",
            "{cite}`ch7-frankle2020linear,ch7-ito2025do`.",
        ),
        ("([Węgrzyn, 2021](#references))", "{cite}`ch7-wegrzyn2021loss`"),
        (f"[their paper]({FRANKLE})", f"[their paper]({FRANKLE})"),
        ("[Python (1991)](https://python.org)", "[Python (1991)](https://python.org)"),
        ("from **A** to **B**", "from [A]{.mc-a} to [B]{.mc-b}"),
        ("**is __B__ near?**", "**is [B]{.mc-b} near?**"),
        ("**AB**, a**B**, **A and B**", "**AB**, a**B**, **A and B**"),
        ("**[Start](01_x.ipynb)**", "[Start](01_x.ipynb){.mc-start}"),
        ("as [the figure on width](#fig-width) shows", "as {numref}`fig-width` shows"),
    ],
)
def test_for_site(plain, role):
    assert site(plain) == role


@pytest.mark.parametrize(
    "wrong",
    [
        f"[Frankle et al., 2021]({FRANKLE})",
        f"[Ito et al. (2025)]({FRANKLE})",
        "[Frankle et al., 2020](https://arxiv.org/abs/1912.99999)",
        "[Nobody, 1999](#references)",
    ],
)
def test_authors_year_and_address_belong_together(wrong):
    with pytest.raises(ValueError, match=r"references\.bib"):
        site(wrong)


def test_every_paper_can_be_cited():
    for paper in KNOWN.values():
        assert site(paper.cite(textual=True)) == f"{{cite:t}}`ch7-{paper.key}`"


def test_references():
    text = f"[Ito et al. (2025)]({ITO}), [Frankle et al. (2020)]({FRANKLE})"
    listed = reference_list(text, KNOWN).splitlines()
    assert listed[:2] == ["## References", ""]
    assert [line[:17] for line in listed[2:]] == ["- Jonathan Frankl", "- Akira Ito, Masa"]
    replaced = site("\n".join(["Text.", "", *listed]))
    assert replaced.startswith("Text.\n\n## References\n\n```{bibliography}")
    assert ":keyprefix: ch7-" in replaced and "Frankle" not in replaced
    assert site("## References and more") == "## References and more"


def test_solutions_are_folded_on_the_site():
    start = ":::{solution-start} ex\n:label: sol\n:::\nText"
    assert site(start) == start.replace(" ex\n", " ex\n:class: dropdown\n")
    assert site(site(start)) == site(start)


@pytest.mark.parametrize("prose", ["Because.", ":::{note}\nWell.\n:::", "::::{x}\n::::\n\nSo."])
def test_a_solution_s_words_are_folded_once(prose):
    folded = in_words(prose)
    assert folded.splitlines()[0].endswith("{dropdown} The solution in words")
    assert in_words(folded) == folded and site(folded) == prose


def test_key_prefix():
    assert key_prefix("book/07_curve_fitting") == "ch7-" and key_prefix("book/intro") == ""


@pytest.mark.parametrize("path", refresh.notebooks(), ids=lambda path: path.stem)
def test_chapters_are_plain(path):
    """Who opens a chapter in JupyterLab sees no markup raw, and no solution open."""
    cells = nbformat.read(path, as_version=4).cells
    markdown = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert not [m[0] for text in markdown for m in RAW.finditer(text)], "see HOW-A-CHAPTER-IS-MADE"
    for text in markdown:
        before, end, _ = text.partition(":::{solution-end}")
        assert not end or not before.strip(), "a solution's end begins a cell"
        _, start, after = text.rpartition("{solution-start}")
        assert not start or after.rstrip().endswith(":::"), "a solution's beginning ends a cell"
