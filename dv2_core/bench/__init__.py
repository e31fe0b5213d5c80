"""``python -m dv2_core bench``: this package against what a user would run instead, side by side."""
