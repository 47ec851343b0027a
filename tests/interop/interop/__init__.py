"""Hearth and Synapse in one federation, on loopback."""
