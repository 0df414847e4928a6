import pytest
import torch
from small_networks import NETWORKS, inputs, same
from torch import nn

from modeconn_lite import data
from modeconn_lite.methods import repair
from modeconn_lite.networks import cnn3, mlp
from modeconn_lite.weights import fresh_weights, mix


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("t", [0.3, 0.5])
def test_repair_gives_hidden_neurons_the_statistics_of_the_ends(kind, t):
    network = NETWORKS[kind]()
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    x = inputs(kind)
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


class TestBadCalls:
    network = mlp((9, 5, 3))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    x = torch.randn(20, 9)

    def calls(self, network=None, a=None, b=None, x=None):
        """Each of the three functions with these arguments."""
        network = self.network if network is None else network
        a, b = self.a if a is None else a, self.b if b is None else b
        x = self.x if x is None else x
        yield lambda: repair.repair(network, a, a, b, 0.5, x)
        yield lambda: repair.repaired(network, a, b, x)
        yield lambda: repair.moments(network, a, x)

    @pytest.mark.parametrize("t", [-0.1, 1.1, float("nan"), float("inf"), None, "0.5", True, [0.5]])
    def test_times(self, t):
        with pytest.raises(ValueError, match="t must be a finite number of at least 0 and up to 1"):
            repair.repair(self.network, self.a, self.a, self.b, t, self.x)

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (torch.randn(0, 9), "give at least one input"),
            (torch.full((5, 9), torch.nan), "x holds NaN"),
            (torch.full((5, 9), torch.inf), "x holds NaN or infinity"),
            (torch.zeros(5, 9, dtype=torch.int64), "x must be a floating-point tensor"),
            ("x", "x must be a floating-point tensor"),
            (data.load("digits").test, r"of a Split, give \.x"),
            (torch.randn(5, 8), r"layer '1' .*\(images, 9\), not \(3, 8\)"),
            (torch.randn(9), "layer '0' .*fails on inputs of shape"),
        ],
    )
    def test_inputs(self, x, message):
        for call in self.calls(x=x):
            with pytest.raises(ValueError, match=message):
                call()

    @pytest.mark.parametrize("wrong", ["mlp", nn.Linear, {"a": 1}, torch.zeros(2)])
    def test_no_network_and_no_weights(self, wrong):
        for call in self.calls(network=wrong):
            with pytest.raises(ValueError, match=r"network must be an nn\.Module"):
                call()
        for call in self.calls(a=wrong):
            with pytest.raises(ValueError, match=r"must be a non-empty dict|is int, not a tensor"):
                call()

    def test_weights_that_are_not_finite(self):
        nan = {key: w * torch.nan for key, w in self.a.items()}
        for call in (*self.calls(a=nan), *list(self.calls(b=nan))[:2]):
            with pytest.raises(ValueError, match="not finite"):
                call()

    def test_sequences(self):
        network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        a, b = (fresh_weights(network, seed) for seed in range(2))
        for call in self.calls(network, a, b, torch.randn(8, 6, 4)):
            with pytest.raises(ValueError, match="flatten the inputs first"):
                call()

    def test_hooks_and_subclasses(self):
        network = mlp((9, 5, 3))
        network[1].register_forward_hook(lambda module, given, out: out.roll(1, 1))
        for call in self.calls(network):
            with pytest.raises(ValueError, match=r"layer '1' .*has forward hooks"):
                call()


def test_moments_are_those_of_the_population():
    """By hand, over images and pixels; no division by one less."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    w = {key: value.double() for key, value in fresh_weights(network, 0).items()}
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    (found,) = repair.moments(network, w, x).values()
    for k in range(2):
        z = (x * w["0.weight"][k, 0, 0, 0] + w["0.bias"][k]).flatten()
        assert float(found[0, k]) == pytest.approx(float(z.mean()))
        spread = float((z - z.mean()).square().mean().sqrt())
        assert float(found[1, k]) == pytest.approx(spread)
    one = repair.moments(network, w, x[:1, :, :1, :1].expand(1, 1, 2, 2))
    assert torch.allclose(one["0"][1], torch.zeros(2, dtype=torch.float64), atol=1e-12)


def test_a_neuron_that_is_constant_but_for_rounding_is_left_alone():
    network = mlp((4, 3, 2))
    a, b, x = fresh_weights(network, 0), fresh_weights(network, 1), torch.randn(50, 4)
    dead = a | {"1.weight": 1e-9 * a["1.weight"], "1.bias": torch.full((3,), 0.1)}
    mended = repair.repair(network, dead, a, b, 0.5, x)
    assert float(mended["1.weight"].abs().max()) < 1e-8


def test_later_layers_see_the_mended_ones():
    """Two layers by hand: the second one's deviation is taken behind the first one's mending."""
    network = mlp((4, 6, 5, 2))
    a, b = ({k: w.double() for k, w in fresh_weights(network, s).items()} for s in range(2))
    x, t = torch.randn(50, 4, dtype=torch.float64), 0.3
    half = mix((1 - t, t), (a, b))
    mended = repair.repair(network, half, a, b, t, x)

    def first(w):
        return x @ w["1.weight"].T + w["1.bias"]

    def second(w, h):
        return h.relu() @ w["3.weight"].T + w["3.bias"]

    goals = [
        (1 - t) * z.std(0, correction=0) + t * v.std(0, correction=0)
        for z, v in (
            (first(a), first(b)),
            (second(a, first(a)), second(b, first(b))),
        )
    ]
    z = second(half, first(mended))
    factor = goals[1] / z.std(0, correction=0)
    assert torch.allclose(mended["3.weight"], half["3.weight"] * factor[:, None])
    assert torch.allclose(first(mended).std(0, correction=0), goals[0])
