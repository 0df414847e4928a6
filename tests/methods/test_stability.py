import pytest
import torch
from torch import nn

from modeconn_lite.data import Split
from modeconn_lite.evaluation import evaluate
from modeconn_lite.methods.stability import (
    dropped,
    find_kept,
    layers_of,
    noise_sensitivity,
    stability,
)
from modeconn_lite.networks import cnn3, mlp, residual_mlp
from modeconn_lite.neurons import mute
from modeconn_lite.weights import apply, fresh_weights, to

X = torch.randn(12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SPLIT = Split(X, torch.arange(12) % 3, "random", ("0", "1", "2"))


def draw(network, seed):
    """A half of every layer, at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        layer.name: torch.randperm(layer.size, generator=generator)[: layer.size // 2]
        for layer in layers_of(network)
    }


def drawn(network, seed=0):
    return to(fresh_weights(network, seed), torch.float64)


@pytest.mark.parametrize("method", ["random", "greedy", "magnitude"])
def test_find_kept(method):
    network = mlp((16, 7, 6, 3))
    a = drawn(network)
    kept = find_kept(network, a, SPLIT, method=method, trials=8, seed=1)
    assert [len(units.unique()) for units in kept.values()] == [3, 3]
    again = find_kept(network, a, SPLIT, method=method, trials=8, seed=1)
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    if method == "random":
        first = find_kept(network, a, SPLIT, method=method, trials=1, seed=1)
        costs = [max(stability(network, a, k, SPLIT)) for k in (kept, first)]
        assert costs[0] <= costs[1]


def test_magnitude_keeps_what_matters():
    """Three neurons do the work; the others are too weak to matter."""
    network = mlp((16, 6, 3))
    a = drawn(network)
    weak = torch.tensor([0, 3, 5])
    a["1.weight"][weak] *= 1e-3
    assert find_kept(network, a, SPLIT, method="magnitude")["1"].tolist() == [1, 2, 4]


def test_stability_is_measured_on_every_suffix():
    network = mlp((16, 6, 7, 3))
    a = drawn(network)
    kept = draw(network, 0)
    base = evaluate(network, a, SPLIT).loss
    first, second = stability(network, a, kept, SPLIT)
    top = evaluate(network, dropped(network, a, kept, 1), SPLIT).loss
    assert second == pytest.approx(top - base)
    both = dict(dropped(network, a, kept))
    assert first == pytest.approx(evaluate(network, both, SPLIT).loss - base)
    factor = torch.zeros(7, dtype=torch.float64)
    factor[kept["3"]] = 7 / 3
    assert torch.allclose(both["5.weight"], a["5.weight"] * factor)
    assert torch.equal(both["3.bias"], a["3.bias"])


def linear_on_top(weight):
    """Two layers without activation or bias, the upper one given."""
    network = nn.Sequential(nn.Linear(3, 8, bias=False), nn.Linear(8, len(weight), bias=False))
    w = to(fresh_weights(network, 0), torch.float64)
    return network, w | {"1.weight": weight}


def test_an_isometry_passes_noise_undamped():
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    network, w = linear_on_top(turn)
    x = torch.randn(20, 3, dtype=torch.float64)
    for size in (0.5, 2.0):
        assert noise_sensitivity(network, w, x, size=size)["0"] == pytest.approx(size**2)


def test_a_linear_layer_passes_what_its_norm_says():
    """Mean of |W noise|² is |noise|² times |W|² / n (Arora et al. 2018, for Gaussian noise)."""
    weight = torch.randn(4, 8, dtype=torch.float64)
    network, w = linear_on_top(weight)
    x = torch.randn(1, 3, dtype=torch.float64).expand(40_000, 3)
    z = x[:1] @ w["0.weight"].T
    expected = 0.25 * z.norm() ** 2 * weight.norm() ** 2 / 8 / (z @ weight.T).norm() ** 2
    assert noise_sensitivity(network, w, x)["0"] == pytest.approx(float(expected), rel=0.03)


def test_every_layer_of_mlps_and_convnets_by_itself():
    for network, x in (
        (mlp((9, 7, 5, 3)), torch.randn(30, 9)),
        (cnn3(4, side=4), torch.randn(30, 1, 4, 4)),
    ):
        w = fresh_weights(network, 0)
        before = apply(network, w, x)
        found = noise_sensitivity(network, w, x, seed=1)
        assert all(value > 0 for value in found.values())
        assert found == noise_sensitivity(network, w, x, seed=1)
        less = noise_sensitivity(network, w, x, size=1e-4, seed=1)
        assert max(less.values()) < 1e-6
        assert torch.equal(apply(network, w, x), before)


def test_a_network_that_has_no_halves_is_refused():
    with pytest.raises(ValueError, match="no link of a plain chain"):
        layers_of(residual_mlp(16, 3, width=6, hidden=5))
    norm = nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"'0' is no link .*1\.weight"):
        layers_of(norm)
    with pytest.raises(ValueError, match="no hidden layer"):
        layers_of(mlp((16, 3)))
    narrow = mlp((16, 1, 3))
    with pytest.raises(ValueError, match="one neuron"):
        find_kept(narrow, drawn(narrow), SPLIT)


def test_bad_input():
    network = mlp((16, 6, 5, 3))
    a = drawn(network)
    with pytest.raises(ValueError, match="method must be"):
        find_kept(network, a, SPLIT, method="luck")
    for trials in (0, True, 1.5, None, "3"):
        with pytest.raises(ValueError, match="trials must be a whole number of at least 1"):
            find_kept(network, a, SPLIT, trials=trials)
    for seed in (None, -1, 0.5, True):
        with pytest.raises(ValueError, match="seed must be a whole number"):
            find_kept(network, a, SPLIT, seed=seed)
    for method in (None, 1, ["greedy"]):
        with pytest.raises(ValueError, match="method must be"):
            find_kept(network, a, SPLIT, method=method)
    with pytest.raises(ValueError, match=r"must name the hidden layers \['1', '3'\]"):
        dropped(network, a, {"1": [0]})
    with pytest.raises(ValueError, match="between 1 and 2 different neurons of layer '3'"):
        stability(network, a, {"1": [0], "3": [0, 1, 2]}, SPLIT)
    network = mlp((9, 7, 3))
    w, x = fresh_weights(network, 0), torch.randn(4, 9)
    for size in (0, -1, float("nan"), float("inf"), None, True, "1"):
        with pytest.raises(ValueError, match="size must be a finite number above 0"):
            noise_sensitivity(network, w, x, size=size)
    for seed in (None, 0.5, -1):
        with pytest.raises(ValueError, match="seed must be a whole number"):
            noise_sensitivity(network, w, x, seed=seed)
    for wrong in (x[:0], x * torch.nan, x.long(), None, SPLIT, "x"):
        with pytest.raises(ValueError, match=r"^x "):
            noise_sensitivity(network, w, wrong)
    with pytest.raises(ValueError, match=r"layer '1' .*\(images, 9\), not \(3, 8\)"):
        noise_sensitivity(network, w, torch.randn(4, 8))
    silent = w | {"3.weight": torch.zeros(3, 7), "3.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match="outputs for some inputs are all zero"):
        noise_sensitivity(network, silent, x)
    with pytest.raises(ValueError, match=r"1\.weight"):
        noise_sensitivity(network, {k: v for k, v in w.items() if k != "1.weight"}, x)


CALLS = {
    "dropped": lambda network, w, kept, split: dropped(network, w, kept),
    "stability": stability,
    "find_kept": lambda network, w, kept, split: find_kept(network, w, split, trials=1),
    "noise_sensitivity": lambda network, w, kept, split: noise_sensitivity(network, w, split.x),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", [None, "mlp", nn.Linear, {}, torch.zeros(2)])
def test_no_network_and_no_weights(call, wrong):
    network = mlp((16, 6, 5, 3))
    a, kept = drawn(network), {"1": [0, 1], "3": [2]}
    with pytest.raises(ValueError, match=r"network must be an nn\.Module"):
        CALLS[call](wrong, a, kept, SPLIT)
    with pytest.raises(ValueError, match="weights must be a non-empty dict"):
        CALLS[call](network, wrong, kept, SPLIT)
    with pytest.raises(ValueError, match="not finite"):
        CALLS[call](network, {key: w * torch.nan for key, w in a.items()}, kept, SPLIT)


@pytest.mark.parametrize("call", ["stability", "find_kept"])
@pytest.mark.parametrize("wrong", [None, X, "digits"])
def test_no_split(call, wrong):
    network = mlp((16, 6, 5, 3))
    with pytest.raises(ValueError, match="split must be"):
        CALLS[call](network, drawn(network), {"1": [0, 1], "3": [2]}, wrong)


@pytest.mark.parametrize(
    "kept",
    [
        [True, False, True, False, False, False],
        torch.tensor([True, True, False, False, False, False]),
        [0.0, 1.0],
        [0, 0],
        [-1, 0],
        [6],
        [],
        [0, 1, 2, 3],
        None,
        "01",
    ],
)
@pytest.mark.parametrize("call", ["dropped", "stability"])
def test_kept_are_neurons_by_their_numbers(call, kept):
    network = mlp((16, 6, 5, 3))
    with pytest.raises(ValueError, match=r"kept\['1'\]|of layer '1'"):
        CALLS[call](network, drawn(network), {"1": kept, "3": [0]}, SPLIT)


def test_kept_is_a_dictionary_of_all_layers():
    network = mlp((16, 6, 5, 3))
    for wrong in (None, [0, 1], "1", torch.arange(2)):
        with pytest.raises(ValueError, match="kept must be a dict"):
            dropped(network, drawn(network), wrong)
    for wrong in ({"1": [0], "5": [0]}, {"1": [0], "3": [0], "5": [0]}, {}):
        with pytest.raises(ValueError, match=r"must name the hidden layers \['1', '3'\]"):
            dropped(network, drawn(network), wrong)


def test_half_of_a_layer_and_no_more():
    network = mlp((16, 6, 5, 3))
    w = drawn(network)
    assert dropped(network, w, {"1": [5, 4, 3], "3": [0, 4]})
    with pytest.raises(ValueError, match=r"between 1 and 2 .* of layer '3', half of its 5"):
        dropped(network, w, {"1": [5, 4, 3], "3": [0, 4, 1]})


def test_layers_are_counted_from_zero():
    network = mlp((16, 6, 5, 3))
    w, kept = drawn(network), {"1": [0, 1], "3": [2]}
    both, top = dropped(network, w, kept), dropped(network, w, kept, 1)
    assert torch.equal(both["5.weight"], top["5.weight"])
    assert torch.equal(top["3.weight"], w["3.weight"])
    assert not torch.equal(both["3.weight"], w["3.weight"])
    for wrong in (-1, 2, 0.0, None, True):
        with pytest.raises(ValueError, match="from_layer must be a whole number"):
            dropped(network, w, kept, wrong)


def test_greedy_goes_from_the_top_down():
    """The top layer's half is the best by itself; the one below is chosen with it in place."""
    network = mlp((16, 6, 6, 3))
    w = drawn(network)
    kept = find_kept(network, w, SPLIT, method="greedy", trials=6, seed=3)
    g = torch.Generator().manual_seed(3)
    draws = {
        name: [torch.randperm(6, generator=g)[:3].sort().values for _ in range(6)]
        for name in ("3", "1")
    }
    top = min(
        draws["3"], key=lambda half: evaluate(network, mute(network, w, {"3": half}), SPLIT).loss
    )
    assert torch.equal(kept["3"], top)
    low = min(
        draws["1"],
        key=lambda half: evaluate(network, mute(network, w, {"1": half, "3": top}), SPLIT).loss,
    )
    assert torch.equal(kept["1"], low)
    assert list(kept) == ["1", "3"]


def test_random_counts_the_worst_suffix():
    network = mlp((16, 6, 6, 3))
    w = drawn(network)
    kept = find_kept(network, w, SPLIT, method="random", trials=7, seed=5)
    g = torch.Generator().manual_seed(5)
    draws = [
        {name: torch.randperm(6, generator=g)[:3].sort().values for name in ("1", "3")}
        for _ in range(7)
    ]
    costs = [max(stability(network, w, draw, SPLIT)) for draw in draws]
    best = draws[costs.index(min(costs))]
    assert all(torch.equal(kept[name], best[name]) for name in best)


def test_strength_is_the_product_of_both_sides():
    """Each neuron strong on one side only is weaker than one that is middling on both."""
    network = mlp((2, 4, 2), bias=False)
    w = {
        "1.weight": torch.tensor([[10.0, 0.0], [2.0, 0.0], [0.0, 0.1], [0.0, 2.0]]),
        "3.weight": torch.tensor([[0.1, 2.0, 10.0, 0.0], [0.0, 0.0, 0.0, 2.0]]),
    }
    assert find_kept(network, w, SPLIT2, method="magnitude")["1"].tolist() == [1, 3]


def test_strength_of_a_filter_counts_all_its_pixels():
    network = cnn3(2, side=2, classes=2)
    w = {key: torch.ones_like(value) for key, value in fresh_weights(network, 0).items()}
    w["7.weight"][:, :4] = torch.tensor([9.0, 0.0, 0.0, 0.0])  # the first filter: one loud pixel
    w["7.weight"][:, 4:] = 4.0
    split = Split(torch.randn(4, 1, 2, 2), torch.arange(4) % 2, "tiny", ("0", "1"))
    assert find_kept(network, w, split, method="magnitude")["4"].tolist() == [0]
    w["7.weight"][:, 4:] = 5.0
    assert find_kept(network, w, split, method="magnitude")["4"].tolist() == [1]


SPLIT2 = Split(torch.randn(4, 2), torch.arange(4) % 2, "tiny", ("0", "1"))


def test_noise_is_as_long_as_it_says_for_each_image():
    """Seen through a layer that copies: the change is size² of each image's own length."""
    network = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Linear(5, 5, bias=False))
    w = {"0.weight": torch.randn(5, 3, dtype=torch.float64)}
    w["1.weight"] = torch.eye(5, dtype=torch.float64)
    x = (
        torch.randn(6, 3, dtype=torch.float64)
        * torch.logspace(-3, 3, 6, dtype=torch.float64)[:, None]
    )
    for size in (0.1, 1.0, 3.0):
        found = noise_sensitivity(network, w, x, size=size)
        assert found == {"0": pytest.approx(size**2, rel=1e-12)}


def test_sequences_have_no_noise_of_their_own():
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    with pytest.raises(ValueError, match="flatten the inputs first"):
        noise_sensitivity(network, drawn(network), torch.randn(8, 6, 4))


def test_noise_that_overflows_is_no_sensitivity():
    network = mlp((4, 5, 3))
    w = {key: 1e19 * value for key, value in fresh_weights(network, 0).items()}
    with pytest.raises(ValueError, match="noise behind layer '1' must be a finite number"):
        noise_sensitivity(network, w, torch.randn(9, 4) * 1e10)
