"""Expert choice (Zhou et al. 2022): who is taken, and thresholds that make evaluation independent."""

import math
import warnings

import pytest
import torch

from expertise.nn.routers import ExpertChoiceRouter


def with_weights(weights: list[list[float]], **settings: object) -> ExpertChoiceRouter:
    router = ExpertChoiceRouter(len(weights[0]), len(weights), **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        router.weight_ED.copy_(torch.tensor(weights))
    return router


def test_by_hand() -> None:
    """Three tokens, S = (.9, .1), (.8, .2), (.4, .6): each of two experts takes ceil(3/2) = 2."""
    router = with_weights([[1.0], [0.0]], capacity_factor=1.0)
    routing = router(torch.tensor([[math.log(9)], [math.log(4)], [math.log(2 / 3)]]))
    assert routing.experts_TK.tolist() == [[0, 2], [0, 1], [2, 1]]
    expected = torch.tensor([[0.9, 0.0], [0.8, 0.2], [0.0, 0.6]])
    torch.testing.assert_close(routing.weights_TK, expected)
    assert routing.max_pairs == 4


@pytest.mark.parametrize(
    ("tokens", "num_experts", "factor", "takes"),
    [(10, 4, 2.0, 5), (10, 4, 1.0, 3), (50, 5, 1.5, 15), (3, 4, 8.0, 3), (1, 8, 1.0, 1), (10, 4, 0, 0)],
)
@pytest.mark.parametrize("padding", [0, 7])
def test_every_expert_takes_the_same_number(
    tokens: int, num_experts: int, factor: float, takes: int, padding: int
) -> None:
    torch.manual_seed(0)
    router = ExpertChoiceRouter(6, num_experts, capacity_factor=factor)
    x = torch.randn(tokens + padding, 6)
    mask = torch.randperm(tokens + padding) < tokens
    routing = router(x, mask) if padding else router(x)
    assert routing.load_E.tolist() == [takes] * num_experts
    assert routing.max_pairs >= takes * num_experts


def test_a_token_that_nobody_takes_gets_nothing() -> None:
    router = with_weights([[1.0], [0.0]], capacity_factor=0.5)
    routing = router(torch.tensor([[5.0], [0.0], [-5.0], [0.1]]))
    assert routing.experts_TK[1].tolist() == [2, 2]
    assert not routing.weights_TK[1].any()


def test_the_batch_decides_by_default() -> None:
    """Pitfall 16: alone, a token is taken by everybody; among better ones by nobody."""
    router = with_weights([[1.0], [0.0]], capacity_factor=0.5).eval()
    assert router(torch.tensor([[0.0]])).load_E.tolist() == [1, 1]
    assert router(torch.tensor([[0.0], [5.0], [-5.0], [1.0]])).experts_TK[0].tolist() == [2, 2]


def test_threshold_loss_by_hand() -> None:
    """S of expert 0 is .9, .8, .4; it takes the first two. At t = .85 one too few is above: t - S is .05."""
    router = with_weights([[1.0], [0.0]], capacity_factor=1.0, inference="thresholds")
    routing = router(torch.tensor([[math.log(9)], [math.log(4)], [math.log(2 / 3)]]))
    with torch.no_grad():
        router.threshold_E.copy_(torch.tensor([0.85, 0.15]))
    loss = router.threshold_loss(routing)
    assert loss.item() == pytest.approx(0.05, abs=1e-6)
    loss.backward()
    assert router.threshold_E.grad.tolist() == [1.0, 0.0]  # taken minus above the threshold
    assert router.weight_ED.grad is None


def test_threshold_loss_leaves_padding_out() -> None:
    torch.manual_seed(0)
    router = ExpertChoiceRouter(4, 4, inference="thresholds")
    x, mask = torch.randn(20, 4), torch.arange(20) < 12
    with torch.no_grad():
        router.threshold_E.fill_(-0.1)  # padding, with S = 0, is above it
    padded, alone = router(x, mask), router(x[:12])
    torch.testing.assert_close(router.threshold_loss(padded), router.threshold_loss(alone))


def test_learned_thresholds_take_as_many_as_training_did() -> None:
    torch.manual_seed(0)
    router = ExpertChoiceRouter(6, 4, capacity_factor=1.5, inference="thresholds")
    optimizer = torch.optim.Adam([router.threshold_E])
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.01 if step < 100 else 0.001
        optimizer.zero_grad()
        router.threshold_loss(router(torch.randn(256, 6) + 0.5)).backward()
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        share_E = router.eval()(torch.randn(20000, 6) + 0.5).load_E / 20000
    torch.testing.assert_close(share_E, torch.full((4,), 1.5 / 4), atol=0.03, rtol=0)


def test_thresholds_start_at_the_right_order() -> None:
    torch.manual_seed(0)
    router = ExpertChoiceRouter(32, 16, inference="thresholds").eval()
    with pytest.warns(UserWarning, match="thresholds of expert choice are untrained"):
        share_E = router(torch.randn(5000, 32)).load_E / 5000
    assert share_E.mean().item() == pytest.approx(2 / 16, abs=0.02)


def test_untrained_thresholds_are_warned_of_once() -> None:
    router = ExpertChoiceRouter(4, 4, inference="thresholds").double().eval()
    with pytest.warns(UserWarning, match=r"add router.threshold_loss\(routing\) to the training loss"):
        router(torch.randn(3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        router(torch.randn(3, 4))
        ExpertChoiceRouter(4, 4).eval()(torch.randn(3, 4))


def test_reset_parameters_resets_the_thresholds_too() -> None:
    router = ExpertChoiceRouter(4, 4, inference="thresholds")
    start = router.threshold_E.tolist()
    with torch.no_grad():
        router.threshold_E.fill_(0.5)
    router.reset_parameters()
    assert router.threshold_E.tolist() == start


def test_errors() -> None:
    with pytest.raises(ValueError, match="capacity_factor must be a number of at least 0; got -1"):
        ExpertChoiceRouter(4, 4, capacity_factor=-1)
    with pytest.raises(ValueError, match="inference must be one of 'batch', 'thresholds'; got 'token'"):
        ExpertChoiceRouter(4, 4, inference="token")
    router = ExpertChoiceRouter(4, 4)
    with pytest.raises(ValueError, match="got inference='batch'; make the router with inference="):
        router.threshold_loss(router(torch.randn(3, 4)))
    learned = ExpertChoiceRouter(4, 2, inference="thresholds")
    with pytest.raises(ValueError, match=r"takes a routing of this router, .* \(T, 2\); got \(3, 4\)"):
        learned.threshold_loss(router(torch.randn(3, 4)))
