from dataclasses import replace

import pytest
import torch
from torch import nn

from modeconn_lite.chains import Chain
from modeconn_lite.forward import outputs
from modeconn_lite.paths import FunctionPath, polychain


class Corners(Chain):
    """Corners in the plane, and a network that gives them as its outputs."""

    def __init__(self, *places):
        self.places = [torch.tensor(place) for place in places]
        steps = zip(self.places, self.places[1:], strict=False)
        self.lengths = torch.tensor([float((b - a).norm()) for a, b in steps]).double()
        self.asked = []

    def corner(self, k):
        self.asked.append(k)
        return {"weight": self.places[k][:, None]}

    def outputs(self, network, t, x):
        yield torch.arange(len(t)), slice(0, len(x)), torch.full((len(t), len(x), 2), 7.0)


PLACES = [0.0, 0.0], [3.0, 0.0], [3.0, 4.0]


def test_it_leads_from_corner_to_corner():
    path = Corners(*PLACES).path("bent", labels=("east", "north"))
    plain = polychain([{"weight": torch.tensor(place)[:, None]} for place in PLACES])
    assert path.knots == plain.knots == (0.0, 0.5, 1.0) and path.labels == ("east", "north")
    times = torch.linspace(0, 1, 41, dtype=torch.float64)
    for t in times.tolist():
        assert torch.allclose(path(t)["weight"], plain(t)["weight"])
    assert torch.allclose(path.travelled(times), plain.travelled(times))
    assert path.length() == 7 == pytest.approx(plain.length())
    assert Corners(*PLACES).path("bent", half_way=True).knots == (0.0, 0.25, 0.5, 0.75, 1.0)


def test_corners_are_exact_and_made_only_when_asked_for():
    chain = Corners(*PLACES)
    path = chain.path("bent")
    assert chain.asked == []
    for t, place in zip(path.knots, PLACES, strict=True):
        assert path(t)["weight"][:, 0].tolist() == place
    assert sorted(chain.asked) == [0, 1, 2]


def test_without_pieces_it_stays_where_it_is():
    path = Corners([1.0, 2.0]).path("nowhere")
    assert path.knots == (0.0, 1.0) and path.length() == 0
    assert path(0.3)["weight"][:, 0].tolist() == [1, 2]
    assert path.travelled([0.0, 0.4, 1.0]).tolist() == [0, 0, 0]


def test_outputs_come_from_the_chain_whatever_the_path_is_called():
    network, path = nn.Linear(1, 2, bias=False), Corners(*PLACES).path("bent")
    named = replace(path, name="other")
    assert named.name == "other" and repr(named) == repr(path).replace("bent", "other")
    x = torch.ones(3, 1)
    assert (outputs(network, named, [0.0, 0.2], x) == 7).all()
    assert not (outputs(network, FunctionPath(named.function), [0.0, 0.2], x) == 7).any()


def test_a_path_needs_its_chain():
    from modeconn_lite.chains import SweptPath

    with pytest.raises(TypeError, match="chain"):
        SweptPath(lambda t: {})
