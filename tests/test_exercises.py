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


def test_both_ends_are_allowed_and_nothing_beyond():
    for answer, passed in ((2.0, True), (2.001, False), (1.0, True), (0.999, False)):
        assert check(answer, low=1, high=2).passed is passed
        assert check(answer, equals=1.5, within=0.5).passed is passed
    assert check(5, low=5).passed and check(-5, high=-5).passed
    assert check(3, equals=3).passed and not check(3 + 1e-6, equals=3).passed


def test_a_partly_tried_answer_is_looked_at():
    assert check((None, 1), equals=1).passed is False
    assert check((), equals=1).passed is False


def test_the_worst_number_is_named():
    verdict = check([1.0, 7.0, -9.0], equals=[1, 2, 3], within=[0.0, 1.0, 2.0])
    assert verdict.text == "Not yet: number 3 of 3, -9, is 12 too low."
    verdict = check([1.0, 70.0, -9.0], equals=[1, 2, 3], within=[0.0, 1.0, 2.0])
    assert verdict.text == "Not yet: number 2 of 3, 70, is 68 too high."
    assert check([1, 2], equals=[1]).passed is False, "each must be as one is"
    assert "1 number given, 2 expected" in check(1, equals=[1, 2]).text
    assert "2 numbers given, 3 expected" in check([1, 2], low=[1, 1, 1]).text


def test_what_was_found_is_shown_in_full_or_by_its_range():
    assert check([1, 2.5, 3, 4, 5, 1e-6], low=0).text == "Right: 1, 2.5, 3, 4, 5, 1e-06."
    assert check([3, 1, 4, 1, 5, 9, 2], low=0).text == "Right: 7 numbers from 1 to 9."
    assert "1, nan is not a number" in check([1, math.nan], low=0).text


def test_an_answer_that_cannot_be_measured_says_why_in_one_line():
    def fail(answer):
        raise ValueError("no weights\nand more")

    assert check(1, fail).text == "Not yet: this is not the kind of answer asked for (no weights)."

    def silent(answer):
        raise KeyError

    assert "(KeyError)" in check(1, silent).text


def test_verdicts_are_told_apart_by_their_borders():
    three = [check(a, equals=1)._repr_html_() for a in (None, 1, 2)]
    borders = {html.split("solid ")[1].split(";")[0] for html in three}
    assert len(borders) == 3 and all("border-left" in html for html in three)
    assert three[1].endswith(">Right: 1.</p>")
