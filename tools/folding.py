"""What is folded away in the book, and the words that open it.

Solutions of exercises, boxes of class ``dropdown`` and the code of cells tagged ``hide-input``
become ``<details>``: the whole title opens them, by mouse and by keyboard, without a script.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform


class folded(nodes.General, nodes.Element):
    """A ``<details>``; its first child is a `fold_title`."""


class fold_title(nodes.Part, nodes.TextElement):
    """A ``<summary>``. With `verb` it begins with "Show", and with "Hide" while it is open."""


def _visit_folded(self, node):
    self.body.append(self.starttag(node, "details"))


def _depart_folded(self, node):
    self.body.append("</details>\n")


def _visit_title(self, node):
    self.body.append("<summary>")
    if node.get("verb"):
        self.body.append('<span class="mc-show">Show</span><span class="mc-hide">Hide</span> ')


def _depart_title(self, node):
    self.body.append("</summary>\n")


def fold(title: fold_title, *content: nodes.Node, kind: str) -> folded:
    """These nodes behind a title; `kind` says how it looks: box, code or more."""
    return folded("", title, *content, classes=["mc-fold", f"mc-fold-{kind}"])


class FoldBoxes(SphinxPostTransform):
    """Solutions and other boxes of class ``dropdown``."""

    default_priority = 150  # after sphinx-exercise has written its titles
    formats = ("html",)

    def run(self, **kwargs):
        for box in list(self.document.findall(nodes.Admonition)):
            if "dropdown" not in box.get("classes", ()) or not box.children:
                continue
            heading, *content = box.children
            for link in list(
                heading.findall(nodes.reference)
            ):  # the title opens, and leads nowhere
                link.replace_self(link.children)
            made = fold(fold_title("", "", *heading.children), *content, kind="box")
            made["ids"] = box["ids"]
            made["classes"] += [c for c in box["classes"] if c != "dropdown"]
            box.replace_self(made)


class FoldCode(SphinxPostTransform):
    """The code of cells tagged ``hide-input``, before MyST-NB folds it with its own words."""

    default_priority = 198
    formats = ("html",)

    def run(self, **kwargs):
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") != "cell_code" or cell.get("hide_mode") != "input":
                continue
            code, *outputs = cell.children
            figure = any(True for output in outputs for _ in output.findall(nodes.image))
            words = "the code of this figure" if figure else "the code"
            if "tag_check" in cell["classes"]:  # nobody can try an exercise on the website
                words = "the check"
                for output in outputs:
                    cell.remove(output)
            del cell["hide_mode"]
            cell.remove(code)
            cell.insert(0, fold(fold_title("", words, verb=True), code, kind="code"))


def setup(app):
    app.add_node(folded, html=(_visit_folded, _depart_folded))
    app.add_node(fold_title, html=(_visit_title, _depart_title))
    app.add_post_transform(FoldBoxes)
    app.add_post_transform(FoldCode)
    return {"version": "0.1", "parallel_read_safe": True, "parallel_write_safe": True}
