"""The built site, read as files: nothing from elsewhere, nothing dead, nothing without words."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

import book_site
import pytest
import refresh
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT, build
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytestmark = pytest.mark.site
PAGES = book_site.pages(ROOT)
PAGE_BYTES = 2_000_000


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
    assert line and re.match(r"\d+ min read", line.text)
    if book_site.source(ROOT, name).suffix == ".ipynb":
        assert re.search(r"runs in about \d+ s on 2 CPU cores", line.text), "run `make refresh`"


def test_weight(page):
    """What the chapter itself adds: its HTML and its pictures, the shared scripts apart."""
    pictures = {page.parent / unquote(i["src"]) for i in soup(page).select("article img[src]")}
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
    colab = "https://colab.research.google.com/github/someone/a-book/blob/v1/book/01_one.ipynb"
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
    assert book_site.reading_minutes(page) == 3
    assert book_site.time_line(3, None) == "3 min read"
    assert book_site.time_line(18, 25) == "18 min read · runs in about 25 s on 2 CPU cores"


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
