from math import nan

import numpy as np
import pytest
import torch

from modeconn_lite.times import from_steps, grid


def test_steps_add_up():
    assert from_steps([1, 0, 2.5]).tolist() == [0, 1, 1, 3.5]
    assert from_steps([]).tolist() == [0]


def test_grid_holds_the_knots_once():
    assert grid(3, (0, 0.3, 0.5, 1)).tolist() == [0, 0.3, 0.5, 1]
    assert len(grid(61, (0, 0.5, 1))) == 61
    assert grid([-0.5, 1e-17, 0.7], (0, 1)).tolist() == [-0.5, 0, 0.7, 1]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (1, "points must be a whole number of at least 2, not 1"),
        (True, "points must be a whole number of at least 2, not True"),
        (61.0, "points must be a whole number or a list of times, not 61.0"),
        (nan, "points must be a whole number or a list of times, not nan"),
        (torch.tensor(61), "points must be a whole number or a list of times, not a tensor"),
        ("61", "points must be a number or a list of them, not '61'"),
        (None, "points must be a number or a list of them, not None"),
        (["0", "1"], "points must be a number or a list of them, not a list of 2"),
        ([0, None], "points must be a number or a list of them, not a list of 2"),
        ([0, 10**400], "points must be a number or a list of them, not a list of 2"),
        ([False, True], "points must be a number or a list of them, not torch.bool"),
        (torch.tensor([1j]), "points must be a number or a list of them, not torch.complex64"),
        (torch.rand(3, 2), r"points must be a list of times, not of shape \(3, 2\)"),
        ([0, nan, 1], "points must be finite times"),
    ],
)
def test_no_grid_of(points, message):
    with pytest.raises(ValueError, match=message):
        grid(points)


def test_times_come_in_any_list():
    for times in ([0, 0.25, 1], (0, 0.25, 1), np.array([0, 0.25, 1]), torch.tensor([0, 0.25, 1])):
        assert grid(times).tolist() == [0, 0.25, 1]
    assert len(grid(np.int64(5))) == 5
    assert grid([0.1]).tolist() == [0, 0.1, 1]  # no detour through single precision
