"""FrameMoeModel: a sparse mixture of experts looks at every frame."""

import math
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from expertise.nn import Experts, MoE, TopKRouter, dense_form, load_balance_loss
from expertise.nn.routing import Routing
from expertise.youtube8m.flags import FlagError
from expertise.youtube8m.frames import frame_mask
from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import (
    AbstractFrameModel,
    AbstractVideoModel,
    ClassifierOf,
    Outputs,
)
from expertise.youtube8m.models._batch_norm import BatchNorm
from expertise.youtube8m.models._frame_sums import at_least_one_frame


class FrameMoeModel(AbstractFrameModel):
    """Each frame is read by the few experts that a router chooses for it; mean and maximum make the video.

        f_l = batch norm(x_l + sum over the chosen experts e of w_le e(x_l))

    with feed-forward experts (`expertise.nn.MoE`; Shazeer et al. 2017, arXiv:1701.06538, eq. 1; the router
    is `TopKRouter`). Mean and maximum of f over the real frames go, side by side, to a video-level model.
    Padding goes to no expert and counts in no statistic; a video without frames has values of 0.

    In training the load-balance loss (Fedus et al. 2021, arXiv:2101.03961, eq. 4-6) keeps all experts in use;
    the frames of all processes count in it.

    Letters of shapes: B batch, L frames, D features, E experts, K experts of a frame, T = B L.

    Parameters
    ----------
    input_size : D. Features are scaled by sqrt(D), to about 1, the size that router and experts are made for.
    num_experts, k, hidden : E, K, and the hidden units of an expert.
    balance : weight of the load-balance loss.
    classifier : a video-level model of 2 D values, the means first.

    Raises
    ------
    ValueError : k is more than num_experts.
    """

    def __init__(
        self,
        input_size: int,
        num_experts: int,
        k: int,
        hidden: int,
        balance: float,
        classifier: AbstractVideoModel,
    ) -> None:
        super().__init__()
        self.num_classes, self.input_scale = classifier.num_classes, math.sqrt(input_size)
        self.balance = balance
        # no biases: the batch normalisation behind has them
        experts = Experts(num_experts, input_size, hidden, activation="gelu")
        self.layer = MoE(TopKRouter(input_size, num_experts, k), experts)
        self.norm = BatchNorm(input_size)
        self.classifier = classifier

    @classmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> Self:
        """Build the model that these flags describe.

        Raises
        ------
        FlagError : a frame is to take more experts than there are.
        """
        D, options = flags.input_size, flags.options
        if options.frame_moe_k > options.frame_moe_experts:
            raise FlagError(
                f"--frame_moe_k={options.frame_moe_k}: a frame can't take more than the "
                f"--frame_moe_experts={options.frame_moe_experts} there are; give a smaller k or more experts"
            )
        return cls(
            D,
            options.frame_moe_experts,
            options.frame_moe_k,
            options.frame_moe_hidden,
            options.frame_moe_balance,
            classifier_of(2 * D, 1.0),
        )

    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give mean and maximum of the frames after the experts, (B, 2 D)."""
        if not torch.compiler.is_exporting():
            return self._encode(x_BLD, lengths_B)[0]
        # the same by plain operations, which need no code of ours where the export is used
        x_BLD, mask_BL = self._scaled(x_BLD, lengths_B)
        return self._pooled(x_BLD, dense_form(self.layer)(x_BLD, mask_BL), mask_BL)

    def training_outputs(self, *inputs: Tensor) -> Outputs:
        """Give what the video-level model gives in training; its loss gains the balance of the experts."""
        values_BF, routing = self._encode(*inputs)
        outputs = self.classifier.training_outputs(values_BF)
        if not self.balance:
            return outputs
        loss = self.balance * load_balance_loss(routing, group=dist.is_initialized())
        return outputs._replace(loss=loss if outputs.loss is None else loss + outputs.loss)

    @torch.no_grad()
    def route(self, x_BLD: Tensor, lengths_B: Tensor) -> Routing:
        """Say which experts read each frame: `Routing.experts_TK` and `weights_TK`, T = B L; E is nobody.

        ``load_E`` of it counts the frames that each expert has read. The frames are normalised ones, see
        `prepare`.
        """
        routing: Routing = self.layer.router(*self._scaled(x_BLD, lengths_B))
        return routing

    def _encode(self, x_BLD: Tensor, lengths_B: Tensor) -> tuple[Tensor, Routing]:
        x_BLD, mask_BL = self._scaled(x_BLD, lengths_B)
        y_BLD, routing = self.layer(x_BLD, mask=mask_BL, return_routing=True)
        return self._pooled(x_BLD, y_BLD, mask_BL), routing

    def _scaled(self, x_BLD: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Give frames of unit values, at least one of padding, and which are real (B, L)."""
        x_BLD = at_least_one_frame(x_BLD)
        return x_BLD * self.input_scale, frame_mask(lengths_B, x_BLD.shape[1])

    def _pooled(self, x_BLD: Tensor, y_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """Add what the experts said, normalise, and take mean and maximum of the real frames."""
        f_BLD = self.norm(x_BLD + y_BLD, keep=mask_BL)
        count_B1 = mask_BL.sum(dim=1, keepdim=True)
        mean_BD = f_BLD.sum(dim=1) / count_B1.clamp(min=1)
        lowest = torch.finfo(f_BLD.dtype).min
        max_BD = f_BLD.masked_fill(~mask_BL.unsqueeze(2), lowest).amax(dim=1)
        return torch.cat([mean_BD, max_BD * (count_B1 > 0)], dim=1)

    def reset_encoder(self, generator: torch.Generator) -> None:
        """Draw router and experts from the distributions that `expertise.nn` draws; normalisation as new."""
        with torch.no_grad():
            for weight in self.layer.router.parameters():  # (E, D), for logits of variance 1
                weight.normal_(std=1.0 / self.input_scale, generator=generator)
            for weight in self.layer.experts.parameters():  # (E, out, in)
                limit = 1.0 / math.sqrt(weight.shape[-1])
                weight.uniform_(-limit, limit, generator=generator)
        self.norm.reset()
