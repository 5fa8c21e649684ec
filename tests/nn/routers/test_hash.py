"""The hash router (Roller et al. 2021): the same for ever, even over ids, and nothing to learn."""

import pytest
import torch

from expertise.nn.routers import HashRouter


def experts_of(ids: torch.Tensor, num_experts: int = 8, k: int = 1, seed: int = 0) -> torch.Tensor:
    return HashRouter(3, num_experts, k, seed=seed)(torch.zeros(*ids.shape, 3), token_ids=ids).experts_TK


def test_the_hash_never_changes() -> None:
    """A trained model depends on these numbers: a change here breaks everybody's checkpoints."""
    ids = torch.tensor([0, 1, 2, 3, 50256, -1, -100, 2**31, 2**40, -(2**63), 2**63 - 1])
    assert experts_of(ids)[:, 0].tolist() == [4, 4, 7, 7, 6, 5, 0, 3, 0, 1, 2]
    assert experts_of(ids[:4], k=2, seed=5).tolist() == [[6, 4], [4, 6], [2, 1], [3, 7]]


def test_the_same_id_goes_to_the_same_experts() -> None:
    ids = torch.tensor([[5, 9, 5], [9, 5, 9]])
    experts = experts_of(ids)[:, 0].view(2, 3)
    assert len(set(experts[ids == 5].tolist())) == len(set(experts[ids == 9].tolist())) == 1
    assert torch.equal(experts_of(ids.int()), experts_of(ids))
    assert torch.equal(experts_of(-ids.int()), experts_of(-ids))


@pytest.mark.parametrize("start", [0, -50_000, 10**12])
def test_consecutive_ids_spread_evenly(start: int) -> None:
    """Chi-square of 64 cells has mean 63 and standard deviation 11."""
    load = torch.bincount(experts_of(torch.arange(start, start + 64_000), 64)[:, 0], minlength=64).double()
    assert load.sum() == 64_000
    assert ((load - 1000) ** 2 / 1000).sum() < 63 + 6 * 11


def test_two_experts_are_different_and_spread_over_all_pairs() -> None:
    first, second = experts_of(torch.arange(56_000), 8, 2).T
    assert not bool((first == second).any())
    pairs = torch.bincount(first * 8 + second, minlength=64).double().view(8, 8)
    off_diagonal = pairs[~torch.eye(8, dtype=torch.bool)]
    assert ((off_diagonal - 1000) ** 2 / 1000).sum() < 55 + 6 * 10.5


def test_seeds_are_different_hashes() -> None:
    ids = torch.arange(20_000)
    agree = (experts_of(ids, seed=1) == experts_of(ids, seed=2)).double().mean()
    assert abs(agree - 1 / 8) < 0.02


def test_one_more_expert_moves_only_those_that_go_to_it() -> None:
    ids = torch.arange(10_000)
    before, after = experts_of(ids, 8)[:, 0], experts_of(ids, 9)[:, 0]
    assert bool(((before == after) | (after == 8)).all())
    assert abs((after == 8).double().mean() - 1 / 9) < 0.02


def test_weights_and_probabilities() -> None:
    routing = HashRouter(3, 4, 2)(torch.zeros(5, 3), token_ids=torch.arange(5))
    assert bool((routing.weights_TK == 0.5).all())
    assert routing.probs_TE.sum(1).tolist() == [1.0] * 5
    assert routing.probs_TE.gather(1, routing.experts_TK).tolist() == [[0.5, 0.5]] * 5
    assert routing.logits_TE is None
    assert not list(HashRouter(3, 4).parameters())


def test_ids_of_padding_may_be_anything() -> None:
    mask = torch.tensor([True, False, True])
    routing = HashRouter(3, 4)(torch.zeros(3, 3), mask, torch.tensor([1, -100, 2]))
    assert routing.experts_TK[1].tolist() == [4]


def test_errors() -> None:
    with pytest.raises(ValueError, match="k must be a whole number of at least 1 and at most 4; got 5"):
        HashRouter(3, 4, 5)
    with pytest.raises(
        ValueError, match="seed must be a whole number of at least 0 and at most 4294967295; got"
    ):
        HashRouter(3, 4, seed=-1)
    with pytest.raises(ValueError, match=r"token_ids must be whole numbers of shape \(3,\); got torch.int64"):
        HashRouter(3, 4)(torch.zeros(3, 3), token_ids=torch.arange(2))
