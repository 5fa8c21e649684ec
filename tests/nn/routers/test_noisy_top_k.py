"""Noisy top-k (Shazeer et al. 2017): the noise, the gates, and the smooth load against its definition."""

import pytest
import torch
from torch.nn import functional as F

from expertise.nn import Experts, MoE
from expertise.nn.routers import NoisyTopKRouter
from expertise.nn.routers._noise import prob_in_top_k


def random_router(num_experts: int = 6, k: int = 2) -> NoisyTopKRouter:
    torch.manual_seed(0)
    router = NoisyTopKRouter(5, num_experts, k)
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    return router


def test_both_maps_start_at_0_and_the_load_is_even() -> None:
    torch.manual_seed(0)
    router = NoisyTopKRouter(5, 8, 2)
    assert not any(bool(parameter.any()) for parameter in router.parameters())
    routing = router(torch.randn(4000, 5))
    assert routing.load_E.sum() == 8000
    assert (routing.load_E - 1000).abs().max() < 150


def test_noise_is_normal_with_the_learned_spread() -> None:
    router, x = random_router(), torch.randn(1, 5).expand(20000, 5)
    clean_E = x[0] @ router.weight_ED.T
    spread_E = F.softplus(x[0] @ router.noise_weight_ED.T)
    noise_TE = router(x).logits_TE - clean_E
    torch.testing.assert_close(noise_TE.std(0), spread_E, rtol=0.03, atol=0.01)
    assert bool((noise_TE.mean(0).abs() < 0.03 * spread_E + 0.01).all())


def test_gates_are_the_softmax_over_the_noisy_top_k() -> None:
    router, x = random_router(), torch.randn(7, 5)
    routing = router(x)
    for t in range(7):
        largest = routing.logits_TE[t].sort(descending=True)
        assert routing.experts_TK[t].tolist() == largest.indices[:2].tolist()
        torch.testing.assert_close(routing.weights_TK[t], largest.values[:2].softmax(0))


def test_pitfall_05_the_smooth_load_is_the_probability_of_being_chosen() -> None:
    """Each expert's noise is drawn again 100,000 times, the others' stay as they were."""
    torch.manual_seed(1)
    T, E, k, draws = 4, 6, 2, 100_000
    clean, spread = torch.randn(T, E), torch.rand(T, E) + 0.3
    noisy = clean + torch.randn(T, E) * spread
    probability = prob_in_top_k(clean, noisy, spread, k)
    for t in range(T):
        for i in range(E):
            others = torch.cat([noisy[t, :i], noisy[t, i + 1 :]])
            kth_of_others = others.sort(descending=True).values[k - 1]
            again = clean[t, i] + torch.randn(draws) * spread[t, i]
            share = (again > kth_of_others).float().mean()
            assert abs(share - probability[t, i]) < 0.01


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pitfall_05_the_smooth_load_sums_to_what_is_routed(k: int) -> None:
    routing = random_router(6, k)(torch.randn(5000, 5))
    assert routing.smooth_load_E.sum().item() == pytest.approx(5000 * k, rel=0.01)
    torch.testing.assert_close(routing.smooth_load_E, routing.load_E.float(), rtol=0.1, atol=60.0)


def test_the_smooth_load_has_the_gradient_of_finite_differences() -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    spread = torch.rand(5, 4, dtype=torch.float64) + 0.5

    def load(clean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        return prob_in_top_k(clean, clean + noise * spread, spread, 2).sum(0)

    assert torch.autograd.gradcheck(load, [clean.requires_grad_(), spread.requires_grad_()])


def test_the_smooth_load_teaches_both_maps_from_the_start() -> None:
    torch.manual_seed(0)
    router = NoisyTopKRouter(5, 4, 2)
    load_E = router(torch.randn(50, 5)).smooth_load_E
    (load_E.var() / load_E.mean() ** 2).backward()
    assert all(bool(parameter.grad.any()) for parameter in router.parameters())


def test_nobody_is_pushed_out_where_all_are_taken() -> None:
    routing = random_router(4, 4)(torch.randn(30, 5))
    assert routing.smooth_load_E.tolist() == [30.0] * 4


def test_padding_is_not_in_the_load() -> None:
    router, x = random_router(), torch.randn(10, 5)
    mask = torch.arange(10) < 6
    torch.manual_seed(0)
    load_E = router(x, mask).smooth_load_E
    torch.manual_seed(0)
    routing = router(x)
    in_top = prob_in_top_k(
        x @ router.weight_ED.T, routing.logits_TE, F.softplus(x @ router.noise_weight_ED.T), 2
    )
    torch.testing.assert_close(load_E, in_top[:6].sum(0))


def test_evaluation_has_no_noise_and_counts() -> None:
    router, x = random_router().eval(), torch.randn(30, 5)
    routing = router(x)
    assert torch.equal(routing.logits_TE, x @ router.weight_ED.T)
    assert routing.smooth_load_E.tolist() == routing.load_E.tolist()
    assert not routing.smooth_load_E.requires_grad


def test_pitfall_04_one_expert_a_token_still_teaches_the_router() -> None:
    router = random_router(4, 1)
    routing = router(torch.randn(30, 5))
    assert bool((routing.weights_TK < 1).all())
    torch.testing.assert_close(routing.weights_TK[:, 0], routing.logits_TE.softmax(-1).amax(-1))
    MoE(router, Experts(4, 5, 6))(torch.randn(30, 5)).sum().backward()
    assert bool(router.weight_ED.grad.any())
    assert bool(router.noise_weight_ED.grad.any())


def test_a_vanishing_spread_makes_no_nan() -> None:
    router = random_router()
    with torch.no_grad():
        router.noise_weight_ED.fill_(-1000.0)
    routing = router(torch.ones(3, 5))
    routing.smooth_load_E.sum().backward()
    assert bool(routing.smooth_load_E.isfinite().all())
    assert bool(router.noise_weight_ED.grad.isfinite().all())


def test_k_is_checked() -> None:
    with pytest.raises(ValueError, match="k must be a whole number of at least 1 and at most 4; got 5; a"):
        NoisyTopKRouter(5, 4, 5)
