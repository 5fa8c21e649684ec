"""The hard gate: draws by the router's probabilities, and a score whose mean gradient is the exact one."""

import torch

from expertise.nn.routers import SampledRouter


def test_experts_are_drawn_by_their_probability() -> None:
    torch.manual_seed(0)
    router = SampledRouter(1, 3)
    with torch.no_grad():
        router.weight_ED.copy_(torch.tensor([0.6, 0.3, 0.1]).log()[:, None])
    share_E = router(torch.ones(50_000, 1)).load_E / 50_000
    torch.testing.assert_close(share_E, torch.tensor([0.6, 0.3, 0.1]), atol=0.01, rtol=0)


def test_the_weight_is_1_and_the_log_probability_is_that_of_the_drawn_one() -> None:
    torch.manual_seed(0)
    routing = SampledRouter(4, 3)(torch.randn(20, 4))
    assert routing.weights_TK.tolist() == [[1.0]] * 20
    assert not routing.weights_TK.requires_grad
    drawn = routing.logits_TE.log_softmax(-1).gather(1, routing.experts_TK)[:, 0]
    torch.testing.assert_close(routing.log_prob_T, drawn)


def test_the_score_has_the_gradient_of_the_expected_loss() -> None:
    """The mean of L_z d log p_z over the draws is d sum_z p_z L_z."""
    torch.manual_seed(0)
    router = SampledRouter(2, 3)
    x, loss_E = torch.tensor([[1.0, -0.5]]), torch.tensor([1.0, 3.0, -2.0])
    routing = router(x.expand(200_000, 2))
    (loss_E[routing.experts_TK[:, 0]] * routing.log_prob_T).mean().backward()
    exact = torch.autograd.grad(((x @ router.weight_ED.T).softmax(-1) * loss_E).sum(), router.weight_ED)[0]
    torch.testing.assert_close(router.weight_ED.grad, exact, atol=0.02, rtol=0)


def test_evaluation_takes_the_most_probable() -> None:
    torch.manual_seed(0)
    router, x = SampledRouter(4, 3).eval(), torch.randn(20, 4)
    routing = router(x)
    assert torch.equal(routing.experts_TK[:, 0], (x @ router.weight_ED.T).argmax(1))
    assert routing.log_prob_T is None


def test_padding_has_no_score() -> None:
    mask = torch.tensor([True, False, True])
    routing = SampledRouter(4, 3)(torch.randn(3, 4), mask)
    assert routing.log_prob_T[1] == 0
    assert routing.weights_TK[1] == 0


def test_nan_reaches_the_loss() -> None:
    routing = SampledRouter(4, 3)(torch.full((2, 4), torch.nan))
    assert bool(routing.log_prob_T.isnan().all())
