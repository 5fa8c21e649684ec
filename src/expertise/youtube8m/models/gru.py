"""GruModel: a stack of GRUs reads the frames, its last state is the video."""

import math
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

STATE_SIZE = 0.35  # root mean square of the last state at the start, of 1,152 features


class GruModel(AbstractFrameModel):
    """The state of the top layer after a video's last frame, and a video-level model on it.

    A layer is a gated recurrent unit (Cho et al. 2014, arXiv:1406.1078, eq. 5-8), its reset gate behind the
    product, which is the form that fused kernels know:

        r, z = sigmoid(W_r x_t + U_r h_{t-1} + b_r), sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        n = tanh(W_n x_t + r (U_n h_{t-1}) + b_n)
        h_t = (1 - z) n + z h_{t-1}

    The state starts at 0; a video without frames stays there. Features are scaled by sqrt(D), to about 1, the
    size that gates are made for.

    Letters of shapes: B batch, L frames, D features, H cells, I inputs of a layer (D, then H), G = 3 H.

    Parameters
    ----------
    input_size : D.
    cells, layers : H, and how many layers.
    classifier : a video-level model of H values.

    Attributes
    ----------
    input_kernels, hidden_kernels : W (G, I) and U (G, H) of each layer, in the order r, z, n.
    biases : b of each layer, (G,).
    """

    def __init__(self, input_size: int, cells: int, layers: int, classifier: AbstractVideoModel) -> None:
        super().__init__()
        self.num_classes, self.cells = classifier.num_classes, cells
        self.input_scale = math.sqrt(input_size)
        sizes = [input_size, *[cells] * (layers - 1)]
        self.input_kernels = nn.ParameterList([torch.zeros(3 * cells, size) for size in sizes])
        self.hidden_kernels = nn.ParameterList([torch.zeros(3 * cells, cells) for _ in sizes])
        self.biases = nn.ParameterList([torch.zeros(3 * cells) for _ in sizes])
        self.classifier = classifier

    @classmethod
    def from_flags(cls, flags: ModelFlags, classifier_of: ClassifierOf) -> Self:
        """Build the model that these flags describe."""
        options = flags.options
        classifier = classifier_of(options.gru_cells, STATE_SIZE)
        return cls(flags.input_size, options.gru_cells, options.gru_layers, classifier)

    def encode(self, x_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Give the top layer's state after each video's last frame, (B, H)."""
        x_BLD = at_least_one_frame(x_BLD)
        run = self._scanned if torch.compiler.is_exporting() else self._fused
        return last_states(run(x_BLD), lengths_B)

    def _layers(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Give W, U and b of each layer; scaling the weights is scaling the features, which are more."""
        first, *others = self.input_kernels
        kernels = [first * self.input_scale, *others]
        return list(zip(kernels, self.hidden_kernels, self.biases, strict=True))

    def _fused(self, x_BLD: Tensor) -> Tensor:
        """Give the top layer's states (B, L, H) by torch's kernels for all layers and frames; padding too."""
        layers = self._layers()
        weights = []
        for input_GI, hidden_GH, bias_G in layers:
            weights += [input_GI, hidden_GH, bias_G, torch.zeros_like(bias_G)]
        h_BLH, _ = torch.gru(
            x_BLD,
            x_BLD.new_zeros(len(layers), x_BLD.shape[0], self.cells),
            weights,
            has_biases=True,
            num_layers=len(layers),
            dropout=0.0,
            train=torch.is_grad_enabled(),  # the kernel then keeps what a backward pass needs
            bidirectional=False,
            batch_first=True,
        )
        return h_BLH

    def _scanned(self, x_BLD: Tensor) -> Tensor:
        """Give the same, frame by frame, for an export."""
        for input_GI, hidden_GH, bias_G in self._layers():
            x_BLD = self._scanned_layer(F.linear(x_BLD, input_GI, bias_G), hidden_GH.T.contiguous())
        return x_BLD

    def _scanned_layer(self, gates_BLG: Tensor, hidden_HG: Tensor) -> Tensor:
        def step(states: States, gates_BG: Tensor) -> tuple[States, Tensor]:
            (h_BH,) = states
            r_new, z_new, n_new = gates_BG.chunk(3, dim=1)
            r_old, z_old, n_old = (h_BH @ hidden_HG).chunk(3, dim=1)
            n_BH = torch.tanh(n_new + torch.sigmoid(r_new + r_old) * n_old)
            z_BH = torch.sigmoid(z_new + z_old)
            h_BH = (1.0 - z_BH) * n_BH + z_BH * h_BH
            return (h_BH,), h_BH.clone()

        return scan_frames(step, gates_BLG, (gates_BLG.new_zeros(gates_BLG.shape[0], self.cells),))

    def reset_encoder(self, generator: torch.Generator) -> None:
        """Draw the kernels Glorot-uniform; the biases of r and z are 1, as TensorFlow's: states last."""
        for kernel in (*self.input_kernels, *self.hidden_kernels):
            glorot_uniform_(kernel, kernel.shape[1], kernel.shape[0], generator)
        with torch.no_grad():
            for bias_G in self.biases:
                bias_G.zero_()
                bias_G[: 2 * self.cells] = 1.0
