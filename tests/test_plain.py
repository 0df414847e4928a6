"""The plain notebooks: nothing left raw, nothing lost, the chapters' own code."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import book_site
import nbformat
import plain
import pytest
import refresh
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT, build
from nbconvert.filters import markdown2html_mistune
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

pytestmark = pytest.mark.site
PAGES = [page for page in book_site.pages(ROOT) if (ROOT / f"{page}.ipynb").exists()]
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$]*\$", re.DOTALL)
DATA = re.compile(r"\(data:image/png;base64,[A-Za-z0-9+/=]+\)")


@pytest.fixture(params=PAGES)
def page(request) -> str:
    return request.param


@pytest.fixture
def notebook(site, page):
    return nbformat.read(site / "notebooks" / f"{Path(page).name}.ipynb", as_version=4)


@pytest.fixture
def chapter(page):
    return nbformat.read(ROOT / f"{page}.ipynb", as_version=4)


def texts(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def words(html: str) -> str:
    """What is read of a page, without formulas, in one line and without the kind of brackets."""
    text = FORMULA.sub(" ", unescape(html)).translate(str.maketrans("[]", "()"))
    return " ".join(text.split())


# What a directive, a role, an attribute, a reference that nobody resolved look like.
RAW = {
    "directive": r":::|```\{|^\s*:[a-z-]+: ",
    "role": r"\{[a-z:+-]+\}`",
    "attribute": r"\]\{|\{[.#%]",
    "reference": r"\?\?|\]\(#|%s|\]\((?!https?://|<?https?://|data:image/png)",
    "comment": r"^% ",
}


def raw(markdown: str) -> list[str]:
    """Names of the kinds of markup in a Markdown cell that only Sphinx understands."""
    bare = FORMULA.sub("", DATA.sub("(data:image/png)", markdown))
    bare = re.sub(r"(?<![}`])`[^`\n]+`(?!`)", "", bare)  # code
    return [kind for kind, pattern in RAW.items() if re.search(pattern, bare, re.MULTILINE)]


@pytest.mark.parametrize(
    ("markdown", "kind"),
    [
        (":::{note}\nx\n:::", "directive"),
        ("```{figure} x.svg\n```", "directive"),
        ("as {cite:t}`x` says", "role"),
        ("[A]{.mc-a}", "attribute"),
        ("see [Fig](#fig-x)", "reference"),
        ("see [Fig](02_symmetry.html)", "reference"),
    ],
)
def test_raw_markup_is_seen(markdown, kind):
    assert kind in raw(markdown)
    assert not raw(
        "**A** `x[0]{}` $\\frac{a}{b}$ [x](https://a.b/c#d) ![y](data:image/png;base64,aa)"
    )


def test_nothing_is_left_raw(notebook):
    for text in texts(notebook):
        assert not raw(text), text


def rendered(notebook) -> str:
    return "\n".join(markdown2html_mistune(text) for text in texts(notebook))


def test_every_cell_renders_without_stray_markup(notebook):
    for text in texts(notebook):
        soup = BeautifulSoup(markdown2html_mistune(text), "html.parser")
        for tag in soup.select("code, pre"):
            tag.decompose()
        read = FORMULA.sub("", soup.get_text())
        assert not re.search(r"\*|`|\]\(|</?[a-z]+|^\s*(>|#|\|)", read, re.MULTILINE), read
        assert "$" not in read, read
        for picture in soup.select("img"):
            assert picture["src"].startswith("data:image/png;base64,") and len(picture["alt"]) > 20


def test_no_word_is_lost(site, page, notebook):
    """Every paragraph, caption, title, entry and cell of a table on the website stands here too."""
    there = BeautifulSoup((site / f"{page}.html").read_text("utf8"), "html.parser").article
    code = ".cell_input, .cell_output > :not(figure), .toctree-wrapper, .math"
    for tag in there.select(f"{code}, .headerlink, .mc-time, .label, svg"):
        tag.decompose()
    # What opens a fold has words of its own here.
    for tag in there.select(".solution > summary, .mc-fold-code > summary, .collapsed, .expanded"):
        tag.decompose()
    here = BeautifulSoup(rendered(notebook), "html.parser")
    found = words(here.get_text(" ")).replace(" ", "")
    looked = there.select("p, h1, h2, h3, h4, li, th, td, dt, dd, figcaption, summary")
    assert len(looked) > 20
    for tag in looked:
        for part in tag.select("p, li, ul, ol"):
            part.extract()
        read = words(tag.get_text(" ")).replace(" ", "")
        assert read in found, tag


def test_code_is_the_chapter_s(notebook, chapter):
    """So nbval, which runs the chapters, need not run these."""
    ours, theirs = code(notebook), code(chapter)
    assert [plain.chapter_code(cell) for cell in ours] == [cell.source for cell in theirs]
    assert [cell.id for cell in ours] == [cell.id for cell in theirs]
    for mine, yours in zip(ours, theirs, strict=True):
        assert set(yours.metadata.get("tags", [])) <= set(mine.metadata.get("tags", []))
        assert len(mine.outputs) == len(yours.outputs)
        for shown, output in zip(mine.outputs, yours.outputs, strict=True):
            assert shown.get("text") == output.get("text")
            for kind, data in output.get("data", {}).items():
                assert kind == "image/png" or shown.data[kind] == data


def test_first_code_is_the_set_up(notebook):
    first = code(notebook)[0]
    assert plain.chapter_code(first) == refresh.colab_cell()
    assert notebook.cells.index(first) == 1, "words stand before it, and nothing else"


def test_what_the_website_folds_is_folded(notebook):
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            if "solution" in tags:
                assert re.match(r"<details>\n<summary>Solution to Exercise \d", cell.source)
            continue
        folds = bool({"solution", "hide-input", "remove-input", "remove-cell"} & set(tags))
        assert (cell.metadata.get("cellView") == "form") == folds
        assert cell.source.startswith("# @title ") == folds
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == folds
        hidden = bool({"solution", "hide-output"} & set(tags))
        assert cell.metadata.get("jupyter", {}).get("outputs_hidden", False) == hidden


def test_pictures_lie_on_white(notebook):
    """Many readers' ground is dark, and the ink of drawings and figures is too."""
    addresses = [m[0] for text in texts(notebook) for m in DATA.finditer(text)]
    pictures = [address[1:-1].partition(",")[2] for address in addresses]
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    pictures += [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert pictures
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
            assert len(picture) < 150_000


def test_notebooks_are_sound(site):
    paths = sorted((site / "notebooks").glob("*"))
    assert [path.stem for path in paths] == sorted(Path(page).name for page in PAGES)
    for path in paths:
        nbformat.validate(nbformat.read(path, as_version=4))
        assert path.stat().st_size < 2_000_000


def test_download_button_leads_to_the_plain_notebook(site, page):
    soup = BeautifulSoup((site / f"{page}.html").read_text("utf8"), "html.parser")
    (button,) = soup.select("a.btn-download-source-button")
    target = (site / page).parent / button["href"]
    assert target.resolve() == (site / "notebooks" / f"{Path(page).name}.ipynb").resolve()
    assert target.exists()


# --- A chapter with one of everything, the website's address known --------------------------------

INTRO = """# One of everything

See {doc}`other`, {eq}`eq-one`, {numref}`fig-one`, {ref}`later`, {prf:ref}`thm-one`,
{ref}`ex-one`, {term}`word`, {cite}`ch1-goodfellow2015qualitatively`, [A]{.mc-a} and [B]{.mc-b},
`a|b`, 2 * 3 * 4, x_1, \\<b>, [x] and https://example.org.

```{figure} drawings/map-0.svg
:name: fig-one
:alt: A map with two valleys and a hill.

Caption with *stress* and $x$.
```

$$
a &= b \\\\
c &= d
$$ (eq-one)

:::{prf:theorem} Named
:label: thm-one
Text with

$$
x
= y
$$
:::

:::{prf:proof}
Plain.
:::

:::{list-table}
* - $|x|$
  - $\\|y\\|$
:::

1. one

   more
2. two
   - inner

```python
code = "outside a cell"
```

::::{admonition} Outer
:::{admonition} Inner
inside
:::
::::

:::{dropdown} Why $x$?
because
:::

(later)=
## Later

:::{glossary}
word
  its meaning
:::

:::{exercise-start} Add $n$
:label: ex-one
:::
Write `add`.
:::{exercise-end}
:::
"""
STUB = """from modeconn_lite.exercises import check

seven = 7


def add(n):
    ...


add(1)"""
BEGIN = ":::{solution-start} ex-one\n:label: sol-one\n:class: dropdown\n:::\nFirst."
SOLUTION = "def add(n):\n    return n + start + seven\n\n\nprint(add(1))"


@pytest.fixture(scope="session")
def odd(tmp_path_factory) -> Path:
    """The site of a book of two pages, the first with one of everything."""
    shared = tmp_path_factory.mktemp("odd")
    for folder in ("tools", "book/_static", "book/drawings"):
        shutil.copytree(ROOT / folder, shared / folder)
    shutil.copy(ROOT / "book/references.bib", shared / "book")
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    config["repository"]["url"] = "https://github.com/someone/a-book"
    (shared / "_config.yml").write_text(yaml.safe_dump(config), "utf8")
    chapters = [{"file": "book/01_odd"}, {"file": "book/other"}]
    toc = {"format": "jb-book", "root": "book/intro"}
    toc["parts"] = [{"caption": "One", "numbered": 1, "chapters": chapters}]
    (shared / "_toc.yml").write_text(yaml.safe_dump(toc), "utf8")
    (shared / "book/intro.md").write_text("# Intro\n\nSome words.\n", "utf8")
    (shared / "book/other.md").write_text("# The other\n\nWords.\n", "utf8")

    def cell(source, *tags, **metadata):
        metadata = metadata | ({"tags": list(tags)} if tags else {})
        return new_code_cell(source, metadata=metadata)

    cells = [
        new_markdown_cell(INTRO.split("(later)=")[0]),
        cell(refresh.colab_cell(), "remove-cell"),
        cell("start = 1\nunused = 2"),
        cell("start += 1", "hide-input"),
        cell("print(unused)", "hide-output", mystnb={"code_prompt_show": "Show what comes out"}),
        new_markdown_cell("(later)=" + INTRO.split("(later)=")[1]),
        cell(STUB),
        cell("check(add(1), equals=10)", "check"),
        new_markdown_cell(BEGIN),
        cell(SOLUTION),
        new_markdown_cell(
            "Last.\n:::{solution-end}\n:::\n\nAfter.\n\n```{bibliography}\n"
            ":filter: docname in docnames\n:keyprefix: ch1-\n```"
        ),
    ]
    cells[4].outputs = [new_output("stream", text="2\n")]
    path = shared / "book/01_odd.ipynb"
    path.write_text(refresh.text(refresh.normalise(new_notebook(cells=cells))), "utf8")
    return build(shared, shared / "out")


@pytest.fixture
def everything(odd):
    return nbformat.read(odd / "notebooks/01_odd.ipynb", as_version=4)


def test_one_of_everything(everything):
    site = "https://someone.github.io/a-book/book"
    text = "\n\n".join(texts(everything))
    for expected in (
        "# 1. One of everything",
        f"[The other]({site}/other.html)",
        f"[(1.1)]({site}/01_odd.html#equation-eq-one)",
        f"[Fig. 1.1]({site}/01_odd.html#fig-one)",
        f"[Later]({site}/01_odd.html#later)",
        f"[Theorem 1.1]({site}/01_odd.html#thm-one)",
        f"[Exercise 1.1]({site}/01_odd.html#ex-one)",
        f"[word]({site}/01_odd.html#term-word)",
        "([Goodfellow *et al.*, 2015](",
        '<font color="#0072b2"><b>A</b></font>',
        r"2 \* 3 \* 4, x\_1, &lt;b>, [x] and",
        "**Fig. 1.1** Caption with *stress* and $x$.",
        r"$$\begin{aligned} a &= b \\ c &= d \end{aligned} \tag{1.1}$$",
        "> **Theorem 1.1 (Named)**\n>\n> Text with\n>\n> $$x = y$$",
        "\n\n> Proof. Plain.",
        "|   |   |\n| --- | --- |\n" + r"| $\vert x\vert $ | $\Vert y\Vert $ |",
        "1. one\n\n   more\n\n2. two\n\n   - inner",
        '```python\ncode = "outside a cell"\n```',
        "> **Outer**\n>\n> > **Inner**\n> >\n> > inside",
        "<details>\n<summary>Why $x$?</summary>\n\nbecause\n\n</details>",
        "## Later",
        "**word:** its meaning",
        "> **Exercise 1.1 (Add $n$)**\n>\n> Write `add`.",
        "<summary>Solution to Exercise 1.1</summary>\n\nFirst.",
        "\n\n- Ian",
    ):
        assert expected in text, f"{expected}\n\nnot in\n\n{DATA.sub('(…)', text)}"
    assert not any(map(raw, texts(everything)))


def test_cells_keep_their_order_ids_and_words(everything):
    folded = [cell.source for cell in code(everything) if "cellView" in cell.metadata]
    assert [source.partition("\n")[0] for source in folded] == [
        "# @title Set-up: in Colab, run this first",
        "# @title Code",
        "# @title Solution to Exercise 1.1",
    ]
    quiet = code(everything)[3].metadata
    assert quiet["collapsed"] and quiet["jupyter"]["outputs_hidden"] and "cellView" not in quiet
    assert everything.cells[0].id and len({c.id for c in everything.cells}) == len(everything.cells)


def test_what_has_no_plain_form_is_refused():
    from docutils import nodes

    writer = plain.Writer("page", ROOT, "", SimpleNamespace(toc_fignumbers={}))
    with pytest.raises(NotImplementedError, match="page: no plain form for the block"):
        list(writer.block(nodes.line_block()))
    with pytest.raises(NotImplementedError, match="page: no plain form for the inline"):
        writer.span(nodes.abbreviation())


def test_address():
    def known(base, repository):
        options = {"repository_url": repository}
        return plain.address(SimpleNamespace(html_baseurl=base, html_theme_options=options))

    assert known("", "") == ""
    assert known("https://a.b/c/", "https://github.com/x/y") == "https://a.b/c/"
    assert known("https://a.b/c", "") == "https://a.b/c/"
    assert known("", "https://github.com/x/y.git") == "https://x.github.io/y/"


# --- Publishing -----------------------------------------------------------------------------------


def test_the_workflow_pushes_them_to_a_branch_of_their_own(tmp_path, odd):
    steps = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text("utf8"))["jobs"]
    (script,) = [step["run"] for step in steps["notebooks"]["steps"] if "run" in step]
    remote, clone = tmp_path / "remote.git", tmp_path / "clone"
    environment = os.environ | {"GITHUB_REF_NAME": "v1", "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*arguments, folder=tmp_path):
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    git("init", "-q", "--bare", str(remote))
    git("clone", "-q", str(remote), str(clone))
    (clone / "README.md").write_text("a book")
    git("add", ".", folder=clone)
    git("-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "Book", folder=clone)
    git("push", "-q", "origin", "HEAD:main", folder=clone)
    run = ["bash", "-eo", "pipefail", "-c", script]
    for name in ("first", "second"):  # a second release replaces the first
        release = tmp_path / name
        git("clone", "-q", "-b", "main", str(remote), str(release))
        shutil.copytree(odd / "notebooks", release / "_build/notebooks")
        subprocess.run(run, cwd=release, env=environment, check=True)
        assert git("ls-tree", "--name-only", "notebooks", folder=remote).split() == ["01_odd.ipynb"]
        assert git("rev-list", "--count", "notebooks", folder=remote).strip() == "1"
