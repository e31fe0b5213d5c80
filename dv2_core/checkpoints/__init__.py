"""Layouts of published base files and the maps between their parameter names."""

from .diffusers_keys import diffusers_to_original, original_to_diffusers

__all__ = ["diffusers_to_original", "original_to_diffusers"]
