"""Losses that keep the experts in use, against loops and by hand."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from expertise.nn import Experts, TopKRouter
from expertise.nn.balance import (
    entropy_loss,
    importance_loss,
    load_balance_loss,
    load_loss,
    router_z_loss,
    sequence_balance_loss,
)
from expertise.nn.routing import Routing
from expertise.nn.soft import SoftMoE
from nn import balance_reference as slow
from nn.router_cases import CASES, Case

LOSSES: dict[str, tuple[Callable[[Routing], Tensor], Callable[[Routing], float]]] = {
    "load_balance": (load_balance_loss, slow.load_balance),
    "importance": (importance_loss, slow.importance),
    "router_z": (router_z_loss, slow.router_z),
    "entropy": (entropy_loss, slow.entropy),
    "sequence_balance": (
        sequence_balance_loss,
        lambda one: slow.sequence_balance(one, one.weights_TK.shape[1]),
    ),
}
every_loss = pytest.mark.parametrize("loss", [fast for fast, _ in LOSSES.values()], ids=list(LOSSES))


def routed(
    *shape: int,
    seed: int = 0,
    experts: int = 4,
    k: int = 2,
    activation: str = "softmax",
    padding: float = 0.0,
) -> Routing:
    torch.manual_seed(seed)
    router = TopKRouter(3, experts, k=k, activation=activation, bias=True).double()
    mask = torch.rand(shape) >= padding if padding else None
    return router(torch.randn(*shape, 3, dtype=torch.float64), mask=mask)


def by_hand(probs: list[list[float]], experts: list[list[int]]) -> Routing:
    """One choice a token, weighted by its probability."""
    probs_TE, experts_TK = torch.tensor(probs), torch.tensor(experts)
    return Routing(probs_TE.shape[1], (len(probs),), probs_TE, experts_TK, probs_TE.gather(1, experts_TK))


@pytest.mark.parametrize("name", list(LOSSES))
@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from([(), (1,), (7,), (2, 5), (3, 2, 4), (0,), (2, 0)]),
    experts=st.integers(1, 5),
    k=st.integers(1, 3),
    activation=st.sampled_from(["softmax", "sigmoid"]),
    padding=st.sampled_from([0.0, 0.4, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_loss_is_that_of_the_loops(
    name: str, shape: tuple[int, ...], experts: int, k: int, activation: str, padding: float, seed: int
) -> None:
    fast, reference = LOSSES[name]
    routing = routed(
        *shape, seed=seed, experts=experts, k=min(k, experts), activation=activation, padding=padding
    )
    loss = fast(routing)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(reference(routing), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (2, 3)], ids=["no tokens", "empty sequences", "all padding"])
@every_loss
def test_a_loss_over_nothing_is_0_and_has_gradient_0(
    loss: Callable[[Routing], Tensor], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    router = TopKRouter(3, 4, bias=True)
    value = loss(router(torch.randn(*shape, 3), mask=torch.zeros(shape, dtype=torch.bool)))
    assert value.item() == 0
    value.backward()
    for parameter in router.parameters():
        assert parameter.grad is None or not parameter.grad.any()


@every_loss
def test_a_loss_of_several_layers_is_the_mean_of_theirs(loss: Callable[..., Tensor]) -> None:
    layers = [routed(2, 5, seed=1), routed(2, 5, seed=2, experts=6), routed(4, seed=3)]
    expected = slow.mean_of([loss(one).item() for one in layers])
    assert loss(layers).item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss(tuple(layers[:1])).item() == pytest.approx(loss(layers[0]).item(), rel=1e-12)


@every_loss
def test_a_loss_has_the_right_gradient(loss: Callable[[Routing], Tensor]) -> None:
    torch.manual_seed(0)
    router = TopKRouter(3, 4, k=2, activation="sigmoid").double()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    mask = torch.rand(2, 5) > 0.3

    def of_weight(weight_ED: Tensor) -> Tensor:
        return loss(torch.func.functional_call(router, {"weight_ED": weight_ED}, (x, mask)))

    assert torch.autograd.gradcheck(of_weight, router.weight_ED)


@every_loss
def test_garbage_in_the_padding_changes_nothing(loss: Callable[[Routing], Tensor]) -> None:
    torch.manual_seed(0)
    router = TopKRouter(3, 4, bias=True)
    x, mask = torch.randn(2, 5, 3), torch.rand(2, 5) > 0.4
    results = []
    for padding in (0.0, math.nan, 1e30):
        router.zero_grad()
        value = loss(router(torch.where(mask[..., None], x, padding), mask=mask))
        value.backward()
        results.append((value.item(), router.weight_ED.grad.clone()))
    for value, gradient in results[1:]:
        assert value == results[0][0]
        assert torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("name", ["load_balance", "importance", "router_z", "entropy"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.id}")
def test_losses_of_every_router_are_those_of_the_loops(case: Case, name: str) -> None:
    fast, reference = LOSSES[name]
    mask = torch.tensor([True, True, False] * 5)
    routing = case.router().double()(torch.randn(15, 4).double(), mask=mask, token_ids=torch.arange(15))
    if name == "router_z" and routing.logits_TE is None:
        assert case.name == "hash"
        return
    assert fast(routing).item() == pytest.approx(reference(routing), rel=1e-9)


# ---- load balance


def test_load_balance_is_1_at_balance() -> None:
    assert load_balance_loss(by_hand([[0.7, 0.3], [0.3, 0.7]], [[0], [1]])).item() == pytest.approx(1)


def test_load_balance_is_the_number_of_experts_after_collapse() -> None:
    assert load_balance_loss(by_hand([[1.0, 0, 0]] * 4, [[0]] * 4)).item() == pytest.approx(3)


def test_1_is_not_the_least_load_balance() -> None:
    probs = [[0.31, 0.69]] * 5  # chosen by something else than the probability, noise for example
    value = load_balance_loss(by_hand(probs, [[0], [0], [0], [1], [1]])).item()
    assert value == pytest.approx(2 * (0.6 * 0.31 + 0.4 * 0.69))
    assert round(value, 3) == 0.924


def test_load_balance_counts_choices_that_the_capacity_drops() -> None:
    """The load that is to be balanced is what came, not what fitted."""
    routing = by_hand([[0.9, 0.1]] * 4, [[0], [0], [0], [1]])
    full = replace(routing, kept_TK=torch.tensor([[True], [False], [False], [True]]))
    assert load_balance_loss(full).item() == load_balance_loss(routing).item()


def test_descent_on_load_balance_spreads_the_tokens() -> None:
    torch.manual_seed(0)
    router = TopKRouter(4, 8, k=1, bias=True)
    with torch.no_grad():
        router.bias_E[0] = 3.0
    x = torch.randn(512, 4)
    before = router(x).load_E.max() / 64
    optimizer = torch.optim.Adam(router.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        load_balance_loss(router(x)).backward()
        optimizer.step()
    assert before > 4
    assert router(x).load_E.max() / 64 < 2


# ---- the others, by hand


def test_importance_is_0_at_balance_and_grows_to_experts_minus_1() -> None:
    assert importance_loss(by_hand([[0.5, 0.5]] * 2, [[0], [1]])).item() == 0
    assert importance_loss(by_hand([[0.5, 0.5, 0]] * 2, [[0], [0]])).item() == pytest.approx(2)


def test_importance_of_tiny_weights_does_not_underflow() -> None:
    routing = by_hand([[3e-25, 1e-25]] * 2, [[0], [1]])  # squared, both are 0 in float32
    assert importance_loss(routing).item() == pytest.approx(0.25)


def test_load_is_the_variation_of_the_smooth_load() -> None:
    smooth_E = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    routing = replace(by_hand([[1.0, 0, 0]], [[0]]), smooth_load_E=smooth_E)
    loss = load_loss(routing)
    assert loss.item() == pytest.approx(slow.squared_variation([3, 1, 2]))
    loss.backward()
    # d/dx of var/mean^2: 2 (x_i - mean) / (n mean^2) - 2 var / (n mean^3)
    expected = [2 * (x - 2) / (3 * 4) - 2 * (2 / 3) / (3 * 8) for x in (3, 1, 2)]
    assert smooth_E.grad.tolist() == pytest.approx(expected)


def test_load_of_no_token_is_0() -> None:
    assert load_loss(replace(by_hand([[1.0, 0]], [[0]]), smooth_load_E=torch.zeros(2))).item() == 0


def test_z_loss_of_large_logits_is_finite() -> None:
    routing = replace(by_hand([[1.0, 0]], [[0]]), logits_TE=torch.tensor([[1000.0, 0.0]]))
    assert router_z_loss(routing).item() == 1e6


def test_entropy_of_a_certain_router_is_0_with_a_finite_gradient() -> None:
    logits = torch.tensor([[400.0, 0.0], [0.0, 0.0]], requires_grad=True)  # the first: exactly (1, 0)
    routing = replace(by_hand([[1.0, 0], [0.5, 0.5]], [[0], [0]]), probs_TE=logits.softmax(-1))
    loss = entropy_loss(routing)
    assert loss.item() == pytest.approx(math.log(2) / 2)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_sequence_balance_sees_what_the_batch_hides() -> None:
    """Each sequence uses one expert, the batch both: balanced as a whole, not by sequence."""
    routing = by_hand([[1.0, 0], [1.0, 0], [0, 1.0], [0, 1.0]], [[0], [0], [1], [1]])
    assert load_balance_loss(routing).item() == pytest.approx(1)
    assert sequence_balance_loss(replace(routing, shape=(2, 2))).item() == pytest.approx(2)


def test_sequence_balance_counts_the_best_scores_not_the_biased_choice() -> None:
    """Equation 18 has no bias in it, other than equation 16, which chooses."""
    torch.manual_seed(0)
    router = TopKRouter(3, 4, k=2, activation="sigmoid", selection_bias=True)
    x = torch.randn(2, 6, 3)
    without = sequence_balance_loss(router(x)).item()
    router.selection_bias_E.copy_(torch.tensor([5.0, 0, 0, 5.0]))
    biased = router(x)
    assert biased.load_E.tolist() == [12, 0, 0, 12]
    assert sequence_balance_loss(biased).item() == pytest.approx(without)


def test_sequence_balance_of_padded_sequences_is_that_without_the_padding() -> None:
    torch.manual_seed(0)
    router = TopKRouter(3, 4)
    long, short = torch.randn(1, 5, 3), torch.randn(1, 3, 3)
    both = torch.stack([long[0], torch.cat([short[0], torch.full((2, 3), 9.0)])])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    apart = [sequence_balance_loss(router(x)).item() for x in (long, short)]
    assert sequence_balance_loss(router(both, mask=mask)).item() == pytest.approx(sum(apart) / 2)


# ---- compiled, and errors


@pytest.mark.slow
def test_losses_compile_into_one_graph() -> None:
    routing = routed(2, 5, padding=0.3)

    def total(routing: Routing) -> Tensor:
        return torch.stack([fast([routing, routing]) for fast, _ in LOSSES.values()]).sum()

    compiled = torch.compile(total, fullgraph=True)
    assert compiled(routing).item() == pytest.approx(total(routing).item())


def test_errors_say_what_is_missing() -> None:
    routing = by_hand([[1.0, 0]], [[0]])
    with pytest.raises(
        ValueError, match=r"load_loss\(routing\) needs smooth_load_E, which the router noisy_top_k"
    ):
        load_loss(routing)
    with pytest.raises(
        ValueError, match=r"router_z_loss\(routing\) needs logits_TE; got None: this router \(hash"
    ):
        router_z_loss([routing])
    with pytest.raises(
        ValueError, match=r"group=True needs torch\.distributed; call .*init_process_group first"
    ):
        load_balance_loss(routing, group=True)


@pytest.mark.parametrize("loss", [*(fast for fast, _ in LOSSES.values()), load_loss])
def test_what_is_no_routing_is_refused(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(
        ValueError, match="got an empty one: no layer ran, or the model ran outside the block"
    ):
        loss([])
    with pytest.raises(ValueError, match=r"sequence of them; got a Tensor among them"):
        loss((torch.ones(2), by_hand([[1.0, 0]], [[0]])))
    _, soft = SoftMoE(4, Experts(2, 4, 4))(torch.randn(3, 4), return_routing=True)
    with pytest.raises(ValueError, match=r"got a SoftRouting among them; leave out soft layers"):
        loss([soft])
