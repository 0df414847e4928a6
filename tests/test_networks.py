import gc
import threading
import weakref

import odd_networks
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from modeconn_lite.networks import (
    ResidualBlock,
    Runner,
    batch_norms,
    chain,
    cnn3,
    conv2fc1,
    facts,
    for_evaluation,
    is_plain,
    mlp,
    oddity,
    replica,
    residual_mlp,
    vgg,
)
from modeconn_lite.weights import apply, fresh_weights, weights_of


@pytest.mark.parametrize(
    ("network", "shape", "parameters"),
    [
        (mlp((64, 64, 64, 64, 10)), (64,), 3 * (64 * 64 + 64) + 650),
        (mlp((784, 2000, 10)), (1, 28, 28), 784 * 2000 + 2000 + 20010),
        (mlp((6, 5, 3), bias=False), (2, 3), 45),
        (residual_mlp(64, 10, width=16, hidden=8), (64,), 65 * 16 + 2 * (17 * 8 + 9 * 16) + 170),
        (cnn3(), (1, 28, 28), 9 * 32 + 2 * 9 * 32 * 32 + 25088 * 10),
        (conv2fc1(), (3, 32, 32), 25 * 3 * 32 + 32 + 25 * 32 * 64 + 64 + 31370),
        (vgg(11), (3, 32, 32), 9_750_922),
        (vgg(16), (3, 32, 32), 15_245_130),
    ],
)
def test_shapes_and_sizes(network, shape, parameters):
    assert network.eval()(torch.zeros(2, *shape)).shape in ((2, 10), (2, 3))
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_vgg_16_has_thirteen_convolutions_and_three_linear_layers():
    kinds = [type(m) for m in vgg(16).modules()]
    assert sum(issubclass(k, nn.Conv2d) for k in kinds) == 13
    assert kinds.count(nn.Linear) == 3
    assert kinds.count(nn.Dropout) == 2
    with pytest.raises(ValueError, match="depth must be one of"):
        vgg(13)


def test_residual_block_adds_its_input():
    block = ResidualBlock(4, 3)
    nn.init.zeros_(block.leave.weight)
    nn.init.zeros_(block.leave.bias)
    x = torch.randn(2, 4)
    assert torch.equal(block(x), x)


def test_he_initialisation():
    conv = vgg(11)[6]
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    assert float(conv.bias.detach().abs().max()) == 0


def test_chain_unrolls_and_names_parameters():
    network = nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(4, 3), nn.ReLU()), cnn3(2, side=4)
    )
    names = [name for name, module in chain(network) if list(module.parameters())]
    assert names == ["1.0", "2.0", "2.2", "2.4", "2.7"]
    assert all(f"{name}.weight" in dict(network.named_parameters()) for name in names)


def test_chain_keeps_a_module_that_stands_twice():
    relu = nn.ReLU()
    network = nn.Sequential(relu, nn.Linear(2, 2), relu)
    assert [type(m) for _, m in chain(network)] == [nn.ReLU, nn.Linear, nn.ReLU]


def test_chain_does_not_take_apart_what_it_cannot():
    shared = nn.Linear(2, 2)
    hooked = mlp((2, 2, 2))
    hooked.register_forward_hook(lambda *_: None)
    for network in (nn.Sequential(shared, nn.ReLU(), shared), hooked, nn.GRU(2, 2)):
        assert chain(network) == [("", network)]


def test_batch_norms_are_named():
    assert batch_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))) == ["1"]
    assert batch_norms(mlp((2, 2))) == []


def test_bad_sizes():
    with pytest.raises(ValueError, match="1 widths given, at least 2 needed"):
        mlp((3,))
    for sizes in ((3, 0), (3.0, 2), (3, True), (3, "2"), "32", 3, None, {3: 1, 2: 1}):
        with pytest.raises(ValueError, match="sizes"):
            mlp(sizes)
    for make, options in (
        (residual_mlp, {"inputs": 3, "classes": 0}),
        (residual_mlp, {"inputs": 3, "classes": 2, "blocks": -1}),
        (residual_mlp, {"inputs": 3, "classes": 2, "hidden": 1.5}),
        (cnn3, {"channels": 0}),
        (cnn3, {"side": "28"}),
        (conv2fc1, {"classes": None}),
        (vgg, {"depth": 11.0}),
        (vgg, {"depth": 11, "dropout": 1.5}),
        (vgg, {"depth": 11, "dropout": float("nan")}),
    ):
        with pytest.raises(ValueError, match=f"{list(options)[-1]} must be"):
            make(**options)


class TestFacts:
    def test_they_are_kept_while_the_network_is_the_same(self):
        network, other = mlp((4, 5, 3)), mlp((4, 5, 3))
        facts(network)["seen"] = 1
        assert facts(network) == {"seen": 1}
        assert facts(other) == {}
        with torch.no_grad():
            network[1].weight.add_(1)  # its numbers are no facts
        assert facts(network) == {"seen": 1}

    @pytest.mark.parametrize(
        "change",
        [
            lambda n: n.append(nn.ReLU()),
            lambda n: n.__setitem__(2, nn.Tanh()),
            lambda n: n[1].register_forward_hook(lambda *_: None),
            lambda n: n[1].register_forward_pre_hook(lambda *_: None),
            lambda n: n.register_forward_hook(lambda *_: None),
            lambda n: setattr(n[2], "forward", torch.tanh),
            lambda n: setattr(n[2], "inplace", True),
            lambda n: setattr(n[0], "start_dim", 2),
            lambda n: setattr(n[1], "weight", nn.Parameter(torch.zeros(6, 4))),
            lambda n: setattr(n[1].weight, "data", torch.zeros(6, 4)),
            lambda n: setattr(n[3], "bias", n[1].bias),
            lambda n: setattr(n[3], "bias", None),
            lambda n: n[1].register_buffer("more", torch.zeros(1)),
            lambda n: n[1].__class__.__setattr__(n[1], "__class__", odd_networks.Quiet),
            lambda n: n[2].eval(),
            lambda n: odd_networks.parametrizations.weight_norm(n[1]),
        ],
    )
    def test_they_are_forgotten_when_it_changes(self, change):
        network = mlp((4, 5, 3))
        facts(network)["seen"] = 1
        change(network)
        assert facts(network) == {}

    def test_they_keep_no_network_alive(self):
        network = mlp((4, 5, 3))
        w = fresh_weights(network, 0)
        apply(network, w, torch.zeros(2, 4))
        facts(network)["seen"] = 1
        gone = weakref.ref(network)
        del network
        gc.collect()
        assert gone() is None

    def test_a_network_that_cannot_be_hashed_has_none(self):
        class Equal(nn.Linear):
            __hash__ = None

            def __eq__(self, other):
                return True

        facts(Equal(2, 2))["seen"] = 1
        assert facts(Equal(2, 2)) == {}

    def test_a_network_that_never_ran_is_named(self):
        with pytest.raises(ValueError, match=r"'1\.weight' has no shape yet; run the network once"):
            facts(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))

    def test_hooks_on_all_modules_count(self):
        network = mlp((4, 5, 3))
        facts(network)["seen"] = 1
        handle = register_module_forward_hook(lambda *_: None)
        try:
            assert facts(network) == {}
            assert "global forward hooks" in oddity(network[1])
        finally:
            handle.remove()
        assert is_plain(network[1])


class TestRunning:
    """Nothing of the caller's changes, and what comes out is what the weights say."""

    @odd_networks.warned
    @pytest.mark.parametrize("name", odd_networks.ODD)
    def test_as_if_the_weights_had_been_loaded_into_it(self, name):
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

    def test_the_network_itself_where_that_does_no_harm(self):
        like = torch.zeros(())
        for network in (mlp((4, 5, 3)), vgg(11).eval(), residual_mlp(4, 3), cnn3(2, side=4)):
            assert for_evaluation(network, like) is network
        norm = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
        moody = [vgg(11), norm, odd_networks.twice(), odd_networks.tied(), odd_networks.skip()]
        hooked = odd_networks.hooked(mlp((4, 5, 3)), 2, lambda *_: None)
        for network in (*moody, hooked, odd_networks.Scaled(), odd_networks.Wrapped(nn.ReLU())):
            copied = for_evaluation(network, like)
            assert copied is not network
            assert not any(m.training for m in copied.modules())

    def test_buffers_of_a_copy_are_its_own_and_follow_the_weights(self):
        network = odd_networks.Scaled()
        copied = replica(network, torch.zeros((), dtype=torch.float64))
        assert copied.factor.dtype == torch.float64
        copied.factor.zero_()
        assert network.factor.dtype == torch.float32
        assert float(network.factor[0]) == 0.5
        assert copied.linear.weight is network.linear.weight  # there to be replaced

    def test_what_cannot_be_copied_is_named(self):
        network = nn.Sequential(nn.Linear(2, 2), odd_networks.Wrapped(nn.ReLU()))
        network[1].lock = threading.Lock()
        with pytest.raises(ValueError, match=r"layer '1' \(Wrapped\) cannot be copied.*lock"):
            apply(network, weights_of(network), torch.zeros(1, 2))

    def test_a_forward_that_holds_on_to_the_network_is_refused(self):
        network = mlp((4, 5, 3))
        network.forward = lambda x: network[3](network[1](x))
        with pytest.raises(ValueError, match=r"uses its own '1\.\w+', whatever weights"):
            Runner(network, torch.zeros(()))(fresh_weights(network, 0), torch.zeros(2, 4))
        network = mlp((4, 5, 3))
        network[1].register_forward_hook(lambda m, i, out: out * network[3].bias.sum())
        with pytest.raises(ValueError, match=r"uses its own '3\.bias'"):
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
    def test_inputs_that_do_not_fit_are_told_by_the_layer(self, network, shape, message):
        w = {key: p.detach() for key, p in network.named_parameters()}
        with pytest.raises(ValueError, match=message):
            Runner(network, torch.zeros(()))(w, torch.zeros(shape))

    def test_precision_is_told(self):
        network = mlp((4, 5, 3))
        with pytest.raises(ValueError, match=r"x is torch\.float64 on cpu, the weights are"):
            Runner(network, torch.zeros(()))(weights_of(network), torch.zeros(2, 4).double())

    def test_no_network(self):
        for wrong in (None, "mlp", nn.Linear, {}, torch.zeros(2), 3):
            for ask in (batch_norms, lambda n: for_evaluation(n, torch.zeros(()))):
                with pytest.raises(ValueError, match=r"network must be an nn\.Module"):
                    ask(wrong)


def statistics(network):
    """Buffers in double precision, as `Runner` takes them among the weights."""
    return {key: b.double() for key, b in network.named_buffers() if b.is_floating_point()}
