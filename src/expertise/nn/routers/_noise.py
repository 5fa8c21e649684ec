"""What the two routers of Shazeer et al. (2017, arXiv 1701.06538) share: gates, noise, and the smooth load.

Letters of shapes: T tokens, D model, E experts (or groups of them), K chosen;
"..." stands for T, or for T and groups.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# the paper has no floor; without one, softplus(-100) = 0 makes the load 0/0
SMALLEST_SPREAD = 1e-6


def wide_linear(x_TD: Tensor, weight_ED: Tensor) -> Tensor:
    """Give x W', (T, E), in float32 at least, whatever autocast says."""
    dtype = torch.float64 if x_TD.dtype == torch.float64 else torch.float32
    with torch.autocast(x_TD.device.type, enabled=False):
        return F.linear(x_TD.to(dtype), weight_ED.to(dtype))


def noise_spread(x_TD: Tensor, noise_weight_ED: Tensor) -> Tensor:
    """Give the standard deviation of the noise, softplus(x Wn), (T, E) (eq. 4)."""
    return F.softplus(wide_linear(x_TD, noise_weight_ED)).clamp_min(SMALLEST_SPREAD)


def gates(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Give the gates (..., K) and experts (..., K) of the k largest logits (..., E).

    The gates are softmax(KeepTopK(H, k)) (eq. 3, 5). For k=1 this is the constant 1, through which nothing
    learns; there the softmax is taken over all logits before the choice.

    >>> gates(torch.tensor([[0.0, 2.0, 2.0]]), 2)[0].tolist()
    [[0.5, 0.5]]
    """
    if k == 1:
        weights, experts = logits.softmax(-1).max(-1, keepdim=True)
        return weights, experts
    kept, experts = logits.topk(k, -1)
    return kept.softmax(-1), experts


def prob_in_top_k(clean: Tensor, noisy: Tensor, spread: Tensor, k: int) -> Tensor:
    """Give the probability that an expert stays in the top k when its own noise is drawn again, (..., E).

    P(x, i) = Phi((clean_i - kth_excluding(H, k, i)) / spread_i) (Shazeer et al. 2017, eq. 8, 9), where H are
    the noisy logits and kth_excluding is the k-th largest of the others: the (k+1)-th of all if i is among
    the k largest, else the k-th. With k = E nobody can be pushed out, and the probability is 1.

    >>> noisy = torch.tensor([[1.0, 0.0]])
    >>> prob_in_top_k(torch.zeros(1, 2), noisy, torch.ones(1, 2), 1).tolist()  # Phi(0 - 0), Phi(0 - 1)
    [[0.5, 0.15865525603294373]]
    """
    if k >= clean.shape[-1]:
        return torch.ones_like(clean)
    largest = noisy.topk(k + 1, -1).values
    next_one = largest[..., k:]
    threshold = torch.where(noisy > next_one, next_one, largest[..., k - 1 : k])
    inside: Tensor = torch.special.ndtr((clean - threshold) / spread)
    return inside


def was_chosen(experts: Tensor, like: Tensor) -> Tensor:
    """Give 1 where an expert is named in ``experts`` (..., K), else 0, in the shape (..., E) of ``like``.

    It is what `prob_in_top_k` becomes when there is no noise.
    """
    return torch.zeros_like(like).scatter(-1, experts, 1.0)


def sum_of_real(values: Tensor, mask_T: Tensor | None) -> Tensor:
    """Sum (T, ...) over the real tokens."""
    if mask_T is None:
        return values.sum(0)
    real = mask_T.view(-1, *[1] * (values.dim() - 1))
    return torch.where(real, values, values.new_zeros(())).sum(0)
