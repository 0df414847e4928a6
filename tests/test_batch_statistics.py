"""BatchNorm: statistics that belong to the weights, whatever the order and the parts of images."""

import copy

import pytest
import torch
import torch.nn.functional as F
from small_networks import random_split
from torch import nn
from torch.optim.swa_utils import update_bn
from torchvision.models import resnet18

from modeconn_lite import batch_statistics
from modeconn_lite.data import Split
from modeconn_lite.evaluation import evaluate, profile
from modeconn_lite.paths import segment
from modeconn_lite.weights import fresh_weights, weights_of

SPLIT = random_split()


SHAPES = {"mlp": (2000, (20,)), "cnn": (1200, (1, 8, 8))}
NORMED = {
    "mlp": lambda: nn.Sequential(
        *(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU()),
        *(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)),
    ),
    "cnn": lambda: nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(256, 10)),
    ),
}


def sorted_split(n, shape):
    """Ten classes, one after another, each around a centre of its own."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) * 10 // n
    centres = torch.randn(10, *shape, generator=g)
    return Split(centres[y] + torch.randn(n, *shape, generator=g), y, "sorted", tuple("0123456789"))


def full_batch(network, weights, split):
    """The loss of a copy that has seen all the images at once in training mode."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for key, p in network.named_parameters():
            p.copy_(weights[key])
        update_bn([split.x], network)
        return float(F.cross_entropy(network.eval()(split.x), split.y))


def in_parts(monkeypatch, batch):
    """As if memory held no more images than these at once."""
    monkeypatch.setattr(batch_statistics, "BATCH", batch)
    monkeypatch.setattr(batch_statistics, "STATISTICS_FLOATS", (1, 1))


def test_resnet18_of_torchvision():
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


def test_statistics_are_those_of_all_images_whatever_the_parts(monkeypatch):
    """For a single BatchNorm to the digit: the variance between parts counts."""
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    path = segment(*(fresh_weights(network, s) for s in range(2)))
    whole = profile(network, path, SPLIT, 3).loss
    for batch in (29, 15, 4):
        in_parts(monkeypatch, batch)
        assert torch.allclose(profile(network, path, SPLIT, 3).loss, whole, rtol=1e-5)
    elsewhere = profile(network, path, SPLIT, 3, statistics=random_split(60, seed=1)).loss
    assert not torch.allclose(whole, elsewhere, rtol=1e-3)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_rows_sorted_by_class(kind, monkeypatch):
    """As one full batch in whatever order: in one pass to rounding, in parts within 1e-3."""
    network, split = NORMED[kind](), sorted_split(*SHAPES[kind])
    path = segment(*(fresh_weights(network, s) for s in range(2)))
    seen = profile(network, path, split, 3).loss
    wanted = torch.tensor([full_batch(network, path(t), split) for t in (0.0, 0.5, 1.0)])
    assert torch.allclose(seen, wanted.double(), rtol=1e-5)
    in_parts(monkeypatch, 500)
    parts = profile(network, path, split, 3).loss
    assert (parts - seen).abs().max() < 1e-3
    assert not torch.equal(parts, seen)
    again = profile(network, path, split, 3).loss
    assert torch.equal(parts, again)  # the order is drawn, but always the same
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(1))
    shuffled = profile(network, path, split.take(order), 3).loss
    assert (parts - shuffled).abs().max() < 1e-3


def test_rows_sorted_by_class_in_resnet18():
    torch.manual_seed(0)
    network, split = resnet18(num_classes=10), sorted_split(96, (3, 32, 32))
    w = weights_of(network)
    assert evaluate(network, w, split).loss == pytest.approx(
        full_batch(network, w, split), rel=1e-5
    )


def test_as_many_at_once_as_memory_allows(monkeypatch):
    network, sizes = NORMED["mlp"](), []
    network[0].register_forward_hook(lambda m, given, out: sizes.append(len(out)))
    split = sorted_split(1200, (20,))
    w = fresh_weights(network, 0)
    evaluate(network, w, split)
    assert sizes.count(1200) == 1  # all of them, once
    sizes.clear()
    monkeypatch.setattr(batch_statistics, "STATISTICS_FLOATS", (64 * 600, 64 * 600))  # 64 a layer
    evaluate(network, w, split)
    assert sizes.count(600) == 2


@pytest.mark.parametrize("options", [{"momentum": None}, {"affine": False}, {"eps": 0.1}])
def test_settings_of_the_layer(options):
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, **options), nn.Linear(6, 3))
    w = fresh_weights(network, 0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    loss = evaluate(network, w, SPLIT).loss
    assert loss == pytest.approx(full_batch(network, w, SPLIT), rel=1e-5)
    assert network[1].momentum == options.get("momentum", 0.1)
    assert int(network[1].num_batches_tracked) == 0
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_statistics_that_were_spoiled_before_do_not_matter():
    network = NORMED["mlp"]()
    split, w = sorted_split(50, (20,)), fresh_weights(network, 0)
    before = evaluate(network, w, split).loss
    network[1].running_mean.fill_(torch.nan)
    network[1].running_var.fill_(torch.inf)
    assert evaluate(network, w, split).loss == before
    assert network[1].running_mean.isnan().all()


def test_a_layer_used_twice_and_one_that_is_not_used():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
            self.norm, self.unused = nn.BatchNorm1d(6), nn.BatchNorm1d(5)

        def forward(self, x):
            return self.last(self.norm(self.norm(self.first(x)).relu() * 3))

    network = Odd()
    w = {k: v.double() for k, v in fresh_weights(network, 0).items()}
    reference = Odd().double()
    with torch.no_grad():
        for key, p in reference.named_parameters():
            p.copy_(w[key])
    update_bn([SPLIT.x.double()], reference)
    loss = F.cross_entropy(reference.eval()(SPLIT.x.double()), SPLIT.y).detach()
    assert evaluate(network, w, SPLIT).loss == pytest.approx(float(loss), rel=1e-6)


def test_instance_norm_with_statistics():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten()
    )
    network.append(nn.Linear(64, 10))
    split, w = sorted_split(40, (1, 6, 6)), fresh_weights(network, 0)
    reference = copy.deepcopy(network)
    with torch.no_grad():
        for key, p in reference.named_parameters():
            p.copy_(w[key])
        reference[1].momentum = 1.0
        reference.train()(split.x)
        loss = F.cross_entropy(reference.eval()(split.x), split.y)
    assert evaluate(network, w, split).loss == pytest.approx(float(loss), rel=1e-5)


def test_one_image_has_no_variance():
    network = NORMED["mlp"]()
    split, w = sorted_split(40, (20,)), fresh_weights(network, 0)
    one = split.take(1)
    with pytest.raises(ValueError, match=r"no variance for layer '1' .* statistics="):
        evaluate(network, w, one)
    with pytest.raises(ValueError, match="no variance for layer '1'"):
        evaluate(network, w, split, statistics=one)
    assert evaluate(network, w, one, statistics=split).loss > 0
    convnet = NORMED["cnn"]()  # where an image has many pixels
    one = sorted_split(40, (1, 8, 8)).take(1)
    assert evaluate(convnet, fresh_weights(convnet, 0), one).loss > 0


def test_statistics_of_its_own_kind_are_refused():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(6))

        def forward(self, x):
            return x - self.running_mean

    network = nn.Sequential(nn.Linear(4, 6), Mine(), nn.Linear(6, 3))
    with pytest.raises(ValueError, match=r"layer '1' \(Mine\) keeps running statistics"):
        evaluate(network, fresh_weights(network, 0), SPLIT)


def test_one_image_too_many_for_a_batch(monkeypatch):
    in_parts(monkeypatch, 29)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    path = segment(*(fresh_weights(network, s) for s in range(2)))
    assert profile(network, path, SPLIT, 3).loss.isfinite().all()


def test_a_layer_without_running_statistics_is_refused():
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False))
    path = segment(*(fresh_weights(network, s) for s in range(2)))
    with pytest.raises(ValueError, match="layer '1' keeps no running statistics"):
        profile(network, path, SPLIT, 3)
