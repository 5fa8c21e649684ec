"""Sinkhorn: a plan with even columns chooses, the plain router weighs."""

import pytest
import torch

from expertise.nn.routers import SinkhornRouter
from expertise.nn.routers.sinkhorn import balanced


def test_by_hand() -> None:
    """Both tokens prefer expert 0; the first by more, so the second goes to expert 1."""
    router = SinkhornRouter(1, 2)
    with torch.no_grad():
        router.weight_ED.copy_(torch.tensor([[1.0], [0.0]]))
    x = torch.tensor([[3.0], [1.0]])
    assert router(x).experts_TK.tolist() == [[0], [1]]
    torch.testing.assert_close(router(x).weights_TK[:, 0], torch.tensor([3.0, -1.0]).sigmoid())
    assert router.eval()(x).experts_TK.tolist() == [[0], [0]]


def test_the_plan_has_even_rows_and_columns() -> None:
    torch.manual_seed(0)
    plan = balanced(torch.randn(30, 5, dtype=torch.float64), None, 200).exp()
    torch.testing.assert_close(plan.sum(0), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(1), torch.full((30,), 5 / 30, dtype=torch.float64))


def test_the_plan_is_the_one_of_the_real_tokens() -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(30, 5), torch.rand(30) < 0.6
    torch.testing.assert_close(balanced(logits, mask, 8)[mask], balanced(logits[mask], None, 8))


def test_adding_to_an_expert_s_logits_does_not_change_the_choice() -> None:
    torch.manual_seed(0)
    logits = torch.randn(200, 6)
    shifted = logits + 5 * torch.randn(6)
    assert torch.equal(balanced(logits, None, 100).argmax(1), balanced(shifted, None, 100).argmax(1))


@pytest.mark.parametrize("k", [1, 2])
def test_training_evens_the_load_out(k: int) -> None:
    torch.manual_seed(0)
    router, x = SinkhornRouter(64, 8, k), torch.randn(1024, 64) + 1
    even, uneven = router(x).load_E, router.eval()(x).load_E
    assert uneven.max() > 3 * 128 * k
    assert even.max() < 1.25 * 128 * k


def test_the_plan_has_no_gradient() -> None:
    torch.manual_seed(0)
    router, x = SinkhornRouter(4, 3), torch.randn(10, 4)
    routing = router(x)
    routing.weights_TK.sum().backward()
    got = router.weight_ED.grad.clone()
    router.weight_ED.grad = None
    (x @ router.weight_ED.T).softmax(-1).gather(1, routing.experts_TK).sum().backward()
    torch.testing.assert_close(got, router.weight_ED.grad)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4], [1e4, 1e4, 1e4]])
    assert bool(balanced(logits, None, 20).isfinite().all())


def test_errors() -> None:
    with pytest.raises(ValueError, match="iterations must be a whole number of at least 1; got 0"):
        SinkhornRouter(4, 3, iterations=0)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1 and at most 3; got 4"):
        SinkhornRouter(4, 3, 4)
    with pytest.raises(ValueError, match="activation must be one of 'softmax', 'sigmoid'; got 'relu'"):
        SinkhornRouter(4, 3, activation="relu")
