"""Seeds of trials and their sharing among ranks."""

from functools import partial

import pytest
import torch

from benchmarks.common import draw_trials, share_of_rank, world
from benchmarks.common.splits import per_class_split

Y = torch.arange(300) % 2


def test_trials_are_splits_times_initializations() -> None:
    trials = list(draw_trials(Y, 42, num_splits=2, num_inits=3))
    assert [(t.split, t.init) for t in trials] == [(s, i) for s in range(2) for i in range(3)]
    assert [t.split_seed for t in trials[::3]] == [121958, 671155]
    assert len({t.init_seed for t in trials}) == 6


def test_an_experiment_can_be_extended() -> None:
    few = {(t.split, t.init): t for t in draw_trials(Y, 1, 2, 1)}
    many = {(t.split, t.init): t for t in draw_trials(Y, 1, 5, 4)}
    for key, trial in few.items():
        assert trial.init_seed == many[key].init_seed and trial.train.equal(many[key].train)


def test_nodes_can_be_drawn_again_from_the_seed_in_a_row() -> None:
    trial = list(draw_trials(Y, 3, 3, 1, partial(per_class_split, num_train=4, num_val=5)))[2]
    again = per_class_split(Y, trial.split_seed, num_train=4, num_val=5)
    assert all(a.equal(b) for a, b in zip((trial.train, trial.val, trial.test), again, strict=True))


def test_ranks_share_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert world() == (0, 1)
    shares: list = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        shares += share_of_rank(range(10))
    assert sorted(shares) == list(range(10))
