import math

import pytest
import torch

from modeconn_lite.exercises import check


@pytest.mark.parametrize("untouched", [None, ..., (None, None), [None]])
def test_not_tried_yet(untouched):
    verdict = check(untouched, lambda a: a + 1, equals=1)
    assert verdict.passed is None and repr(verdict) == "Not tried yet."


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (0.125, {"equals": 0.125}),
        (torch.tensor([5.0, 1.0]), {"equals": [5, 1]}),
        ([torch.tensor(0.49), 0.51], {"equals": 0.5, "within": 0.05}),
        ((3, [1.0, 2.0]), {"low": 1, "high": [3, 1, 2]}),
        (170, {"low": 165, "high": 189}),
        (True, {"equals": 1}),
        (math.inf, {"low": 10}),
    ],
)
def test_right(answer, expected):
    verdict = check(answer, **expected)
    assert verdict.passed is True and verdict.text.startswith("Right: ")


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (0.5, {"equals": 0.125, "within": 1e-3}, "0.5, is 0.38 too high"),
        (160, {"low": 165, "high": 189}, "160, is 5 too low"),
        ([0.5, 0.5, 0.3], {"equals": 0.5, "within": 0.05}, "number 3 of 3, 0.3, is 0.2 too low"),
        ([1.0, 2.0], {"equals": [1, 2, 3]}, "2 numbers given, 3 expected"),
        ([], {"equals": 1}, "0 numbers given, 1 expected"),
        (math.nan, {"low": 0}, "nan is not a number"),
        ("much", {"low": 0}, "a number is expected, not 'much'"),
        ({"a": 1}, {"low": 0}, "not the kind of answer asked for"),
    ],
)
def test_not_yet(answer, expected, words):
    verdict = check(answer, **expected)
    assert verdict.passed is False and verdict.text.startswith("Not yet: ")
    assert words in verdict.text


def test_what_is_measured():
    assert check([1, 2, 3], sum, equals=6).passed
    wrong = check([1, 2, 3], lambda answer: answer["weights"], equals=6)
    assert wrong.passed is False and "kind of answer" in wrong.text


def test_a_verdict_is_a_line_of_a_page():
    html = check("<b>", equals=1)._repr_html_()
    assert html.startswith("<p ") and "<b>" not in html
