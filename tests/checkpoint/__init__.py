"""Checkpoints: what is saved comes back bit for bit, or not at all and with a reason."""
