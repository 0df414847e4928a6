"""What chapter 6 says is exact, and what it says of the book's networks."""

from __future__ import annotations

import math

import nbformat
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

from modeconn_lite import apply, data, fresh_weights, segment, zoo
from modeconn_lite.evaluation import evaluate, profile
from modeconn_lite.methods import METHODS
from modeconn_lite.methods.adjustment import connect_adjusted
from modeconn_lite.methods.least_squares import least_squares
from modeconn_lite.methods.wa_ensemble import wa_ensemble
from modeconn_lite.networks import mlp
from modeconn_lite.paths import quarter_turn
from modeconn_lite.records import EXPERIMENTS
from modeconn_lite.records.comparison import NAMES
from modeconn_lite.weights import to

CHAPTER = ROOT / "book" / "06_weight_adjustment.ipynb"


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(8))
def test_the_loss_changes_by_at_most_root_two_times_the_outputs_root_mean_square(seed):
    z, change = 5 * normal(40, 10, seed=seed), normal(40, 10, seed=100 + seed)
    y = torch.arange(40) % 10
    for size in (0.01, 1.0, 10.0):
        moved = z + size * change
        r = (moved - z).square().sum(1).mean().sqrt()
        assert (F.cross_entropy(moved, y) - F.cross_entropy(z, y)).abs() <= 2**0.5 * r


def test_the_bound_is_met_where_a_confident_network_is_wrong():
    z, y = torch.tensor([[100.0, 0.0]], dtype=torch.float64), torch.tensor([1])
    step = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    rise = F.cross_entropy(z + step, y) - F.cross_entropy(z, y)
    assert float(rise / step.norm()) == pytest.approx(2**0.5)


@pytest.mark.parametrize("rows, rank", [(6, 6), (6, 4), (12, 8)])
def test_anything_can_be_said_again_only_if_features_are_independent(rows, rank):
    phi = normal(rows, rank) @ normal(rank, 8, seed=1)  # 8 neurons
    y = normal(rows, 3, seed=2)
    w = least_squares([(phi, y)], rows, 1e-9)
    kept = torch.allclose(phi @ w.T, y, atol=1e-4)
    assert kept == (rank == rows)
    assert torch.allclose(phi @ w.T, phi @ torch.linalg.pinv(phi) @ y, atol=1e-4)


def test_averaged_heads_lose_no_more_than_the_mean_of_the_members():
    network, digits = zoo.network("digits"), data.load("digits")
    heads = wa_ensemble(network, zoo.load("digits")[:4], digits.train, 1).members
    one = {key: torch.stack([w[key] for w in heads]).mean(0) for key in heads[0]}
    losses = [evaluate(network, w, digits.test).loss for w in heads]
    assert evaluate(network, one, digits.test).loss <= sum(losses) / 4


def test_transport_of_all_layers_at_once_is_lower_on_test_images_and_higher_on_training_images():
    """As the tables say of the mean of six pairs; here of the first three."""
    network, digits, nets = zoo.network("digits"), data.load("digits"), zoo.load("digits")
    keys = ("transport-copy", "transport-wa-copy", "linear-wa", "linear-butterfly", "linear")
    mean, on_train = [], []
    for key in keys:
        paths = [
            METHODS[key].connect(network, nets[k], nets[k + 1], digits.train) for k in (0, 2, 4)
        ]
        mean.append(sum(profile(network, p, digits.test, 61).barrier() for p in paths) / 3)
        if key in keys[:2]:
            on_train.append(sum(profile(network, p, digits.train, 61).barrier() for p in paths) / 3)
    assert mean == sorted(mean)
    assert on_train[0] > 2 * on_train[1]


def test_the_published_numbers_in_the_text_are_those_of_the_experiments():
    text = "\n".join(c.source for c in nbformat.read(CHAPTER, 4).cells)
    head, rows = "| | FC3 | Conv2FC1 | VGG-16 |", 0
    experiments = [EXPERIMENTS[f"cifar10-{name}"] for name in ("fc3", "conv2fc1", "vgg16")]
    names = {m.name: key for key, m in METHODS.items()} | {n: key for key, n in NAMES.items()}
    for line in text[text.index(head) + len(head) :].splitlines()[2:]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for cell, experiment in zip(cells, experiments, strict=True):
            mean, deviation = experiment.published[names[name]]["test"]
            assert [float(x) for x in cell.split("±")] == pytest.approx(
                [mean, deviation], abs=0.051
            )
        rows += 1
    assert rows == 9


@pytest.mark.parametrize("seed", range(4))
def test_without_biases_an_arc_about_zero_gives_a_multiple_of_the_line_s_outputs(seed):
    network, x = mlp((16, 9, 7, 3), bias=False), normal(20, 16, seed=seed)
    a, b = (to(fresh_weights(network, 2 * seed + k), torch.float64) for k in range(2))
    arc = quarter_turn(a, b, {key: torch.zeros_like(w) for key, w in a.items()})
    for s in (0.2, 0.5, 0.7):
        cos, sin = (f(s * math.pi / 2) for f in (math.cos, math.sin))
        on_line = apply(network, segment(a, b)(sin / (cos + sin)), x)
        assert torch.allclose(apply(network, arc(s), x), (cos + sin) ** 3 * on_line)


def test_eleven_breakpoints_do():
    network, digits = zoo.network("digits-wide"), data.load("digits")
    a, b = zoo.load("digits-wide")[:2]
    worst = [
        profile(
            network, connect_adjusted(network, a, b, digits.train, breakpoints=n), digits.test, 61
        ).worst_accuracy
        for n in (2, 11, None)
    ]
    assert worst[0] < worst[2] - 0.02 and abs(worst[1] - worst[2]) < 0.005
