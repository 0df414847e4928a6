"""What chapter 3 says is exact, checked in exact numbers."""

from __future__ import annotations

from fractions import Fraction as Q
from itertools import pairwise, permutations
from math import comb

import pytest

from modeconn_lite import data, zoo
from modeconn_lite.methods import dropout
from modeconn_lite.weights import inner, mix

Neuron = tuple[Q, Q, Q]  # a, w, b of a · relu(w x + b)
SAMPLES = {-2: 3, -1: 1, 0: 0, 1: 1, 2: 3}

A = ((1, 2, -1), (1, -2, -1), (0, 0, 0))
B = ((1, 2, 1), (1, -2, 1), (-1, 0, 2))
# The way round with an output bias: three neurons and c, joined by straight pieces.
KNOTS = (
    (A, 0),
    (((1, 2, -1), (1, -2, -1), (0, -1, -1)), 0),
    (((1, 2, -1), (1, -1, 0), (1, -1, -1)), 0),
    (((1, 2, 0), (1, -1, 1), (1, -1, -1)), -1),
    (((1, 2, 1), (1, -2, 1), (0, -1, -1)), -2),
    (((1, 2, 1), (1, -2, 1), (0, 0, 2)), -2),
    (B, 0),
)


def output(neurons, c, x) -> Q:
    return sum((a * max(w * x + b, Q(0)) for a, w, b in neurons), Q(c))


def mixed(one, two, t: Q):
    """A point of the straight piece between two knots."""
    (rows, c), (others, d) = one, two
    neurons = [
        [(1 - t) * u + t * v for u, v in zip(row, other, strict=True)]
        for row, other in zip(rows, others, strict=True)
    ]
    return neurons, (1 - t) * c + t * d


def fits(neurons, c) -> bool:
    return all(output(neurons, c, Q(x)) == y for x, y in SAMPLES.items())


# --- Five samples, three neurons ------------------------------------------------------------------


def test_both_are_the_same_function():
    xs = [Q(k, 8) for k in range(-40, 41)]
    assert fits(A, 0) and fits(B, 0)
    assert all(output(A, 0, x) == output(B, 0, x) for x in xs)


@pytest.mark.parametrize("r", [Q(k, 24) for k in range(13)])
def test_the_formula_meets_all_five_samples(r):
    def formula(x: Q) -> Q:
        second = (1 + 2 * r) * max(1 / (1 + 2 * r) - x, Q(0))
        third = (1 - 2 * r) * max(-1 - x, Q(0))
        return 2 * max(x + r, Q(0)) + second + third - 1 - 2 * r

    for x, y in SAMPLES.items():
        assert formula(Q(x)) == y
    neurons, c = mixed(KNOTS[3], KNOTS[4], 2 * r)  # the piece of the path that is this formula
    for k in range(-20, 21):
        assert output(neurons, c, Q(k, 8)) == formula(Q(k, 8))


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_way_round_is_exact(mirrored):
    knots = KNOTS
    if mirrored:
        knots = [([(a, -w, b) for a, w, b in rows], c) for rows, c in KNOTS]
    assert len(knots) == 7
    for piece in pairwise(knots):
        # Linear on every sample: no hinge that counts changes its side, and no product of weights
        # has two factors that move.
        for one, two in zip(*(rows for rows, _ in piece), strict=True):
            assert one[0] == two[0] or one[1:] == two[1:]
            if one[0] or two[0]:
                for x in SAMPLES:
                    assert (one[1] * x + one[2]) * (two[1] * x + two[2]) >= 0
        for t in (Q(0), Q(1, 7), Q(1, 2), Q(6, 7), Q(1)):
            assert fits(*mixed(*piece, t))


def test_the_mirror_image_leads_from_a_to_b_with_two_neurons_exchanged():
    for network in (A, B):
        first, second, third = ((a, -w, b) for a, w, b in network)
        assert (second, first, third) == network


def test_without_an_output_bias_the_proof_needs_a_negative_neuron():
    """At x = 0 inward hinges are positive, so something must be taken away: a₃ < 0 or c < 0."""
    (first, second, _), _ = KNOTS[4]
    assert output((first, second), 0, Q(0)) == 2


# --- The zigzag -----------------------------------------------------------------------------------


@pytest.mark.parametrize("h", range(2, 9))
def test_zigzag(h):
    x = range(h + 2)
    y = [0 if k == 0 else (k + 1) % 2 for k in x]
    assert y[:5] == [0, 0, 1, 0, 1][: h + 2]
    second = [y[k - 1] - 2 * y[k] + y[k + 1] for k in range(1, h + 1)]
    assert all(s * (-1) ** k > 0 for k, s in enumerate(second))  # they alternate
    fit = [(Q(s), Q(1), Q(-k)) for k, s in enumerate(second, start=1)]  # h neurons suffice
    assert [output(fit, 0, Q(k)) for k in x] == y
    assert sum(s > 0 for s in second) == (h + 1) // 2
    # Tents of one sign stand two apart and are two wide: no kink is under two of them.
    same = [k for k, s in enumerate(second, start=1) if s > 0]
    assert all(b - a == 2 for a, b in pairwise(same))


def test_a_constant_or_a_line_has_no_second_differences():
    for c, d in ((3, 0), (3, -2)):
        values = [c + d * k for k in range(5)]
        assert all(values[k - 1] - 2 * values[k] + values[k + 1] == 0 for k in range(1, 4))


def test_no_order_of_a_is_on_the_island_of_b():
    assert all(any(a == 0 for a, _, _ in order) for order in permutations(A))


# --- The path -------------------------------------------------------------------------------------


def test_the_path_turns_at_right_angles():
    a, b = zoo.load("digits-dropout")[:2]
    path = dropout.connect(zoo.network("digits"), a, b, data.load("digits").train)
    pieces = [mix((1.0, -1.0), (end, start)) for start, end in pairwise(path.corners())]
    assert len(pieces) == 23
    for one, two in pairwise(pieces):
        assert inner(one, two) == 0


def test_halves_in_a_layer():
    assert 1e18 < comb(64, 32) < 2e18


# --- The instructors' page ------------------------------------------------------------------------


def test_answers_to_the_exam_questions():
    assert Q(1, 2) ** 3 * 2 == Q(1, 4) and Q(3, 4) ** 3 + Q(1, 4) ** 3 == Q(7, 16)
    above = [loss - 0.1 - 0.8 * t for t, loss in ((0.5, 0.8), (0.75, 1.2))]
    assert above == pytest.approx([0.3, 0.5])

    likeness = ((6, 5, 1), (5, 1, 2), (2, 3, 4))
    totals = {
        order: sum(likeness[i][j] for i, j in enumerate(order)) for order in permutations(range(3))
    }
    assert max(totals, key=totals.__getitem__) == (1, 0, 2) and totals[1, 0, 2] == 14
    assert totals[0, 1, 2] == 11 and sorted(totals.values())[-2] < 14
    stretch = 1.5 / (0.25 * 5 + 0.5 * 0.6 * 2) ** 0.5
    assert stretch == pytest.approx(1.10, abs=5e-3)

    fit = ((1, 1, -1), (-2, 1, -2))
    assert [output(fit, 0, Q(x)) for x in range(4)] == [0, 0, 1, 0]
