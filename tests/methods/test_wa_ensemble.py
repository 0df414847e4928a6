import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modeconn_lite import data, zoo
from modeconn_lite.data import Split
from modeconn_lite.evaluation import evaluate
from modeconn_lite.methods.follower import Follower
from modeconn_lite.methods.wa_ensemble import Ensemble, wa_ensemble
from modeconn_lite.networks import mlp, residual_mlp
from modeconn_lite.weights import apply, fresh_weights, to

NETWORKS = {
    "deep": (lambda: mlp((6, 9, 8, 3)), (50, 6), ("5", "3", "1")),
    "convnet": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 5, 3, bias=False),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(5, 3),
        ),
        (40, 2, 6, 6),
        ("6", "3", "0"),
    ),
    "residual": (lambda: residual_mlp(6, 3, width=8, hidden=7, blocks=2), (50, 6), ("5", "1")),
}


def a_case(kind, images=None):
    make, shape, layers = NETWORKS[kind]
    network, g = make().double(), torch.Generator().manual_seed(0)
    many = [to(fresh_weights(network, seed), torch.float64) for seed in range(3)]
    x = torch.randn((images or shape[0], *shape[1:]), generator=g, dtype=torch.float64)
    split = Split(x, torch.arange(len(x)) % 3, "noise", classes=tuple("abc"))
    return network, many, split, layers


def mean_of(network, many, x):
    return torch.stack([apply(network, w, x).softmax(1) for w in many]).mean(0)


@pytest.mark.parametrize("kind", NETWORKS)
def test_members_share_what_is_below_and_keep_what_is_above(kind):
    network, many, split, layers = a_case(kind)
    for n, layer in enumerate(layers, 1):
        ensemble = wa_ensemble(network, many, split, n)
        assert ensemble.layer == layer
        names = list(many[0])
        low, high = names.index(f"{layer}.weight"), names.index(f"{layer}.weight") + 1
        for own, member in zip(many, ensemble.members, strict=True):
            assert all(torch.equal(member[key], many[0][key]) for key in names[:low])
            assert all(torch.equal(member[key], own[key]) for key in names[high:])
            if n < len(layers) and own is not many[0]:
                adjusted = Follower(network, own, split.x)(member, [names[low]])
                assert torch.equal(adjusted[names[low]], member[names[low]])
        found = ensemble.probabilities(split.x)
        assert torch.allclose(found, mean_of(network, ensemble.members, split.x))
    assert all(ensemble.members[k] is many[k] for k in range(3))  # n is the number of layers


def test_with_no_more_images_than_neurons_nothing_is_lost():
    network, many, split, _ = a_case("deep", images=4)
    wanted = mean_of(network, many, split.x)
    for n in (1, 2):
        found = wa_ensemble(network, many, split, n, ridge=1e-10).probabilities(split.x)
        assert torch.allclose(found, wanted, atol=1e-5)


def test_scores():
    network, many, split, _ = a_case("deep")
    ensemble = wa_ensemble(network, many, split, 2)
    p, score = ensemble.probabilities(split.x), ensemble.score(split)
    assert score.loss == pytest.approx(float(F.nll_loss(p.log(), split.y)))
    assert score.accuracy == float((p.argmax(1) == split.y).double().mean())
    # The logarithm is concave: the ensemble's loss is at most the mean of its members'.
    assert score.loss <= sum(evaluate(network, w, split).loss for w in ensemble.members) / 3


def test_what_it_costs():
    network, many, split, _ = a_case("deep")
    sizes = (6 * 9 + 9, 9 * 8 + 8, 8 * 3 + 3)
    for n, shared in ((1, 2), (2, 1), (3, 0)):
        stored, done = wa_ensemble(network, many, split, n).cost(split.x)
        assert stored == sum(sizes[:shared]) + 3 * sum(sizes[shared:])
        products = (6 * 9, 9 * 8, 8 * 3)
        assert done == sum(products[:shared]) + 3 * sum(products[shared:])
    network, many, split, _ = a_case("convnet")
    stored, done = wa_ensemble(network, many[:1], split).cost(split.x)
    assert stored == sum(w.numel() for w in many[0].values())
    assert done == 4 * 2 * 9 * 36 + 5 * 4 * 9 * 1 + 5 * 3  # a filter works at every place


def test_on_trained_networks_it_does_better_than_its_first_member():
    digits, network, many = data.load("digits"), zoo.network("digits"), zoo.load("digits")
    for n in (1, 2):
        ensemble = wa_ensemble(network, many[:8], digits.train, n)
        assert ensemble.score(digits.test).loss < 0.06
        assert ensemble.score(digits.train).accuracy == 1


def test_bad_calls_are_refused():
    network, many, split, _ = a_case("deep")
    for n in (0, 4, 1.5):
        with pytest.raises(ValueError, match="n must be a whole number of at least 1 and at most"):
            wa_ensemble(network, many, split, n)
    with pytest.raises(ValueError, match="weights must be a list"):
        wa_ensemble(network, many[0], split)
    with pytest.raises(ValueError, match=r"weights\[1\]"):
        wa_ensemble(network, [many[0], {}], split)
    with pytest.raises(ValueError, match="split must be a Split"):
        wa_ensemble(network, many, split.x)


def test_a_single_layer_is_an_ensemble_of_independent_networks():
    _, _, split, _ = a_case("deep")
    network = nn.Linear(6, 3).double()
    many = [to(fresh_weights(network, seed), torch.float64) for seed in range(2)]
    ensemble = wa_ensemble(network, many, split, ridge=0)
    assert ensemble.layer == "" and ensemble.members[1] is many[1]
    found = ensemble.probabilities(split.x)
    assert torch.allclose(found, mean_of(network, many, split.x))
    assert ensemble.cost(split.x) == (2 * 21, 2 * 18)


def test_what_an_ensemble_cannot_answer_is_refused():
    network, many, split, _ = a_case("deep")
    ensemble = wa_ensemble(network, many, split, 2)
    ten = Split(split.x, split.y, "ten", classes=tuple("abcdefghij"))
    with pytest.raises(ValueError, match=r"'ten' has 10 classes, the network gives .* \(3,\)"):
        ensemble.score(ten)
    large = [{key: w * 1e200 for key, w in member.items()} for member in many]
    with pytest.raises(ValueError, match="outputs of the ensemble are not finite"):
        Ensemble(network, large, "3").probabilities(split.x)
    for layer in ("2", "nowhere", ""):
        with pytest.raises(ValueError, match=f"no stage of this network is a layer '{layer}'"):
            Ensemble(network, many, layer).probabilities(split.x)
    with pytest.raises(ValueError, match="layer must be a string"):
        Ensemble(network, many, 3)
    for members, said in (([], "members: 0 Weights"), ([many[0], {}], r"members\[1\]")):
        with pytest.raises(ValueError, match=said):
            Ensemble(network, members, "3")
