"""The trainer (needs the extra ``train``)."""
