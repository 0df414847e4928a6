"""One pass: every point of a path is evaluated once, whatever is asked about it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modeconn_lite.data import Split
from modeconn_lite.evaluation import profile, profiles, survey, surveys
from modeconn_lite.look import look
from modeconn_lite.networks import mlp
from modeconn_lite.paths import FunctionPath, as_path, bezier, polychain, segment
from modeconn_lite.sheets import triangle
from modeconn_lite.times import grid
from modeconn_lite.weights import apply, fresh_weights, to, to_vector

NETWORK = mlp((4, 6, 3))
A, B, C = (to(fresh_weights(NETWORK, seed), torch.float64) for seed in range(3))


def random_split(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 4, generator=g), torch.randint(3, (n,), generator=g)
    return Split(x, y, f"random {n}", ("0", "1", "2"))


SPLITS = [random_split(n, seed=n) for n in (30, 1, 700)]  # the last one takes several batches
MIXES = {"segment": segment(A, B), "polychain": polychain([A, C, B]), "Bézier": bezier([A, C, B])}


class Counted:
    """A plain function of t that walks along a path and remembers when it was asked."""

    def __init__(self, path):
        self.path, self.asked = path, []

    def __call__(self, t):
        self.asked.append(t)
        return self.path(t)


def agree(mine, theirs):
    """The same profile, up to rounding in the last digits of losses and lengths."""
    assert torch.equal(mine.t, theirs.t)
    assert torch.equal(mine.correct, theirs.correct)
    assert torch.allclose(mine.loss, theirs.loss, rtol=1e-9)
    assert torch.allclose(mine.travelled, theirs.travelled, rtol=1e-6, atol=1e-9)
    assert (mine.split, mine.count) == (theirs.split, theirs.count)


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
@pytest.mark.parametrize("refine", [0, 1, 4])
@pytest.mark.parametrize("splits", [1, 3])
def test_a_plain_function_is_called_once_at_each_point(mix, refine, splits):
    """Also with `refine`: each time at the new points only. What is seen is what the mix shows."""
    there = grid(21, mix.knots)  # a plain function has no knots: those of the mix are given
    curve = Counted(mix)
    found = profiles(NETWORK, curve, SPLITS[:splits], there, refine=refine)
    assert sorted(curve.asked) == found[0].t.tolist()  # each of them, and none of them twice
    assert len(there) + refine <= len(curve.asked) <= len(there) + 2 * refine
    assert curve.asked[: len(there)] == there.tolist()
    for mine, theirs in zip(
        found, profiles(NETWORK, mix, SPLITS[:splits], there, refine=refine), strict=True
    ):
        agree(mine, theirs)
    curve = Counted(mix)
    agree(profile(NETWORK, curve, SPLITS[0], there, refine=refine), found[0])
    assert sorted(curve.asked) == found[0].t.tolist()


def test_batch_norm_does_not_ask_twice():
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    line = segment(*(fresh_weights(network, seed) for seed in range(2)))
    curve = Counted(line)
    found = profiles(network, curve, SPLITS[::2], 11, refine=2, statistics=SPLITS[2])
    assert sorted(curve.asked) == found[0].t.tolist()
    for mine, theirs in zip(
        found,
        profiles(network, line, SPLITS[::2], 11, refine=2, statistics=SPLITS[2]),
        strict=True,
    ):
        agree(mine, theirs)


@pytest.mark.parametrize("plain", [False, True])
def test_everything_that_is_asked_comes_from_one_pass(plain):
    """Losses, counts, outputs, length and notes, against a loop over the points."""
    mix = MIXES["polychain"]
    path, t = as_path(curve := Counted(mix)) if plain else mix, grid(9, mix.knots)
    faces = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    seen = look(NETWORK, path, t, SPLITS, asked=faces, note=lambda w: to_vector(w).clone())
    assert not plain or curve.asked == t.tolist()
    assert seen.loss.shape == seen.correct.shape == (3, 9)
    assert seen.said.shape == (9, 5, 3)
    assert len(seen.noted) == 9
    for i, time in enumerate(t.tolist()):
        w = mix(time)
        assert torch.equal(seen.noted[i], to_vector(w))
        assert torch.allclose(seen.said[i].double(), apply(NETWORK, w, faces.double()), atol=1e-6)
        for k, split in enumerate(SPLITS):
            out = apply(NETWORK, w, split.x.double())
            assert float(seen.loss[k, i]) == pytest.approx(float(F.cross_entropy(out, split.y)))
            assert int(seen.correct[k, i]) == int((out.argmax(1) == split.y).sum())
    assert torch.allclose(seen.travelled, mix.travelled(t), rtol=1e-6, atol=1e-9)


def test_what_is_not_asked_for_is_empty():
    seen = look(NETWORK, segment(A, B), grid(3), SPLITS[:1])
    assert seen.said.numel() == 0
    assert seen.noted == []


def test_a_sheet_is_seen_point_by_point_and_has_no_length():
    places = torch.tensor([[0.0, 0.0], [0.25, 0.5], [0.0, 1.0]], dtype=torch.float64)
    sheet, noted = triangle(A, B, C), []
    seen = look(NETWORK, sheet, places, SPLITS[:1], note=noted.append)
    assert seen.travelled.tolist() == [0, 0, 0]
    for w, place in zip(noted, places.tolist(), strict=True):
        assert all(torch.equal(w[key], value) for key, value in sheet(*place).items())
    both = surveys(NETWORK, sheet, SPLITS[:2], 5)
    for mine, split in zip(both, SPLITS[:2], strict=True):
        theirs = survey(NETWORK, sheet, split, 5)
        assert torch.allclose(mine.loss, theirs.loss, rtol=1e-12, equal_nan=True)
        assert torch.allclose(mine.accuracy, theirs.accuracy, rtol=0, equal_nan=True)


def test_gradients_are_off_and_come_back():
    weights = {key: value.clone().requires_grad_() for key, value in A.items()}
    noted = []
    line = FunctionPath(lambda t: weights)
    look(NETWORK, line, grid(2), SPLITS[:1], note=lambda w: noted.append(torch.is_grad_enabled()))
    assert noted == [False, False]
    assert torch.is_grad_enabled()


def test_the_message_names_the_split_and_the_time():
    huge = {key: value * 1e300 for key, value in A.items()}
    with pytest.raises(ValueError, match=r"'linear' on random 1: the loss is not finite at t = 0"):
        look(NETWORK, segment(huge, B), grid(3), [SPLITS[1]])
    four = Split(SPLITS[0].x, SPLITS[0].y, "four kinds", ("0", "1", "2", "3"))
    with pytest.raises(ValueError, match="'four kinds' has 4 classes, the network 3 outputs"):
        look(NETWORK, segment(A, B), grid(3), [four])


@pytest.mark.parametrize("path", [segment(A, B), FunctionPath(segment(A, B))])
def test_a_single_point_has_no_length(path):
    """What a live slider asks for at each step."""
    seen = look(NETWORK, path, torch.tensor([0.3], dtype=torch.float64), SPLITS[:1], asked=A_FEW)
    assert seen.travelled.tolist() == [0]
    assert seen.said.shape == (1, 2, 3)
    assert torch.allclose(seen.loss[0], profile(NETWORK, path, SPLITS[0], [0.3]).loss[1])


A_FEW = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "mlp"}, "network must be an nn.Module, not 'mlp'"),
        ({"path": lambda t: A}, "a path or a Sheet is needed, not a function"),
        ({"path": A}, "a path or a Sheet is needed, not a dict"),
        ({"splits": SPLITS[0]}, "splits must be a list of Splits, not a Split"),
        ({"splits": []}, "splits: 0 Splits given, at least 1 needed"),
        ({"statistics": A_FEW}, r"statistics must be a Split\("),
    ],
)
def test_the_door(change, message):
    sound = {"network": NETWORK, "path": segment(A, B), "t": grid(3), "splits": SPLITS[:1]}
    with pytest.raises(ValueError, match=message):
        look(**sound | change)


def test_weights_that_change_their_form_on_the_way_are_named_with_their_t():
    """Also where nothing is asked for but the way: the network would have taken the first."""
    noted = []
    path = FunctionPath(lambda t: A if t < 1 else {"w": torch.zeros(2)}, "odd")
    with pytest.raises(ValueError, match="'odd' at t = 1 do not fit Sequential: missing"):
        look(NETWORK, path, grid(3), SPLITS[:1], note=noted.append)
    assert len(noted) == 2
