"""The nearest videos that were trained on, and what they say: an expert that has learned by heart.

Letters of shapes: B batch, N videos remembered, U values of a video, K neighbours, S labels kept of each, C
classes.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from expertise.youtube8m.models._abstract import l2_normalize

MOST_LABELS = 32  # kept of a video; one in thousands has more
NONE = -1


class Memory(nn.Module):
    """p_c = sum over the K nearest videos k of softmax_k(cos(u, u_k) / temperature) [k has label c].

    A mixture of experts at its most local end: each remembered video is an expert that says its own labels,
    and the softmax is the gate (attention to neighbours; Vinyals et al. 2016, arXiv:1606.04080, eq. 1).

    Parameters
    ----------
    num_videos, size, num_classes : N, U and C. The values are kept in float16, 2 N U bytes.
    neighbours, temperature : K, and how evenly they count.
    """

    keys_NU: Tensor
    labels_NS: Tensor
    count: Tensor

    def __init__(
        self, num_videos: int, size: int, num_classes: int, *, neighbours: int, temperature: float
    ) -> None:
        super().__init__()
        self.num_classes, self.neighbours, self.temperature = num_classes, neighbours, temperature
        self.register_buffer("keys_NU", torch.zeros(num_videos, size, dtype=torch.float16))
        self.register_buffer("labels_NS", torch.full((num_videos, MOST_LABELS), NONE, dtype=torch.int32))
        self.register_buffer("count", torch.zeros((), dtype=torch.int32))

    def forward(self, u_BU: Tensor) -> Tensor:
        """Give what the neighbours say, (B, C), in float32; 0 where nothing is remembered."""
        with torch.autocast(u_BU.device.type, enabled=False):
            similar_BN = l2_normalize(u_BU.float()) @ self.keys_NU.float().T
            similar_BN = similar_BN.masked_fill(self._empty(), -torch.inf)
            top_BK, videos_BK = similar_BN.topk(min(self.neighbours, len(self.keys_NU)), dim=1)
            weight_BK = torch.softmax(top_BK / self.temperature, dim=1).nan_to_num(0.0)
        labels_BKS = self.labels_NS[videos_BK].long()
        # a label that is none goes to a column of its own, which is cut off
        columns = torch.where(labels_BKS == NONE, self.num_classes, labels_BKS).flatten(1)
        votes = weight_BK.unsqueeze(2).expand_as(labels_BKS).flatten(1)
        said = votes.new_zeros(u_BU.shape[0], self.num_classes + 1).scatter_add(1, columns, votes)
        return said[:, : self.num_classes]

    @torch.no_grad()
    def fill(self, videos: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Remember the first N of these videos instead: pairs of their values (B, U) and labels (B, C)."""
        self.clear()
        first, room = 0, len(self.keys_NU)
        for u_BU, labels_BC in videos:
            B = min(len(u_BU), room - first)
            self.keys_NU[first : first + B] = l2_normalize(u_BU[:B].float()).half()
            rows, classes = labels_BC[:B].nonzero(as_tuple=True)
            before = torch.searchsorted(rows, torch.arange(B, device=rows.device))
            place = torch.arange(len(rows), device=rows.device) - before[rows]
            kept = place < MOST_LABELS
            self.labels_NS[first + rows[kept], place[kept]] = classes[kept].int()
            first += B
            if first == room:
                break
        self.count.fill_(first)

    def clear(self) -> None:
        """Forget all."""
        self.keys_NU.zero_()
        self.labels_NS.fill_(NONE)
        self.count.zero_()

    def _empty(self) -> Tensor:
        return torch.arange(len(self.keys_NU), device=self.keys_NU.device) >= self.count
