"""Routing: what a router returns. A frozen value; losses and statistics are functions of it.

Letters of shapes: T tokens (all leading dimensions of x flattened), E experts, K experts a token may choose;
B sequences, L tokens of a sequence, S slots.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Routing:
    """Which experts each token goes to, with which weights, and what the losses need to know about it.

    An entry of ``experts_TK`` that is E stands for nobody: a padding token, or fewer than K experts chosen.

    Attributes
    ----------
    num_experts : E.
    shape : leading dimensions of the input, x.shape[:-1]; T is their product.
    probs_TE : (T, E) float, each expert's probability (softmax) or score (sigmoid) before the choice; 0 for
        padding. Carries the gradient to the router.
    experts_TK : (T, K) int64 from 0 to E.
    weights_TK : (T, K) float, what the experts' outputs are multiplied by; 0 where ``experts_TK`` is E.
    logits_TE : (T, E) float, the router's raw output; None where it has none (hash).
    mask_T : (T,) bool, True for real tokens; None: all are.
    kept_TK : (T, K) bool, False where the expert's capacity was full; None: no capacity.
    log_prob_T : (T,) float, logarithm of the probability of the sampled expert; None: nothing was sampled.
    smooth_load_E : (E,) float, differentiable load (Shazeer et al. 2017, Appendix A); None: no noise.
    max_pairs : most entries of ``experts_TK`` that can name an expert, where fewer than T K can.
    """

    num_experts: int
    shape: tuple[int, ...]
    probs_TE: Tensor
    experts_TK: Tensor
    weights_TK: Tensor
    logits_TE: Tensor | None = None
    mask_T: Tensor | None = None
    kept_TK: Tensor | None = None
    log_prob_T: Tensor | None = None
    smooth_load_E: Tensor | None = None
    max_pairs: int | None = None

    @property
    def chosen_TK(self) -> Tensor:
        """Where an expert was chosen, before any capacity: (T, K) bool."""
        return self.experts_TK < self.num_experts

    @property
    def picked_TK(self) -> Tensor:
        """Where an expert really ran: chosen, and not over its capacity; (T, K) bool."""
        return self.chosen_TK if self.kept_TK is None else self.chosen_TK & self.kept_TK

    @property
    def load_E(self) -> Tensor:
        """Tokens that chose each expert, before any capacity: (E,) int64."""
        return count(self.experts_TK, self.num_experts)

    @property
    def picked_load_E(self) -> Tensor:
        """Tokens that each expert really took: (E,) int64."""
        return count(torch.where(self.picked_TK, self.experts_TK, self.num_experts), self.num_experts)

    @property
    def importance_E(self) -> Tensor:
        """Sum over the tokens of each expert's weight, with gradient: (E,) (Shazeer et al. 2017, eq. 6)."""
        total = self.weights_TK.new_zeros(self.num_experts + 1)
        return total.scatter_add(0, self.experts_TK.flatten(), self.weights_TK.flatten())[:-1]

    @property
    def num_tokens(self) -> Tensor:
        """Real tokens: int64, no dimension."""
        if self.mask_T is None:
            return torch.tensor(self.experts_TK.shape[0], device=self.experts_TK.device)
        return self.mask_T.sum()

    @property
    def dropped(self) -> Tensor:
        """Choices that were lost because the expert was full: int64, no dimension."""
        return self.chosen_TK.sum() - self.picked_TK.sum()

    def detach(self) -> "Routing":
        """Give the same without gradients."""
        values: dict[str, Any] = {
            name: v.detach() if isinstance(v, Tensor) else v for name, v in vars(self).items()
        }
        return Routing(**values)


@dataclass(frozen=True, eq=False)
class SoftRouting:
    """How a soft layer mixed tokens into slots, and slots into tokens.

    Attributes
    ----------
    num_experts : E.
    shape : leading dimensions of the input, x.shape[:-1].
    logits_BLS : (B, L, S) float.
    dispatch_BLS : softmax over the tokens of a sequence; 0 for padding.
    combine_BLS : softmax over the slots; 0 for padding.
    mask_BL : (B, L) bool, True for real tokens; None: all are.
    """

    num_experts: int
    shape: tuple[int, ...]
    logits_BLS: Tensor
    dispatch_BLS: Tensor
    combine_BLS: Tensor
    mask_BL: Tensor | None = None

    @property
    def importance_E(self) -> Tensor:
        """Sum over the tokens of what each expert's slots contribute to them: (E,)."""
        by_expert: Tensor = self.combine_BLS.sum((0, 1)).unflatten(0, (self.num_experts, -1))
        return by_expert.sum(-1)


def count(experts: Tensor, num_experts: int) -> Tensor:
    """Count how often each expert 0..E-1 is named: (E,) int64.

    >>> count(torch.tensor([[0, 2], [2, 3]]), 3).tolist()  # 3 is nobody
    [1, 0, 2]
    """
    flat = experts.flatten()
    total = torch.zeros(num_experts + 1, dtype=torch.int64, device=flat.device)
    return total.scatter_add_(0, flat, torch.ones_like(flat))[:-1]
