import odd_networks
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from modeconn_lite import layout
from modeconn_lite.layout import Slice, hidden_layers
from modeconn_lite.networks import ResidualBlock, cnn3, conv2fc1, mlp, residual_mlp, vgg


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        (mlp((64, 64, 32, 10)), [64, 32]),
        (cnn3(8), [8, 8, 8]),
        (conv2fc1(), [32, 64]),
        (vgg(11), [64, 128, 256, 256, 512, 512, 512, 512, 512, 512]),
        (residual_mlp(64, 10, width=16, hidden=8, blocks=2), [16, 8, 8]),
    ],
)
def test_the_layers_of_the_book_s_networks(network, sizes):
    assert [layer.size for layer in hidden_layers(network)] == sizes


def test_a_residual_stream_shares_one_order():
    network = residual_mlp(64, 10, width=16, hidden=8, blocks=2)
    stream = hidden_layers(network)[0]
    rows = {s.tensor for s in stream.slices if s.axis == 0}
    columns = {s.tensor for s in stream.slices if s.axis == 1}
    assert rows == {f"{n}.{k}" for n in ("1", "2.leave", "3.leave") for k in ("weight", "bias")}
    assert columns == {"2.enter.weight", "3.enter.weight", "5.weight"}


def test_every_pixel_of_a_filter_has_its_column_behind_flatten():
    last = hidden_layers(cnn3(5, side=4))[-1]
    assert last.outgoing == [Slice("7.weight", 1, each=16)]
    assert last.incoming == ["4.weight"]
    first = hidden_layers(mlp((3, 5, 2)))[0]
    assert first.slices == [Slice("1.weight", 0), Slice("1.bias", 0), Slice("3.weight", 1)]


def test_batch_norm_belongs_to_the_neurons_before_it():
    network = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    (layer,) = hidden_layers(network)
    norm = [f"1.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
    assert layer.incoming == ["0.weight", "0.bias", *norm]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(), nn.Tanh(), nn.GELU()])
def test_positive_factors_pass_through_relu_and_its_kin_alone(activation):
    network = nn.Sequential(
        nn.Linear(2, 4), activation, nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)
    )
    first, second = hidden_layers(network)
    assert first.homogeneous == isinstance(activation, nn.ReLU | nn.LeakyReLU)
    assert second.homogeneous


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), "layer '1' is Softmax"),
        (
            nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.Flatten()),
            r"layer '0' \(Conv2d\) has 2 groups",
        ),
        (nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)), "layer '0' .*stands before"),
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1)), r"layer '1' \(Linear\) reads 4 inputs"),
        (nn.GRU(2, 2), "layer 'GRU' is GRU"),
    ],
)
def test_what_is_not_understood_is_named(network, message):
    with pytest.raises(ValueError, match=message):
        hidden_layers(network)


@odd_networks.warned
@pytest.mark.parametrize("name", odd_networks.ODD)
def test_odd_networks_are_understood_or_refused_by_name(name):
    make, _, refusal = odd_networks.ODD[name]
    if not refusal:
        assert hidden_layers(make())
        return
    with pytest.raises(ValueError, match=refusal):
        hidden_layers(make())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.MaxPool2d(2, return_indices=True), "layer '1' .*return_indices=False"),
        (nn.BatchNorm1d(4), r"layer '1' .*normalises features or flat, but channels of layer '0'"),
        (ResidualBlock(4, 3), "layer '1' .*carries 4 features, but 4 channels of layer '0'"),
        (nn.Conv2d(3, 2, 1), "layer '1' .*reads 3 inputs, but layer '0' has 4 neurons$"),
        (nn.Conv2d(8, 2, 1), "layer '1' .*reads 8 inputs, but layer '0' has 4 neurons$"),
        (nn.BatchNorm2d(5), "layer '1' .*normalises 5 features, but layer '0' has 4"),
        (nn.Sequential(nn.Flatten(), nn.MaxPool2d(2)), r"'1\.1' .*but flattened channels"),
        (nn.Sequential(nn.Flatten(), nn.Conv2d(4, 1, 1)), r"'1\.1' .*but flattened channels"),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 1)), r"reads 6 .*no whole number for each"),
        (nn.Sequential(nn.Flatten(), nn.Linear(2, 1)), r"reads 2 .*no whole number for each"),
        (nn.Sequential(nn.Flatten(), ResidualBlock(8, 3)), r"carries 8 features, but 4 flattened"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm2d(4)), r"normalises channels, but flattened"),
    ],
)
def test_what_stands_behind_a_convolution_must_fit(module, message):
    with pytest.raises(ValueError, match=message):
        hidden_layers(nn.Sequential(nn.Conv2d(1, 4, 1), module))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(3, 2), "layer '1' .*reads 3 inputs, but layer '0' has 4 neurons$"),
        (nn.Linear(8, 2), "layer '1' .*reads 8 inputs, but layer '0' has 4 neurons$"),
        (nn.Conv2d(4, 2, 1), "layer '1' .*works on channels, but features of layer '0'"),
        (nn.BatchNorm2d(4), "layer '1' .*normalises channels, but features"),
        (ResidualBlock(3, 3), "layer '1' .*carries 3 features, but 4 features of layer '0'"),
    ],
)
def test_what_stands_behind_a_linear_layer_must_fit(module, message):
    with pytest.raises(ValueError, match=message):
        hidden_layers(nn.Sequential(nn.Linear(2, 4), module))


@pytest.mark.parametrize(
    "module", [nn.BatchNorm1d(4), nn.BatchNorm2d(4), ResidualBlock(4, 3), nn.BatchNorm1d(2)]
)
def test_what_stands_before_any_neurons_is_refused(module):
    with pytest.raises(ValueError, match=r"layer '0' .*stands before any neurons"):
        hidden_layers(nn.Sequential(module, nn.Linear(4, 2)))


def test_a_module_that_holds_more_than_its_class_is_refused():
    network = mlp((3, 4, 2))
    network[1].more = nn.Linear(2, 2)
    with pytest.raises(
        ValueError, match=r"layer '1' .*holds modules that its class has no use for"
    ):
        hidden_layers(network)
    network = mlp((3, 4, 2))
    network[1].scale = nn.Parameter(torch.ones(4))
    with pytest.raises(ValueError, match=r"layer '1' .*other parameters than weight and bias"):
        hidden_layers(network)
    network = mlp((3, 4, 2))
    del network[1].weight
    network[1].register_buffer("weight", torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"layer '1' .*other parameters than weight and bias"):
        hidden_layers(network)


def test_under_a_hook_on_all_modules_nothing_is_understood():
    network = mlp((3, 4, 2))
    assert hidden_layers(network)
    handle = register_module_forward_hook(lambda module, given, out: out)
    try:
        with pytest.raises(ValueError, match="global forward hooks"):
            hidden_layers(network)
    finally:
        handle.remove()
    assert hidden_layers(network)


def test_layers_are_derived_once_and_again_when_the_network_changes(monkeypatch):
    readings = []
    reader = layout._Reader
    monkeypatch.setattr(layout, "_Reader", lambda n: readings.append(n) or reader(n))
    network = mlp((3, 4, 2))
    first = hidden_layers(network)
    first[0].slices.clear()  # what a caller does with it is the caller's
    first.clear()
    assert [len(layer.slices) for layer in hidden_layers(network)] == [3]
    assert len(readings) == 1
    network[2] = nn.Softmax(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="layer '2' is Softmax"):
            hidden_layers(network)
    assert len(readings) == 2
    network[2] = nn.Tanh()
    assert not hidden_layers(network)[0].homogeneous


@pytest.mark.parametrize(
    ("modules", "passes"),
    [
        ((nn.BatchNorm1d(4), nn.ReLU()), True),
        ((nn.BatchNorm1d(4), nn.BatchNorm1d(4)), True),
        ((nn.BatchNorm1d(4, affine=False), nn.ReLU()), False),
        ((nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False)), False),
        ((ResidualBlock(4, 3), nn.ReLU()), True),
        ((ResidualBlock(4, 3), ResidualBlock(4, 3)), True),
        ((nn.BatchNorm1d(4), ResidualBlock(4, 3)), False),
        ((ResidualBlock(4, 3), nn.BatchNorm1d(4)), False),
        ((nn.Tanh(), ResidualBlock(4, 3)), False),
    ],
)
def test_where_factors_have_one_place_to_go(modules, passes):
    network = nn.Sequential(nn.Linear(2, 4), *modules, nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    first, *_, last = hidden_layers(network)
    assert first.homogeneous == passes
    assert last.homogeneous  # what joined the stream before is no matter to the next


@pytest.mark.parametrize("wrong", [None, "mlp", nn.Linear, {}, torch.zeros(2)])
def test_no_network(wrong):
    with pytest.raises(ValueError, match=r"network must be an nn\.Module"):
        hidden_layers(wrong)
