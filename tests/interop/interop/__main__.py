"""Runs the scenarios."""

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import scenarios  # noqa: F401 (each marks itself)
from .frame import SCENARIOS, Pair
from .servers import Town

ALL_VERSIONS = ["1", "6", "9", "10", "11", "12"]


def versions_of(which, since, options):
    """The room versions that a scenario is tried in."""
    if options.version:
        versions = [options.version]
    elif options.long:
        versions = ["10", "12"] if which == "few" else ALL_VERSIONS
    else:
        versions = ["6", "11", "12"] if which == "all" else ["12"]
    return [version for version in versions if int(version) >= since]


def main():
    arguments = argparse.ArgumentParser(prog="tests/interop/run")
    arguments.add_argument("names", nargs="*", help="parts of names of scenarios")
    arguments.add_argument("--long", action="store_true", help="all versions, long histories, kills")
    arguments.add_argument("--version", help="only this room version")
    arguments.add_argument("--from", dest="side", choices=["hearth", "synapse"], help="only rooms of this server")
    arguments.add_argument("--keep", metavar="DIRECTORY", help="a new directory for data and logs, which stays")
    arguments.add_argument("--words", type=int, default=40, help="lines of the servers' logs shown after a failure")
    options = arguments.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as passing:
        if options.keep:
            Path(options.keep).mkdir(parents=True)
        town = Town(options.keep or passing)
        try:
            servers = town.start()
            for name, run, which, since, long_only, directions in SCENARIOS:
                if options.names and not any(part in name for part in options.names):
                    continue
                if long_only and not (options.long or options.names):
                    continue
                for version in versions_of(which, since, options):
                    for here, there in (servers, servers[::-1])[:2 if directions else 1]:
                        if options.side and here.kind != options.side:
                            continue
                        label = f"{name}: version {version}, room of {here.kind}"
                        began = time.monotonic()
                        try:
                            run(Pair(town, here, there, version, options.long))
                            print(f"ok      {time.monotonic() - began:5.1f} s  {label}", flush=True)
                        except Exception:
                            print(f"FAILED  {time.monotonic() - began:5.1f} s  {label}", flush=True)
                            traceback.print_exc(limit=4, file=sys.stdout)
                            failed.append(label)
                            print("\n".join(town.mend()), flush=True)
            if failed:
                for server in town.servers:
                    print(f"\nThe last words of {server.label}:\n{server.last_words(options.words)}")
        finally:
            town.stop()
    if failed:
        print("\n" + "\n".join(["Failed:", *failed]))
        sys.exit(1)
    print("all is well")


if __name__ == "__main__":
    main()
