"""The built site, read as files: nothing from elsewhere, nothing dead, nothing without words."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import zlib
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

import book_site
import package_page
import panels
import pytest
import refresh
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT, build
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import modeconn_lite

pytestmark = pytest.mark.site
PAGES = book_site.pages(ROOT)
PACKAGE = ("package", "methods")
PAGE_BYTES = 2_000_000
IMAGE_FILES = 'article img[src]:not([src^="data:"])'  # a picture within the page weighs there


@cache
def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text("utf8"), "html.parser")


@pytest.fixture(params=PAGES)
def name(request) -> str:
    return request.param


@pytest.fixture
def page(site, name) -> Path:
    return site / f"{name}.html"


def test_nothing_from_elsewhere(page):
    tags = soup(page).select("script, img, iframe, source, video, audio, object, embed, link")
    for tag in tags:
        if tag.name == "link" and not {"stylesheet", "preload", "icon"} & set(tag["rel"]):
            continue
        for attribute in ("src", "href", "data", "srcset"):
            assert not re.match(r"\s*(https?:)?//", tag.get(attribute, "")), tag


def test_stylesheets_fetch_nothing_from_elsewhere(site):
    for path in site.rglob("*.css"):
        text = path.read_text("utf8")
        far = re.findall(r"(?:@import|url\()\s*[\"'(]*\s*(?:https?:)?//[^)\"']*", text)
        assert not far, path


def test_pictures_have_words(page):
    for picture in soup(page).select("article img"):
        alt = picture.get("alt", "")
        assert alt.strip() and "_images/" not in alt, picture


def test_links_lead_somewhere(page):
    for link in soup(page).select("a[href]"):
        if re.match(r"[a-z]+:", link["href"]):
            continue
        file, anchor = urldefrag(link["href"])
        target = (page.parent / unquote(file)).resolve() if file else page
        assert target.exists(), link
        if anchor and target.suffix == ".html":
            anchor = unquote(anchor)
            found = soup(target).find(id=anchor) or soup(target).find(attrs={"name": anchor})
            assert found, f"{link} has no target in {target.name}"


def test_front_door_leads_to_the_book(site):
    assert f"url={PAGES[0]}.html" in (site / "index.html").read_text("utf8")


def test_previous_and_next(page, name):
    number = PAGES.index(name)
    assert bool(soup(page).select("a.left-prev")) == (number > 0)
    assert bool(soup(page).select("a.right-next")) == (number < len(PAGES) - 1)


def test_time_line(page, name):
    line = soup(page).select_one("h1 + .mc-time")
    source = book_site.source(ROOT, name)
    assert bool(line) == (source.suffix == ".ipynb")
    if line:
        assert re.match(r"\d+ min to skim", line.text)
        assert re.search(r"runs in about \d+ s on 2 CPU cores", line.text), "run `make refresh`"
        assert ("to study" in line.text) == bool(soup(page).select("div.exercise"))


def test_landing_page_leads_to_chapter_1(site):
    assert PAGES[1].endswith("/01_interpolation")
    door = soup(site / f"{PAGES[0]}.html")
    (start,) = door.select("article a.mc-start")
    assert start["href"] == "01_interpolation.html"
    assert not door.select("article .cell_input"), "code stands above or below the race"


def test_weight(page):
    """What the chapter itself adds: its HTML and its pictures, the shared scripts apart."""
    pictures = {page.parent / unquote(i["src"]) for i in soup(page).select(IMAGE_FILES)}
    files = [p for p in pictures if p.exists()]
    assert page.stat().st_size + sum(p.stat().st_size for p in files) <= PAGE_BYTES


def test_explorers_work_without_scripts(page):
    for explorer in soup(page).select(".mc-explorer"):
        assert explorer.select("noscript table"), "an explorer has no table for readers without JS"


def test_no_blank_outputs(page):
    for output in soup(page).select("article .cell_output"):
        assert output.get_text(strip=True) or output.select("img, svg, canvas, table"), output


def test_search_index(site, name):
    index = (site / "searchindex.js").read_text("utf8")
    names = json.loads(re.match(r"Search\.setIndex\((.*)\)", index, re.DOTALL)[1])["docnames"]
    assert name in names


# --- Launch buttons -------------------------------------------------------------------------------


def launch_links(page: Path) -> list[str]:
    return [a["href"] for a in soup(page).select(".article-header-buttons a[href^=http]")]


def test_no_dead_button(page):
    links = launch_links(page)
    if yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["repository"]["url"]:
        assert any("mybinder" in link for link in links) and any("colab" in link for link in links)
    else:
        assert not links
        assert not re.search(r"\b(Binder|Colab)\b", soup(page).get_text())


@pytest.fixture(scope="module")
def filled_in(tmp_path_factory) -> Path:
    """Two pages with this book's configuration, but the repository's address filled in."""
    book = tmp_path_factory.mktemp("filled_in")
    for folder in ("tools", "book/_static"):
        shutil.copytree(ROOT / folder, book / folder)
    shutil.copy(ROOT / "book/references.bib", book / "book")
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    config["repository"] = {"url": "https://github.com/someone/a-book", "branch": "v1"}
    (book / "_config.yml").write_text(yaml.safe_dump(config), "utf8")
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": "book/01_one"}]}
    (book / "_toc.yml").write_text(yaml.safe_dump(toc), "utf8")
    (book / "book/intro.md").write_text("# Intro\n\nSome words.\n", "utf8")
    chapter = new_notebook(cells=[new_markdown_cell("# One"), new_code_cell("1 + 1")])
    (book / "book/01_one.ipynb").write_text(refresh.text(refresh.normalise(chapter)), "utf8")
    return build(book, book / "out")


def test_every_page_has_its_buttons_once_the_address_is_known(filled_in):
    repository = "https://github.com/someone/a-book"
    binder = "https://mybinder.org/v2/gh/someone/a-book/v1?urlpath=lab/tree/book/"
    colab = "https://colab.research.google.com/github/someone/a-book/blob/notebooks/01_one.ipynb"
    for name, file in (("intro", "intro.md"), ("01_one", "01_one.ipynb")):
        links = launch_links(filled_in / f"book/{name}.html")
        assert binder + file in links
        assert colab in links
        assert repository in links
        assert any(link.startswith(f"{repository}/issues/new") for link in links)


def test_no_button_without_an_address():
    assert book_site.launch_links("", "main", "book/intro", ["book/01_one"]) == []
    assert not any(book_site.theme_options("").values())


def test_reading_time(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("word " * 660, "utf8")
    assert book_site.reading_minutes(page) == (3, None)
    assert book_site.time_line(3, None, None) == "3 min to skim"
    line = "18 min to skim, about 80 to study · runs in about 25 s on 2 CPU cores"
    assert book_site.time_line(18, 80, 25) == line


def test_who_skims_passes_over_what_is_folded_away(tmp_path):
    words = "word " * 2200
    proof, solution = f":::{{dropdown}} Proof\n{words}\n:::", "{solution-start} x\n:::"
    cells = [
        new_markdown_cell(f"{words}\n{proof}"),
        new_code_cell(words, metadata={"tags": ["hide-input"]}),
        new_code_cell(words, metadata={"tags": ["remove-cell"]}),
        new_markdown_cell(":::{exercise-start}"),
        new_code_cell("def stub(): ..."),
        new_markdown_cell(solution),
        new_code_cell(words),
        new_markdown_cell(f":::{{solution-end}}\n:::\n{words}"),
    ]
    path = tmp_path / "page.ipynb"
    path.write_text(refresh.text(refresh.normalise(new_notebook(cells=cells))), "utf8")
    skim, study = book_site.reading_minutes(path)
    assert skim == 20  # before and after
    assert study == 2 * 50 + 10 + 5  # five times the words, twice; an exercise; rounded up


# --- Folded away ----------------------------------------------------------------------------------


def test_solutions_and_the_code_of_figures_are_folded(page, name):
    for solution in soup(page).select(".solution"):
        assert solution.name == "details" and not solution.has_attr("open")
        title = solution.find("summary", recursive=False)
        assert re.match(r"Solution to Exercise \d", title.text) and not title.select("a, button")
    source = book_site.source(ROOT, name)
    if source.suffix == ".ipynb":
        cells = json.loads(source.read_text("utf8"))["cells"]
        folded = [c for c in cells if "hide-input" in c["metadata"].get("tags", [])]
        titles = [t.text for t in soup(page).select(".mc-fold-code > summary")]
        assert len(titles) == len(folded)
        checks = [c for c in cells if "check" in c["metadata"].get("tags", [])]
        assert titles.count("ShowHide the check") == len(checks)
        assert all(t.startswith(("ShowHide the code", "ShowHide the check")) for t in titles)
        assert "Not tried yet." not in soup(page).text


def test_ids_are_given_once(page):
    ids = [tag["id"] for tag in soup(page).select("article [id]")]
    assert len(ids) == len(set(ids)), sorted({i for i in ids if ids.count(i) > 1})


# --- Figures --------------------------------------------------------------------------------------


def test_figures_lie_on_nothing(page):
    """So that dark mode can turn them over: a white ground would become a black card."""
    from PIL import Image

    for picture in soup(page).select("article .cell_output img[src$='.png']:not(.mc-explorer *)"):
        with Image.open(page.parent / unquote(picture["src"])) as image:
            assert image.convert("RGBA").getpixel((0, 0))[3] == 0, picture["alt"]


def test_panels_part_at_the_gutter(tmp_path):
    from PIL import Image, ImageDraw

    def picture(name: str, *boxes: tuple[int, int]) -> Path:
        image = Image.new("RGBA", (760, 300), (0, 0, 0, 0))
        for left, right in boxes:
            ImageDraw.Draw(image).rectangle((left, 20, right, 280), outline=(0, 0, 0, 255))
        image.save(tmp_path / name)
        return tmp_path / name

    one = picture("one.png", (40, 750))
    two = picture("two.png", (40, 370), (380, 385), (400, 750))  # the middle one: a label
    three = picture("three.png", (10, 240), (260, 490), (510, 750))
    assert panels.cuts(one) == (0.0, 1.0)
    assert panels.cuts(two) == (0.0, pytest.approx(375.5 / 760, abs=2e-3), 1.0)
    assert panels.cuts(three)[1:3] == pytest.approx([250.5 / 760, 500.5 / 760], abs=2e-3)
    html = '<img alt="Two charts." src="../_images/two.png" />'
    found = BeautifulSoup(panels.stacked(html, {"two.png": two}), "html.parser").select("span img")
    assert [i["src"] for i in found] == ["../_images/two.png"] * 2
    assert panels.stacked(html, {"two.png": one}) == html


# --- The page of the package ----------------------------------------------------------------------


def public_names() -> list[str]:
    """What the page must show, as Python itself sees it."""
    names = [f"modeconn_lite.{name}" for name in modeconn_lite.__all__]
    for modules in modeconn_lite.methods.CHAPTERS.values():
        for module in modules:
            for name, value in vars(module).items():
                defined = getattr(value, "__module__", None) == module.__name__
                if callable(value) and defined and not name.startswith("_"):
                    names.append(f"{module.__name__}.{name}")
    return names


def test_every_public_name_is_on_the_page_and_found_by_search(site):
    pages = [soup(site / f"book/{name}.html") for name in PACKAGE]
    index = (site / "searchindex.js").read_text("utf8")
    objects = json.loads(re.match(r"Search\.setIndex\((.*)\)", index, re.DOTALL)[1])["objects"]
    found = {f"{prefix}.{entry[4]}" for prefix, rows in objects.items() for entry in rows}
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    known = {line.split()[0] for line in inventory.splitlines()}
    for name in public_names():
        here = [page for page in pages if page.find(id=name)]
        assert len(here) == 1, f"{name} is on {len(here)} of the pages {PACKAGE}; it needs one"
        assert name in found and name in known
    for name in modeconn_lite.__all__:
        entry = next(filter(None, (page.find(id=f"modeconn_lite.{name}") for page in pages)))
        told = entry.find_next("dd").get_text(strip=True) or "=" in entry.text
        assert told, f"{name} has no summary"


@pytest.mark.parametrize("name", PACKAGE)
def test_pages_of_the_package_are_light(site, name):
    assert (site / f"book/{name}.html").stat().st_size < 500_000


def test_every_module_is_on_the_page_or_named_as_inner():
    inner = {"anatomy", "checkpoints", "checks", "downloads", "exercises", "files", "look"}
    inner |= {"batch_statistics", "running", "stages", "tables"}
    inner |= {f"explorers.{name}" for name in ("base", "charts", "markup", "sources", "views")}
    text = "\n".join((ROOT / f"book/{name}.md").read_text("utf8") for name in PACKAGE)
    shown = " ".join(re.findall(r"^```\{package\} (.*)$", text, re.MULTILINE)).split()
    assert len(shown) == len(set(shown))
    rooms = {"explorers"}  # pass on what their modules define
    entry = {"__main__"}
    assert set(package_page.modules(ROOT)) - entry - rooms == set(shown) | inner


def test_docstrings_become_what_they_say():
    doc = """Mix `a` and `segment`, as in |x| or *shape [1]_.

    Parameters
    ----------
    a : Tensor, shape (n, *shape)
        Weights.

    References
    ----------
    .. [1] Somebody, A title
       in two lines, 2020.
    """
    text = package_page.to_rst(inspect.cleandoc(doc), {"segment": "modeconn_lite.segment"})
    assert "``a``" in text and ":py:obj:`segment <modeconn_lite.segment>`" in text
    assert r"\|x\| or \*shape [1]." in text
    assert "- [1] Somebody, A title in two lines, 2020." in text


def test_signatures_leave_types_to_the_words():
    names = {each.name: each for each in package_page.read(ROOT, "paths").names}
    assert names["segment"].signature.startswith("(a, b")
    assert ":" not in names["segment"].signature.replace("lambda", "")
    with pytest.raises(ValueError, match="no module"):
        package_page.read(ROOT, "nowhere")


# --- Scripts --------------------------------------------------------------------------------------


def test_silenced_scripts_keep_warnings_and_errors():
    script = 'console.log(`a ${b}`); x && console.info("c"); console.warn("d"); console.error("e")'
    silent = book_site.silence(script)
    assert silent == 'void(`a ${b}`); x && void("c"); console.warn("d"); console.error("e")'


def test_a_page_carries_each_asset_once(page):
    names = [tag["data-mc-asset"] for tag in soup(page).select("[data-mc-asset]")]
    assert sorted(names) == sorted(set(names))
    kinds = {tag["data-kind"] for tag in soup(page).select(".mc-explorer")}
    assert {f"{kind}.js" for kind in kinds} <= set(names)


def test_once_keeps_the_first_and_what_is_no_asset():
    style, script = '<style data-mc-asset="a.css">p{}</style>', "<script>start()</script>"
    other = '<script data-mc-asset="a.js">1 < 2</script>'
    page = f"<p>1</p>{style}{other}{script}<p>2</p>{style}{other}{script}"
    assert book_site.once(page) == f"<p>1</p>{style}{other}{script}<p>2</p>{script}"
