"""A network read as a chain of stages, and what is not believed of it."""

import odd_networks
import pytest
import torch
from torch import nn

from modeconn_lite import forward, stages
from modeconn_lite.anatomy import facts
from modeconn_lite.forward import outputs
from modeconn_lite.networks import mlp
from modeconn_lite.paths import FunctionPath, segment
from modeconn_lite.times import grid
from modeconn_lite.weights import apply, fresh_weights, to, weights_of

X = torch.randn(23, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_misread_network_is_not_believed_to_have_unread_neurons():
    """Neurons that another layout would call unread: features behind Flatten are (time, neuron)."""
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(9, 2))
    a, b = (odd_networks.drawn(network, seed) for seed in range(2))
    a["3.weight"][:, 3:6] = b["3.weight"][:, 3:6] = 0
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    path = segment(a, b | {"3.weight": a["3.weight"]})
    naive = torch.stack([apply(network, path(t), x) for t in (0.0, 0.5, 1.0)])
    assert torch.allclose(outputs(network, path, [0.0, 0.5, 1.0], x), naive, atol=1e-12)


def test_stages_that_do_not_add_up_are_no_chain():
    network = odd_networks.borrowing()
    a, b = (odd_networks.drawn(network, seed) for seed in range(2))
    outputs(network, segment(a, b), [0.0, 0.5], X)
    (known,) = [value for key, value in facts(network).items() if key[0] == "chain"]
    assert not known[0]
    network = mlp((16, 5, 3))
    a, b = (odd_networks.drawn(network, seed) for seed in range(2))
    outputs(network, segment(a, b), [0.0, 0.5], X)
    assert facts(network)["chain", True, 1, 4, 4] == (True, 16)


def test_chunks_are_as_wide_as_the_widest_layer(monkeypatch):
    network = mlp((16, 40, 3))
    a, b = (odd_networks.drawn(network, seed) for seed in range(2))
    monkeypatch.setattr(stages, "CHUNK_FLOATS", (40 * 20, 1))
    parts = [p[1] for p in forward.sweep(network, segment(a, b), grid(3), X, None)]
    assert parts == [slice(0, 20), slice(20, 23)]
    monkeypatch.setattr(stages, "CHUNK_FLOATS", (40, 1))  # but no fewer than 16 at a time
    parts = [p[1] for p in forward.sweep(network, segment(a, b), grid(3), X, None)]
    assert parts == [slice(0, 16), slice(16, 23)]
    network = mlp((16, 88, 88, 3))  # and more beside large weights: 88² / 4 numbers
    a, b = (odd_networks.drawn(network, seed) for seed in range(2))
    parts = [p[1] for p in forward.sweep(network, segment(a, b), grid(3), X, None)]
    assert parts == [slice(0, 22), slice(22, 23)]


def test_the_caller_s_images_are_not_changed_by_layers_that_work_in_place():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3))
    a, b = (to(fresh_weights(network, s), torch.float64) for s in range(2))
    before = X.clone()
    for path in (segment(a, b), FunctionPath(segment(a, b))):
        outputs(network, path, grid(3), X)
    assert torch.equal(X, before)


def test_a_network_that_is_no_chain_sees_few_images_at_a_time(monkeypatch):
    seen = []

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp((16, 5, 3))

        def forward(self, x):
            seen.append(len(x))
            return self.body(x)

    monkeypatch.setattr(stages, "BATCH", 10)
    network = Wrapped().eval()
    a, b = (fresh_weights(network, s) for s in range(2))
    outputs(network, segment(a, b), grid(3), X)
    assert max(seen) == 10


def test_one_module_left_in_training_mode_does_not_drop(monkeypatch):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Dropout(0.5), nn.Linear(5, 3)).eval()
    network[2].train()
    a, b = (to(fresh_weights(network, s), torch.float64) for s in range(2))
    one, two = (outputs(network, segment(a, b), [0.3], X) for _ in range(2))
    assert torch.equal(one, two)


class Crowd(nn.Module):
    """Whose outputs depend on the company, or on chance."""

    def __init__(self, last):
        super().__init__()
        self.body, self.last = nn.Linear(4, 3), last

    def forward(self, x):
        return self.last(self.body(x))


@pytest.mark.parametrize(
    "network",
    [
        Crowd(lambda h: h - h.mean(0)),
        Crowd(lambda h: h.softmax(0)),
        Crowd(nn.functional.dropout),  # always on
        nn.Sequential(nn.Linear(4, 3), nn.Softmax(0)),
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Softmax(0)),
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=False),  # images attend to each other
    ],
)
def test_an_image_gets_the_same_outputs_in_any_company(network):
    line = segment(*(weights_of(network) for _ in range(2)))
    with pytest.raises(ValueError, match="gives an image other outputs in other company"):
        outputs(network, line, [0.5], torch.randn(9, 4))
    with pytest.raises(ValueError, match="other company"):
        outputs(network, FunctionPath(line), [0.5], torch.randn(9, 4))


def test_rounding_is_judged_by_the_largest_output():
    """A sum that cancels to nearly zero is off by the rounding of what was summed."""
    large = torch.tensor([[1000.0, 0.0]])
    for off, alike in ((0.1, True), (10.0, False)):
        assert stages._alike(large, large + torch.tensor([[0.0, off]])) is alike
    assert not stages._alike(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.1]]))
    assert not stages._alike(large, large[:, :1])


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2),
        nn.MaxPool2d((1, 2), stride=1, padding=(0, 1)),
        nn.MaxPool2d(2, dilation=2, ceil_mode=True),
    ],
)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_pooling_with_channels_last_gives_the_same_numbers(pool, kind):
    x = torch.randn(7, 5, 9, 8, generator=torch.Generator().manual_seed(1)).to(kind)
    x[0, 0, 4, 4], x[1, 2, 0, 0] = float("nan"), float("inf")
    network = nn.Sequential(nn.Conv2d(5, 5, 1), pool).to(kind)
    chain = stages.Stages(network, weights_of(network), x).chain[1:]
    pooled = stages.run_stages(chain, {}, x)
    assert chain[0].pools and pooled.is_contiguous()
    assert torch.equal(pooled.nan_to_num(), pool(x).nan_to_num())
    assert torch.equal(pooled.isnan(), pool(x).isnan())
    assert torch.equal(stages.run_stages(chain, {}, x[2]), pool(x[2]))  # no batch, but sequences
