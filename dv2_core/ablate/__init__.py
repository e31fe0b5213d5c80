"""The paper's ablations in miniature: one fixed base, one adapter per row, one table (needs the extra ``train``)."""
