"""What the two servers do with each other, in the order in which it is tried."""

from . import (  # noqa: F401 (each marks its scenarios)
    apart, basics, directory, doors, history, odd, outages, passing, questions, redactions, shut_out, three, upgrades,
)
