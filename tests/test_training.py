import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modeconn_lite import training
from modeconn_lite.data import Split, flip_and_crop, jitter
from modeconn_lite.networks import mlp, residual_mlp
from modeconn_lite.training import SCHEDULES, train
from modeconn_lite.weights import apply, distance, fresh_weights, norm, to


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny steps on two threads are slower, by far so when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(n=70, dtype=torch.float64):
    g = torch.Generator().manual_seed(3)
    y = torch.arange(n) % 3
    x = torch.randn(n, 5, generator=g, dtype=dtype)
    x[torch.arange(n), y] += 3
    return Split(x, y, "blobs", ("a", "b", "c"))


SPLIT = blobs()
NETWORK = mlp((5, 8, 3))
OPTIONS = {"epochs": 3, "rate": 0.05, "batch": 16}


def double(seed):
    return to(fresh_weights(NETWORK, seed), torch.float64)


def at_once(seeds, network=NETWORK, **changes):
    start = [to(fresh_weights(network, s), torch.float64) for s in seeds]
    return train(network, SPLIT, seeds, start=start, **(OPTIONS | changes))


@pytest.mark.parametrize("network", [NETWORK, residual_mlp(5, 3, width=6, hidden=4)])
@pytest.mark.parametrize("augment", [None, jitter(0.1)])
def test_many_at_once_equals_one_by_one(network, augment):
    together = at_once([4, 9, 2], network, augment=augment)
    for k, seed in enumerate([4, 9, 2]):
        alone = at_once([seed], network, augment=augment)
        assert distance(alone.weights[0], together.weights[k]) < 1e-12 * norm(alone.weights[0])
        assert torch.allclose(alone.loss[:, 0], together.loss[:, k])
    assert distance(together.weights[0], together.weights[1]) > 0.1


def test_equals_a_plain_loop_with_torch_optim():
    """The same order of data through torch's own SGD, momentum, decay and cosine schedule."""
    options = {"momentum": 0.9, "weight_decay": 0.01, "schedule": "cosine"}
    ours = at_once([7], **options).weights[0]
    network = mlp((5, 8, 3)).double()
    network.load_state_dict(double(7))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    batches = math.ceil(len(SPLIT) / 16)
    for epoch in range(3):
        order = torch.randperm(len(SPLIT), generator=training.epoch_generator(7, epoch))
        for i, rows in enumerate(order.split(16)):
            done = (epoch + i / batches) / 3
            optimiser.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * done)) / 2
            optimiser.zero_grad()
            F.cross_entropy(network(SPLIT.x[rows]), SPLIT.y[rows]).backward()
            optimiser.step()
    for key, value in network.named_parameters():
        assert torch.allclose(ours[key], value.detach(), atol=1e-12), key


def test_it_learns():
    done = at_once([0, 1], epochs=30)
    assert (done.loss[-1] < 0.3 * done.loss[0]).all()
    accuracy = (apply(NETWORK, done.weights[0], SPLIT.x).argmax(1) == SPLIT.y).float().mean()
    assert accuracy > 0.95


def test_the_network_and_the_start_are_not_touched():
    start = [double(0)]
    before = {k: v.clone() for k, v in start[0].items()}
    own = {k: v.clone() for k, v in NETWORK.state_dict().items()}
    done = train(NETWORK, SPLIT, [0], start=start, **OPTIONS)
    assert all(torch.equal(start[0][k], before[k]) for k in before)
    assert all(torch.equal(NETWORK.state_dict()[k], own[k]) for k in own)
    assert not any(w.requires_grad for w in done.weights[0].values())


def test_snapshots():
    done = at_once([0, 1], snapshots=(0, 2, 3))
    assert list(done.snapshots) == [0, 2, 3]
    assert all(torch.equal(done.snapshots[0][1][k], v) for k, v in double(1).items())
    assert all(torch.equal(done.snapshots[3][0][k], v) for k, v in done.weights[0].items())
    assert distance(done.snapshots[2][0], done.weights[0]) > 0


class Own(nn.Module):
    """A module whose repr does not say what it does."""

    def __init__(self, function=F.relu, factor=1.0):
        super().__init__()
        self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 3)
        self.function, self.factor = function, factor

    def forward(self, x):
        return self.two(self.function(self.one(x)) * self.factor)


def frozen():
    network = mlp((5, 8, 3))
    network[1].bias.requires_grad_(False)
    return network


def test_frozen_parameters_stay_where_they_start():
    done = at_once([0, 1], frozen(), weight_decay=0.1, snapshots=(1,))
    for k in (0, 1):
        assert torch.equal(done.weights[k]["1.bias"], double(k)["1.bias"])
        assert torch.equal(done.snapshots[1][k]["1.bias"], double(k)["1.bias"])
        assert not torch.equal(done.weights[k]["1.weight"], double(k)["1.weight"])


def test_freezing_is_what_it_is_for_torch_optim():
    network = frozen().double()
    network.load_state_dict(double(7))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    order = torch.randperm(len(SPLIT), generator=training.epoch_generator(7, 0))
    for rows in order.split(16):
        optimiser.zero_grad()
        F.cross_entropy(network(SPLIT.x[rows]), SPLIT.y[rows]).backward()
        optimiser.step()
    options = {"epochs": 1, "schedule": "constant", "weight_decay": 0.01}
    ours = at_once([7], frozen(), **options).weights[0]
    assert all(
        torch.allclose(ours[k], p.detach(), atol=1e-12) for k, p in network.named_parameters()
    )


def twice():
    layer = nn.Linear(5, 5)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(5, 3))


def tied():
    one, two = nn.Linear(5, 5), nn.Linear(5, 5)
    two.weight = one.weight
    return nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize("make", [twice, tied])
def test_a_layer_used_twice_is_trained_and_not_touched(make):
    network, plain = make(), make().double()
    start = to(fresh_weights(network, 7), torch.float64)
    own = {k: v.clone() for k, v in network.state_dict().items()}
    ours = train(network, SPLIT, [7], start=[start], **OPTIONS | {"schedule": "constant"})
    assert all(torch.equal(v, own[k]) for k, v in network.state_dict().items())
    with torch.no_grad():
        for key, p in plain.named_parameters():
            p.copy_(start[key])
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(3):
        order = torch.randperm(len(SPLIT), generator=training.epoch_generator(7, epoch))
        for rows in order.split(16):
            optimiser.zero_grad()
            F.cross_entropy(plain(SPLIT.x[rows]), SPLIT.y[rows]).backward()
            optimiser.step()
    for key, p in plain.named_parameters():
        assert torch.allclose(ours.weights[0][key], p.detach(), atol=1e-12), key


def test_a_parameter_that_nothing_uses_is_left_alone():
    class Spare(Own):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(2, 2)

    done = at_once([0], Spare(), weight_decay=0.1).weights[0]
    start = to(fresh_weights(Spare(), 0), torch.float64)
    assert torch.equal(done["spare.weight"], start["spare.weight"])


def test_a_forward_that_writes_buffers_writes_into_no_network_of_the_caller_s():
    class Counting(Own):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    network = Counting()
    at_once([0], network)
    assert float(network.calls) == 0


def test_a_seed_may_come_twice():
    done = at_once([5, 5])
    assert distance(*done.weights) == 0


def test_dropout_trains_whatever_mode_the_network_came_in():
    network = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    one, two = at_once([9], network.train()), at_once([9], network.eval())
    assert distance(one.weights[0], two.weights[0]) == 0
    assert not network.training


def test_buffers_follow_the_weights():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("factor", torch.tensor(0.5))
            self.linear = nn.Linear(5, 3)

        def forward(self, x):
            return self.linear(x * self.factor)

    assert at_once([1], Scaled()).loss.isfinite().all()


def test_the_number_of_threads_is_the_caller_s(monkeypatch):
    torch.set_num_threads(2)
    at_once([0])
    assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="diverged"):
        at_once([0], rate=1e200)
    assert torch.get_num_threads() == 2


def test_dropout_masks_belong_to_the_seed_not_to_the_company():
    network = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    together = at_once([4, 9], network)
    assert torch.equal(torch.get_rng_state(), state)
    alone = at_once([9], network)
    assert distance(alone.weights[0], together.weights[1]) == 0
    plain = at_once([9], nn.Sequential(nn.Linear(5, 8), nn.Identity(), nn.Linear(8, 3)))
    assert distance(alone.weights[0], plain.weights[0]) > 0.01


def test_schedules():
    ends = {name: (f(0.0), f(0.5), f(1.0)) for name, f in SCHEDULES.items()}
    assert ends["constant"] == (1, 1, 1)
    assert ends["cosine"] == pytest.approx((1, 0.5, 0))
    assert ends["plateau"] == pytest.approx((1, 1, 0.01))
    assert SCHEDULES["plateau"](0.7) == pytest.approx(0.505)
    assert SCHEDULES["plateau"](0.9) == pytest.approx(0.01)


class TestBadInput:
    def test_batch_norm(self):
        with pytest.raises(ValueError, match="cannot train '1': running statistics"):
            train(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)), SPLIT, [0], epochs=1)

    def test_schedule(self):
        with pytest.raises(ValueError, match=r"schedule must be one of \('constant'.*not 'linear'"):
            at_once([0], schedule="linear")

    def test_divergence_in_the_very_last_step(self):
        """The loss before it was finite, the weights after it are not."""
        large = replace(SPLIT, x=SPLIT.x * 1e10)
        with pytest.raises(ValueError, match="seed 8: the loss diverged in epoch 1"):
            train(NETWORK, large, [8], start=[double(8)], epochs=1, batch=70, rate=1e308)

    def test_divergence_names_the_seed(self):
        with pytest.raises(ValueError, match=r"seed 8: the loss diverged in epoch 1"):
            at_once([8], rate=1e200)

    def test_numbers(self):
        with pytest.raises(
            ValueError, match=r"snapshots must be a whole number .* at most 3, not 5"
        ):
            at_once([0], snapshots=(0, 5))
        with pytest.raises(ValueError, match="rate must be a finite number above 0, not nan"):
            at_once([0], rate=float("nan"))
        with pytest.raises(ValueError, match="2 outputs for 3 classes"):
            at_once([0], mlp((5, 4, 2)))

    def test_start_and_seeds(self):
        with pytest.raises(ValueError, match="1 starting points for 2 seeds"):
            train(NETWORK, SPLIT, [0, 1], start=[double(0)], epochs=1)
        with pytest.raises(ValueError, match="seeds: 0 whole numbers given, at least 1 needed"):
            train(NETWORK, SPLIT, [], epochs=1)
        with pytest.raises(ValueError, match=r"start\[0\].*shape"):
            train(NETWORK, SPLIT, [0], start=[fresh_weights(mlp((5, 9, 3)), 0)], epochs=1)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"epochs": math.nan}, "epochs must be a whole number"),
            ({"epochs": 1.5}, "epochs must be a whole number .* not 1.5"),
            ({"epochs": -1}, "epochs must be a whole number of at least 0"),
            ({"epochs": True}, "epochs must be a whole number .* not True"),
            ({"epochs": "3"}, "epochs must be a whole number .* not '3'"),
            ({"batch": 16.0}, "batch must be a whole number of at least 1, not 16.0"),
            ({"batch": 0}, "batch must be"),
            ({"rate": math.inf}, "rate must be a finite number"),
            ({"rate": 0}, "rate must be a finite number above 0"),
            ({"rate": None}, "rate must be a finite number"),
            ({"momentum": math.nan}, "momentum must be a finite number of at least 0, not nan"),
            ({"momentum": -0.1}, "momentum must be"),
            ({"weight_decay": math.nan}, "weight_decay must be"),
            ({"weight_decay": -1e-4}, "weight_decay must be a finite number of at least 0"),
            ({"schedule": None}, "schedule must be one of"),
            ({"schedule": ["cosine"]}, "schedule must be one of"),
            ({"snapshots": (0.5,)}, "snapshots must be a whole number .* not 0.5"),
            ({"snapshots": 2}, "snapshots must be a list of epochs, not 2"),
            ({"snapshots": (4,)}, "at most 3, not 4"),
            ({"seeds": 3}, "seeds must be a list of whole numbers, not 3"),
            ({"seeds": "01"}, "seeds must be a list"),
            ({"seeds": []}, "seeds: 0 whole numbers given"),
            ({"seeds": [0.0]}, "each of seeds must be a whole number"),
            ({"seeds": [-1]}, "each of seeds must be"),
            ({"seeds": [2**63]}, "each of seeds must be"),
            ({"seeds": torch.arange(2)}, "seeds must be a list"),
            ({"start": double(0)}, "start must be a list of weights, one for each seed"),
            ({"start": [None]}, r"start\[0\] must be a non-empty dict"),
            ({"start": [{k: w * math.nan for k, w in double(0).items()}]}, "not finite"),
            (
                {"seeds": [0, 1], "start": [double(0), fresh_weights(NETWORK, 1)]},
                r"start\[1\]\['1.weight'\] is torch.float32 on cpu.*float64",
            ),
            ({"network": None}, "network must be an nn.Module, not None"),
            ({"network": nn.ReLU}, "the class ReLU"),
            ({"network": fresh_weights(NETWORK, 0)}, "network must be an nn.Module, not a dict"),
            ({"network": nn.ReLU()}, "no parameters to train"),
            ({"network": mlp((5, 3)).requires_grad_(False)}, "all are frozen"),
            ({"network": nn.LazyLinear(3)}, "has no shape yet; run the network once"),
            (
                {"network": mlp((6, 8, 3))},
                r"layer '1' \(Linear\) takes inputs of shape \(images, 6\), not \(4, 5\)",
            ),
            ({"network": nn.Conv2d(1, 3, 3)}, "this Conv2d takes inputs of shape"),
            (
                {"network": nn.Sequential(nn.Linear(5, 3), nn.Flatten(0))},
                r"gives outputs of shape \(12,\)",
            ),
            ({"split": None}, "split must be a Split"),
            ({"split": SPLIT.x}, "split must be a Split.*not a tensor"),
            ({"augment": 0.4}, "augment must be a function"),
            ({"augment": flip_and_crop}, r"augment fails on images of shape \(4, 5\): x has shape"),
            ({"augment": lambda x, g: None}, "augment made NoneType"),
            ({"augment": lambda x, g: x[:1]}, r"augment made \(1, 5\)"),
            ({"augment": lambda x, g: x / 0}, "augment made values that are not finite"),
            ({"augment": lambda x, g: x + torch.randn_like(x)}, "the generator it is given"),
            (
                {"augment": lambda x, g: x[:, :3]},
                r"takes inputs of shape \(images, 5\), not \(4, 3\)",
            ),
            ({"device": "gpu"}, "device cannot be 'gpu'"),
            ({"device": "meta"}, "device cannot be 'meta'"),
            ({"checkpoint": 3}, "checkpoint must be a path"),
            ({"checkpoint": ""}, "checkpoint must be a path"),
        ],
    )
    def test_is_refused_at_the_door(self, change, message):
        arguments = {"network": NETWORK, "split": SPLIT, "seeds": [0]} | OPTIONS | change
        state = torch.get_rng_state()
        with pytest.raises(ValueError, match=message):
            train(**arguments)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
    def test_a_network_that_cannot_be_copied(self):
        network = nn.Sequential(nn.utils.weight_norm(nn.Linear(5, 3)))
        with pytest.raises(ValueError, match=r"Sequential cannot be copied.*remove_weight_norm"):
            at_once([0], network)

    def test_randomness_of_a_forward_is_no_seed_s(self):
        with pytest.raises(ValueError, match=r"cannot be trained in a stack: .*random"):
            at_once([0], Own(F.dropout))

    def test_outputs_that_hang_on_nothing(self):
        with pytest.raises(ValueError, match="do not depend on its parameters"):
            at_once([0], Detached())


class Detached(Own):
    def forward(self, x):
        return super().forward(x).detach()


def test_layers_that_work_in_place_leave_the_images_alone():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3))
    before = SPLIT.x.clone()
    at_once([0], network)
    assert torch.equal(SPLIT.x, before)


def test_a_forward_that_holds_on_to_the_network_cannot_be_trained():
    network = mlp((5, 8, 3))
    network.forward = lambda x: network[3](network[1](x))
    single = Split(SPLIT.x.float(), SPLIT.y, SPLIT.name, SPLIT.classes)
    with pytest.raises(ValueError, match="whatever weights it is given"):
        train(network, single, [0], epochs=1)


def test_a_network_without_values():
    with pytest.raises(ValueError, match=r"'1\.weight' is on the meta device"):
        train(mlp((5, 8, 3)).to("meta"), SPLIT, [0], epochs=1)
