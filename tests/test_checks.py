from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from modeconn_lite import checks
from modeconn_lite.data import Dataset, Split
from modeconn_lite.networks import mlp
from modeconn_lite.weights import fresh_weights, to

NAN, INF = float("nan"), float("inf")
SPLIT = Split(torch.zeros(3, 4), torch.tensor([0, 1, 0]), "three", ("0", "1"))


def test_what_is_sound_comes_back_as_the_package_works_with_it():
    for value in (3, np.int64(3), np.uint8(3)):
        assert checks.check_whole(value, "n", low=3, high=3) == 3
        assert type(checks.check_whole(value, "n")) is int
    for value in (0.5, np.float32(0.5), Fraction(1, 2)):
        assert checks.check_number(value, "x", low=0.5, high=0.5) == 0.5
        assert type(checks.check_number(value, "x")) is float
    assert checks.check_number(0, "x", low=0) == 0
    assert checks.check_choice("a", "of", ("a", "b")) == "a"
    assert checks.check_word("", "name") == ""
    assert checks.check_truth(False, "undo") is False
    assert checks.check_list([1, 2], "values", "numbers", least=2, most=2) == (1, 2)
    assert checks.check_list((), "values", "numbers", least=0) == ()
    assert checks.check_list(range(3), "values", "numbers") == (0, 1, 2)
    assert checks.check_splits([SPLIT, SPLIT]) == (SPLIT, SPLIT)
    for same in (marks := {"A": (0, 1.5)}, {}):
        assert checks.check_pairs(same, "marks") is same
    assert marks == {"A": (0, 1.5)}
    network, x = nn.Linear(2, 2), torch.zeros(1, 2)
    data = Dataset("both", SPLIT, SPLIT, None)
    assert checks.check_network(network) is network
    assert checks.check_split(SPLIT) is SPLIT
    assert checks.check_inputs_like(SPLIT, SPLIT) is SPLIT
    assert checks.check_dataset(data) is data
    assert checks.check_inputs(x) is x


@pytest.mark.parametrize("value", [2, 10, 3.0, True, np.float64(3), NAN, "3", None, [3], 10**400])
def test_no_whole_number_between(value):
    with pytest.raises(ValueError, match="n must be a whole number of at least 3 and at most 9, n"):
        checks.check_whole(value, "n", low=3, high=9)
    with pytest.raises(ValueError, match=r"n must be a whole number of at least 0, not -1$"):
        checks.check_whole(-1, "n")


@pytest.mark.parametrize(
    "value",
    [NAN, INF, -INF, True, "1", None, [1.0], torch.tensor(1.0), 1j, 10**400, -0.1, 2.1, np.True_],
)
def test_no_number_between(value):
    with pytest.raises(ValueError, match="x must be a finite number of at least 0 and up to 2, no"):
        checks.check_number(value, "x", low=0, high=2)


@pytest.mark.parametrize("value", [0, 1, "False", None, np.True_, torch.tensor(True)])
def test_no_truth_value(value):
    with pytest.raises(ValueError, match="undo must be True or False, not "):
        checks.check_truth(value, "undo")


def test_what_a_number_should_be_is_said_in_full():
    for borders, words in (
        ({}, "a finite number, not nan"),
        ({"low": 0}, "a finite number of at least 0, not nan"),
        ({"low": 0, "open_low": True}, "a finite number above 0, not nan"),
        ({"high": 1}, "a finite number up to 1, not nan"),
    ):
        with pytest.raises(ValueError, match=f"^x must be {words}$"):
            checks.check_number(NAN, "x", **borders)
    with pytest.raises(ValueError, match=r"above 0, not 0$"):
        checks.check_number(0, "x", low=0, open_low=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("ab", "names must be a list of words, not 'ab'"),
        (None, "names must be a list of words, not None"),
        ({"a": 1}, "names must be a list of words, not a dict"),
        ({"a", "b"}, "names must be a list of words, not a set; make a list of it"),
        ((c for c in "ab"), "not a generator; make a list of it"),
        (torch.zeros(2), r"not a tensor of torch.float32, shape \(2,\); make a list of it"),
        ([], "names: 0 words given, at least 1 needed"),
        (["a", "b", "c", "d"], "names: 4 words given, at least 1 needed"),
    ],
)
def test_no_such_list(values, message):
    with pytest.raises(ValueError, match=message):
        checks.check_list(values, "names", "words", most=3)
    with pytest.raises(ValueError, match="names: 1 words given, 2 needed"):
        checks.check_list(["a"], "names", "words", least=2, most=2)


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (None, r"marks must be a dict of names to \(u, v\), not None"),
        ([("A", (0, 0))], "not a list of 1"),
        ({"A": 1}, r"marks\['A'\] must be a list of numbers, not 1"),
        ({"A": (1, 2, 3)}, r"marks\['A'\]: 3 numbers given, 2 needed"),
        ({"A": (1, NAN)}, r"marks\['A'\] must be a finite number, not nan"),
        ({1: (1, 2)}, "each key of marks must be a string, not 1"),
    ],
)
def test_no_such_marks(marks, message):
    with pytest.raises(ValueError, match=message):
        checks.check_pairs(marks, "marks")


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        ("network", None, "network must be an nn.Module, not None"),
        ("network", nn.Linear, r"not the class Linear \(make an instance of it\)"),
        ("network", {"w": SPLIT.x}, "network must be an nn.Module, not a dict"),
        ("split", Dataset("both", SPLIT, SPLIT, None), r"of a Dataset, give .train or .test"),
        ("split", "digits", r"split must be a Split\(x, y, .*, not 'digits'"),
        ("split", SPLIT.x, r"not a tensor of torch.float32, shape \(3, 4\)"),
        ("dataset", SPLIT, r"data must be a Dataset\(.*, not a Split"),
        ("inputs", SPLIT, r"x must be a tensor of inputs; of a Split, give .x"),
        ("inputs", SPLIT.y, r"x must be a floating-point tensor, not a tensor of torch.int64"),
        ("inputs", [[1.0]], "x must be a floating-point tensor, not a list of 1"),
        ("inputs", torch.zeros(0, 4), r"x has shape \(0, 4\); give at least one input"),
        ("inputs", torch.tensor(1.0), r"x has shape \(\); give at least one input"),
        ("inputs", torch.tensor([NAN]), "x holds NaN or infinity"),
        ("inputs", torch.tensor([INF]), "x holds NaN or infinity"),
        ("inputs", torch.zeros(2, device="meta"), "x must be a dense tensor with values"),
        ("inputs", torch.zeros(2).to_sparse(), "x must be a dense tensor with values"),
    ],
)
def test_what_is_of_another_kind_is_named(check, value, message):
    with pytest.raises(ValueError, match=message):
        getattr(checks, f"check_{check}")(value)


@pytest.mark.parametrize("value", ["c", 1, None, ["a"], b"a"])
def test_no_such_word(value):
    with pytest.raises(ValueError, match=r"of must be one of \('a', 'b'\), not"):
        checks.check_choice(value, "of", {"a": 1, "b": 2})
    if value != "c":
        with pytest.raises(ValueError, match="name must be a string, not"):
            checks.check_word(value, "name")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (SPLIT, "splits must be a list of Splits, not a Split"),
        ([], "splits: 0 Splits given, at least 1 needed"),
        ([SPLIT, None], r"splits\[1\] must be a Split\("),
        (
            [SPLIT, Split(SPLIT.x, SPLIT.y, "of more", ("0", "1", "2"))],
            "'of more' has 3 classes, 'three' has 2",
        ),
        (
            [SPLIT, Split(SPLIT.x[:, :2], SPLIT.y, "narrow", ("0", "1"))],
            r"inputs of 'narrow' have shape \(2,\), those of 'three' \(4,\)",
        ),
    ],
)
def test_no_splits_to_look_at_together(splits, message):
    with pytest.raises(ValueError, match=message):
        checks.check_splits(splits)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.array])
def test_indices_keep_their_order(kind):
    found = checks.check_indices(kind([2, 0]), 3, "neurons")
    assert (found.tolist(), found.dtype) == ([2, 0], torch.int64)
    assert checks.check_indices(kind([1, 0]), 2, "order", every=True).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "neurons must be whole numbers, not None"),
        ("01", "neurons must be whole numbers, not '01'"),
        ({0: 1}, "neurons must be whole numbers, not a dict"),
        ([0, 2**80], "neurons must be whole numbers, not a list of 2"),
        ([True, False, True], "neurons is a mask; give the numbers themselves"),
        ([0.0, 1.0], "neurons must be whole numbers, not torch.float32"),
        (torch.tensor([1j]), "neurons must be whole numbers, not torch.complex64"),
        ([], r"neurons must be a list of numbers, not of shape \(0,\)"),
        (1, r"neurons must be a list of numbers, not of shape \(\)"),
        ([[0, 1]], r"neurons must be a list of numbers, not of shape \(1, 2\)"),
        ([0, 3], "neurons: there is no 3; numbers run from 0 to 2"),
        ([-1, 0], "neurons: there is no -1; numbers run from 0 to 2"),
        ([1, 1], "neurons names a number twice"),
        ([0, 1], "neurons is no permutation of 3: it has 2 numbers"),
    ],
)
def test_no_such_indices(values, message):
    with pytest.raises(ValueError, match=message):
        checks.check_indices(values, 3, "neurons", every=True)


def test_what_came_is_said_in_a_few_words():
    assert checks.describe("a" * 200) == repr("a" * 76).rstrip("'") + "…"
    for digits in (81, 5000):  # Python itself prints no more than 4300
        for sign in (1, -1):
            said = checks.describe(sign * 10 ** (digits - 1))
            assert said == "a whole number of more than 80 digits"
    assert checks.describe(10**79) == "1" + 79 * "0"
    assert checks.describe({}.keys()) == "a dict_keys"
    assert checks.describe(object) == "the class object (make an instance of it)"
    assert checks.describe(object()) == "an object"


@pytest.fixture
def pair():
    network = mlp((3, 4, 2))
    return network, fresh_weights(network, 0), fresh_weights(network, 1)


class TestCheckWeights:
    def test_sound_weights_pass(self, pair):
        network, a, b = pair
        assert checks.check_weights(a, like=network) is a
        assert checks.check_weights(a, like=b) is a

    def test_empty(self):
        with pytest.raises(ValueError, match="non-empty dict"):
            checks.check_weights({})

    def test_integer_buffers_are_named(self):
        state = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict()
        with pytest.raises(ValueError, match=r"1\.num_batches_tracked.*int64.*weights_of"):
            checks.check_weights(dict(state), name="A")

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, pair, bad):
        _, a, _ = pair
        a["3.bias"][1] = bad
        with pytest.raises(ValueError, match=r"A\['3\.bias'\] holds 1 values"):
            checks.check_weights(a, name="A")

    def test_another_precision(self, pair):
        _, a, b = pair
        with pytest.raises(ValueError, match=r"float64 on cpu.*use weights\.to"):
            checks.check_weights(to(a, torch.float64), like=b)

    def test_another_architecture(self, pair):
        _, a, _ = pair
        with pytest.raises(ValueError, match=r"'1\.weight'\] has shape \(4, 3\).*\(5, 3\)"):
            checks.check_weights(a, like=mlp((3, 5, 2)))
        with pytest.raises(ValueError, match=r"missing \['5\.weight', '5\.bias'\]"):
            checks.check_weights(a, like=mlp((3, 4, 4, 2)))


def test_a_number_that_no_tensor_holds_is_too_large():
    with pytest.raises(ValueError, match=r"n must be .* at most 9223372036854775807"):
        checks.check_whole(10**30, "n")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_a_script_is_no_network():
    with pytest.raises(ValueError, match="network is a script, which hides its layers"):
        checks.check_network(torch.jit.script(nn.Linear(2, 2)))


@pytest.mark.parametrize("wrong", [[True], [1j], [10**400], None, "1", {1.0}])
def test_no_such_numbers(wrong):
    with pytest.raises(ValueError, match="x must be a list, not"):
        checks.check_numbers(wrong, "x", "a list")


def test_a_sparse_order_is_an_order():
    assert checks.check_indices(torch.tensor([0, 2, 1]).to_sparse(), 3, "order").tolist() == [
        0,
        2,
        1,
    ]


def test_an_array_is_no_dictionary_of_weights():
    with pytest.raises(ValueError, match="weights must be a non-empty dict of tensors, not a nd"):
        checks.check_kinds(np.ones(3), "weights")
