"""LogisticModel: one logistic regression a class. The reference's video_level_models.LogisticModel."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import AbstractVideoModel, Explanation, Pullback, glorot_uniform_


class LogisticModel(AbstractVideoModel):
    """p = sigmoid(x W + b), with L2 1e-8 on W.

    Letters of shapes: B batch, D features, C classes.

    Parameters
    ----------
    input_size, num_classes : D and C.
    input_scale : factor on the features.
    dropout : share of the features that are set to 0 in training.
    l2 : penalty; the loss gains l2 times half the sum of the squared weights.
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        *,
        input_scale: float = 1.0,
        dropout: float = 0.0,
        l2: float = 1e-8,
    ) -> None:
        super().__init__()
        self.input_size, self.num_classes = input_size, num_classes
        self.input_scale, self.dropout, self.l2 = input_scale, dropout, l2
        self.weight_CD = nn.Parameter(torch.zeros(num_classes, input_size))
        self.bias_C = nn.Parameter(torch.zeros(num_classes))

    @classmethod
    def from_flags(cls, flags: ModelFlags, input_size: int, input_scale: float) -> Self:
        """Build the model that these flags describe."""
        return cls(input_size, flags.num_classes, input_scale=input_scale, dropout=flags.options.dropout)

    def logits(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Give x W + b, (B, C)."""
        (x_BD,) = inputs
        seen_BD = F.dropout(x_BD * self.input_scale, self.dropout, self.training)
        return (F.linear(seen_BD, self.weight_CD, self.bias_C),)

    def pool(self, *logits: Tensor) -> Tensor:
        """Give the sigmoid of the logits."""
        (logit_BC,) = logits
        return torch.sigmoid(logit_BC.float())

    def pool_and_pullback(self, *logits: Tensor) -> tuple[Tensor, Pullback]:
        """Give the sigmoid, and its derivative p (1 - p)."""
        p_BC = self.pool(*logits)
        return p_BC, lambda r_BC: ((r_BC * p_BC * (1.0 - p_BC)).to(logits[0].dtype),)

    def reset(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw the weights anew: Glorot-uniform times ``scale``; biases 0."""
        glorot_uniform_(self.weight_CD, self.input_size, self.num_classes, generator)
        with torch.no_grad():
            self.weight_CD.mul_(scale)
            self.bias_C.zero_()

    def start_at_rates(self, rates_C: Tensor) -> None:
        """Set the biases to the log-odds of the classes' rates (C,)."""
        with torch.no_grad():
            self.bias_C.copy_(torch.logit(rates_C))

    def penalized(self) -> list[tuple[nn.Parameter, float]]:
        """Give the weights with their L2 penalty."""
        return [(self.weight_CD, self.l2)]

    def explain(self, *inputs: Tensor) -> Explanation:
        """Raise ValueError: there are no experts to speak of."""
        raise ValueError("LogisticModel has no experts, so nobody decided; explain() needs a MoeModel")
