"""Data-parallel training: what is counted over all ranks gives what one process gives on the whole batch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from expertise.nn.balance import load_balance_loss
from expertise.nn.loss_free import LossFreeBias
from nn import ranks

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What two processes on this machine have reported."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(ranks.report, (str(folder),), nprocs=ranks.RANKS)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(ranks.RANKS)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["global", "group"])
def test_the_mean_of_the_ranks_is_the_loss_of_the_whole_batch(found: Found, name: str) -> None:
    """Loss and gradient, also where the ranks have different numbers of real tokens."""
    layer = ranks.layer_of(k=2)
    _, routing = layer(ranks.batch_of(None), mask=ranks.mask_of(None), return_routing=True)
    loss = load_balance_loss(routing)
    loss.backward()
    losses = [rank[name][0] for rank in found]
    assert sum(losses) / len(losses) == pytest.approx(loss.item())
    for rank in found:
        assert torch.allclose(rank[name][1], layer.router.weight_ED.grad, atol=1e-7)
    assert layer.router.weight_ED.grad.abs().max() > 1e-3


@pytest.mark.slow
def test_without_the_group_the_gradient_is_another(found: Found) -> None:
    assert not torch.allclose(found[0]["local"][1], found[0]["global"][1], atol=1e-3)


@pytest.mark.slow
def test_ranks_that_specialise_are_balanced_together(found: Found) -> None:
    """Each rank uses two of four experts: far from balance alone, in balance together."""
    for local, over_all in (rank["even"] for rank in found):
        assert local > 1.15
        assert over_all == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_the_bias_is_that_of_one_process_on_the_whole_batch(found: Found) -> None:
    layer = ranks.layer_of()
    bias = LossFreeBias(layer, rate=0.01)
    for _ in range(2):
        layer(ranks.batch_of(None))
        layer(ranks.batch_of(None, tokens=3))
        bias.step()
    assert layer.router.selection_bias_E.any()
    for rank in found:
        assert torch.equal(rank["bias"], layer.router.selection_bias_E)


@pytest.mark.slow
def test_an_expert_that_any_rank_picked_moves_on_all_of_them(found: Found) -> None:
    for rank in found:
        assert rank["moved"] == [True, True, True, False]
    assert torch.equal(found[0]["weights"], found[1]["weights"])
