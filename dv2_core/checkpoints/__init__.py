"""Layouts of published base files, how they are recognised, and the maps between their parameter names."""

from .base_file import BaseFile, file_of, may_be_base, name_of, read_base
from .converter import convert
from .diffusers_keys import diffusers_to_original, original_to_diffusers
from .weights_file import mentions, read_weights

__all__ = [
    "BaseFile", "convert", "diffusers_to_original", "file_of", "may_be_base", "mentions", "name_of",
    "original_to_diffusers", "read_base", "read_weights",
]  # fmt: skip
