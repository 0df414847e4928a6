"""Flows as maps: both ways, volumes, gradients."""

import math

import pytest
import torch

from modeconn_lite.methods.invertible import LOG_SCALE, Coupling, Flow, InverseAutoregressive

KINDS = ("rnvp", "iaf")


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def a_flow(kind, parts=(4, 1, 2), *, layers=3, hidden=9, size=0.5, dtype=torch.float64):
    """A flow whose layers do something: their silent weights are drawn as well."""
    flow = Flow(parts, kind, layers=layers, hidden=hidden).to(dtype)
    flow.fit_gaussian(draw(40, flow.size, dtype=dtype) @ draw(flow.size, flow.size, dtype=dtype))
    with torch.no_grad():
        for k, p in enumerate(flow.parameters()):
            p.add_(size * draw(*p.shape, seed=k, dtype=dtype))
    return flow.requires_grad_(False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [(1, 1), (4, 1, 2), (5, 3)])
def test_there_and_back_again(kind, parts):
    flow = a_flow(kind, parts)
    x = 3 * draw(50, flow.size)
    assert not torch.allclose(flow.latent(x), x, atol=0.1)
    assert torch.allclose(flow.neurons(flow.latent(x)), x, atol=1e-9)
    assert torch.allclose(flow.latent(flow.neurons(x)), x, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_volumes_are_those_of_the_jacobian(kind):
    flow = a_flow(kind)
    x = draw(4, flow.size)
    _, volume = flow.transform(x)
    for row, found in zip(x, volume, strict=True):
        jacobian = torch.autograd.functional.jacobian(flow.latent, row)
        assert float(found) == pytest.approx(float(torch.linalg.slogdet(jacobian).logabsdet))
        back = torch.autograd.functional.jacobian(flow.neurons, flow.latent(row))
        assert torch.allclose(jacobian @ back, torch.eye(flow.size).double(), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_by_its_jacobian(kind):
    for place in (0, 1):
        layer = a_flow(kind, layers=2).steps[place]
        x = draw(7)
        jacobian = torch.autograd.functional.jacobian(lambda x, at=layer: at(x)[0], x)
        found = torch.linalg.slogdet(jacobian).logabsdet
        assert float(layer(x)[1]) == pytest.approx(float(found))
        assert abs(float(found)) > 0.01


def test_half_of_the_coordinates_stay_in_a_coupling_and_every_one_moves_in_two():
    for place, kept in ((0, [0, 2, 4, 6]), (1, [1, 3, 5])):
        layer = a_flow("rnvp", layers=2).steps[place]
        assert isinstance(layer, Coupling)
        x = draw(5, 7)
        same = (layer(x)[0] == x).all(0)
        assert same.nonzero()[:, 0].tolist() == kept


@pytest.mark.parametrize("place", [0, 1])
def test_autoregressive_layers_are_triangular_and_use_all_that_they_may(place):
    """From latents to neurons, coordinate i asks for those before it, and for all of them."""
    layer = a_flow("iaf", layers=2, hidden=30, size=1).steps[place]
    assert isinstance(layer, InverseAutoregressive)
    jacobian = torch.autograd.functional.jacobian(layer.back, draw(7))
    lower = torch.ones(7, 7).tril() if place == 0 else torch.ones(7, 7).triu()
    assert torch.equal((jacobian != 0).float(), lower)


def test_the_steps_of_an_autoregressive_layer_against_the_naive_way():
    """As many whole passes as coordinates, each of which settles one more latent."""
    flow = a_flow("iaf", layers=2)
    x = draw(6, 7)
    for layer in flow.steps:
        z = torch.zeros_like(x)
        for _ in range(7):  # a pass of Jacobi's iteration settles one coordinate at least
            moved = layer.back(z)
            slope = torch.autograd.functional.jacobian(lambda z, at=layer: at.back(z).sum(0), z)
            z = z + (x - moved) / torch.einsum("dnd->nd", slope)
        assert torch.allclose(layer(x)[0], z, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_through_both_directions_against_finite_differences(kind):
    flow = a_flow(kind, layers=2, hidden=5).requires_grad_()
    x, y = draw(3, 7), draw(3, 7, seed=1)

    def halfway():
        rows = flow.neurons((flow.latent(x) + flow.latent(y)) * math.sqrt(0.5))
        return rows.square().sum() + flow.transform(x)[1].sum()

    halfway().backward()
    for name, p in flow.named_parameters():
        direction, step = draw(*p.shape, seed=7), 1e-6
        with torch.no_grad():
            p.add_(step * direction)
            up = halfway()
            p.sub_(2 * step * direction)
            down = halfway()
            p.add_(step * direction)
        assert p.grad is not None
        wanted = float((up - down) / (2 * step))
        assert float((p.grad * direction).sum()) == pytest.approx(wanted, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_to_neurons_and_latents(kind):
    flow = a_flow(kind, layers=2, hidden=5)
    x = draw(2, 7).requires_grad_()
    assert torch.autograd.gradcheck(flow.latent, (x,))
    assert torch.autograd.gradcheck(flow.neurons, (x,))
    assert torch.autograd.gradcheck(flow.log_density, (x,))


@pytest.mark.parametrize("kind", KINDS)
def test_before_training_it_standardises_and_no_more(kind):
    flow = Flow((4, 1, 2), kind)
    x = (draw(60, 7) @ draw(7, 7, seed=1) + 3).float()
    flow.fit_gaussian(x)
    z = flow.latent(x)
    assert torch.allclose(z.mean(0), torch.zeros(7), atol=1e-5)
    assert torch.allclose(z.T @ z / len(z), torch.eye(7), atol=1e-4)
    law = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0))
    assert torch.allclose(flow.log_density(x), law.log_prob(x), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_integrates_to_one(kind):
    """In two dimensions, over a grid."""
    flow = a_flow(kind, (1, 1), size=0.3)
    side = torch.linspace(-40, 40, 801, dtype=torch.float64)
    density = flow.log_density(torch.cartesian_prod(side, side)).exp()
    assert float(density.sum() * 0.1**2) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_constant_coordinates_and_few_neurons_are_no_singularity(kind):
    for x in (torch.ones(5, 7), torch.zeros(5, 7), draw(3, 7).float(), draw(1, 7).float()):
        flow = Flow((4, 1, 2), kind)
        flow.fit_gaussian(x)
        z = flow.latent(torch.cat([x, x + 0.01]))
        assert torch.isfinite(z).all()
        if x.std() > 0:
            assert torch.allclose(flow.neurons(z[: len(x)]), x, atol=1e-4)


def test_no_layer_stretches_without_bound():
    flow = a_flow("rnvp", layers=1, size=50)
    _, volume = flow.steps[0](draw(20, 7))
    assert float(volume.abs().max()) <= 3 * LOG_SCALE + 1e-9


def test_one_seed_one_flow_and_the_callers_randomness_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (Flow((4, 1, 2), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    first = lambda flow: next(flow.layers.parameters())  # noqa: E731
    assert torch.equal(first(one), first(two))
    assert not torch.equal(first(one), first(other))


def test_its_words():
    assert repr(Flow((4, 1, 2), "iaf")) == "Flow(iaf, neurons of 7 numbers, 6 layers of 64)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "maf"}, r"kind must be one of \('rnvp', 'iaf'\), not 'maf'"),
        ({"parts": (0, 1)}, "each of parts must be a whole number of at least 1"),
        ({"parts": 75}, "parts must be a list"),
        ({"parts": (1,)}, "size of a neuron must be a whole number of at least 2, not 1"),
        ({"layers": -1}, "layers must be"),
        ({"hidden": 0}, "hidden must be"),
        ({"seed": 1.5}, "seed must be"),
    ],
)
def test_what_it_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Flow(**({"parts": (4, 1, 2)} | options))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_row_of_neurons_is_refused(kind):
    flow = Flow((4, 1, 2), kind)
    for wrong in (torch.zeros(3, 8), torch.zeros(7).long(), "neurons"):
        for function in (flow.latent, flow.neurons, flow.log_density, flow.fit_gaussian):
            with pytest.raises(ValueError, match="takes neurons of 7 numbers"):
                function(wrong)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((3, 7), math.nan), "finite"),
        (torch.full((3, 7), math.inf), "finite"),
        (torch.zeros(0, 7), "one at least"),
        (torch.zeros(3, 7).to_sparse(), "dense"),
        (torch.zeros(3, 7, device="meta"), "dense"),
    ],
)
def test_no_gaussian_of_neurons_that_are_none(x, message):
    flow = Flow((4, 1, 2))
    with pytest.raises(ValueError, match=message):
        flow.fit_gaussian(x)
    assert not flow.mean.any()
