import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modeconn_lite import training
from modeconn_lite.data import Split, jitter
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
        order = torch.randperm(len(SPLIT), generator=training._generator(7, epoch))
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


@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_training_goes_on_where_it_stopped(tmp_path, monkeypatch, stop_after):
    file = tmp_path / "run.part"
    whole = at_once([3, 5], snapshots=(1,))
    original = training._State.write
    written = []

    def write_then_stop(self, *arguments):
        original(self, *arguments)
        written.append(self.epoch)
        if len(written) == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(training._State, "write", write_then_stop)
    with pytest.raises(KeyboardInterrupt):
        at_once([3, 5], snapshots=(1,), checkpoint=file)
    resumed = at_once([3, 5], snapshots=(1,), checkpoint=file)
    assert written == [1, 2, 3]  # no epoch was run twice
    for k in range(2):
        assert all(torch.equal(resumed.weights[k][n], v) for n, v in whole.weights[k].items())
        assert all(
            torch.equal(resumed.snapshots[1][k][n], v) for n, v in whole.snapshots[1][k].items()
        )
    assert list(resumed.weights[0]) == list(whole.weights[0])
    assert torch.equal(resumed.loss, whole.loss)
    again = at_once([3, 5], snapshots=(1,), checkpoint=file)  # finished: nothing is run
    assert written == [1, 2, 3]
    assert distance(again.weights[0], whole.weights[0]) == 0


def test_a_checkpoint_of_another_training_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "run.part"
    original = training._State.write

    def write_then_stop(self, *arguments):
        original(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(training._State, "write", write_then_stop)
    with pytest.raises(KeyboardInterrupt):
        at_once([3], checkpoint=file)
    with pytest.raises(ValueError, match="belongs to another training"):
        at_once([4], checkpoint=file)


@pytest.mark.parametrize(
    "change", [{"network": mlp((5, 9, 3))}, {"split": blobs(73)}, {"batch": 8}]
)
def test_a_checkpoint_knows_its_network_and_its_data(tmp_path, change):
    file = tmp_path / "run.part"
    arguments = {"network": NETWORK, "split": SPLIT, "seeds": [3]} | OPTIONS
    single = arguments | {"split": replace(SPLIT, x=SPLIT.x.float()), "checkpoint": file}
    train(**single)
    if "split" in change:
        change = {"split": replace(change["split"], x=change["split"].x.float())}
    with pytest.raises(ValueError, match="belongs to another training"):
        train(**(single | change))


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
        with pytest.raises(ValueError, match="unknown schedule 'linear'"):
            at_once([0], schedule="linear")

    def test_divergence_names_the_seed(self):
        with pytest.raises(ValueError, match=r"seed 8: the loss diverged in epoch 1"):
            at_once([8], rate=1e200)

    def test_numbers(self):
        with pytest.raises(ValueError, match=r"snapshots from 0 to 3; got .*snapshots=\(0, 5\)"):
            at_once([0], snapshots=(0, 5))
        with pytest.raises(ValueError, match="need 0 < rate"):
            at_once([0], rate=float("nan"))
        with pytest.raises(ValueError, match="2 outputs for 3 classes"):
            at_once([0], mlp((5, 4, 2)))

    def test_start_and_seeds(self):
        with pytest.raises(ValueError, match="1 starting points for 2 seeds"):
            train(NETWORK, SPLIT, [0, 1], start=[double(0)], epochs=1)
        with pytest.raises(ValueError, match="need seeds"):
            train(NETWORK, SPLIT, [], epochs=1)
        with pytest.raises(ValueError, match=r"start\[0\].*shape"):
            train(NETWORK, SPLIT, [0], start=[fresh_weights(mlp((5, 9, 3)), 0)], epochs=1)
