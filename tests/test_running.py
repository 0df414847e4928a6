"""Nothing of the caller's changes, and what comes out is what the weights say."""

import threading

import odd_networks
import pytest
import torch
from torch import nn

from modeconn_lite.anatomy import batch_norms
from modeconn_lite.networks import cnn3, mlp, residual_mlp, vgg
from modeconn_lite.running import Runner, replica
from modeconn_lite.weights import apply, fresh_weights, weights_of


@odd_networks.warned
@pytest.mark.parametrize("name", odd_networks.ODD)
def test_as_if_the_weights_had_been_loaded_into_it(name):
    make, shape, _ = odd_networks.ODD[name]
    torch.manual_seed(0)
    network = make()
    x = torch.randn(5, *shape, dtype=torch.float64)
    before = x.clone(), weights_of(network), list(network.parameters())
    a, b = (odd_networks.drawn(network, seed) for seed in range(2))
    copies = [{key: w.clone() for key, w in weights.items()} for weights in (a, b)]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    hooks = [len(m._forward_hooks) for m in network.modules()]
    modes = [m.training for m in network.modules()]

    def make_again():
        torch.manual_seed(0)
        return make()

    runner = Runner(network, x)
    for weights in (a, b, a):
        with torch.no_grad():
            out = runner(weights | statistics(network), x)
        wanted = odd_networks.naive(make_again, weights, x, statistics=False)
        assert torch.allclose(out, wanted, atol=1e-10)
    assert torch.equal(x, before[0])
    assert all(p is q for p, q in zip(network.parameters(), before[2], strict=True))
    assert all(torch.equal(w, before[1][key]) for key, w in weights_of(network).items())
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    for weights, old in zip((a, b), copies, strict=True):
        assert all(torch.equal(weights[key], old[key]) for key in old)
    assert hooks == [len(m._forward_hooks) for m in network.modules()]
    assert modes == [m.training for m in network.modules()]


def test_the_network_itself_where_that_does_no_harm():
    like = torch.zeros(())
    for network in (mlp((4, 5, 3)), vgg(11).eval(), residual_mlp(4, 3), cnn3(2, side=4)):
        assert Runner(network, like).ready is network
    norm = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    moody = [vgg(11), norm, odd_networks.twice(), odd_networks.tied(), odd_networks.skip()]
    hooked = odd_networks.hooked(mlp((4, 5, 3)), 2, lambda *_: None)
    for network in (*moody, hooked, odd_networks.Scaled(), odd_networks.Wrapped(nn.ReLU())):
        copied = Runner(network, like).ready
        assert copied is not network
        assert not any(m.training for m in copied.modules())


def test_buffers_of_a_copy_are_its_own_and_follow_the_weights():
    network = odd_networks.Scaled()
    copied = replica(network, torch.zeros((), dtype=torch.float64))
    assert copied.factor.dtype == torch.float64
    copied.factor.zero_()
    assert network.factor.dtype == torch.float32
    assert float(network.factor[0]) == 0.5
    assert copied.linear.weight is network.linear.weight  # there to be replaced


def test_what_cannot_be_copied_is_named():
    network = nn.Sequential(nn.Linear(2, 2), odd_networks.Wrapped(nn.ReLU()))
    network[1].lock = threading.Lock()
    with pytest.raises(ValueError, match=r"layer '1' \(Wrapped\) cannot be copied.*lock"):
        apply(network, weights_of(network), torch.zeros(1, 2))


def test_a_forward_that_holds_on_to_the_network_is_refused():
    network = mlp((4, 5, 3))
    network.forward = lambda x: network[3](network[1](x))
    with pytest.raises(ValueError, match=r"uses '1\.\w+' as it is, whatever weights"):
        Runner(network, torch.zeros(()))(fresh_weights(network, 0), torch.zeros(2, 4))
    network = mlp((4, 5, 3))
    network[1].register_forward_hook(lambda m, i, out: out * network[3].bias.sum())
    with pytest.raises(ValueError, match=r"uses '3\.bias'"):
        Runner(network, torch.zeros(()))(fresh_weights(network, 0), torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (mlp((4, 5, 3)), (2, 7), r"layer '1' \(Linear\) takes .*\(images, 4\), not \(2, 7\)"),
        (mlp((4, 5, 3)), (4,), r"layer '0' \(Flatten\) fails on inputs of shape \(4,\)"),
        (nn.Linear(4, 3), (2, 7), r"this Linear takes .*\(images, 4\), not \(2, 7\)"),
        (
            nn.Linear(4, 3),
            (4,),
            r"gives outputs of shape \(3,\) for x of shape \(4,\).*x\[None\]",
        ),
        (
            cnn3(2, side=4),
            (2, 3, 4, 4),
            r"'0' .*\(images, 1, height, width\), not \(2, 3, 4, 4\)",
        ),
        (cnn3(2, side=4), (2, 16), r"'0' .*\(images, 1, height, width\), not \(2, 16\)"),
        (cnn3(2, side=4), (2, 1, 5, 5), r"layer '7' .*\(images, 32\), not \(2, 50\)"),
        (
            nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2)),
            (2, 4),
            "'0' .*channels",
        ),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(2)), (2, 4), r"'1' .*2\), not \(2, 3\)"),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm2d(3)), (2, 4), "'1' .*3, height, width"),
        (nn.GRU(4, 3), (2, 5, 4), "this GRU gives a tuple of 2; outputs must be one tensor"),
        (residual_mlp(4, 3), (2, 7), r"layer '1' .*\(images, 4\), not \(2, 7\)"),
        (odd_networks.Wrapped(mlp((4, 5, 3))), (2, 7), r"layer 'body\.1' .*not \(2, 7\)"),
        (nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (2, 2))), (2, 4), "'1' .*fails on"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(8, 3)), (2, 4), "gives outputs of shape"),
    ],
)
def test_inputs_that_do_not_fit_are_told_by_the_layer(network, shape, message):
    w = {key: p.detach() for key, p in network.named_parameters()}
    with pytest.raises(ValueError, match=message):
        Runner(network, torch.zeros(()))(w, torch.zeros(shape))


def test_precision_is_told():
    network = mlp((4, 5, 3))
    with pytest.raises(ValueError, match=r"x is torch\.float64 on cpu, the weights are"):
        Runner(network, torch.zeros(()))(weights_of(network), torch.zeros(2, 4).double())


def test_no_network():
    for wrong in (None, "mlp", nn.Linear, {}, torch.zeros(2), 3):
        for ask in (batch_norms, lambda n: Runner(n, torch.zeros(()))):
            with pytest.raises(ValueError, match=r"network must be an nn\.Module"):
                ask(wrong)


def statistics(network):
    """Buffers in double precision, as `Runner` takes them among the weights."""
    return {key: b.double() for key, b in network.named_buffers() if b.is_floating_point()}
