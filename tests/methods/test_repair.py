import pytest
import torch
from torch import nn

from modeconn_lite.methods import repair
from modeconn_lite.networks import cnn3, mlp, residual_mlp
from modeconn_lite.weights import fresh_weights, mix

NETWORKS = {
    "mlp": lambda: mlp((9, 12, 11, 10, 3)),
    "cnn": lambda: nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 7, 3, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(7 * 4, 6), nn.ReLU(), nn.Linear(6, 3)),
    ),
    "residual": lambda: residual_mlp(9, 3, width=12, hidden=10, blocks=2),
}
INPUTS = {"mlp": (40, 9), "cnn": (40, 1, 4, 4), "residual": (40, 9)}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("t", [0.3, 0.5])
def test_repair_gives_hidden_neurons_the_statistics_of_the_ends(kind, t):
    network = NETWORKS[kind]()
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    x = torch.randn(INPUTS[kind], generator=torch.Generator().manual_seed(0))
    mended = repair.repair(network, mix((1 - t, t), (a, b)), a, b, t, x)
    ends = [repair.moments(network, w, x) for w in (a, b)]
    for name, found in repair.moments(network, mended, x).items():
        wanted = (1 - t) * ends[0][name] + t * ends[1][name]
        assert torch.allclose(found, wanted, atol=1e-4)
    path = repair.repaired(network, a, b, x)
    assert all(torch.equal(path(t)[key], mended[key]) for key in mended)
    assert same(path(0.0), a)
    assert same(path(1.0), b)


def test_repair_against_the_definition_by_hand():
    network = mlp((4, 3, 2))
    a, b, x = fresh_weights(network, 0), fresh_weights(network, 1), torch.randn(50, 4)
    half = mix((0.5, 0.5), (a, b))
    mended = repair.repair(network, half, a, b, 0.5, x)
    za, zb, z = (x @ w["1.weight"].T + w["1.bias"] for w in (a, b, half))
    goal = (za.std(0, correction=0) + zb.std(0, correction=0)) / 2
    assert torch.allclose(
        mended["1.weight"], half["1.weight"] * (goal / z.std(0, correction=0))[:, None], atol=1e-5
    )
    assert torch.equal(mended["3.weight"], half["3.weight"])


def test_repair_leaves_a_constant_neuron_without_dividing_by_zero():
    network = mlp((4, 3, 2))
    a, b, x = fresh_weights(network, 0), fresh_weights(network, 1), torch.randn(50, 4)
    dead = a | {"1.weight": torch.zeros_like(a["1.weight"])}
    mended = repair.repair(network, dead, a, b, 0.5, x)
    assert all(torch.isfinite(w).all() for w in mended.values())


def test_inputs_and_networks_are_left_alone():
    network = mlp((9, 5, 3))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    before = [{k: v.clone() for k, v in w.items()} for w in (a, b)]
    repair.repaired(network, a, b, torch.randn(20, 9))(0.5)
    assert same(a, before[0])
    assert same(b, before[1])
    assert not any(m._forward_hooks for m in network.modules())


def test_what_cannot_be_done_is_refused():
    no_bias = cnn3(4, side=4)
    w = fresh_weights(no_bias, 0)
    with pytest.raises(ValueError, match="so its means cannot be set"):
        repair.repair(no_bias, w, w, w, 0.5, torch.randn(5, 1, 4, 4))
    normed = nn.Sequential(nn.Linear(9, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    w = fresh_weights(normed, 0)
    with pytest.raises(ValueError, match="layer '1' normalises"):
        repair.moments(normed, w, torch.randn(20, 9))
    with pytest.raises(ValueError, match=r"b\['1\.weight'\] has shape"):
        network, other = mlp((9, 5, 3)), fresh_weights(mlp((9, 6, 3)), 0)
        a = fresh_weights(network, 0)
        repair.repair(network, a, a, other, 0.5, torch.randn(20, 9))
