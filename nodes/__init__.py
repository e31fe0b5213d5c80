"""The nodes, one file per socket family."""
