"""Runs the scenarios."""

import argparse
import sys
import tempfile
import time
import traceback

from .scenarios import SCENARIOS, Pair
from .servers import both

ALL_VERSIONS = ["1", "6", "9", "10", "11", "12"]


def versions_of(which, since, long):
    if long:
        return [version for version in ALL_VERSIONS if int(version) >= since] if which == "all" else ["10", "12"]
    return ["6", "11", "12"] if which == "all" and since <= 6 else ["12"]


def main():
    arguments = argparse.ArgumentParser(prog="tests/interop/run")
    arguments.add_argument("names", nargs="*", help="parts of names of scenarios")
    arguments.add_argument("--long", action="store_true", help="all versions, long histories, kills")
    arguments.add_argument("--version", help="only this room version")
    arguments.add_argument("--from", dest="side", choices=["hearth", "synapse"], help="only rooms of this server")
    arguments.add_argument("--words", type=int, default=40, help="lines of the servers' logs shown after a failure")
    options = arguments.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as directory:
        servers = both(directory)
        try:
            for name, run, which, since, long_only, directions in SCENARIOS:
                if options.names and not any(part in name for part in options.names):
                    continue
                if long_only and not (options.long or options.names):
                    continue
                for version in [options.version] if options.version else versions_of(which, since, options.long):
                    for here, there in (servers, servers[::-1])[:2 if directions else 1]:
                        if options.side and here.kind != options.side:
                            continue
                        label = f"{name}: version {version}, room of {here.kind}"
                        began = time.monotonic()
                        try:
                            run(Pair(here, there, version, options.long))
                            print(f"ok      {time.monotonic() - began:5.1f} s  {label}", flush=True)
                        except Exception as error:
                            print(f"FAILED  {time.monotonic() - began:5.1f} s  {label}", flush=True)
                            traceback.print_exc(limit=4, file=sys.stdout)
                            failed.append(label)
                            for server in servers:
                                server.link.heal()
                                if server.process.poll() is not None:
                                    print(f"{server.kind} ended with {server.process.returncode}: {error}")
                                    server.start()
            if failed:
                for server in servers:
                    print(f"\nThe last words of {server.kind}:\n{server.last_words(options.words)}")
        finally:
            for server in servers:
                server.stop()
    if failed:
        print("\n" + "\n".join(["Failed:", *failed]))
        sys.exit(1)
    print("all is well")


if __name__ == "__main__":
    main()
