import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeconn_lite.tables import html_table, mean_and_deviation, percent, span


def test_cells_are_escaped():
    table = html_table(["<a>"], [["<b>", "<c>"]], "<d>")
    assert not any(f"<{x}>" in table for x in "acd")
    assert "&lt;b&gt;" in table


def test_a_table_has_a_caption_and_heads_and_is_what_notebook_tests_skip():
    table = html_table(["", "one"], [["first", "1"], ["second", "2"]], "Of numbers")
    assert table.startswith("<!--mc-explorer-->")
    assert table.endswith("<!--/mc-explorer-->")
    assert "<caption>Of numbers</caption>" in table
    assert '<th scope="col">one</th>' in table
    assert '<tr><th scope="row">second</th><td>2</td></tr>' in table


def test_fractions_are_said_in_per_cent():
    assert percent(0.98449) == "98.4\u202f%"
    assert percent(1) == "100.0\u202f%"
    assert percent(0.5, 0) == "50\u202f%"
    assert span([0.5, 0.25, 0.75]) == "25.0\u202f% to 75.0\u202f%, mean 50.0\u202f%"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_deviation_is_that_of_a_sample(values):
    mean, deviation = mean_and_deviation(values)
    assert mean == pytest.approx(sum(values) / len(values))
    squares = sum((value - mean) ** 2 for value in values)
    assert deviation**2 == pytest.approx(squares / (len(values) - 1), abs=1e-12)
    assert mean_and_deviation(values[:1]) == (values[0], 0.0)


def test_nothing_has_no_mean():
    for function, word in ((mean_and_deviation, "mean"), (span, "span")):
        with pytest.raises(ValueError, match=f"there are no values; a {word} needs at least one"):
            function([])
