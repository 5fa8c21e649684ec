"""What others got wrong with mixtures, routers, losses, optimizers (1 to 8), and with estimators (16)."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

from expertise.nn import (
    Experts,
    LossFreeBias,
    MoE,
    NoisyTopKRouter,
    Routing,
    TopKRouter,
    load_balance_loss,
    only_picked,
    record_routing,
    router_z_loss,
)
from expertise.nn.estimators import NeuralMixtureClassifier, NeuralMixtureRegressor
from expertise.nn.objectives import OBJECTIVES

# ---- 1, 2: the mixture of 1991


def test_pitfall_01_the_default_objective_is_the_likelihood_not_the_error_of_the_blend() -> None:
    for estimator in (NeuralMixtureRegressor(), NeuralMixtureClassifier()):
        assert estimator.get_params()["objective"] == "likelihood"


def test_pitfall_01_an_expert_that_is_right_is_left_alone_by_the_likelihood_alone() -> None:
    """Expert 0 says the target; the blend is off by expert 1's share, and so the blend would move both."""
    slopes = {}
    for name in ("likelihood", "cooperative"):
        outputs = torch.tensor([[[2.0], [5.0]]], requires_grad=True)
        log_gate = torch.tensor([[0.5, 0.5]]).log()
        OBJECTIVES[name](log_gate, outputs, torch.tensor([[2.0]])).sum().backward()
        slopes[name] = outputs.grad.flatten().tolist()
    assert slopes["cooperative"] == pytest.approx([1.5, 1.5])  # 2 x .5 x (3.5 - 2), for both
    h = 1 / (1 + np.exp(-4.5))  # responsibility of the one that is right
    assert slopes["likelihood"] == pytest.approx([0.0, (1 - h) * 3])


@pytest.fixture(scope="module")
def two_lines() -> tuple[NeuralMixtureRegressor, np.ndarray, np.ndarray]:
    """y is x or -x by chance: only y tells which expert it was."""
    generator = np.random.default_rng(0)
    X = generator.uniform(0.5, 2, size=(300, 1))
    y = X[:, 0] * generator.choice([-1.0, 1.0], size=300) + 0.05 * generator.normal(size=300)
    settings = {"epochs": 60, "batch_size": 300, "learning_rate": 0.1, "early_stopping": False}
    return NeuralMixtureRegressor(2, expert_hidden=(), random_state=0, **settings).fit(X, y), X, y


def test_pitfall_02_a_prediction_weighs_by_the_gate_not_by_the_responsibility(
    two_lines: tuple[NeuralMixtureRegressor, np.ndarray, np.ndarray],
) -> None:
    model, X, y = two_lines
    said = model.predict_experts(X)
    prediction = model.predict(X)
    by_gate = (model.gate_proba(X) * said).sum(1)
    by_responsibility = (model.responsibilities(X, y) * said).sum(1)
    assert prediction == pytest.approx(by_gate, abs=1e-6)
    assert np.abs(by_responsibility - y).mean() < 0.2  # it has seen y
    assert np.abs(prediction - y).mean() > 0.5  # nobody can know
    assert list(inspect.signature(model.predict).parameters)[:1] == ["X"]
    assert "y" not in inspect.signature(model.predict).parameters


# ---- 3: momentum


@pytest.mark.parametrize("make", [optim.AdamW, optim.SGD], ids=["AdamW", "SGD"])
def test_pitfall_03_experts_that_no_row_picked_keep_weights_and_state(
    make: Callable[..., optim.Optimizer],
) -> None:
    torch.manual_seed(0)
    layer = MoE(TopKRouter(4, 8, k=1), Experts(8, 4, 6))
    settings = {"momentum": 0.9} if make is optim.SGD else {}
    optimizer = make(layer.experts.parameters(), lr=0.1, weight_decay=0.1, **settings)
    layer(torch.randn(200, 4)).square().sum().backward()
    optimizer.step()  # everybody has momentum now
    up = layer.experts.up_weight
    state = {key: value for key, value in optimizer.state[up].items() if value.shape == up.shape}
    assert state
    before = up.detach().clone(), {key: value.clone() for key, value in state.items()}
    optimizer.zero_grad()
    with record_routing(layer) as routings:
        layer(torch.randn(2, 4)).square().sum().backward()
    with only_picked(optimizer, routings):
        optimizer.step()
    idle = routings[0].load_E == 0
    assert 6 <= idle.sum() <= 7
    assert torch.equal(up[idle], before[0][idle])
    for key, value in state.items():
        assert torch.equal(value[idle], before[1][key][idle])
    assert (up[~idle] != before[0][~idle]).all()


# ---- 4: a router without gradient


@pytest.mark.parametrize("make", [TopKRouter, NoisyTopKRouter])
def test_pitfall_04_with_k_1_the_router_has_a_gradient(
    make: Callable[..., TopKRouter | NoisyTopKRouter],
) -> None:
    torch.manual_seed(0)
    layer = MoE(make(4, 8, k=1), Experts(8, 4, 6))
    nn.init.normal_(layer.router.weight_ED)
    y, routing = layer(torch.randn(50, 4), return_routing=True)
    y.square().sum().backward()
    assert (routing.weights_TK < 1).all()
    assert layer.router.weight_ED.grad.abs().max() > 1e-3


def test_pitfall_04_renormalising_one_weight_is_refused() -> None:
    with pytest.raises(
        ValueError, match="renormalize must be False or None with k=1; got True, which makes every"
    ):
        TopKRouter(4, 8, k=1, renormalize=True)


# ---- 5: the load of Shazeer et al.


def test_pitfall_05_the_load_is_that_of_drawing_the_noise_again() -> None:
    torch.manual_seed(0)
    T, E, k, draws = 64, 8, 2, 4000
    router = NoisyTopKRouter(4, E, k=k).double()
    nn.init.normal_(router.weight_ED)
    nn.init.normal_(router.noise_weight_ED)
    x = torch.randn(T, 4, dtype=torch.float64)
    routing = router(x)
    clean_TE = F.linear(x, router.weight_ED)
    spread_TE = F.softplus(F.linear(x, router.noise_weight_ED))
    expected_E = []
    for e in range(E):
        others = routing.logits_TE.detach().clone()
        others[:, e] = -torch.inf
        to_beat_T = others.topk(k, -1).values[:, -1]
        again_NT = clean_TE[:, e] + torch.randn(draws, T, dtype=torch.float64) * spread_TE[:, e]
        expected_E.append((again_NT > to_beat_T).double().mean(0).sum().item())
    assert (routing.smooth_load_E / T).tolist() == pytest.approx([one / T for one in expected_E], abs=0.003)


def test_pitfall_05_the_load_sums_to_what_is_routed() -> None:
    """Its mean over the noise is exactly T k: 128 here. Softmaxed thresholds give far more."""
    torch.manual_seed(0)
    router = NoisyTopKRouter(4, 8, k=2)
    nn.init.normal_(router.weight_ED)
    x = torch.randn(64, 4).repeat(200, 1)  # each token with 200 draws of the noise
    routing = router(x)
    threshold_T1 = routing.logits_TE.softmax(-1).topk(3, -1).values[:, 2:]
    spread_TE = F.softplus(F.linear(x, router.noise_weight_ED))
    wrong_TE = torch.special.ndtr((F.linear(x, router.weight_ED) - threshold_T1) / spread_TE)
    assert routing.smooth_load_E.sum().item() / 200 == pytest.approx(128, abs=1)
    assert wrong_TE.sum().item() / 200 > 190  # so the line above would find it


# ---- 6, 7: losses


def test_pitfall_06_the_balance_loss_has_the_full_softmax_and_no_gradient_through_the_counts() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [2.0, 0.0, 1.0]], requires_grad=True)
    probs = logits.softmax(-1)
    routing = Routing(3, (2,), probs, torch.tensor([[0], [0]]), probs[:, :1], logits_TE=logits)
    loss = load_balance_loss(routing)
    loss.backward()
    assert loss.item() == pytest.approx(3 * probs[:, 0].mean().item())
    p = probs.detach()
    by_hand = 3 / 2 * p[:, :1] * (torch.tensor([1.0, 0, 0]) - p)  # f = (1, 0, 0)
    assert torch.allclose(logits.grad, by_hand)
    assert (logits.grad[:, 1:] < 0).all()  # experts that nobody chose are pulled up


def test_pitfall_06_two_layers_that_collapsed_the_opposite_way_are_not_balanced() -> None:
    def collapsed(e: int) -> Routing:
        probs = F.one_hot(torch.full((4,), e), 2).float()
        return Routing(2, (4,), probs, torch.full((4, 1), e), torch.ones(4, 1))

    assert load_balance_loss([collapsed(0), collapsed(1)]).item() == pytest.approx(2)


def test_pitfall_07_the_z_loss_is_logsumexp_squared() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 0.0]])
    probs = logits.softmax(-1)
    routing = Routing(3, (2,), probs, torch.tensor([[0], [1]]), torch.ones(2, 1), logits_TE=logits)
    right = (logits.exp().sum(-1).log() ** 2).mean().item()
    wrong = ((1 + logits.exp()).log() ** 2).sum(-1).mean().item()
    assert router_z_loss(routing).item() == pytest.approx(right)
    assert abs(right - wrong) > 0.1


# ---- 8: the bias without a loss


def test_pitfall_08_the_bias_weighs_nothing_learns_nothing_and_stays_float32() -> None:
    torch.manual_seed(0)
    router = TopKRouter(4, 4, k=4, activation="sigmoid", selection_bias=True)
    layer = MoE(router, Experts(4, 4, 6))
    x = torch.randn(9, 4)
    before = layer(x).detach()
    router.selection_bias_E.copy_(torch.tensor([3.0, -3.0, 0.5, 0.0]))  # all four are chosen all the same
    assert torch.allclose(layer(x), before, atol=1e-6)
    layer(x).sum().backward()
    assert router.selection_bias_E.grad is None
    assert "selection_bias_E" not in dict(router.named_parameters())
    layer.bfloat16()
    assert router.selection_bias_E.dtype == torch.float32
    bias = LossFreeBias(layer, rate=1e-3)
    layer(x.bfloat16(), mask=torch.arange(9) < 0)  # nobody
    router.load_E.copy_(torch.tensor([4, 0, 2, 2]))
    bias.step()
    assert router.selection_bias_E.tolist() == pytest.approx([2.999, -2.999, 0.5, 0.0], abs=1e-6)


# ---- 16: rows that depend on one another; the layers' part is in test_pitfalls_layers.py


def test_pitfall_16_a_prediction_of_the_estimators_depends_on_its_own_row_alone(
    two_lines: tuple[NeuralMixtureRegressor, np.ndarray, np.ndarray],
) -> None:
    model, X, _ = two_lines
    one_by_one = np.concatenate([model.predict(X[i : i + 1]) for i in range(20)])
    assert model.predict(X)[:20] == pytest.approx(one_by_one, abs=1e-6)
