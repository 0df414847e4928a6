import pytest
from torch import nn

from modeconn_lite.layout import Slice, hidden_layers
from modeconn_lite.networks import cnn3, conv2fc1, mlp, residual_mlp, vgg


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
        (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.Flatten()), "layer '0' has 2 groups"),
        (nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)), "layer '0' .*stands before"),
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1)), "layer '1' reads 4 inputs"),
        (nn.GRU(2, 2), "layer 'GRU' is GRU"),
    ],
)
def test_what_is_not_understood_is_named(network, message):
    with pytest.raises(ValueError, match=message):
        hidden_layers(network)
