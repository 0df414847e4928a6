"""The directive ``{package}``: modules and public names of modeconn_lite, from their docstrings.

    ```{package} paths sheets
    ```

lists the public names of these modules, in the order of their source: signature, summary, and the
rest of the docstring folded away. Sources are read, not imported, so the site builds as fast as
before. Each name is an object of Sphinx's Python domain: search, index and links find it. What the
package's front door exports is listed under its short name and known under both.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = "modeconn_lite"


# --- Reading the sources --------------------------------------------------------------------------


@dataclass
class Name:
    """A public name: a function, a class with its public members, or a value."""

    kind: str  # function, class, data; in a class method, classmethod, property, attribute
    name: str
    signature: str = ""
    doc: str = ""
    value: str = ""
    members: list[Name] = field(default_factory=list)


@dataclass
class Module:
    name: str  # without the package, as "methods.dropout"
    doc: str
    names: list[Name]


def modules(root: Path) -> list[str]:
    """Names of all modules of the package, without its own, as ``methods.dropout``."""
    folder = root / PACKAGE
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts and not parts[-1].startswith("_"):
            found.append(".".join(parts))
    return found


def read(root: Path, name: str) -> Module:
    """One module's docstring and its public names.

    Public is what `__all__` lists, and without one, what has no leading underscore and was defined
    here. A value also needs a docstring below it or a place at the package's front door.

    Raises
    ------
    ValueError
        If there is no such module.
    """
    path = _path(root, name)
    if not path.exists():
        raise ValueError(f"{PACKAGE} has no module {name}")
    tree = ast.parse(path.read_text("utf8"))
    listed = _listed(tree)
    exported = {each for each, module in front_door(root).items() if module == name}

    def public(candidate: str) -> bool:
        return candidate in listed if listed is not None else not candidate.startswith("_")

    names = []
    for node, doc in _with_docs(tree.body):
        if isinstance(node, ast.FunctionDef):
            if public(node.name) and not _is_overload(node):
                names.append(_function(node))
        elif isinstance(node, ast.ClassDef) and public(node.name):
            names.append(_class(node))
        elif (value := _assigned(node)) and (value in exported or (public(value) and doc)):
            names.append(Name("data", value, doc=doc, value=ast.unparse(node.value)))
    return Module(name, ast.get_docstring(tree) or "", names)


@cache
def front_door(root: Path) -> dict[str, str]:
    """What `modeconn_lite` itself exports: name, and the module it comes from."""
    tree = ast.parse((root / PACKAGE / "__init__.py").read_text("utf8"))
    listed = _listed(tree) or []
    origins = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in listed:
                    origins[alias.name] = _origin(root, node.module or "", alias.name)
    return origins


def _origin(root: Path, module: str, name: str) -> str:
    """Where a name is defined: modules pass on what others define."""
    path = _path(root, module)
    for node in ast.parse(path.read_text("utf8")).body:
        if isinstance(node, ast.ImportFrom) and any(a.name == name for a in node.names):
            parts = module.split(".")
            package = parts if path.name == "__init__.py" else parts[:-1]
            package = package[: len(package) - (node.level - 1)]
            return _origin(root, ".".join([*package, node.module or ""]), name)
    return module


def _path(root: Path, module: str) -> Path:
    path = root / PACKAGE / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if _assigned(node) == "__all__":
            return ast.literal_eval(node.value)
    return None


def _assigned(node: ast.stmt) -> str:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return ""


def _with_docs(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Each statement, and the string below it if it is a value's docstring."""
    for node, following in zip(body, [*body[1:], None], strict=True):
        doc = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            doc = inspect.cleandoc(str(following.value.value))
        yield node, doc


def _arguments(arguments: ast.arguments, bound: bool = False) -> str:
    """Names and defaults, without types: those are in the docstring, in words."""
    bare = ast.parse(f"def f({ast.unparse(arguments)}): 0").body[0].args  # a copy
    if bound:
        (bare.posonlyargs or bare.args).pop(0)
    everything = [*bare.posonlyargs, *bare.args, *bare.kwonlyargs, bare.vararg, bare.kwarg]
    for argument in filter(None, everything):
        argument.annotation = None
    return f"({ast.unparse(bare)})"


def _is_overload(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(d).endswith("overload") for d in node.decorator_list)


def _function(node: ast.FunctionDef, owner: bool = False) -> Name:
    marks = {ast.unparse(d).split("(")[0] for d in node.decorator_list}
    kind = "method" if owner else "function"
    for mark in ("property", "cached_property", "classmethod", "staticmethod"):
        if mark in marks:
            kind = mark.removeprefix("cached_")
    bound = owner and kind != "staticmethod"
    signature = "" if kind == "property" else _arguments(node.args, bound)
    return Name(kind, node.name, signature, ast.get_docstring(node) or "")


def _class(node: ast.ClassDef) -> Name:
    made = Name("class", node.name, doc=ast.get_docstring(node) or "")
    functions = [n for n in node.body if isinstance(n, ast.FunctionDef)]
    start = next((f for f in functions if f.name == "__init__"), None)
    if start:
        made.signature = _arguments(start.args, bound=True)
    elif any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
        made.signature = f"({', '.join(filter(None, map(_field, fields)))})"
    for function in functions:
        if _is_overload(function) or function.name.startswith("_"):
            continue
        if ast.get_docstring(function):
            made.members.append(_function(function, owner=True))
    return made


def _field(node: ast.AnnAssign) -> str:
    name = _assigned(node)
    if node.value is None:
        return name
    default = ast.unparse(node.value)
    if not default.startswith("field("):
        return f"{name}={default}"
    made = {k.arg: ast.unparse(k.value) for k in node.value.keywords}
    if made.get("init") == "False":
        return ""
    return f"{name}={made['default']}" if "default" in made else f"{name}=..."


# --- Docstrings as reStructuredText -------------------------------------------------------------

CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)


def to_rst(doc: str, links: dict[str, str]) -> str:
    """A docstring of this package as reStructuredText, its NumPy sections rendered.

    In running text a name in single backquotes is code, and a link where `links` knows it. Stars
    and bars are meant as they stand; ``[1]_`` points to the list of references below it.
    """
    from sphinx.ext.napoleon import Config, NumpyDocstring

    doc = re.sub(r"\[(\d+)\]_", r"[\1]", doc)
    doc = re.sub(r"^\.\. \[(\d+)\] (.*(?:\n {3}.*)*)", _reference, doc, flags=re.MULTILINE)
    pieces = CODE.split(doc)
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            pieces[number] = re.sub(r"(?<!\\)([*|])", r"\\\1", piece)
            if number and piece[:1].isalnum():  # as in `Path`s
                pieces[number] = "\\ " + pieces[number]
        elif not piece.startswith("``"):
            name = " ".join(piece.strip("`").split())
            pieces[number] = f":py:obj:`{name} <{links[name]}>`" if name in links else f"``{name}``"
    config = Config(napoleon_use_param=False, napoleon_use_rtype=False)
    return str(NumpyDocstring("".join(pieces), config))


def _reference(match: re.Match) -> str:
    return f"- [{match[1]}] " + " ".join(line.strip() for line in match[2].splitlines())


def rst(root: Path, name: str) -> str:
    """What the page shows of a module, as reStructuredText."""
    module = read(root, name)
    door = front_door(root)
    full = f"{PACKAGE}.{name}"
    links = known(root)
    here = {n.name: links[f"{name}.{n.name}"] for n in module.names}
    out = [f".. py:module:: {full}", "", to_rst(module.doc, links | here), ""]

    def describe(each: Name, indent: str, options: list[str]) -> None:
        kind = {"classmethod": "method", "staticmethod": "method"}.get(each.kind, each.kind)
        out.append(f"{indent}.. py:{kind}:: {each.name}{each.signature}")
        out.extend(f"{indent}   {option}" for option in options)
        if each.value:
            out.append(f"{indent}   :value: {each.value}")
        if kind != each.kind:
            out.append(f"{indent}   :{each.kind}:")
        out.append("")
        text = to_rst(each.doc, links | here)
        out.extend(f"{indent}   {line}".rstrip() for line in text.splitlines())
        out.append("")
        for member in each.members:
            describe(member, indent + "   ", [])

    for each in module.names:
        if door.get(each.name) == name:
            options = [":module: " + PACKAGE, f":canonical: {full}.{each.name}"]
        else:
            options = []
        describe(each, "", options)
    return "\n".join(out)


@cache
def known(root: Path) -> dict[str, str]:
    """Every public name as docstrings call it (``paths.segment``, ``segment``): its full name."""
    door, found, ambiguous = front_door(root), {}, set()
    for name in modules(root):
        for each in read(root, name).names:
            at_door = door.get(each.name) == name
            full = f"{PACKAGE}.{each.name}" if at_door else f"{PACKAGE}.{name}.{each.name}"
            found[f"{name}.{each.name}"] = full
            found[f"{name.rpartition('.')[2]}.{each.name}"] = full
            if at_door:
                found[each.name] = full
            elif found.setdefault(each.name, full) != full:
                ambiguous.add(each.name)
    return {k: v for k, v in found.items() if k not in ambiguous or k in door}


def slim(body: str) -> str:
    """A page's HTML without the marks inside code that no style uses: a fifth of its weight."""
    for _ in range(2):  # one inside another
        body = re.sub(r'<span class="(?:pre|n|o|w)">([^<]*)</span>', r"\1", body)
    return body


# --- The directive --------------------------------------------------------------------------------


def setup(app):
    from docutils import nodes
    from docutils.statemachine import StringList
    from folding import fold, fold_title
    from sphinx import addnodes
    from sphinx.util.docutils import SphinxDirective

    class Package(SphinxDirective):
        """The public names of the modules given."""

        required_arguments = 1
        final_argument_whitespace = True

        def run(self):
            root = Path(self.env.srcdir)
            self.env.note_reread()  # what it shows lies outside the book's own files
            found = nodes.container(classes=["mc-package"])
            for name in self.arguments[0].split():
                fenced = ["````{eval-rst}", *rst(root, name).splitlines(), "````"]
                self.state.nested_parse(StringList(fenced, self.env.docname), 0, found)
            for each in list(found.findall(addnodes.desc)):
                signature, content = each[0], each[-1]
                self.fold(content, signature.get("fullname", ""))
            return [found]

        def fold(self, content, name):
            """All but the summary and the members goes behind a click."""
            members = (addnodes.desc, addnodes.index)
            later = [child for child in content[1:] if not isinstance(child, members)]
            if later:
                for child in later:
                    content.remove(child)
                name = nodes.inline("", f" of {name}", classes=["visually-hidden"])
                title = fold_title("", "", nodes.Text("Details"), name)
                content.insert(1, fold(title, *later, kind="more"))

    app.add_directive("package", Package)
    return {"version": "0.1", "parallel_read_safe": True, "parallel_write_safe": True}
