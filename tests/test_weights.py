import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

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


def test_save_load_and_a_damaged_file(tmp_path, pair):
    _, a, _ = pair
    file = tmp_path / "deep" / "a.safetensors"
    wt.save(a, file)
    assert all(torch.equal(wt.load(file)[k], a[k]) for k in a)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match="delete and remake"):
        wt.load(file)


def test_an_interrupted_save_leaves_the_old_file(tmp_path, pair, monkeypatch):
    _, a, b = pair
    file = tmp_path / "a.safetensors"
    wt.save(a, file)

    def disk_full(tensors, part, metadata):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wt, "save_file", disk_full)
    with pytest.raises(OSError, match="No space"):
        wt.save(b, file)
    assert all(torch.equal(wt.load(file)[k], a[k]) for k in a)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_default_device_can_be_set(monkeypatch):
    monkeypatch.setenv("MODECONN_DEVICE", "cpu")
    assert wt.default_device() == torch.device("cpu")
    monkeypatch.setenv("MODECONN_DEVICE", "gpu")
    with pytest.raises(ValueError, match="MODECONN_DEVICE is 'gpu'"):
        wt.default_device()


def test_save_keeps_the_order_of_the_network(tmp_path, pair):
    _, a, _ = pair
    wt.save(a, tmp_path / "a.safetensors")
    assert list(wt.load(tmp_path / "a.safetensors")) == list(a)


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
    with pytest.raises(ValueError, match="coefficient of anchor 0 is nan"):
        wt.mix((float("nan"), 1.0), (a, a))
    with pytest.raises(ValueError, match="0 coefficients for 0 anchors"):
        wt.mix((), ())


def test_layers_that_no_seed_can_draw_are_named():
    with pytest.raises(ValueError, match=r"\(MultiheadAttention\).*no reset_parameters"):
        wt.fresh_weights(nn.TransformerEncoderLayer(4, 2, 8), 0)


class TestCheckWeights:
    def test_sound_weights_pass(self, pair):
        network, a, b = pair
        assert wt.check_weights(a, like=network) is a
        assert wt.check_weights(a, like=b) is a

    def test_empty(self):
        with pytest.raises(ValueError, match="non-empty dict"):
            wt.check_weights({})

    def test_integer_buffers_are_named(self):
        state = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict()
        with pytest.raises(ValueError, match=r"1\.num_batches_tracked.*int64.*weights_of"):
            wt.check_weights(dict(state), name="A")

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, pair, bad):
        _, a, _ = pair
        a["3.bias"][1] = bad
        with pytest.raises(ValueError, match=r"A\['3\.bias'\] holds 1 values"):
            wt.check_weights(a, name="A")

    def test_another_precision(self, pair):
        _, a, b = pair
        with pytest.raises(ValueError, match=r"float64 on cpu.*use weights\.to"):
            wt.check_weights(wt.to(a, torch.float64), like=b)

    def test_another_architecture(self, pair):
        _, a, _ = pair
        with pytest.raises(ValueError, match=r"'1\.weight'\] has shape \(4, 3\).*\(5, 3\)"):
            wt.check_weights(a, like=mlp((3, 5, 2)))
        with pytest.raises(ValueError, match=r"missing \['5\.weight', '5\.bias'\]"):
            wt.check_weights(a, like=mlp((3, 4, 4, 2)))
