import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import grad, vmap

from modeconn_lite import storage
from modeconn_lite import weights as wt
from modeconn_lite.networks import mlp


@pytest.fixture
def pair():
    network = mlp((3, 4, 2))
    return network, wt.fresh_weights(network, 0), wt.fresh_weights(network, 1)


def test_apply_uses_the_given_weights_and_changes_nothing(pair):
    network, a, b = pair
    before = {k: v.clone() for k, v in a.items()}
    own = wt.weights_of(network)
    x = torch.randn(5, 3)
    hidden = (x @ a["1.weight"].T + a["1.bias"]).relu()
    assert torch.allclose(wt.apply(network, a, x), hidden @ a["3.weight"].T + a["3.bias"])
    assert not torch.allclose(wt.apply(network, a, x), wt.apply(network, b, x))
    assert all(torch.equal(a[k], before[k]) for k in a)
    assert all(torch.equal(own[k], v) for k, v in wt.weights_of(network).items())


def test_fresh_weights_are_fixed_by_the_seed_and_leave_the_random_state_alone():
    network = mlp((3, 4, 2))
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    a, again = wt.fresh_weights(network, 7), wt.fresh_weights(network, 7)
    assert torch.equal(torch.rand(1), first)
    assert all(torch.equal(a[k], again[k]) for k in a)
    assert wt.distance(a, wt.fresh_weights(network, 8)) > 0.1


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=4))
def test_mix_is_the_weighted_sum(coefficients):
    network = mlp((2, 3, 2))
    anchors = [wt.to(wt.fresh_weights(network, k), torch.float64) for k in range(len(coefficients))]
    mixed = wt.to_vector(wt.mix(coefficients, anchors))
    plain = sum(c * wt.to_vector(w) for c, w in zip(coefficients, anchors, strict=True))
    assert torch.allclose(mixed, plain, atol=1e-12)


def test_mix_of_one_anchor_is_that_anchor_to_the_bit(pair):
    _, a, b = pair
    assert all(torch.equal(wt.mix((1.0, 0.0), (a, b))[k], a[k]) for k in a)


def test_vector_round_trip_and_geometry(pair):
    _, a, b = pair
    assert all(torch.equal(wt.from_vector(wt.to_vector(a), a)[k], a[k]) for k in a)
    va, vb = wt.to_vector(a).double(), wt.to_vector(b).double()
    assert wt.inner(a, b) == pytest.approx(float(va @ vb))
    assert wt.norm(a) == pytest.approx(float(va.norm()))
    assert wt.distance(a, b) == pytest.approx(float((va - vb).norm()), rel=1e-6)
    with pytest.raises(ValueError, match=r"shape \(26,\)"):
        wt.from_vector(torch.zeros(3), a)


def test_stack_and_unstack(pair):
    _, a, b = pair
    again = wt.unstack(wt.stack([a, b]))
    assert all(torch.equal(again[1][k], b[k]) for k in b)


def test_devices():
    assert wt.check_device("cpu") == torch.device("cpu")
    for wrong in ("gpu", "", 1.5, None, "meta", "cuda:77"):
        with pytest.raises(ValueError, match="device cannot be"):
            wt.check_device(wrong)


def test_default_device_can_be_set(monkeypatch):
    monkeypatch.setenv("MODECONN_DEVICE", "cpu")
    assert wt.default_device() == torch.device("cpu")
    monkeypatch.setenv("MODECONN_DEVICE", "gpu")
    with pytest.raises(ValueError, match="MODECONN_DEVICE is 'gpu'"):
        wt.default_device()


def test_apply_evaluates_and_leaves_the_caller_s_network_alone(pair):
    network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2))
    x, w = torch.randn(9, 3), wt.weights_of(network)
    assert torch.equal(wt.apply(network, w, x), wt.apply(network, w, x))
    assert float(network[1].running_mean.abs().max()) == 0
    assert network.training


def test_apply_refuses_weights_that_do_not_fit(pair):
    network, a, _ = pair
    with pytest.raises(ValueError, match=r"missing \['1\.weight'\]"):
        wt.apply(network, {k: v for k, v in a.items() if k != "1.weight"}, torch.randn(2, 3))
    with pytest.raises(ValueError, match="shape"):
        wt.apply(mlp((3, 5, 2)), a, torch.randn(2, 3))


def test_geometry_refuses_weights_of_another_network(pair):
    _, a, _ = pair
    other = wt.fresh_weights(mlp((3, 1, 2)), 0)
    for refused in (lambda: wt.distance(a, other), lambda: wt.inner(a, other)):
        with pytest.raises(ValueError, match="shape"):
            refused()


@pytest.mark.parametrize(
    ("coefficients", "anchors", "message"),
    [
        ((math.nan, 1.0), 2, "coefficient of anchor 0 must be a finite number, not nan"),
        ((1.0, math.inf), 2, "coefficient of anchor 1 must be a finite number, not inf"),
        (("1", 1.0), 2, "coefficient of anchor 0 must be a finite number, not '1'"),
        ((None,), 1, "coefficient of anchor 0 must be a finite number, not None"),
        ((), 0, "0 coefficients for 0 anchors"),
        ((10**400,), 1, "coefficient of anchor 0 must be a finite number"),
        ((1.0,), 2, "1 coefficients for 2 anchors"),
        (1.0, 1, "coefficients must be a list of numbers, not 1.0"),
        ("11", 2, "coefficients must be a list"),
        (torch.ones(1, 2), 2, r"coefficients have shape \(1, 2\); \(2,\) is needed"),
        (torch.tensor(1.0), 1, r"coefficients have shape \(\)"),
        ((1e39, 0.0), 2, "the mix overflows"),
    ],
)
def test_mix_refuses_coefficients(pair, coefficients, anchors, message):
    with pytest.raises(ValueError, match=message):
        wt.mix(coefficients, pair[1:][:anchors])


def broken(a, key="1.weight", **change):
    """The weights a, one tensor of which is no good; by what is wrong with it."""
    good = a[key]
    bad = {
        "nan": good * math.nan,
        "meta": good.to("meta"),
        "sparse": good.to_sparse(),
        "complex": good.to(torch.complex64),
        "quantised": torch.quantize_per_tensor(good, 0.1, 0, torch.quint8),
        "float8": good.to(torch.float8_e4m3fn),
        "whole": good.long(),
        "no tensor": good.tolist(),
    }
    return {what: a | {key: tensor} for what, tensor in bad.items()}


SAYS = {
    "nan": r"\['1.weight'\] holds 12 values that are not finite",
    "meta": r"\['1.weight'\] is on the meta device",
    "sparse": r"\['1.weight'\] is sparse .*to_dense",
    "complex": r"\['1.weight'\] is complex",
    "quantised": r"\['1.weight'\] is quantised .*dequantize",
    "float8": r"\['1.weight'\] is torch.float8.*half",
    "whole": r"\['1.weight'\] is torch.int64, not a floating-point tensor",
    "no tensor": r"\['1.weight'\] is list, not a tensor",
}
NOT_WEIGHTS = (None, "weights", [], {}, torch.ones(3), nn.Linear(2, 2))


def doors(network, good, x, file):
    """Every function that takes weights."""
    return {
        "check_weights": wt.check_weights,
        "like": lambda w: wt.check_weights(good, like=w),
        "apply": lambda w: wt.apply(network, w, x),
        "mix": lambda w: wt.mix((0.0, 1.0), (good, w)),
        "mix at zero": lambda w: wt.mix((1.0, 0.0), (good, w)),
        "inner": lambda w: wt.inner(good, w),
        "norm": wt.norm,
        "distance": lambda w: wt.distance(w, good),
        "distance to": lambda w: wt.distance(good, w),
        "to": lambda w: wt.to(w, torch.float64),
        "to_vector": wt.to_vector,
        "from_vector": lambda w: wt.from_vector(torch.zeros(26), w),
        "stack": lambda w: wt.stack([good, w]),
        "unstack": wt.unstack,
        "save": lambda w: storage.save(w, file),
    }


@pytest.mark.filterwarnings("ignore")  # torch gives up quantised tensors
@pytest.mark.parametrize("what", SAYS)
def test_no_door_lets_such_weights_in(pair, tmp_path, what):
    network, a, b = pair
    bad = broken(a)[what]
    for name, door in doors(network, b, torch.ones(2, 3), tmp_path / "file").items():
        if what == "nan" and name in ("like", "to_vector", "from_vector"):
            continue  # these pass values on and compute nothing
        with pytest.raises(ValueError, match=SAYS[what]):
            door(bad)
    assert not list(tmp_path.iterdir())


def test_no_door_lets_in_what_are_no_weights(pair, tmp_path):
    network, a, _ = pair
    for wrong in NOT_WEIGHTS:
        for name, door in doors(network, a, torch.ones(2, 3), tmp_path / "file").items():
            if name == "like" and (wrong is None or isinstance(wrong, nn.Module)):
                continue
            with pytest.raises(ValueError, match=r"must be a non-empty dict of tensors"):
                door(wrong)
    with pytest.raises(ValueError, match="keys are names"):
        wt.check_weights({1: torch.ones(1)})


def test_lists_of_weights_are_lists(pair):
    _, a, _ = pair
    for wrong in (None, a, "ab", 3, iter([a])):
        with pytest.raises(ValueError, match="must be a list"):
            wt.stack(wrong)
        with pytest.raises(ValueError, match="must be a list"):
            wt.mix((1.0,), wrong)
    with pytest.raises(ValueError, match="0 dicts, one for each network given"):
        wt.stack([])
    with pytest.raises(ValueError, match=r"weights 1\['1.weight'\] is torch.float64"):
        wt.stack([a, wt.to(a, torch.float64)])
    for wrong in (
        {"w": torch.ones(())},
        {"w": torch.ones(0)},
        {"a": torch.ones(2), "b": a["3.bias"][:1]},
    ):
        with pytest.raises(ValueError, match="need a leading axis"):
            wt.unstack(wrong)


def test_mixes_and_distances_that_overflow_say_so():
    huge = {"w": torch.full((2,), 3e38)}
    with pytest.raises(ValueError, match="the mix overflows"):
        wt.mix((1.0, 1.0), (huge, huge))
    with pytest.raises(ValueError, match="the distance of these weights overflows"):
        wt.distance(huge, {"w": -huge["w"]})
    assert wt.distance(huge, huge) == 0
    assert wt.check_weights(huge) is huge  # the sum of these overflows, they themselves do not
    with pytest.raises(ValueError, match=r"do not fit into torch\.float16"):
        wt.to(huge, torch.float16)
    for target in (torch.int64, torch.complex64, torch.float8_e4m3fn):
        with pytest.raises(ValueError, match="weights cannot be torch"):
            wt.to(huge, target)
    for target in ("gpu", "meta", None):
        with pytest.raises(ValueError, match="target cannot be"):
            wt.to(huge, target)


def test_apply_refuses_inputs(pair):
    network, a, _ = pair
    for x, message in (
        (None, "x must be a floating-point tensor, not None"),
        (torch.ones(2, 3).long(), "x must be a floating-point tensor"),
        (torch.full((2, 3), math.nan), "x holds NaN"),
        (torch.ones(0, 3), "give at least one input"),
        (
            torch.ones(2, 4),
            r"layer '1' \(Linear\) takes inputs of shape \(images, 3\), not \(2, 4\)",
        ),
        (torch.ones(2, 3).double(), r"x is torch.float64 on cpu, the weights are torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            wt.apply(network, a, x)
    with pytest.raises(ValueError, match=r"network must be an nn\.Module, not None"):
        wt.apply(None, a, torch.ones(2, 3))


def test_apply_within_torch_func(pair):
    """There, values cannot be looked at; what can be checked is."""
    network, a, b = pair
    x = torch.randn(5, 3)
    both = vmap(lambda w: wt.apply(network, w, x))(wt.stack([a, b]))
    assert torch.allclose(both[1], wt.apply(network, b, x), atol=1e-6)
    each = vmap(lambda row: wt.apply(network, a, row[None]))(x)[:, 0]
    assert torch.allclose(each, wt.apply(network, a, x), atol=1e-6)
    slope = grad(lambda w: wt.apply(network, w, x).square().sum())(a)
    assert slope.keys() == a.keys()


def test_combined_is_mix_without_the_checks(pair):
    _, a, b = pair
    for coefficients in ((0.3, 0.7), (1.0, 0.0), (0.0, 0.0), torch.tensor([0.5, -1.0])):
        one, two = wt.mix(coefficients, (a, b)), wt.combined(coefficients, (a, b))
        assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("seed", [None, 0.0, -1, 2**63, "0", True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        wt.fresh_weights(mlp((2, 2)), seed)


@pytest.mark.parametrize("wrong", [None, nn.Linear, {"w": torch.ones(1)}])
def test_a_network_is_a_module(wrong):
    for door in (wt.weights_of, lambda n: wt.fresh_weights(n, 0)):
        with pytest.raises(ValueError, match=r"network must be an nn\.Module"):
            door(wrong)


def test_lazy_layers_have_no_weights_yet():
    for door in (wt.weights_of, lambda n: wt.fresh_weights(n, 0)):
        with pytest.raises(ValueError, match="'weight' has no shape yet; run the network once"):
            door(nn.LazyLinear(3))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_no_seed_can_draw_is_named():
    """These kept the caller's own numbers: all seeds would have shared them."""
    scaled = mlp((2, 2))
    scaled[1].scale = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"draws all of '1\.scale': all seeds would share it"):
        wt.fresh_weights(scaled, 0)
    spectral = nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"draws all of '0\.weight_orig'"):
        wt.fresh_weights(spectral, 0)
    with pytest.raises(ValueError, match="cannot be copied"):
        wt.fresh_weights(nn.utils.weight_norm(nn.Linear(3, 2)), 0)
    with pytest.raises(ValueError, match="no reset_parameters"):
        wt.fresh_weights(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), 0)


def test_fresh_weights_of_a_network_without_values():
    with torch.device("meta"):
        there = mlp((3, 4, 2))
    here = mlp((3, 4, 2))
    assert wt.distance(wt.fresh_weights(there, 3), wt.fresh_weights(here, 3)) == 0


def test_layers_that_no_seed_can_draw_are_named():
    with pytest.raises(ValueError, match=r"\(MultiheadAttention\).*no reset_parameters"):
        wt.fresh_weights(nn.TransformerEncoderLayer(4, 2, 8), 0)
