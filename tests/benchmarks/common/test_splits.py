"""The splits of the protocol, number by number."""

import pytest
import torch
from numpy.random import RandomState

from benchmarks.common.splits import development_split, per_class_split, split_seeds
from torch_geometric_diff.data import data_root, load_graph

Y = torch.arange(300) % 3


def test_split_seeds_are_those_of_the_original() -> None:
    assert split_seeds(42, 3) == [121958, 671155, 131932]
    assert split_seeds(42, 100)[:3] == split_seeds(42, 3)


def test_split_is_disjoint_complete_and_balanced() -> None:
    train, val, test = per_class_split(Y, 7, num_train=5, num_val=8)
    assert Y[train].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert Y[val].bincount().tolist() == [8, 8, 8]
    assert torch.cat([train, val, test]).sort().values.equal(torch.arange(300))


def test_split_draws_class_by_class_in_numpy_order() -> None:
    train, val, _ = per_class_split(Y, 3, num_train=2, num_val=2)
    generator = RandomState(3)
    expected: list[int] = []
    for _ in range(2):
        for label in range(3):
            left = [i for i in range(300) if Y[i] == label and i not in expected]
            # Within one pass a class only loses its own nodes, so removing as we go is the same.
            expected += generator.choice(left, 2, replace=False).tolist()
    assert torch.cat([train, val]).tolist() == expected


def test_same_seed_same_split_and_generator_goes_on() -> None:
    generator = RandomState(11)
    pairs = zip(per_class_split(Y, generator), per_class_split(Y, 11), strict=True)
    assert all(a.equal(b) for a, b in pairs)
    assert generator.randint(0, 1000) != RandomState(11).randint(0, 1000)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (torch.rand(10), {}, "vector of class numbers"),
        (torch.zeros(2, 2, dtype=torch.long), {}, "vector of class numbers"),
        (Y, {"num_train": 0}, "num_train"),
        (Y, {"num_val": -1}, "num_val"),
        (Y[:60], {}, r"class 0 has 20"),
        (Y, {"seed": -1}, "seed"),
    ],
)
def test_bad_input(y: torch.Tensor, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        per_class_split(y, **{"seed": 0, **options})
    with pytest.raises(ValueError, match="positive number of seeds"):
        split_seeds(0, 0)


def test_development_split_trains_and_validates_within_its_nodes() -> None:
    train, val, test = development_split(Y, 5, num_train=4, num_development=100)
    assert torch.cat([train, val, test]).sort().values.equal(torch.arange(300))
    generator = RandomState(5)
    development = sorted(generator.choice(300, 100, replace=False))
    expected: list[int] = []
    for label in range(3):
        expected += generator.choice(
            [i for i in development if Y[i] == label], 4, replace=False
        ).tolist()
    assert train.tolist() == expected
    assert val.tolist() == [i for i in development if i not in expected]
    assert test.numel() == 200
    assert not test.equal(development_split(Y, 6, num_train=4, num_development=100)[2])


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (torch.rand(10), {}, "vector of class numbers"),
        (Y, {"num_train": 0}, "num_train"),
        (Y, {"num_development": 300}, r"between 1 and 299, .* \(got 20 and 300\)"),
        (Y, {"num_development": 50}, r"at least 20 nodes .* has 1"),
    ],
)
def test_bad_development_split(y: torch.Tensor, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        development_split(y, **{"seed": 0, "num_development": 100, **options})


def test_cora_lists_are_those_of_the_original() -> None:
    if not (data_root() / "shchur" / "cora.npz").is_file():
        pytest.skip("shchur/cora.npz is not in the data root")
    generator = RandomState(121958)
    train, _, test = per_class_split(load_graph("cora", "shchur").y, generator)
    assert train[:5].tolist() == [2425, 189, 2481, 2047, 1302]
    assert generator.randint(0, 1_000_000, 3).tolist() == [711880, 946634, 295886]
    assert len(test) == 2485 - 7 * 50
