"""LstmModel: a stack of LSTMs reads the frames, its last state is the video. The reference's LstmModel."""

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expertise.youtube8m.model_flags import ModelFlags
from expertise.youtube8m.models._abstract import (
    AbstractFrameModel,
    AbstractVideoModel,
    ClassifierOf,
    glorot_uniform_,
)
from expertise.youtube8m.models._frame_sums import at_least_one_frame
from expertise.youtube8m.models._recurrent import States, last_states, scan_frames

FORGET_BIAS = 1.0
STATE_SIZE = 0.17  # root mean square of the last state at the start, of 1,152 features scaled to about 1


class LstmModel(AbstractFrameModel):
    """The hidden state of the top layer after a video's last frame, and a video-level model on it.

    A layer is TensorFlow's BasicLSTMCell with forget bias 1 (Hochreiter & Schmidhuber 1997; Zaremba et al.
    2014, arXiv:1409.2329, section 3; no peepholes):

        i, f, j, o = split(W [x_t, h_{t-1}] + b)
        c_t = sigmoid(f + 1) c_{t-1} + sigmoid(i) tanh(j)
        h_t = sigmoid(o) tanh(c_t)

    The states start at 0; a video without frames stays there.

    Letters of shapes: B batch, L frames, D features, H cells, I inputs of a layer (D, then H), G = 4 H.

    Parameters
    ----------
    input_size : D.
    cells, layers : H, and how many layers.
    classifier : a video-level model of H values.
    input_scale : factor on the features.

    Attributes
    ----------
    kernels : of each layer, (G, I + H), its gates in the order i, f, j, o, which is that of torch.
    biases : of each layer, (G,).
    """

    def __init__(
        self,
        input_size: int,
        cells: int,
        layers: int,
        classifier: AbstractVideoModel,
        *,
        input_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.cells, self.input_scale = classifier.num_classes, cells, input_scale
        sizes = [input_size, *[cells] * (layers - 1)]
        self.kernels = nn.ParameterList([torch.zeros(4 * cells, size + cells) for size in sizes])
        self.biases = nn.ParameterList([torch.zeros(4 * cells) for _ in sizes])
        self.classifier = classifier

    @classmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> Self:
        """Build the model that these flags describe.

        The reference reads the features as they are, about 1 / sqrt(D) each. Where the recipe is not the
        reference's, which a value scale tells, they are scaled to about 1, the size that gates are made for.
        """
        D, options = flags.input_size, flags.options
        scale = math.sqrt(D) if flags.value_scale else 1.0
        classifier = classifier_of(options.lstm_cells, STATE_SIZE)
        return cls(D, options.lstm_cells, options.lstm_layers, classifier, input_scale=scale)

    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give the top layer's hidden state after each video's last frame, (B, H)."""
        x_BLD = at_least_one_frame(x_BLD)
        run = self._scanned if torch.compiler.is_exporting() else self._fused
        return last_states(run(x_BLD), lengths_B)

    def _fused(self, x_BLD: Tensor) -> Tensor:
        """Give the top layer's states (B, L, H) by torch's kernels for all layers and frames.

        Padding runs too. With two thirds of real frames, packed sequences took 1.5 times as long on a CPU.
        """
        weights = []
        for input_GI, hidden_GH, bias_G in self._layers():
            weights += [input_GI, hidden_GH, bias_G, self._forget_bias(bias_G)]
        start = x_BLD.new_zeros(len(self.kernels), x_BLD.shape[0], self.cells)
        h_BLH, _, _ = torch.lstm(
            x_BLD,
            (start, start),
            weights,
            has_biases=True,
            num_layers=len(self.kernels),
            dropout=0.0,
            train=torch.is_grad_enabled(),  # the kernel then keeps what a backward pass needs
            bidirectional=False,
            batch_first=True,
        )
        return h_BLH

    def _scanned(self, x_BLD: Tensor) -> Tensor:
        """Give the same, frame by frame, for an export."""
        for input_GI, hidden_GH, bias_G in self._layers():
            gates_BLG = F.linear(x_BLD, input_GI, bias_G + self._forget_bias(bias_G))
            x_BLD = self._scanned_layer(gates_BLG, hidden_GH.T.contiguous())
        return x_BLD

    def _scanned_layer(self, gates_BLG: Tensor, hidden_HG: Tensor) -> Tensor:
        def step(states: States, gates_BG: Tensor) -> tuple[States, Tensor]:
            h_BH, c_BH = states
            i, f, j, o = (gates_BG + h_BH @ hidden_HG).chunk(4, dim=1)
            c_BH = f.sigmoid() * c_BH + i.sigmoid() * j.tanh()
            h_BH = o.sigmoid() * c_BH.tanh()
            return (h_BH, c_BH), h_BH.clone()

        zeros_BH = gates_BLG.new_zeros(gates_BLG.shape[0], self.cells)
        return scan_frames(step, gates_BLG, (zeros_BH, zeros_BH.clone()))

    def _layers(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Give what each layer does to its input (G, I) and to its hidden state (G, H), and its bias (G,)."""
        first, *others = (kernel_GK[:, : -self.cells] for kernel_GK in self.kernels)
        # scaling the weights is scaling the features, which are more
        inputs = [first * self.input_scale, *others]
        hidden = [kernel_GK[:, -self.cells :] for kernel_GK in self.kernels]
        return list(zip(inputs, hidden, self.biases, strict=True))

    def _forget_bias(self, bias_G: Tensor) -> Tensor:
        """Give the constant of the forget gate, 0 for the others, (G,)."""
        constant_G = torch.zeros_like(bias_G)
        constant_G[self.cells : 2 * self.cells] = FORGET_BIAS
        return constant_G

    def reset_encoder(self, generator: torch.Generator) -> None:
        """Draw the kernels Glorot-uniform, as TensorFlow does; biases 0."""
        for kernel_GK, bias_G in zip(self.kernels, self.biases, strict=True):
            glorot_uniform_(kernel_GK, kernel_GK.shape[1], kernel_GK.shape[0], generator)
            with torch.no_grad():
                bias_G.zero_()

    def load_reference_weights(self, kernels: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        """Take the weights of the reference's cells, layer by layer.

        Parameters
        ----------
        kernels : (I + H, 4 H) each; the columns are those of the gates i, j, f, o, one gate after the other.
        biases : (4 H,) each, in the same order, without the forget bias.

        Raises
        ------
        ValueError : there are not as many as layers, or a shape differs from these.
        """
        wanted = [tuple(kernel.T.shape) for kernel in self.kernels]
        given = [tuple(kernel.shape) for kernel in kernels]
        if given != wanted:
            raise ValueError(f"kernels have shapes {given}; this model takes {wanted}")
        given, wanted = [tuple(bias.shape) for bias in biases], [tuple(bias.shape) for bias in self.biases]
        if given != wanted:
            raise ValueError(f"biases have shapes {given}; this model takes {wanted}")
        with torch.no_grad():
            for mine_GK, its_KG in zip(self.kernels, kernels, strict=True):
                mine_GK.copy_(_forget_second(its_KG.T))
            for mine_G, its_G in zip(self.biases, biases, strict=True):
                mine_G.copy_(_forget_second(its_G))


def _forget_second(gates: Tensor) -> Tensor:
    """Put the gates i, j, f, o of TensorFlow in the order of torch's kernels: i, f, j, o."""
    i, j, f, o = gates.chunk(4)
    return torch.cat([i, f, j, o])
