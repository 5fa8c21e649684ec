"""Mixtures of experts: many models, each a specialist, and a gate that decides whom to trust."""

__version__ = "0.1.0"
