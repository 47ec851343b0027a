"""What the two servers do with each other, in the order in which it is tried."""

from . import apart, basics, directory, doors, history, odd, outages, passing, redactions, shut_out, three, upgrades  # noqa: F401
