"""Plain notebooks: what Colab, VS Code, GitHub and Kaggle can show of a chapter.

A Sphinx extension. While `make book` writes the page of a notebook, this writes the same resolved
document once more, as ``_build/html/notebooks/NAME.ipynb``: plain Markdown around the chapter's own
code cells. Numbers, citations, terms and references are therefore those of the website. They lead
there when its address is known, else they are words; no link is dead.

What those places keep of HTML is little: ``<details>``, ``<font color>``. Attached pictures and
SVG Colab does not show, PNG in a ``data:`` address they all do. The code of a cell is the
chapter's, to the letter, below a line ``# @title …`` where Colab folds the cell (`title_line`).
"""

from __future__ import annotations

import base64
import copy
import html
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from urllib.parse import urljoin

import nbformat
from docutils import nodes
from nbformat import NotebookNode
from sphinx import addnodes

FOLDER = "notebooks"
COLOURS = {"mc-a": "#0072b2", "mc-b": "#b34c00"}
ROUND = str.maketrans("[]", "()")
WIDTH = 1080  # px of a drawing: its 720 half as many again, for sharp screens
SKIPPED = (
    *(nodes.comment, nodes.target, nodes.substitution_definition, nodes.system_message),
    *(nodes.label, nodes.caption, nodes.colspec, addnodes.index),
    nodes.compound,  # a table of contents
)


@dataclass(frozen=True)
class Piece:
    """A block of Markdown, or the number of a code cell, and the exercise it belongs to, if any."""

    content: str | int
    part: str = ""  # "exercise" or "solution"
    label: str = ""  # the exercise's
    fold: str = ""  # words that open a folded code cell


# --- Pictures -------------------------------------------------------------------------------------


def png(picture) -> str:
    """A Pillow image on white, since many readers' ground is dark, as base64."""
    from PIL import Image

    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture.convert("RGBA"))
    file = io.BytesIO()
    ground.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


@cache
def drawing(path: Path) -> str:
    """A picture file as the address of a PNG; SVG with matplotlib's own font, alike everywhere."""
    import matplotlib
    import resvg_py
    from PIL import Image

    content = path.read_bytes()
    if path.suffix == ".svg":
        content = resvg_py.svg_to_bytes(
            svg_string=content.decode("utf8"),
            width=WIDTH,
            skip_system_fonts=True,
            font_dirs=[str(Path(matplotlib.get_data_path(), "fonts/ttf"))],
            font_family="DejaVu Sans",
            sans_serif_family="DejaVu Sans",
        )
    return f"data:image/png;base64,{png(Image.open(io.BytesIO(bytes(content))))}"


# --- From nodes to Markdown -----------------------------------------------------------------------


def joined(pieces: Iterable[str]) -> str:
    return "\n\n".join(pieces)


def indented(text: str, prefix: str) -> str:
    """Every line behind `prefix`; of empty ones only its visible part."""
    return "\n".join((prefix + line).rstrip() for line in text.split("\n"))


def words(node: nodes.Node) -> str:
    """Text for inside HTML: no Markdown is read there, formulas are in most places."""
    if isinstance(node, nodes.Text):
        return html.escape(node.astext(), quote=False)
    if isinstance(node, nodes.math):
        return f"${node.astext()}$"
    return "" if isinstance(node, nodes.raw) else "".join(map(words, node.children))


class Writer:
    """Writes the doctree of one page.

    Parameters
    ----------
    page, root : page name and folder of the book's sources
    address : of the website, with a slash at its end, or "" when it is not known
    env : Sphinx's environment, for its numbers
    """

    def __init__(self, page: str, root: Path, address: str, env) -> None:
        self.page, self.root, self.address, self.env = page, root, address, env
        self.exercises: dict[str, str] = {}  # title of each, as "Exercise 1.2"
        self.in_table = False

    def number(self, kind: str, node: nodes.Element) -> str:
        """A figure's, equation's or exercise's number, as 1.2; "" if it has none."""
        numbers = self.env.toc_fignumbers.get(self.page, {}).get(kind, {})
        found = next((numbers[i] for i in node["ids"] if i in numbers), ())
        return ".".join(map(str, found))

    # Inline.

    def inline(self, node: nodes.Node) -> str:
        """The Markdown of what `node` holds."""
        return "".join(map(self.span, node.children))

    def link(self, node: nodes.Element, text: str) -> str:
        """A link to the website or elsewhere; its text alone where that has no address."""
        target = node.get("refuri") or f"#{node['refid']}"
        if not re.match(r"[a-z]+:", target):
            if not self.address:
                return text
            target = urljoin(f"{self.address}{self.page}.html", target)
        return f"[{text}](<{target}>)" if re.search(r"[ ()]", target) else f"[{text}]({target})"

    def span(self, node: nodes.Node) -> str:
        """The Markdown of one inline node."""
        match node:
            case nodes.Text():
                return re.sub(r"([\\`*_|])", r"\\\1", node.astext()).replace("<", "&lt;")
            case nodes.math():
                formula = node.astext().strip()
                if self.in_table:
                    formula = formula.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
                return f"${formula}$"
            case nodes.literal():
                return f"`{node.astext()}`"
            case nodes.emphasis() | nodes.title_reference():
                return f"*{self.inline(node)}*"
            case nodes.strong():
                return f"**{self.inline(node)}**"
            case nodes.superscript() | nodes.subscript():
                return f"<{node.tagname[:3]}>{self.inline(node)}</{node.tagname[:3]}>"
            case nodes.reference() | addnodes.number_reference():
                return self.link(node, self.inline(node))
            case nodes.inline():
                text = self.inline(node)
                if "bibtex-citation" in node["classes"]:  # [Somebody, 2020]
                    spans = [(self.span(child), child) for child in node.children]
                    return "".join(
                        text.translate(ROUND) if isinstance(child, nodes.Text) else text
                        for text, child in spans
                    )
                for name, colour in COLOURS.items():
                    if name in node["classes"]:
                        return f'<font color="{colour}"><b>{text}</b></font>'
                return text
            case nodes.image():
                return f"![{node['alt']}]({drawing(self.root / node['uri'])})"
            case _ if isinstance(node, (*SKIPPED, nodes.raw)):
                return ""
        raise NotImplementedError(f"{self.page}: no plain form for the inline {type(node)}")

    # Blocks.

    def blocks(self, node: nodes.Element) -> Iterator[Piece]:
        """The pieces of what `node` holds."""
        for child in node.children:
            yield from self.block(child)

    def block(self, node: nodes.Node) -> Iterator[Piece]:
        """The pieces of one node that is no part of a line."""
        match node:
            case nodes.section():
                depth = 1 + sum(isinstance(a, nodes.section) for a in ancestors(node))
                if isinstance(node.children[0], nodes.title):
                    yield Piece(f"{'#' * depth} {self.title(node)}")
                yield from self.blocks(node)
            case nodes.title():
                return  # written by what it is the title of
            case nodes.paragraph():
                yield Piece(re.sub(r"^([#+>-]|\d+[.)])(?= )", r"\\\1", self.inline(node)))
            case nodes.math_block():
                yield Piece(self.equation(node))
            case nodes.literal_block():
                yield Piece(f"```{node.get('language', '')}\n{node.astext().rstrip()}\n```")
            case nodes.bullet_list() | nodes.enumerated_list():
                yield Piece(self.list(node))
            case nodes.definition_list():
                for item in node.children:
                    term, meaning = item.children[0], item.children[-1]
                    first, *rest = self.texts(meaning)
                    yield Piece(joined([f"**{self.inline(term)}:** {first}", *rest]))
            case nodes.table():
                yield Piece(self.table(node))
            case nodes.figure():
                yield from self.blocks(node)
                yield self.caption(node)
            case nodes.image():
                yield Piece(self.span(node))
            case nodes.container() if isinstance(node.next_node(), nodes.citation):
                entries = node.findall(nodes.citation)
                yield Piece("\n".join(f"- {next(self.texts(entry))}" for entry in entries))
            case nodes.container() if node.get("nb_element") == "cell_code":
                yield from self.cell(node)
            case _ if type(node).__name__ in ("folded", "dropdown_main"):
                yield from self.folded(node)
            case _ if type(node).__name__ == "proof_node":  # with a box inside
                yield from self.blocks(node)
            case nodes.Admonition() | nodes.block_quote():
                yield from self.box(node)
            case nodes.container() | addnodes.glossary():
                yield from self.blocks(node)
            case nodes.transition():
                yield Piece("---")
            case _ if not isinstance(node, SKIPPED):
                raise NotImplementedError(f"{self.page}: no plain form for the block {type(node)}")

    def texts(self, node: nodes.Element) -> Iterator[str]:
        """The blocks of what may hold no code."""
        for piece in self.blocks(node):
            if isinstance(piece.content, int):
                raise NotImplementedError(f"{self.page}: a code cell inside a {node.tagname}")
            yield piece.content

    def title(self, node: nodes.Element) -> str:
        """A section's or box's title, with its number if it has one."""
        first = node.children[0]
        text = self.inline(first).strip() if isinstance(first, nodes.title) else ""
        if isinstance(node.parent, nodes.document):
            number = self.env.toc_secnumbers.get(self.page, {}).get("", ())
            return f"{'.'.join(map(str, number))}. {text}" if number else text
        kind = node.get("realtype") or ("exercise" if "exercise" in node["classes"] else "")
        if kind:
            number = self.number(node.get("countertype") or kind, node)
            return " ".join(filter(None, [kind.title(), number, text]))
        return text

    def equation(self, node: nodes.Element) -> str:
        """A displayed formula, on one line where a line of its own might be taken for text."""
        formula = " ".join(node.astext().split("\n")).strip()
        if "\\\\" in formula and "\\begin" not in formula:
            formula = f"\\begin{{aligned}} {formula} \\end{{aligned}}"
        number = self.number("displaymath", node)
        tag = rf" \tag{{{number}}}" if number else ""
        return f"$${formula}{tag}$$"

    def list(self, node: nodes.Element) -> str:
        items = []
        for number, item in enumerate(node.children, start=node.get("start", 1)):
            mark = "- " if isinstance(node, nodes.bullet_list) else f"{number}. "
            text = indented(joined(self.texts(item)), " " * len(mark))
            items.append(mark + text.lstrip())
        loose = any("\n\n" in item for item in items)
        return ("\n\n" if loose else "\n").join(items)

    def table(self, node: nodes.Element) -> str:
        """A table with one line a row; a bar inside a formula would end its cell."""
        rows, self.in_table = [], True
        for row in node.findall(nodes.row):
            cells = ["<br>".join(self.texts(entry)) for entry in row.children]
            rows.append(f"| {' | '.join(cells)} |")
        self.in_table = False
        columns = len(next(node.findall(nodes.row)).children)
        if next(node.findall(nodes.thead), None) is None:
            rows.insert(0, "|" + "   |" * columns)
        return "\n".join([rows[0], "|" + " --- |" * columns, *rows[1:]])

    def caption(self, node: nodes.Element) -> Piece:
        number = self.number("figure", node)
        title = f"**{self.env.config.numfig_format['figure'] % number}** " if number else ""
        caption = next(node.findall(nodes.caption), None)
        return Piece(title + (self.inline(caption) if caption is not None else ""))

    def box(self, node: nodes.Element) -> Iterator[Piece]:
        """A block quote with a bold title."""
        title = self.title(node)
        is_exercise = "exercise" in node["classes"]
        if is_exercise:
            label = node["label"]
            self.exercises[label] = f"Exercise {self.number('exercise', node)}"
        content = [Piece(f"**{title}**"), *self.blocks(node)] if title else [*self.blocks(node)]
        for piece in merged(content):
            if isinstance(piece.content, str):
                piece = replace(piece, content=indented(piece.content, "> "))
            yield replace(piece, part="exercise", label=label) if is_exercise else piece

    def folded(self, node: nodes.Element) -> Iterator[Piece]:
        """A `<details>`, once more after each code cell that it holds, which is folded itself."""
        title, *content = node.children
        part = label = ""
        summary = words(title).strip()
        if "solution" in node["classes"]:
            reference = self.env.sphinx_exercise_registry[node["ids"][0]]["node"]
            part, label = "solution", reference["target_label"]
            summary = f"Solution to {self.exercises[label]}"
        pieces = [piece for child in content for piece in self.block(child)]
        for piece in merged(replace(piece, part=part, label=label) for piece in pieces):
            text = piece.content
            if isinstance(text, str):
                text = details(summary, text)
            yield replace(piece, content=text, fold=summary)

    def cell(self, node: nodes.Element) -> Iterator[Piece]:
        """A code cell, and the captions of its figures."""
        metadata = node["cell_metadata"]
        tags = metadata.get("tags", ())
        figures = list(node.findall(nodes.figure))
        fold = ""
        if {"hide-input", "remove-input"} & set(tags):
            fold = "Code of this figure" if figures else "Code"
            fold = "Check your answer" if "check" in tags else fold
        if {"remove-input", "hide-output"} <= set(tags):
            fold = metadata.get("mystnb", {}).get("code_prompt_show", fold)
        yield Piece(node["cell_index"], fold=fold)
        for figure in figures:
            caption = self.caption(figure)
            if "hide-output" in tags:
                caption = replace(
                    caption, content=details("What the figure shows", caption.content)
                )
            yield replace(caption, part="caption")


def details(summary: str, text: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


def ancestors(node: nodes.Node) -> Iterator[nodes.Node]:
    while node := node.parent:
        yield node


def merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbouring texts of the same part as one."""
    for (is_text, *_), run in groupby(
        pieces, key=lambda p: (isinstance(p.content, str), p.part, p.label)
    ):
        if is_text:
            run = list(run)
            yield replace(run[0], content=joined(str(piece.content) for piece in run))
        else:
            yield from run


# --- Notebooks ------------------------------------------------------------------------------------


def title_line(words: str) -> str:
    """The first line of a folded cell: Colab shows its words in the code's place."""
    return f"# @title {words}\n"


def chapter_code(cell: NotebookNode) -> str:
    """The code of a plain notebook's cell as it stands in the chapter."""
    return cell.source.partition("\n")[2] if "cellView" in cell.metadata else cell.source


def folded_cell(cell: NotebookNode, words: str, *, outputs: bool = False) -> NotebookNode:
    """The same code cell, its source (and outputs) hidden: for Jupyter, Colab and Kaggle."""
    cell = copy.deepcopy(cell)
    cell.source = title_line(words) + cell.source
    cell.metadata |= {"cellView": "form", "_kg_hide-input": True}
    cell.metadata["jupyter"] = {"source_hidden": True}
    if outputs:
        cell.metadata["jupyter"]["outputs_hidden"] = True
        cell.metadata["_kg_hide-output"] = True
    return cell


def code_cell(cell: NotebookNode, piece: Piece) -> NotebookNode:
    """The chapter's cell as it stands in the plain notebook."""
    from PIL import Image

    cell = copy.deepcopy(cell)
    tags = cell.metadata.get("tags", [])
    if "remove-cell" in tags:
        cell = folded_cell(cell, "Set-up: in Colab, run this first")
    elif piece.fold:
        cell = folded_cell(cell, piece.fold, outputs=piece.part == "solution")
    if "hide-output" in tags:  # an answer: the text before it asks for a guess
        cell.metadata["jupyter"] = cell.metadata.get("jupyter", {}) | {"outputs_hidden": True}
        cell.metadata["collapsed"] = True  # Colab's word for it
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            picture = io.BytesIO(base64.b64decode(output.data["image/png"]))
            output.data["image/png"] = png(Image.open(picture))
    return cell


def plain(notebook: NotebookNode, pieces: list[Piece]) -> NotebookNode:
    """The chapter's notebook with these pieces in place of its Markdown cells.

    A Markdown cell has the id of the chapter's cell that it stands for, with a number behind it
    where that one falls into several. Cells of an exercise and of its solution say so in their
    tags, and which exercise under "exercise" in their metadata. Code cells that the website leaves
    out are kept in their place.
    """
    cells = notebook.cells
    shown = {piece.content for piece in pieces}
    left = [i for i, c in enumerate(cells) if c.cell_type == "code" and i not in shown]
    made, at = [], 0
    ids = Counter(cell.id for cell in cells if cell.cell_type == "code")

    def add(cell, piece):
        if piece.part:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), piece.part]
        if piece.label:
            cell.metadata["exercise"] = piece.label
        made.append(cell)

    for piece in merged(pieces):
        if isinstance(piece.content, int):
            while left and left[0] < piece.content:
                add(code_cell(cells[left.pop(0)], Piece(0)), Piece(0))
            add(code_cell(cells[piece.content], piece), piece)
            at = piece.content + 1
        else:
            name = cells[min(at, len(cells) - 1)].id
            ids[name] += 1
            name += f"-{ids[name]}" if ids[name] > 1 else ""
            add(nbformat.v4.new_markdown_cell(piece.content, id=name), piece)
    for number in left:
        add(code_cell(cells[number], Piece(number)), Piece(number))
    result = nbformat.v4.new_notebook(cells=made, metadata=copy.deepcopy(notebook.metadata))
    nbformat.validate(result)
    return result


# --- The extension --------------------------------------------------------------------------------


def address(config) -> str:
    """Where the website is: `html_baseurl`, else GitHub's pages of the repository, else ""."""
    repository = (
        config.html_theme_options.get("repository_url", "").rstrip("/").removesuffix(".git")
    )
    if config.html_baseurl:
        return config.html_baseurl.rstrip("/") + "/"
    if not repository:
        return ""
    owner, name = repository.rsplit("/", 2)[-2:]
    return f"https://{owner}.github.io/{name}/"


def _write(app, doctree, page) -> None:
    path = Path(app.env.doc2path(page))
    if app.builder.name != "html" or path.suffix != ".ipynb":
        return
    pieces = list(Writer(page, Path(app.srcdir), address(app.config), app.env).blocks(doctree))
    notebook = plain(nbformat.read(path, as_version=4), pieces)
    target = Path(app.outdir, FOLDER, path.name)
    target.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, target)


def setup(app):
    app.connect("doctree-resolved", _write)
    return {"version": "0.1", "parallel_read_safe": True, "parallel_write_safe": True}
