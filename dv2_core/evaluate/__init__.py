"""Measuring the miniature on the mini-world: metrics, a detector, and the table of all conditions."""
