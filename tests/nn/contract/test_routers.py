"""What every router of the table promises, tested by itself. In a layer: test_routers_in_layers.py."""

import warnings

import pytest
import torch
from torch import Tensor

from expertise.nn import Experts, MoE
from expertise.nn.routers import ROUTERS, AbstractRouter
from expertise.nn.routing import Routing
from nn import reference
from nn.router_cases import AT_MOST, CASES, ONE, TAKES_ALL, TAKES_ONE, Case, ids_for

over_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.id}")
over_modes = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


def route(router: AbstractRouter, x: Tensor, mask: Tensor | None = None, seed: int = 7) -> Routing:
    torch.manual_seed(seed)
    return router(x, mask, ids_for(x))


def same(a: Routing, b: Routing) -> bool:
    pairs = [(vars(a)[name], vars(b)[name]) for name in vars(a)]
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in pairs)


def test_every_router_of_the_table_has_its_cases_and_its_slow_twin() -> None:
    assert {case.name for case in CASES} == set(ROUTERS)
    assert set(reference.ROUTES) == set(ROUTERS)
    assert set(TAKES_ALL) | TAKES_ONE == set(ROUTERS)


def test_the_table_names_its_routers() -> None:
    for name, router in ROUTERS.items():
        assert router.name == name
        assert isinstance(router.differentiable, bool)
        assert isinstance(router.row_independent, bool)
        assert isinstance(router.needs_token_ids, bool)


@over_cases
@over_modes
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shapes_and_types(case: Case, training: bool, dtype: torch.dtype) -> None:
    router = case.router().train(training)
    routing = route(router, torch.randn(2, 3, 4, dtype=dtype))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    K = routing.experts_TK.shape[1]
    assert routing.shape == (2, 3)
    assert (routing.num_experts, routing.probs_TE.shape) == (4, (6, 4))
    assert routing.experts_TK.shape == routing.weights_TK.shape == (6, K)
    assert routing.experts_TK.dtype == torch.int64
    assert routing.probs_TE.dtype == routing.weights_TK.dtype == wide
    for value, shape in ((routing.logits_TE, (6, 4)), (routing.log_prob_T, (6,))):
        assert value is None or (value.dtype, value.shape) == (wide, shape)
    assert routing.smooth_load_E is None or (routing.smooth_load_E.dtype, routing.smooth_load_E.shape) == (
        wide,
        (4,),
    )


@over_cases
@over_modes
def test_a_module_in_bfloat16_still_routes_in_float32(case: Case, training: bool) -> None:
    router = case.router().train(training).bfloat16()
    routing = route(router, torch.randn(6, 4, dtype=torch.bfloat16))
    assert routing.weights_TK.dtype == torch.float32


@over_cases
@over_modes
@pytest.mark.parametrize("num_experts", [1, 2, 4, 6])
def test_weights_are_what_the_router_promises(case: Case, training: bool, num_experts: int) -> None:
    routing = route(case.router(4, num_experts).train(training), 2 * torch.randn(50, 4))
    total_T = routing.weights_TK.sum(1)
    assert bool((routing.weights_TK >= 0).all())
    assert bool((routing.weights_TK <= 1 + 1e-6).all())
    assert bool((routing.weights_TK[~routing.chosen_TK] == 0).all())
    if case.weights == ONE:
        torch.testing.assert_close(total_T, torch.ones(50))
    if case.weights == AT_MOST:
        assert bool((total_T <= 1 + 1e-5).all())
    assert 0 <= routing.experts_TK.min() <= routing.experts_TK.max() <= num_experts


@over_cases
@over_modes
def test_probabilities_are_softmax_or_sigmoid_of_the_logits(case: Case, training: bool) -> None:
    routing = route(case.router().train(training), torch.randn(9, 4))
    if routing.logits_TE is None:
        assert not list(case.router().parameters())
        assert bool(((routing.probs_TE > 0).sum(1) == routing.experts_TK.shape[1]).all())
        return
    kinds = (routing.logits_TE.softmax(-1), routing.logits_TE.sigmoid())
    assert any(torch.allclose(routing.probs_TE, kind, atol=1e-6) for kind in kinds)


@over_cases
@over_modes
def test_loads_sum_to_the_choices(case: Case, training: bool) -> None:
    x, mask = torch.randn(4, 9, 4), torch.rand(4, 9) < 0.7
    routing = route(case.router().train(training), x, mask)
    experts = routing.experts_TK[routing.experts_TK < 4].tolist()
    assert routing.load_E.tolist() == [experts.count(e) for e in range(4)]
    assert routing.load_E.sum() == routing.chosen_TK.sum() == routing.picked_load_E.sum()
    torch.testing.assert_close(routing.importance_E.sum(), routing.weights_TK.sum())
    assert routing.max_pairs is None or routing.max_pairs >= len(experts)
    assert not routing.chosen_TK[~mask.flatten()].any()
    assert not routing.probs_TE[~mask.flatten()].any()


@over_cases
@over_modes
@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4)])
def test_no_tokens(case: Case, training: bool, shape: tuple[int, ...]) -> None:
    routing = route(case.router().train(training), torch.randn(shape))
    assert routing.load_E.tolist() == [0, 0, 0, 0]
    assert routing.shape == shape[:-1]
    assert routing.smooth_load_E is None or not routing.smooth_load_E.any()


@over_cases
@over_modes
def test_only_padding(case: Case, training: bool) -> None:
    x = torch.full((3, 4), torch.nan)
    routing = route(case.router().train(training), x, torch.zeros(3, dtype=torch.bool))
    assert routing.load_E.tolist() == [0, 0, 0, 0]
    assert not routing.weights_TK.any()
    assert not routing.probs_TE.any()
    assert routing.smooth_load_E is None or not routing.smooth_load_E.any()


@over_cases
def test_one_token(case: Case) -> None:
    routing = route(case.router().eval(), torch.randn(4))
    assert routing.shape == ()
    assert routing.experts_TK.shape[0] == 1


@over_cases
@over_modes
def test_one_expert(case: Case, training: bool) -> None:
    routing = route(case.router(4, 1).train(training), torch.randn(20, 4))
    assert set(routing.experts_TK.flatten().tolist()) <= {0, 1}  # 1 is nobody
    if case.name != "expert_choice":
        assert routing.load_E.tolist() == [20]


@over_cases
@over_modes
def test_the_choice_is_the_one_of_the_definition(case: Case, training: bool) -> None:
    """Six tokens, so that every balanced assignment can be tried."""
    if training and case.draws:
        training = False
    for seed in range(5):
        router = case.router(4, 4, seed).train(training)
        x = torch.randn(6, 4)
        got = reference.choice_of(route(router, x))
        expected = reference.ROUTES[case.name](router, x, ids_for(x))
        for a, b in zip(got, expected, strict=True):
            assert a.keys() == b.keys()
            assert list(a.values()) == pytest.approx([b[e] for e in a], abs=1e-6)


@pytest.mark.parametrize("name", sorted(TAKES_ALL))
@over_modes
def test_as_many_experts_as_there_are(name: str, training: bool) -> None:
    router = Case(name, "all", TAKES_ALL[name], "").router().train(training)
    routing = route(router, torch.randn(20, 4))
    assert routing.load_E.tolist() == [20, 20, 20, 20]
    y = MoE(router, Experts(4, 4, 5))(torch.randn(20, 4), token_ids=torch.arange(20))
    y.square().sum().backward()
    grads = [parameter.grad for parameter in router.parameters() if parameter.grad is not None]
    assert any(bool(grad.any()) for grad in grads) == router.differentiable


@over_cases
def test_evaluation_is_deterministic_and_draws_nothing(case: Case) -> None:
    router, x = case.router().eval(), torch.randn(30, 4)
    before = torch.get_rng_state()
    first = router(x, None, ids_for(x))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, route(router, x, seed=8))
    assert first.log_prob_T is None


@over_cases
def test_training_with_the_same_seed_is_the_same(case: Case) -> None:
    router, x = case.router(), torch.randn(30, 4)
    assert same(route(router, x, seed=1), route(router, x, seed=1))
    assert same(route(router, x, seed=1), route(router, x, seed=2)) != case.draws


@over_cases
def test_state_dict_carries_everything(case: Case) -> None:
    router, other, x = case.router(seed=0), case.router(seed=1), torch.randn(30, 4)
    if list(router.parameters()):
        assert not same(route(router.eval(), x), route(other.eval(), x))
    other.load_state_dict(router.state_dict())
    assert same(route(router.eval(), x), route(other.eval(), x))
    assert same(route(router.train(), x), route(other.train(), x))


@over_cases
def test_rows_are_independent_as_promised(case: Case) -> None:
    """In evaluation the choice for the first token stays, whatever the other tokens are, or it does not."""
    promised = ROUTERS[case.name].row_independent if case.row_independent is None else case.row_independent
    router = case.router(4, 4).eval()
    changed = False
    for _ in range(20):
        x = torch.randn(12, 4)
        others = x.clone()
        others[1:] = 3 * torch.randn(11, 4)
        a, b = route(router, x), route(router, others)
        changed |= not torch.equal(a.experts_TK[0], b.experts_TK[0])
    assert changed != promised


@over_cases
def test_an_order_of_the_tokens_is_only_an_order(case: Case) -> None:
    router, x, order = case.router().eval(), torch.randn(30, 4), torch.randperm(30)
    ids = ids_for(x)
    first, second = router(x, None, ids), router(x[order], None, ids[order])
    assert torch.equal(first.experts_TK[order], second.experts_TK)
    torch.testing.assert_close(first.weights_TK[order], second.weights_TK)


@over_cases
@over_modes
def test_padding_may_hold_anything(case: Case, training: bool) -> None:
    router = case.router().train(training)
    x, mask = torch.randn(3, 8, 4), torch.rand(3, 8) < 0.6
    garbage = torch.where(mask[..., None], x, torch.nan)
    assert same(route(router, x, mask), route(router, garbage, mask))


@over_cases
@over_modes
def test_padding_is_as_if_it_were_not_there(case: Case, training: bool) -> None:
    if training and case.draws:
        training = False
    router = case.router().train(training)
    x, mask = torch.randn(3, 8, 4), torch.rand(3, 8) < 0.6
    ids = ids_for(x)
    padded, alone = router(x, mask, ids), router(x[mask], None, ids[mask])
    kept = [choice for choice, real in zip(reference.choice_of(padded), mask.flatten(), strict=True) if real]
    for a, b in zip(kept, reference.choice_of(alone), strict=True):
        assert a.keys() == b.keys()
        assert list(a.values()) == pytest.approx([b[e] for e in a], abs=1e-6)
    assert torch.equal(padded.load_E, alone.load_E)


@over_cases
def test_a_mask_of_only_real_tokens_changes_nothing(case: Case) -> None:
    router, x = case.router(), torch.randn(30, 4)
    a, b = route(router, x), route(router, x, torch.ones(30, dtype=torch.bool))
    assert torch.equal(a.experts_TK, b.experts_TK)
    assert torch.equal(a.weights_TK, b.weights_TK)


@over_cases
def test_causal_models_are_warned(case: Case) -> None:
    router = case.router()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MoE(router, Experts(4, 4, 5), causal=True)
    warned = [str(w.message) for w in caught if "causal=True" in str(w.message)]
    assert bool(warned) != ROUTERS[case.name].row_independent
    assert all(repr(case.name) in text for text in warned)


@pytest.mark.parametrize("name", [name for name, router in ROUTERS.items() if router.needs_token_ids])
def test_missing_token_ids_are_named(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"the router '{name}' needs token_ids; call layer\(x, token_ids=ids"
    ):
        ROUTERS[name](4, 4)(torch.randn(3, 4))
