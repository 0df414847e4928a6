import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn
from torchvision.models import resnet18

from modeconn_lite.data import Split
from modeconn_lite.evaluation import Profile, evaluate, profile, profiles, survey
from modeconn_lite.networks import mlp
from modeconn_lite.paths import FunctionPath, polychain, segment
from modeconn_lite.sheets import triangle
from modeconn_lite.weights import apply, fresh_weights, to, weights_of

NETWORK = mlp((4, 6, 3))
A, B, C = (to(fresh_weights(NETWORK, seed), torch.float64) for seed in range(3))


def random_split(n=30, shape=(4,), classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=g)
    y = torch.randint(classes, (n,), generator=g)
    return Split(x, y, "random", tuple(str(c) for c in range(classes)))


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


class TestBatchNorm:
    def test_resnet18_of_torchvision(self):
        """BatchNorm, skips, in-place ReLUs: ends equal a network whose statistics are fresh."""
        torch.manual_seed(0)
        network = resnet18(num_classes=5)
        other = resnet18(num_classes=5)
        split = random_split(24, (3, 32, 32), classes=5)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        a, b = weights_of(network), weights_of(other)
        seen = profile(network, segment(a, b), split, 3)
        for end, i in ((network, 0), (other, 2)):
            state = {k: v.clone() for k, v in end.state_dict().items()}
            reference = resnet18(num_classes=5)
            reference.load_state_dict(state)
            update_bn([split.x], reference)
            reference.eval()
            with torch.no_grad():
                loss = F.cross_entropy(reference(split.x), split.y)
            assert float(seen.loss[i]) == pytest.approx(float(loss), rel=1e-5)
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
        assert network.training

    def test_statistics_are_those_of_all_images_whatever_the_batches(self, monkeypatch):
        from modeconn_lite import forward

        network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        path = segment(*(fresh_weights(network, s) for s in range(2)))
        whole = profile(network, path, SPLIT, 3).loss
        monkeypatch.setattr(forward, "BATCH", 15)
        halves = profile(network, path, SPLIT, 3).loss
        # Means agree exactly; variances within batches differ from the whole by their means'.
        assert torch.allclose(whole, halves, rtol=0.1)
        elsewhere = profile(network, path, SPLIT, 3, statistics=random_split(60, seed=1)).loss
        assert not torch.allclose(whole, elsewhere, rtol=1e-3)

    def test_one_image_too_many_for_a_batch(self, monkeypatch):
        from modeconn_lite import forward

        monkeypatch.setattr(forward, "BATCH", 29)
        network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
        path = segment(*(fresh_weights(network, s) for s in range(2)))
        assert profile(network, path, SPLIT, 3).loss.isfinite().all()

    def test_a_layer_without_running_statistics_is_refused(self):
        network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False))
        path = segment(*(fresh_weights(network, s) for s in range(2)))
        with pytest.raises(ValueError, match="layer '1' keeps no running statistics"):
            profile(network, path, SPLIT, 3)


class TestBadInput:
    def test_more_classes_than_outputs(self):
        network = mlp((4, 6, 2))
        path = segment(*(fresh_weights(network, s) for s in range(2)))
        with pytest.raises(ValueError, match="'random' has 3 classes, the network 2 outputs"):
            profile(network, path, SPLIT, 3)

    def test_points(self):
        with pytest.raises(ValueError, match="finite times"):
            profile(NETWORK, segment(A, B), SPLIT, [0, float("nan"), 1])
        with pytest.raises(ValueError, match="at least 2 points a side"):
            survey(NETWORK, triangle(A, B, C), SPLIT, 0)
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
        with pytest.raises(ValueError, match="missing"):
            profile(NETWORK, lambda t: {"1.weight": A["1.weight"]}, SPLIT, 3)


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
