"""Weights from and to other layers: transformers, dense blocks, smaller layers, files, other programs."""

from expertise.nn.exchange.exporting import DenseForm, dense_form, to_onnx
from expertise.nn.exchange.feed_forward import FeedForward
from expertise.nn.exchange.hugging import BLOCKS, from_transformers, to_transformers
from expertise.nn.exchange.merging import merge
from expertise.nn.exchange.pruning import PruneReport, prune
from expertise.nn.exchange.saving import load_layer, save_layer
from expertise.nn.exchange.upcycling import upcycle

__all__ = [
    "BLOCKS",
    "DenseForm",
    "FeedForward",
    "PruneReport",
    "dense_form",
    "from_transformers",
    "load_layer",
    "merge",
    "prune",
    "save_layer",
    "to_onnx",
    "to_transformers",
    "upcycle",
]
