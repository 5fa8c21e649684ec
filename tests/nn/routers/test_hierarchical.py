"""Two levels of gates (Shazeer et al. 2017, Appendix B): products of gates, and the load of both levels."""

import math

import pytest
import torch
from torch.nn import functional as F

from expertise.nn import Experts, MoE
from expertise.nn.routers import HierarchicalRouter
from expertise.nn.routers._noise import prob_in_top_k


def random_router(**settings: object) -> HierarchicalRouter:
    torch.manual_seed(0)
    router = HierarchicalRouter(5, 6, **{"groups": 3, **settings})  # type: ignore[arg-type]
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    return router


def test_by_hand() -> None:
    """Groups .5, .3, .2, two kept: .625, .375. Within the first .8, .2, one kept; the second .4, .6."""
    router = HierarchicalRouter(1, 6, 1, groups=3, groups_kept=2)
    with torch.no_grad():
        router.group_weight_GD.copy_(torch.tensor([0.5, 0.3, 0.2]).log()[:, None])
        router.weight_ED.copy_(torch.tensor([0.8, 0.2, 0.4, 0.6, 0.5, 0.5]).log()[:, None])
    routing = router(torch.ones(1, 1))
    assert routing.experts_TK.tolist() == [[0, 3]]
    torch.testing.assert_close(routing.weights_TK, torch.tensor([[0.625 * 0.8, 0.375 * 0.6]]))
    expected = torch.tensor([[0.4, 0.1, 0.12, 0.18, 0.1, 0.1]])
    torch.testing.assert_close(routing.probs_TE, expected)


def test_a_level_of_which_all_are_taken_is_the_other_level_alone() -> None:
    router = HierarchicalRouter(5, 4, 2, groups=1, groups_kept=1)
    routing = router(torch.randn(9, 5))
    torch.testing.assert_close(routing.probs_TE, routing.logits_TE.softmax(-1))
    top = routing.probs_TE.topk(2, -1)
    assert torch.equal(routing.experts_TK, top.indices)
    torch.testing.assert_close(routing.weights_TK, top.values / top.values.sum(1, keepdim=True))


def test_experts_stand_within_the_groups_that_were_taken() -> None:
    routing = random_router(k=2, groups_kept=2)(torch.randn(40, 5))
    group_probs = routing.probs_TE.unflatten(1, (3, 2)).sum(-1)
    for experts, best in zip(
        routing.experts_TK.tolist(), group_probs.topk(2, 1).indices.tolist(), strict=True
    ):
        assert [e // 2 for e in experts] == [best[0], best[0], best[1], best[1]]


def test_the_logits_have_the_logsumexp_of_both_levels() -> None:
    router, x = random_router(), torch.randn(7, 5)
    groups, within = x @ router.group_weight_GD.T, (x @ router.weight_ED.T).unflatten(1, (3, 2))
    expected = groups.logsumexp(-1) + (groups.softmax(-1) * within.logsumexp(-1)).sum(-1)
    torch.testing.assert_close(router(x).logits_TE.logsumexp(-1), expected)


def test_the_load_of_both_levels_is_that_of_appendix_b() -> None:
    """The draws are made in the router's order: first the groups' noise, then the experts'."""
    router, x, mask = random_router(noisy=True, k=1), torch.randn(9, 5), torch.arange(9) < 7
    torch.manual_seed(3)
    load_E = router(x, mask).smooth_load_E
    torch.manual_seed(3)
    x = torch.where(mask[:, None], x, 0.0)
    groups, within = x @ router.group_weight_GD.T, (x @ router.weight_ED.T).view(9, 3, 2)
    group_spread = F.softplus(x @ router.group_noise_weight_GD.T)
    spread = F.softplus(x @ router.noise_weight_ED.T).view(9, 3, 2)
    noisy_groups = groups + torch.randn(9, 3) * group_spread
    noisy = within + torch.randn(9, 3, 2) * spread
    in_groups = prob_in_top_k(groups, noisy_groups, group_spread, 2)
    in_group = prob_in_top_k(within, noisy, spread, 1)
    for g in range(3):
        came = [t for t in range(7) if g in noisy_groups[t].topk(2).indices.tolist()]
        for j in range(2):
            primary = sum(in_groups[t, g].item() for t in range(7))
            secondary = sum(in_group[t, g, j].item() for t in came)
            assert load_E[2 * g + j].item() == pytest.approx(primary * secondary / len(came), rel=1e-5)


def test_the_smooth_load_is_near_the_load() -> None:
    routing = random_router(noisy=True, k=1)(torch.randn(5000, 5))
    assert routing.smooth_load_E.sum().item() == pytest.approx(10_000, rel=0.02)
    torch.testing.assert_close(routing.smooth_load_E, routing.load_E.float(), rtol=0.1, atol=60.0)


def test_a_group_to_which_nobody_came_has_no_load() -> None:
    router = random_router(noisy=True, groups_kept=1)
    with torch.no_grad():
        router.group_weight_GD.copy_(torch.tensor([[100.0], [0.0], [0.0]]).expand(3, 5))
    load_E = router(torch.ones(4, 5)).smooth_load_E
    assert load_E[2:].tolist() == [0.0] * 4


def test_noise_is_for_training_only_and_evaluation_counts() -> None:
    router, x = random_router(noisy=True), torch.randn(30, 5)
    assert not torch.equal(router(x).logits_TE, router(x).logits_TE)
    routing = router.eval()(x)
    assert torch.equal(routing.logits_TE, router(x).logits_TE)
    torch.testing.assert_close(routing.smooth_load_E, routing.load_E.float())
    assert random_router()(x).smooth_load_E is None


def test_starts() -> None:
    torch.manual_seed(0)
    noisy = HierarchicalRouter(5, 6, groups=3, noisy=True)
    assert [name for name, parameter in noisy.named_parameters() if parameter.any()] == []
    assert len(list(noisy.parameters())) == 4
    plain = HierarchicalRouter(400, 60, groups=30)
    assert [name for name, _ in plain.named_parameters()] == ["weight_ED", "group_weight_GD"]
    for parameter in plain.parameters():
        assert parameter.std().item() == pytest.approx(1 / math.sqrt(400), rel=0.05)


@pytest.mark.parametrize(("k", "groups_kept"), [(1, 1), (1, 2), (2, 1)])
def test_pitfall_04_both_levels_learn(k: int, groups_kept: int) -> None:
    router = random_router(k=k, groups_kept=groups_kept, groups=2)
    MoE(router, Experts(6, 5, 4))(torch.randn(30, 5)).square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in router.parameters())


def test_errors() -> None:
    with pytest.raises(ValueError, match="groups must divide num_experts=6; got 4"):
        HierarchicalRouter(5, 6, groups=4)
    with pytest.raises(
        ValueError, match="groups_kept must be a whole number of at least 1 and at most 3; got 4; th"
    ):
        HierarchicalRouter(5, 6, groups=3, groups_kept=4)
    with pytest.raises(
        ValueError, match="k must be a whole number of at least 1 and at most 2; got 3; a group has"
    ):
        HierarchicalRouter(5, 6, 3, groups=3)
