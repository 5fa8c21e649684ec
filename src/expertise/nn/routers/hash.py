"""A fixed hash of the token's id: routing without anything learned.

Letters of shapes: T tokens, E experts, K chosen.
"""

from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from expertise.nn.routers._abstract import AbstractRouter, check_whole
from expertise.nn.routing import Routing

_LOW = 0xFFFFFFFF
Bits = TypeVar("Bits", int, Tensor)


class HashRouter(AbstractRouter):
    """Each token takes k experts that a hash of its id names (Roller et al. 2021, arXiv 2106.04426).

    The same id goes to the same experts in every place, layer call, process and on every device; ids need
    not be dense or positive. Every pair of id and expert gets a pseudo-random number, and a token takes the
    experts of its k largest; so ids spread evenly, and one more expert moves only those ids that go to it.
    Tokens spread as evenly as the counts of their ids allow: a frequent word is all with its own expert.
    There are no parameters, logits or gradient; weights are 1/k and sum to 1.

    Parameters
    ----------
    dim, num_experts : D and E.
    k : experts a token takes.
    seed : another seed is another hash; give each layer its own.

    Raises
    ------
    ValueError : an argument that does not fit; says which.

    Examples
    --------
    >>> router = HashRouter(dim=3, num_experts=4)
    >>> routing = router(torch.randn(5, 3), token_ids=torch.tensor([7, 8, 7, -1, 8]))
    >>> experts = routing.experts_TK[:, 0].tolist()
    >>> experts[0] == experts[2], experts[1] == experts[4]
    (True, True)
    """

    name: ClassVar[str] = "hash"
    differentiable: ClassVar[bool] = False
    row_independent: ClassVar[bool] = True
    needs_token_ids: ClassVar[bool] = True

    def __init__(self, dim: int, num_experts: int, k: int = 1, *, seed: int = 0) -> None:
        super().__init__(dim, num_experts)
        check_whole("k", k, 1, num_experts, hint="; a token cannot take more experts than there are")
        check_whole("seed", seed, 0, _LOW)
        self.k = k
        self.seed = seed

    def _route(self, x_TD: Tensor, mask_T: Tensor | None, token_ids_T: Tensor | None) -> Routing:
        assert token_ids_T is not None
        # the expert in the low digits: no two numbers of a token are equal, so every device sorts alike
        experts_E = torch.arange(self.num_experts, device=token_ids_T.device)
        number_TE = hashed(token_ids_T[:, None], experts_E, self.seed) * self.num_experts + experts_E
        experts_TK = number_TE.topk(self.k, -1).indices
        dtype = torch.float64 if x_TD.dtype == torch.float64 else torch.float32
        weights_TK = torch.full(experts_TK.shape, 1 / self.k, dtype=dtype, device=x_TD.device)
        zeros_TE = torch.zeros(number_TE.shape, dtype=dtype, device=x_TD.device)
        return Routing(
            self.num_experts, (), zeros_TE.scatter(-1, experts_TK, weights_TK), experts_TK, weights_TK
        )

    def extra_repr(self) -> str:
        """Give the sizes, for print."""
        return f"dim={self.dim}, num_experts={self.num_experts}, k={self.k}, seed={self.seed}"


def hashed(ids: Tensor, experts: Tensor, seed: int) -> Tensor:
    """Mix ids, experts and a seed into whole numbers from 0 to 2^32 - 1; the shapes broadcast.

    >>> first = hashed(torch.tensor([1, 2, 3]), torch.tensor(0), 0)
    >>> first.unique().numel(), bool((first >= 0).all())
    (3, True)
    """
    ids = ids.long()
    h = _mix(((ids >> 32) & _LOW) ^ _mix(seed))
    h = _mix((ids & _LOW) ^ h)
    return _mix(h ^ _mix(experts.long() + 1))


def _mix(h: Bits) -> Bits:
    """Scramble 32 bits: shift, xor, multiply by an odd number, twice.

    The multipliers are below 2^31, so no product leaves int64: there is no overflow on which compilers and
    devices could differ.
    """
    h = h ^ (h >> 16)
    h = (h * 0x2C1B3C6D) & _LOW
    h = h ^ (h >> 12)
    h = (h * 0x297A2D39) & _LOW
    return h ^ (h >> 15)
