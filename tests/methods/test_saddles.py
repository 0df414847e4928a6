import pytest
import torch
import torch.nn.functional as F
from small_networks import same
from torch import nn

from modeconn_lite import neurons
from modeconn_lite.methods import saddles
from modeconn_lite.networks import mlp
from modeconn_lite.paths import segment
from modeconn_lite.weights import apply, fresh_weights


def teacher(outputs, seed=5):
    """A tanh network, inputs, and its own outputs as targets: an exact global minimum."""
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, outputs)).double()
    g = torch.Generator().manual_seed(seed)
    w = {
        key: torch.randn(p.shape, generator=g, dtype=torch.float64)
        for key, p in network.named_parameters()
    }
    x = torch.randn(200, 2, generator=g, dtype=torch.float64)
    return network, w, x, apply(network, w, x)


@pytest.fixture(scope="module", params=[1, 2])
def valley(request):
    network, w, x, y = teacher(request.param)
    path = saddles.permutation_valley(network, w, "0", 0, 1, x, y, loss=F.mse_loss)
    return network, w, x, y, path


def losses(network, path, x, y, points=201):
    times = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
    return torch.tensor([float(F.mse_loss(apply(network, path(t), x), y)) for t in times])


def test_the_valleys_ends_are_exact_and_it_stays_below_the_straight_swap(valley):
    network, w, x, y, path = valley
    swapped = neurons.swap(network, w, "0", 0, 1)
    assert same(path(0.0), w)
    assert same(path(1.0), swapped)
    along = losses(network, path, x, y)
    assert along.max() < 0.01 * losses(network, segment(w, swapped), x, y).max()
    assert torch.allclose(along, along.flip(0), atol=1e-9)  # there and back


def test_the_plateau_lies_at_the_collision_and_is_level(valley):
    network, _, x, y, path = valley
    pieces = len(path.anchors) - 1
    one, two = path.anchors[pieces // 2 : pieces // 2 + 2]
    for w in (one, two):
        assert torch.equal(w["0.weight"][0], w["0.weight"][1])
        assert torch.equal(w["0.bias"][0], w["0.bias"][1])
    level = losses(network, segment(one, two), x, y, 11)
    assert level.max() - level.min() < 1e-12
    height = float(level[0])
    assert height > 1e-6  # a pass, not a solution
    earlier = float(F.mse_loss(apply(network, path.anchors[6], x), y))
    assert earlier < height  # beside the plateau the loss is not the same


def test_the_collision_is_a_saddle(valley):
    network, _, x, y, path = valley
    middle = path(0.5)
    gradient, values = saddles.curvature(network, middle, x, y, loss=F.mse_loss)
    largest = float(values[-1])
    assert gradient < 1e-5
    assert values[0] < -1e-5 * largest
    assert (values.abs() < 1e-7 * largest).sum() >= 1
    # Moving outgoing weight from one neuron to the other: no curvature in any of n_(k+1) ways.
    flat = torch.autograd.functional.hvp(
        lambda c: F.mse_loss(apply(network, middle | {"2.weight": c}, x), y),
        middle["2.weight"],
        torch.tensor([[1.0, -1, 0, 0]], dtype=torch.float64).expand_as(middle["2.weight"]),
    )[1]
    assert flat.abs().max() < 1e-10


def test_at_a_solution_all_curvature_is_upward():
    network, w, x, y = teacher(1)
    gradient, values = saddles.curvature(network, w, x, y, loss=F.mse_loss)
    assert gradient == 0
    assert values[0] > 0
    assert len(values) == 17


def test_curvature_of_a_parabola():
    network = nn.Linear(1, 1).double()
    w = {"weight": torch.tensor([[3.0]]).double(), "bias": torch.tensor([0.0]).double()}
    x, y = torch.tensor([[1.0], [-1.0]]).double(), torch.zeros(2, 1).double()
    gradient, values = saddles.curvature(network, w, x, y, loss=F.mse_loss)
    assert gradient == pytest.approx(6)  # the mean of (w x + b)² is w² + b²
    assert values.tolist() == pytest.approx([2, 2])


def test_inputs_and_networks_are_left_alone():
    network = mlp((9, 5, 3))
    a = fresh_weights(network, 0)
    before = {k: v.clone() for k, v in a.items()}
    x, y = torch.randn(20, 9), torch.randint(3, (20,))
    saddles.permutation_valley(network, a, "1", 0, 1, x, y, steps=2, iterations=2, polish=1)
    assert same(a, before)
    assert not any(w.requires_grad for w in a.values())


def test_what_cannot_be_done_is_refused():
    network = mlp((9, 5, 3))
    a = fresh_weights(network, 0)
    x, y = torch.randn(20, 9), torch.randint(3, (20,))
    with pytest.raises(ValueError, match="no hidden layer 'x'"):
        saddles.permutation_valley(network, a, "x", 0, 1, x, y)
    with pytest.raises(ValueError, match="at most 4, not 7"):
        saddles.permutation_valley(network, a, "1", 0, 7, x, y)
    with pytest.raises(ValueError, match="two neurons, not 2 twice"):
        saddles.permutation_valley(network, a, "1", 2, 2, x, y)
    with pytest.raises(ValueError, match="at most 2000"):
        big = mlp((64, 40, 10))
        saddles.curvature(big, fresh_weights(big, 0), torch.randn(5, 64), y[:5])


class TestBadCalls:
    network = mlp((9, 5, 3))
    w = fresh_weights(network, 0)
    x, y = torch.randn(20, 9), torch.arange(20) % 3

    def valley(self, **change):
        given = {"network": self.network, "weights": self.w, "layer": "1", "i": 0, "j": 1}
        given |= {"x": self.x, "y": self.y, "steps": 2, "iterations": 2, "polish": 1}
        return saddles.permutation_valley(**(given | change))

    def curvature(self, **change):
        given = {"network": self.network, "weights": self.w, "x": self.x, "y": self.y}
        return saddles.curvature(**(given | change))

    @pytest.mark.parametrize("name", ["steps", "iterations", "polish"])
    def test_counts(self, name):
        for wrong in (0, -1, 1.5, True, None, "2"):
            with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
                self.valley(**{name: wrong})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"network": None}, r"network must be an nn\.Module"),
            ({"network": nn.Linear}, r"network must be an nn\.Module"),
            ({"weights": None}, "weights must be a non-empty dict"),
            ({"weights": {k: v * torch.nan for k, v in w.items()}}, "not finite"),
            ({"weights": fresh_weights(mlp((9, 6, 3)), 0)}, "has shape"),
            ({"x": None}, "x must be a floating-point tensor"),
            ({"x": x[:0]}, "give at least one input"),
            ({"x": x * torch.nan}, "x holds NaN"),
            ({"x": x[:, :8]}, r"\(images, 9\), not \(20, 8\)|first layer"),
            ({"x": x.double()}, "float64"),
            ({"y": None}, "y must be a tensor with a target for each of 20 inputs"),
            ({"y": y[:5]}, "y must be a tensor with a target for each of 20 inputs"),
            ({"y": y.float()}, r"loss fails on outputs of shape \(20, 3\)"),
            ({"y": y + 7}, r"loss fails on outputs of shape \(20, 3\)"),
            ({"loss": None}, "loss must be a function"),
            ({"loss": "mse"}, "loss must be a function"),
            ({"loss": lambda out, y: 1.0}, "loss must give one finite number, .* not 1.0"),
            ({"loss": lambda out, y: out.sum(1)}, "loss must give one finite number"),
            ({"loss": lambda out, y: out.sum() * torch.nan}, "loss must give one finite number"),
            ({"loss": lambda out: out.sum()}, "loss fails on outputs"),
        ],
    )
    def test_the_rest(self, change, message):
        for call in (self.valley, self.curvature):
            with pytest.raises(ValueError, match=message):
                call(**change)

    def test_neurons(self):
        for change in ({"i": 5}, {"j": -1}, {"i": 0.0}, {"i": True}, {"j": None}):
            with pytest.raises(ValueError, match="a neuron of layer '1', must be a whole number"):
                self.valley(**change)
        with pytest.raises(ValueError, match="two neurons, not 3 twice"):
            self.valley(i=3, j=3)
        with pytest.raises(ValueError, match="no hidden layer 'x'"):
            self.valley(layer="x")


def test_the_gap_shrinks_in_equal_steps():
    """Incoming vectors, biases included; at the collision there is none, and polishing keeps it."""
    network, w, x, y = teacher(1)
    steps, polish = 4, 3
    path = saddles.permutation_valley(
        network, w, "0", 0, 2, x, y, loss=F.mse_loss, steps=steps, iterations=3, polish=polish
    )
    assert len(path.anchors) == 2 * (steps + polish)

    def gap(w):
        return float(
            torch.cat(
                [w["0.weight"][0] - w["0.weight"][2], (w["0.bias"][0] - w["0.bias"][2])[None]]
            ).norm()
        )

    start = gap(w)
    gaps = [gap(anchor) for anchor in path.anchors]
    there = [start * (1 - k / steps) for k in range(steps)] + [0.0] * polish
    assert gaps == pytest.approx([*there, *reversed(there)], abs=1e-12)
    # Everything else is free to move, and does.
    assert not torch.equal(path.anchors[1]["0.weight"][1], w["0.weight"][1])


def test_each_step_is_a_descent():
    network, w, x, y = teacher(2)
    options = {"loss": F.mse_loss, "steps": 3, "polish": 1}
    few = saddles.permutation_valley(network, w, "0", 0, 1, x, y, iterations=1, **options)
    many = saddles.permutation_valley(network, w, "0", 0, 1, x, y, iterations=30, **options)
    assert losses(network, many, x, y, 31).max() < losses(network, few, x, y, 31).max()


def test_a_hessian_has_its_largest_size():
    network = nn.Linear(1, 1000)
    w = fresh_weights(network, 0)  # 2000 parameters: the last that is allowed
    assert len(saddles.to_vector(w)) == saddles.LARGEST_HESSIAN
    network = nn.Linear(1, 1001)
    with pytest.raises(ValueError, match="2002 parameters is too large; use at most 2000"):
        saddles.curvature(network, fresh_weights(network, 0), torch.ones(3, 1), torch.arange(3))


def test_curvature_of_two_parabolas():
    """Eigenvalues in rising order, and the length of the gradient, by hand."""
    network = nn.Linear(2, 1, bias=False).double()
    w = {"weight": torch.tensor([[3.0, 4.0]]).double()}
    x = torch.tensor([[1.0, 0.0], [0.0, 3.0]]).double()
    gradient, values = saddles.curvature(network, w, x, torch.zeros(2, 1).double(), loss=F.mse_loss)
    assert values.tolist() == pytest.approx([1.0, 9.0])
    assert gradient == pytest.approx((3.0**2 + 36.0**2) ** 0.5)


def test_derivatives_that_overflow_are_no_curvature():
    network = nn.Linear(2, 1, bias=False)
    w, x = {"weight": torch.zeros(1, 2)}, torch.full((2, 2), 1e20)
    with pytest.raises(ValueError, match="its derivatives overflow"):
        saddles.curvature(network, w, x, torch.zeros(2, 1), loss=F.mse_loss)


def test_inputs_that_hang_on_a_graph():
    network, x, y = mlp((4, 5, 3)), torch.randn(9, 4, requires_grad=True) * 2, torch.arange(9) % 3
    w = fresh_weights(network, 0)
    options = {"steps": 2, "iterations": 2, "polish": 1}
    path = saddles.permutation_valley(network, w, "1", 0, 1, x, y, **options)
    same = saddles.permutation_valley(network, w, "1", 0, 1, x.detach(), y, **options)
    assert torch.equal(path(0.5)["1.weight"], same(0.5)["1.weight"])
