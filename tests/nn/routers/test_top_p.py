"""Top-p (Huang et al. 2024): the smallest set that reaches p, and only so many experts run."""

import itertools

import pytest
import torch

from expertise.nn import Experts, MoE
from expertise.nn.routers import TopPRouter


def probabilities(row: list[float], **settings: object) -> tuple[list[int], list[float]]:
    """Route one token with these probabilities."""
    router = TopPRouter(1, len(row), **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        router.weight_ED.copy_(torch.tensor(row).log()[:, None])
    routing = router(torch.ones(1, 1))
    return routing.experts_TK[0].tolist(), [round(w, 4) for w in routing.weights_TK[0].tolist()]


@pytest.mark.parametrize(
    ("settings", "experts", "weights"),
    [
        ({"p": 0.45}, [2, 4, 4, 4], [0.5, 0, 0, 0]),
        ({"p": 0.55}, [2, 1, 4, 4], [0.5, 0.3, 0, 0]),
        ({"p": 0.85}, [2, 1, 3, 4], [0.5, 0.3, 0.15, 0]),
        ({"p": 1.0}, [2, 1, 3, 0], [0.5, 0.3, 0.15, 0.05]),
        ({"p": 0.85, "max_experts": 2}, [2, 1], [0.5, 0.3]),
        ({"p": 0.55, "renormalize": True}, [2, 1, 4, 4], [0.625, 0.375, 0, 0]),
    ],
)
def test_by_hand(settings: dict[str, float], experts: list[int], weights: list[float]) -> None:
    assert probabilities([0.05, 0.3, 0.5, 0.15], **settings) == (experts, weights)


@pytest.mark.parametrize("p", [0.1, 0.4, 0.7, 0.95])
def test_no_smaller_set_reaches_p(p: float) -> None:
    torch.manual_seed(0)
    routing = TopPRouter(4, 6, p)(2 * torch.randn(50, 4))
    for t in range(50):
        probs = routing.probs_TE[t].tolist()
        n = int(routing.chosen_TK[t].sum())
        assert routing.weights_TK[t].sum() >= p - 1e-6
        assert all(sum(few) < p for few in itertools.combinations(probs, n - 1))


def test_p_of_1_takes_all_however_small_their_probability() -> None:
    router = TopPRouter(1, 3, 1.0)
    with torch.no_grad():
        router.weight_ED.copy_(torch.tensor([[0.0], [-40.0], [-80.0]]))
    assert router(torch.ones(1, 1)).load_E.tolist() == [1, 1, 1]


def test_sure_tokens_take_fewer() -> None:
    torch.manual_seed(0)
    router, x = TopPRouter(4, 8), torch.randn(200, 4)
    counts = [int(router(x * sure).load_E.sum()) for sure in (0.1, 1.0, 10.0)]
    assert counts[0] > counts[1] > counts[2] >= 200


def test_only_the_chosen_pairs_run() -> None:
    torch.manual_seed(0)
    layer = MoE(TopPRouter(4, 8, 0.3), Experts(8, 4, 5))
    rows = []
    layer.experts.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    _, routing = layer(torch.randn(100, 4), return_routing=True)
    pairs = int(routing.chosen_TK.sum())
    assert routing.max_pairs == pairs < 400
    assert rows == [pairs + 1]  # and one that stands for nobody


def test_padding_is_not_in_the_number_of_pairs() -> None:
    mask = torch.arange(10) < 3
    routing = TopPRouter(4, 8, 0.5)(torch.randn(10, 4), mask)
    assert routing.max_pairs == int(routing.chosen_TK.sum())


def test_nan_is_not_hidden() -> None:
    routing = TopPRouter(4, 8)(torch.full((1, 4), torch.nan))
    assert bool(routing.weights_TK.isnan().any())


def test_errors() -> None:
    with pytest.raises(
        ValueError, match="p must be above 0 and at most 1; got 0, with which no token takes any"
    ):
        TopPRouter(4, 3, 0.0)
    with pytest.raises(ValueError, match=r"p must be a number of at least 0 and at most 1; got 1\.5"):
        TopPRouter(4, 3, 1.5)
    with pytest.raises(
        ValueError, match="max_experts must be a whole number of at least 1 and at most 3; got 4"
    ):
        TopPRouter(4, 3, max_experts=4)
    with pytest.raises(ValueError, match="renormalize must be False with max_experts=1; got True"):
        TopPRouter(4, 3, max_experts=1, renormalize=True)
