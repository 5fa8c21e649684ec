"""The dense router: softmax or sigmoid of a linear map, by hand."""

import math

import pytest
import torch

from expertise.nn.routers import DenseRouter


def test_weights_by_hand() -> None:
    router = DenseRouter(2, 3, bias=True)
    with torch.no_grad():
        router.weight_ED.copy_(torch.tensor([[math.log(2.0), 0.0], [0.0, math.log(3.0)], [0.0, 0.0]]))
        router.bias_E.copy_(torch.tensor([0.0, 0.0, math.log(5.0)]))
    routing = router(torch.ones(1, 2))
    torch.testing.assert_close(routing.weights_TK, torch.tensor([[0.2, 0.3, 0.5]]))
    assert routing.experts_TK.tolist() == [[0, 1, 2]]


def test_sigmoid_scores_every_expert_by_itself() -> None:
    router = DenseRouter(1, 2, activation="sigmoid")
    with torch.no_grad():
        router.weight_ED.copy_(torch.tensor([[math.log(3.0)], [0.0]]))
    torch.testing.assert_close(router(torch.ones(1, 1)).weights_TK, torch.tensor([[0.75, 0.5]]))


def test_jitter_is_for_training_only() -> None:
    torch.manual_seed(0)
    router, x = DenseRouter(4, 3, jitter=0.1), torch.randn(5, 4)
    assert not torch.equal(router(x).logits_TE, router(x).logits_TE)
    router.eval()
    assert torch.equal(router(x).logits_TE, x @ router.weight_ED.T)


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match="activation must be one of 'softmax', 'sigmoid'; got 'tanh'"):
        DenseRouter(4, 3, activation="tanh")
