import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import random_split
from torch import nn

from modeconn_lite.data import Dataset, Split
from modeconn_lite.evaluation import Profile, evaluate, profile, profiles, survey, surveys
from modeconn_lite.networks import mlp
from modeconn_lite.paths import FunctionPath, polychain, segment
from modeconn_lite.sheets import Sheet, triangle
from modeconn_lite.weights import apply, fresh_weights, to

NETWORK = mlp((4, 6, 3))
A, B, C = (to(fresh_weights(NETWORK, seed), torch.float64) for seed in range(3))


SPLIT = random_split()


def made_up(loss, accuracy=None, t=None):
    loss = torch.tensor(loss, dtype=torch.float64)
    t = torch.linspace(0, 1, len(loss), dtype=torch.float64) if t is None else torch.tensor(t)
    correct = torch.tensor(accuracy or [50] * len(loss))
    return Profile("made up", "nothing", t.double(), 2 * t.double(), loss, correct, 100)


def test_profile_equals_the_naive_loop():
    path = polychain([A, C, B])
    seen = profile(NETWORK, path, SPLIT, 12)
    assert 0.5 in seen.t.tolist()  # the knot, though 12 even points miss it
    assert len(seen.t) == 13
    for i, t in enumerate(seen.t.tolist()):
        out = apply(NETWORK, path(t), SPLIT.x.double())
        assert float(seen.loss[i]) == pytest.approx(float(F.cross_entropy(out, SPLIT.y)))
        assert int(seen.correct[i]) == int((out.argmax(1) == SPLIT.y).sum())
    assert seen.length == pytest.approx(path.length())
    assert seen.worst_accuracy == float(seen.accuracy.min())


def test_ends_are_reproduced():
    seen = profile(NETWORK, segment(A, B), SPLIT, 5)
    for i, w in ((0, A), (-1, B)):
        loss, accuracy = evaluate(NETWORK, w, SPLIT)
        assert float(seen.loss[i]) == pytest.approx(loss)
        assert float(seen.accuracy[i]) == accuracy


def test_three_baselines():
    seen = made_up([1.0, 2.0, 3.0, 3.0])
    assert seen.barrier("linear") == pytest.approx(3 - (1 / 3 + 2 * 3 / 3))
    assert seen.barrier("mean") == pytest.approx(1.0)
    assert seen.barrier("max") == pytest.approx(0.0)
    with pytest.raises(ValueError, match="baseline must be"):
        seen.barrier("median")


def test_loss_barrier_is_no_error_barrier():
    seen = made_up([0.0, 1.0, 0.0], accuracy=[90, 95, 90])
    assert seen.barrier() == 1.0
    assert seen.barrier(of="error") == 0.0
    with pytest.raises(ValueError, match="of must be"):
        seen.barrier(of="accuracy")


def test_what_lies_beyond_the_ends_is_no_barrier():
    seen = made_up([9.0, 0.0, 1.0, 0.0, 9.0], t=[-0.5, 0.0, 0.5, 1.0, 1.5])
    assert seen.barrier() == 1.0
    assert seen.worst_loss == 1.0
    assert seen.length == pytest.approx(2.0)
    assert seen.mean_loss == pytest.approx(0.5)


def test_mean_loss_weighs_by_length_not_by_time():
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    travelled = torch.tensor([0.0, 9.0, 10.0], dtype=torch.float64)
    loss = torch.tensor([1.0, 1.0, 3.0], dtype=torch.float64)
    seen = Profile("p", "s", t, travelled, loss, torch.zeros(3), 1)
    assert seen.mean_loss == pytest.approx((9 * 1 + 1 * 2) / 10)


def test_refine_finds_a_peak_between_the_points():
    """Loss along a made-up path: a narrow spike of known height at t = 0.4."""
    network = nn.Linear(1, 2, bias=False)
    split = Split(torch.ones(1, 1), torch.tensor([0]), "one", ("0", "1"))

    def spike(t):
        height = max(0.0, 1 - abs(t - 0.4) / 0.12)
        return {"weight": torch.tensor([[0.0], [5 * height]], dtype=torch.float64)}

    path = FunctionPath(spike)
    coarse = profile(network, path, split, 5)
    fine = profile(network, path, split, 5, refine=6)
    true = float(torch.log1p(torch.tensor(5.0).exp()))
    assert coarse.worst_loss < 0.6 * true
    assert fine.worst_loss == pytest.approx(true, rel=0.03)
    assert (fine.t.diff() > 0).all()


@pytest.mark.parametrize(("end", "new"), [(0.0, 0.125), (1.0, 0.875)])
def test_refine_at_an_end_looks_on_its_one_side(end, new):
    """The loss is highest at an end: one new time a round, half-way to the only neighbour."""
    network = nn.Linear(1, 2, bias=False)
    split = Split(torch.ones(1, 1), torch.tensor([0]), "one", ("0", "1"))
    hill = FunctionPath(lambda t: {"weight": torch.tensor([[0.0], [1 - abs(t - end)]])})
    coarse = [0.0, 0.25, 0.75, 1.0]
    assert profile(network, hill, split, coarse, refine=1).t.tolist() == sorted([*coarse, new])
    closer = abs(new - end) / 2
    times = profile(network, hill, split, coarse, refine=2).t.tolist()
    assert times == sorted([*coarse, new, abs(end - closer)])


def test_refine_looks_on_both_sides_of_a_peak_and_nowhere_else():
    network = nn.Linear(1, 2, bias=False)
    split = Split(torch.ones(1, 1), torch.tensor([0]), "one", ("0", "1"))
    hill = FunctionPath(lambda t: {"weight": torch.tensor([[0.0], [1 - abs(t - 0.5)]])})
    seen = profile(network, hill, split, 5, refine=1)
    assert seen.t.tolist() == [0, 0.25, 0.375, 0.5, 0.625, 0.75, 1]
    assert seen.correct.tolist() == [0] * 7
    assert seen.loss.argmax() == 3
    assert (seen.loss.diff()[:3] > 0).all()  # each loss stands at its own time
    assert (seen.loss.diff()[3:] < 0).all()
    assert (seen.travelled.diff() > 0).all()
    assert seen.length == pytest.approx(1.0)


def test_a_path_that_stays_where_it_is_has_the_loss_of_its_place():
    """Its length is zero: no mean over length."""
    seen = profile(NETWORK, segment(A, A), SPLIT, 3)
    assert seen.length == 0
    assert seen.mean_loss == pytest.approx(evaluate(NETWORK, A, SPLIT).loss)
    assert seen.barrier() == 0


def test_what_is_looked_at_by_default():
    path, sheet = segment(A, B), triangle(A, B, C)
    times = torch.linspace(0, 1, 61, dtype=torch.float64)
    assert torch.equal(profile(NETWORK, path, SPLIT).t, times)
    assert torch.equal(profiles(NETWORK, path, [SPLIT])[0].t, times)
    assert len(profile(NETWORK, polychain([A, C, B]), SPLIT).t) == 61
    assert survey(NETWORK, sheet, SPLIT).loss.shape == (31, 31)
    assert surveys(NETWORK, sheet, [SPLIT])[0].loss.shape == (31, 31)


def test_a_survey_of_two_points_a_side_is_of_the_corners():
    seen = survey(NETWORK, triangle(A, B, C), SPLIT, 2)
    assert seen.u.tolist() == seen.v.tolist() == [0, 1]
    for (v, u), w in {(0, 0): A, (0, 1): B, (1, 0): C}.items():
        score = evaluate(NETWORK, w, SPLIT)
        assert float(seen.loss[v, u]) == pytest.approx(score.loss)
        assert float(seen.accuracy[v, u]) == score.accuracy
    assert bool(seen.loss[1, 1].isnan()) and bool(seen.accuracy[1, 1].isnan())


def test_a_survey_covers_its_extent():
    wide = Sheet((A, B), lambda p: p, "wide", (-1.0, 2.0, 3.0, 5.0))
    seen = survey(NETWORK, wide, SPLIT, 3)
    assert seen.u.tolist() == [-1, 0.5, 2]
    assert seen.v.tolist() == [3, 4, 5]
    assert float(seen.loss[2, 0]) == pytest.approx(evaluate(NETWORK, wide(-1, 5), SPLIT).loss)


def test_refine_looks_between_the_ends():
    far = torch.tensor([-30.0, 0.0, 0.4, 1.0, 30.0])  # where the loss is highest by far
    coarse = profile(NETWORK, segment(A, B), SPLIT, far)
    assert int(coarse.loss.argmax()) in (0, 4)
    seen = profile(NETWORK, segment(A, B), SPLIT, far, refine=2)
    new = [t for t in seen.t.tolist() if t not in coarse.t.tolist()]
    assert any(0 < t < 1 for t in new)


def test_a_plain_function_is_a_path():
    seen = profile(NETWORK, lambda t: segment(A, B)(t), SPLIT, 5)
    assert torch.allclose(seen.loss, profile(NETWORK, segment(A, B), SPLIT, 5).loss)


def test_survey_of_a_triangle():
    seen = survey(NETWORK, triangle(A, B, C), SPLIT, 5)
    assert seen.loss.shape == (5, 5)
    assert int(torch.isnan(seen.loss).sum()) == 10  # the other half of the square
    for (v, u), w in {(0, 0): A, (0, 4): B, (4, 0): C}.items():
        assert float(seen.loss[v, u]) == pytest.approx(evaluate(NETWORK, w, SPLIT).loss)


def test_reprs_are_short_and_stable():
    assert repr(made_up([0.0, 1.0, 0.0])) == (
        "Profile(made up on nothing, 3 points, worst accuracy 0.50, barrier 1.00 nats)"
    )
    assert repr(survey(NETWORK, triangle(A, B, C), SPLIT, 3)).startswith("Survey(triangle on ran")


class TestBadInput:
    def test_more_classes_than_outputs(self):
        network = mlp((4, 6, 2))
        path = segment(*(fresh_weights(network, s) for s in range(2)))
        with pytest.raises(ValueError, match="'random' has 3 classes, the network 2 outputs"):
            profile(network, path, SPLIT, 3)

    def test_points(self):
        with pytest.raises(ValueError, match="finite times"):
            profile(NETWORK, segment(A, B), SPLIT, [0, float("nan"), 1])
        for points in (0, 1, 31.0, True, None, [0.0, 1.0]):
            with pytest.raises(
                ValueError, match="points must be a whole number of at least 2, not"
            ):
                survey(NETWORK, triangle(A, B, C), SPLIT, points)
        for points in (61.0, True, 1, "61", None):
            with pytest.raises(ValueError, match=r"points must be a (whole )?number"):
                profile(NETWORK, segment(A, B), SPLIT, points)
        for points in ([], (), torch.tensor([]), np.array([])):
            with pytest.raises(ValueError, match="points is empty; give times, or say how many"):
                profile(NETWORK, segment(A, B), SPLIT, points)
        assert len(profile(NETWORK, segment(A, B), SPLIT, np.int64(5)).t) == 5

    def test_weights_of_another_network(self):
        with pytest.raises(ValueError, match="do not fit Sequential"):
            profile(mlp((4, 6, 6, 3)), segment(A, B), SPLIT)

    def test_t_outside_the_domain(self):
        with pytest.raises(ValueError, match=r"no point at t = 1\.5"):
            profile(NETWORK, polychain([A, B]), SPLIT, [0, 1.5])

    def test_a_loss_that_is_not_finite(self):
        huge = {k: v * 1e300 for k, v in A.items()}
        with pytest.raises(ValueError, match="the weights there overflow"):
            profile(NETWORK, segment(huge, B), SPLIT, 3)

    def test_a_function_that_gives_the_wrong_weights(self):
        """The message says at which t."""
        other = {f"other.{key}": value for key, value in A.items()}
        wide = fresh_weights(mlp((4, 7, 3)), 0)
        for wrong, message in (
            ({"1.weight": A["1.weight"]}, "'odd' at t = 0.5 do not fit Sequential: missing"),
            (other, r"'odd' at t = 0.5 do not fit Sequential: missing \['1.weight'"),
            (wide, r"'odd' at t = 0.5\['1.weight'\] has shape \(7, 4\) where Sequential has"),
            (A | {"1.weight": None}, r"'odd' at t = 0.5\['1.weight'\] is NoneType"),
            (None, "'odd' gives None at t = 0.5"),
            (
                {key: value * np.nan for key, value in A.items()},
                r"'odd' at t = 0.5\['1.weight'\] holds 24 values that are not finite",
            ),
        ):
            odd = FunctionPath(lambda t, wrong=wrong: wrong if t == 0.5 else A, "odd")
            with pytest.raises(ValueError, match=message):
                profile(NETWORK, odd, SPLIT, 3)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"network": None}, "network must be an nn.Module, not None"),
            ({"network": A}, "network must be an nn.Module, not a dict"),
            ({"network": nn.Linear}, "network must be an nn.Module, not the class Linear"),
            ({"path": None}, "a path is a Path or a function of t that gives Weights, not None"),
            ({"path": A}, "not a dict; of weights alone, see evaluate"),
            ({"path": "linear"}, "not 'linear'"),
            ({"path": torch.zeros(3)}, "not a tensor of torch.float32"),
            ({"path": NETWORK}, "a path is a Path or a function of t .*, not a Sequential"),
            ({"path": [A, B]}, "a path is a Path or a function of t .*, not a list of 2"),
            ({"path": triangle(A, B, C)}, "a path is a function of t alone; a Sheet cannot"),
            ({"split": None}, r"split must be a Split\("),
            ({"split": SPLIT.x}, r"split must be a Split\(.*not a tensor"),
            ({"split": "digits"}, r"split must be a Split\(.*not 'digits'"),
            ({"split": [SPLIT]}, r"split must be a Split\(.*not a list of 1"),
            ({"split": Dataset("both", SPLIT, SPLIT, None)}, "of a Dataset, give .train or .test"),
            ({"statistics": SPLIT.x}, r"statistics must be a Split\(.*not a tensor"),
            ({"statistics": random_split(shape=(5,))}, r"inputs of 'random' have shape \(5,\)"),
            ({"refine": -1}, "refine must be a whole number of at least 0, not -1"),
            ({"refine": 0.5}, "refine must be a whole number of at least 0, not 0.5"),
            ({"refine": True}, "refine must be a whole number of at least 0, not True"),
            ({"refine": None}, "refine must be a whole number of at least 0, not None"),
        ],
    )
    def test_what_is_of_another_kind_is_named(self, change, message):
        sound = {"network": NETWORK, "path": segment(A, B), "split": SPLIT, "points": 3}
        with pytest.raises(ValueError, match=message):
            profile(**sound | change)
        if change.keys() & {"network", "split", "statistics"}:
            for function, name in ((survey, "sheet"), (evaluate, "weights")):
                start = {"network": NETWORK, "split": SPLIT, name: A}
                start |= {"sheet": triangle(A, B, C), "points": 3} if name == "sheet" else {}
                with pytest.raises(ValueError, match=message):
                    function(**start | change)

    def test_splits_in_one_call_are_alike(self):
        for splits, message in (
            ([], "splits: 0 Splits given, at least 1 needed"),
            (SPLIT, "splits must be a list of Splits, not a Split"),
            (None, "splits must be a list of Splits, not None"),
            ([SPLIT, None], r"splits\[1\] must be a Split\("),
            ([SPLIT, random_split(classes=2)], "'random' has 2 classes, 'random' has 3"),
            ([SPLIT, random_split(shape=(5,))], r"inputs of 'random' have shape \(5,\), those of"),
        ):
            with pytest.raises(ValueError, match=message):
                profiles(NETWORK, segment(A, B), splits, 3)
            with pytest.raises(ValueError, match=message):
                surveys(NETWORK, triangle(A, B, C), splits, 3)

    @pytest.mark.parametrize(
        ("sheet", "kind"), [(segment(A, B), "a Path"), (None, "None"), (A, "a dict"), ([A], "a li")]
    )
    def test_what_is_no_sheet(self, sheet, kind):
        with pytest.raises(ValueError, match=f"a Sheet is needed, not {kind}"):
            survey(NETWORK, sheet, SPLIT, 3)

    def test_a_sheet_that_is_not_in_its_window(self):
        nowhere = Sheet(
            (A, B), lambda p: p, "nowhere", inside=lambda p: torch.zeros(len(p), dtype=torch.bool)
        )
        with pytest.raises(ValueError, match="no point of the grid lies on 'nowhere'"):
            survey(NETWORK, nowhere, SPLIT, 3)

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (None, "anchor 0 of 'weights' must be a non-empty dict of tensors"),
            (NETWORK, "anchor 0 of 'weights' must be a non-empty dict of tensors"),
            (segment(A, B), "anchor 0 of 'weights' must be a non-empty dict of tensors"),
            ({}, "anchor 0 of 'weights' must be a non-empty dict of tensors"),
            (
                {key: value * np.nan for key, value in A.items()},
                r"anchor 0 of 'weights'\['1.weight'\] holds 24 values that are not finite",
            ),
        ],
    )
    def test_no_weights_to_evaluate(self, weights, message):
        with pytest.raises(ValueError, match=message):
            evaluate(NETWORK, weights, SPLIT)

    @pytest.mark.parametrize("wrong", [None, 1, "Linear", ["linear"], True])
    def test_no_such_barrier(self, wrong):
        with pytest.raises(ValueError, match="baseline must be one of"):
            made_up([1.0, 2.0]).barrier(wrong)
        with pytest.raises(ValueError, match="of must be one of"):
            made_up([1.0, 2.0]).barrier(of=wrong)

    def test_outputs_that_are_no_row_of_numbers(self):
        network = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)))
        path = segment(*(fresh_weights(network, s) for s in range(2)))
        with pytest.raises(ValueError, match=r"outputs of shape \(2, 3\) for each input"):
            profile(network, path, SPLIT, 3)


def test_profiles_of_several_splits_are_those_of_each():
    splits = [random_split(n, seed=n) for n in (30, 1, 700)]
    line = segment(A, B)
    for path in (line, FunctionPath(line)):
        for seen, split in zip(profiles(NETWORK, path, splits, 5), splits, strict=True):
            alone = profile(NETWORK, path, split, 5)
            assert torch.equal(seen.correct, alone.correct)
            assert torch.allclose(seen.loss, alone.loss, rtol=1e-12)
            assert torch.equal(seen.travelled, alone.travelled)
            assert (seen.split, seen.count) == (split.name, len(split))
