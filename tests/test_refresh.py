"""The normal form of notebooks, on a notebook made for the purpose."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import refresh
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

STREAM = {"output_type": "stream", "name": "stdout"}


def noisy():
    widget = {refresh.WIDGET_VIEW: {"model_id": "7"}, "text/plain": "Live()"}
    cell = new_code_cell(
        "explorer.live()",
        execution_count=3,
        metadata={"execution": {"iopub.execute_input": "now"}, "scrolled": True, "tags": ["a"]},
        outputs=[
            new_output("execute_result", widget, execution_count=1),
            new_output("display_data", {refresh.WIDGET_VIEW: {}}),
            nbformat.from_dict({**STREAM, "text": "a\n"}),
            nbformat.from_dict({**STREAM, "text": "b\n"}),
        ],
    )
    mine = {"name": "mine", "display_name": "Mine"}
    return new_notebook(cells=[cell], metadata={"widgets": {}, "kernelspec": mine})


def test_noise_goes_and_content_stays():
    before = noisy()
    after = refresh.normalise(before)
    (cell,) = after.cells
    assert cell.id == before.cells[0].id
    assert cell.metadata == {"tags": ["a"]}
    assert [o.output_type for o in cell.outputs] == ["execute_result", "stream"]
    assert cell.outputs[0].data == {"text/plain": "Live()"}
    assert cell.outputs[0].execution_count == 3
    assert cell.outputs[1].text == "a\nb\n"
    assert set(after.metadata) == {"kernelspec", "language_info"}
    assert refresh.WIDGET_VIEW in before.cells[0].outputs[0].data, "the argument was changed"


def test_normal_form_is_stable():
    once = refresh.normalise(noisy())
    assert refresh.text(refresh.normalise(once)) == refresh.text(once)


def test_solutions_and_folded_code_are_hidden_in_jupyter():
    cells = [
        new_code_cell("plot()", metadata={"tags": ["hide-input"]}),
        new_code_cell("stub()", metadata={"jupyter": {"source_hidden": True}}),
        new_markdown_cell(":::{solution-start} ex\n:::"),
        new_markdown_cell("Because."),
        new_code_cell("solve()"),
        new_markdown_cell(":::{solution-end}\n:::\n\nMore.\n\n:::{solution-start} ex-2\n:::"),
        new_code_cell("solve()"),
        new_markdown_cell(":::{solution-end}\n:::"),
        new_code_cell("after()"),
    ]
    after = refresh.normalise(new_notebook(cells=cells)).cells
    source, both = {"source_hidden": True}, {"source_hidden": True, "outputs_hidden": True}
    hidden = [cell.metadata.get("jupyter") for cell in after]
    assert hidden == [source, None, None, None, both, None, both, None, None]
    # Not hidden likewise: JupyterLab opens a Markdown cell when it is run.
    assert after[3].source == "::::{dropdown} The solution in words\n\nBecause.\n::::"
    assert after[2].source == cells[2].source and after[4].source == cells[4].source


def test_references_are_listed():
    text = "See [Ito et al. (2025)](https://arxiv.org/abs/2510.08023).\n\n## References"
    once = refresh.normalise(new_notebook(cells=[new_markdown_cell(text)]))
    assert once.cells[0].source.startswith(f"{text}\n\n- Akira Ito, ")
    assert refresh.normalise(once) == once


def test_errors_and_stderr_are_reported(tmp_path):
    error = new_output("error", ename="ValueError", evalue="no", traceback=["/home/x"])
    warning = nbformat.from_dict({"output_type": "stream", "name": "stderr", "text": "careful"})
    cells = [new_code_cell("f()", execution_count=1, outputs=[error, warning])]
    path = Path(tmp_path / "bad.ipynb")
    path.write_text(refresh.text(refresh.normalise(new_notebook(cells=cells))), "utf8")
    found = " ".join(refresh.problems(path))
    assert "raises ValueError: no" in found and "stderr" in found
    assert "/home/x" not in path.read_text("utf8")
    cells[0].metadata.tags = ["raises-exception"]
    path.write_text(refresh.text(refresh.normalise(new_notebook(cells=cells))), "utf8")
    assert "ValueError" not in " ".join(refresh.problems(path))


def test_seconds_do_not_churn():
    assert refresh.rounded(12.1, None) == 15
    assert refresh.rounded(9.0, 15) == 15
    assert refresh.rounded(15.2, 15) == 20
    assert refresh.rounded(5.0, 15) == 5


def test_sanitizer_hides_explorers_and_no_plain_number():
    config = (refresh.ROOT / "tests" / "nbval_sanitize.cfg").read_text("utf8")
    # As nbval reads the file.
    rules = re.findall(r"^regex: (.*)$\n^replace: (.*)$", config, flags=re.MULTILINE)
    assert len(rules) == config.count("\nregex:")

    def clean(output):
        for regex, replacement in rules:
            output = re.sub(regex, replacement, output)
        return output

    page = "<p>1</p><!--mc-explorer--><div>\n0.5\n</div><!--/mc-explorer--><p>2</p>"
    assert clean(page + page) == "<p>1</p>EXPLORER<p>2</p>" * 2
    assert clean("step on cuda:0 in 12.3 ms") == "step on DEVICE in TIME"
    assert clean("<Figure size 640x480 with 1 Axes>") == "<FIGURE with 1 Axes>"
    assert clean("<Path at 0x7f00deadbeef>") == "<Path at ADDRESS>"
    for plain in ("barrier 1.23 nats", "0.61", "61 points", "60 s", "0xff"):
        assert clean(plain) == plain
