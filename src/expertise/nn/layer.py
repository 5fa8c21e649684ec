"""The sparse layer: route, dispatch, experts, combine. The file to read first.

Letters of shapes: T tokens (all leading dimensions of x flattened), D model, E experts, K experts a token may
choose, P pairs of a token and an expert.
"""

import warnings
from dataclasses import replace
from typing import Literal, overload

import torch
from torch import Tensor, nn

from expertise.nn.dispatch import ORDERS, Capacity, combine, dispatch
from expertise.nn.experts import ExpertList, Experts, check_experts
from expertise.nn.recording import Recorder
from expertise.nn.routers._abstract import AbstractRouter, check_number, check_one_of, check_whole
from expertise.nn.routing import Routing

# up to so many pairs of a token and an expert, the layer does without dispatch
FEW_PAIRS = 8


class MoE(nn.Module):
    """A sparse mixture-of-experts layer: y = sum over the chosen experts of weight x expert(x).

    Only experts that a token chose run, each on its own tokens. A token whose experts were all full gets 0:
    the residual connection around the layer carries it.

    Parameters
    ----------
    router : decides which tokens go to which experts.
    experts : `Experts` (stacked weights) or `ExpertList` (any modules), as many as the router has.
    shared : a module that runs on every token and is added to the result.
    shared_gate : weight the shared module by sigmoid(x w), w learned (Qwen2-MoE).
    capacity_factor : an expert takes ceil(factor x tokens x K / E) tokens; None: all that come.
    eval_capacity_factor : the same in evaluation; None: as in training.
    capacity : a fixed number of tokens instead of a factor.
    capacity_order : "position", or "priority": tokens with the largest weight first.
    capacity_per_sequence : each sequence (x is (..., L, D)) fills the experts by itself.
    causal : warn if a token's output depends on later tokens through the routing.

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> from expertise.nn import MoE, Experts, TopKRouter, load_balance_loss
    >>> layer = MoE(TopKRouter(dim=8, num_experts=4, k=2), Experts(num_experts=4, dim=8, hidden=16))
    >>> y, routing = layer(torch.randn(2, 5, 8), return_routing=True)
    >>> y.shape, routing.experts_TK.shape
    (torch.Size([2, 5, 8]), torch.Size([10, 2]))
    >>> load_balance_loss(routing).requires_grad
    True
    """

    def __init__(
        self,
        router: AbstractRouter,
        experts: Experts | ExpertList,
        *,
        shared: nn.Module | None = None,
        shared_gate: bool = False,
        capacity_factor: float | None = None,
        eval_capacity_factor: float | None = None,
        capacity: int | None = None,
        capacity_order: str = "position",
        capacity_per_sequence: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        _check_parts(router, experts, shared)
        if router.num_experts != experts.num_experts:
            raise ValueError(
                f"router and experts must agree: the router has num_experts={router.num_experts}, "
                f"the experts are {experts.num_experts}"
            )
        if isinstance(experts, Experts) and router.dim != experts.dim:
            raise ValueError(
                f"router and experts must agree: the router has dim={router.dim}, the experts {experts.dim}"
            )
        if shared_gate and shared is None:
            raise ValueError("shared_gate=True needs shared, the module that it weights; got None")
        for name, factor in (
            ("capacity_factor", capacity_factor),
            ("eval_capacity_factor", eval_capacity_factor),
        ):
            if factor is not None:
                check_number(name, factor, 0)
        if capacity is not None:
            check_whole("capacity", capacity, 0)
            if capacity_factor is not None or eval_capacity_factor is not None:
                raise ValueError(
                    f"capacity={capacity} is a fixed number of tokens; leave out capacity_factor, or capacity"
                )
        if eval_capacity_factor is not None and capacity_factor is None:
            raise ValueError("eval_capacity_factor needs capacity_factor, the one of training; got None")
        check_one_of("capacity_order", capacity_order, ORDERS)
        self.router = router
        self.experts = experts
        self.shared = shared
        self.shared_gate = nn.Linear(router.dim, 1, bias=False) if shared_gate else None
        self.capacity_factor = capacity_factor
        self.eval_capacity_factor = eval_capacity_factor
        self.capacity = capacity
        self.capacity_order = capacity_order
        self.capacity_per_sequence = capacity_per_sequence
        self.causal = causal
        # set by record_routing, for the time of its block
        self.recorder: Recorder | None = None
        if causal:
            _warn_if_not_causal(router, self._capacity())

    @overload
    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        token_ids: Tensor | None = None,
        return_routing: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        token_ids: Tensor | None = None,
        return_routing: Literal[True],
    ) -> tuple[Tensor, Routing]: ...

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        token_ids: Tensor | None = None,
        return_routing: bool = False,
    ) -> Tensor | tuple[Tensor, Routing]:
        """Run the layer.

        Parameters
        ----------
        x : (..., D) float.
        mask : (...) bool, True for real tokens; padding takes no part in anything, and its output is 0.
        token_ids : (...) int, for the hash router.
        return_routing : also give the `Routing`, which the losses take.

        Returns
        -------
        (..., D), or that and the routing.
        """
        routing: Routing = self.router(x, mask, token_ids)
        x_TD = x.reshape(-1, x.shape[-1])
        capacity = self._capacity()
        if capacity is None and self._few(routing):
            y_TD = self._one_by_one(x_TD, routing)
        else:
            plan = dispatch(routing, capacity)
            if plan.kept_TK is not None:
                routing = replace(routing, kept_TK=plan.kept_TK)
            y_PD = self.experts(x_TD.index_select(0, plan.tokens_P), plan.offsets_E)
            y_TD = combine(y_PD, plan.places_TK, _weights(routing))
        if self.shared is not None:
            shared_TD = self._run_shared(x_TD, routing.mask_T)
            if shared_TD.shape != y_TD.shape:
                raise ValueError(
                    f"shared must give {tuple(y_TD.shape)} as the experts do, for they are added; "
                    f"{type(self.shared).__name__} gave {tuple(shared_TD.shape)}"
                )
            y_TD = y_TD + shared_TD
        if self.recorder is not None:
            self.recorder.add(self, routing)
        y = y_TD.reshape(*x.shape[:-1], y_TD.shape[-1])
        return (y, routing) if return_routing else y

    def _capacity(self) -> Capacity | None:
        factor = self.capacity_factor
        if not self.training and self.eval_capacity_factor is not None:
            factor = self.eval_capacity_factor
        if factor is None and self.capacity is None:
            return None
        return Capacity(factor or 0.0, self.capacity, self.capacity_order, self.capacity_per_sequence)

    def _few(self, routing: Routing) -> bool:
        """Whether direct products are faster than a dispatch: a handful of tokens, to be read at once.

        Not with gradients: those of each expert would fill all the weights'. Not on a GPU, which would wait.
        Not in a trace, which would take what it reads here for constants.
        """
        return (
            not torch.compiler.is_compiling()
            and torch._C._get_tracing_state() is None
            and not torch.is_grad_enabled()
            and routing.experts_TK.numel() <= FEW_PAIRS
            and routing.experts_TK.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and isinstance(self.experts, Experts)
        )

    def _one_by_one(self, x_TD: Tensor, routing: Routing) -> Tensor:
        y_TD = torch.zeros_like(x_TD)
        weights = routing.weights_TK.to(x_TD.dtype).tolist()
        for t, experts in enumerate(routing.experts_TK.tolist()):
            for e, weight in zip(experts, weights[t], strict=True):
                if e < routing.num_experts:
                    y_TD[t].add_(self.experts.one(e, x_TD[t]), alpha=weight)
        return y_TD

    def _run_shared(self, x_TD: Tensor, mask_T: Tensor | None) -> Tensor:
        assert self.shared is not None
        if mask_T is not None:
            # even a gradient of 0 times a NaN in the padding would be NaN
            x_TD = torch.where(mask_T[:, None], x_TD, x_TD.new_zeros(()))
        y_TD: Tensor = self.shared(x_TD)
        if self.shared_gate is not None:
            y_TD = self.shared_gate(x_TD).sigmoid() * y_TD
        if mask_T is None:
            return y_TD
        return torch.where(mask_T[:, None], y_TD, y_TD.new_zeros(()))

    def extra_repr(self) -> str:
        """Give the capacity, for print."""
        if self.capacity is not None:
            return f"capacity={self.capacity}"
        return "" if self.capacity_factor is None else f"capacity_factor={self.capacity_factor}"


def _check_parts(router: object, experts: object, shared: object) -> None:
    # a router of one's own, or one that is wrapped, need not be an AbstractRouter
    if not isinstance(router, nn.Module) or isinstance(router, Experts | ExpertList):
        raise ValueError(
            f"router must be one of expertise.nn.ROUTERS, TopKRouter(dim, num_experts) for example; "
            f"got {type(router).__name__}"
        )
    check_experts(experts)
    if shared is not None and not isinstance(shared, nn.Module):
        raise ValueError(f"shared must be a torch module, or None; got {type(shared).__name__}")


def _weights(routing: Routing) -> Tensor:
    """Give the weights, 0 for pairs over the capacity."""
    if routing.kept_TK is None:
        return routing.weights_TK
    return torch.where(routing.kept_TK, routing.weights_TK, routing.weights_TK.new_zeros(()))


def _warn_if_not_causal(router: AbstractRouter, capacity: Capacity | None) -> None:
    why = None
    if not router.row_independent:
        why = f"the router {router.name!r} chooses by comparing tokens"
    elif capacity is not None:
        why = "with a capacity, whether an expert is full depends on other tokens"
    if why:
        warnings.warn(
            f"causal=True: {why}, so a token's output may depend on later tokens; use a router with "
            "row_independent=True (top_k, for example) and no capacity",
            UserWarning,
            stacklevel=3,
        )
