"""Kill runs again and again, fill their disk, delete their folders: the same command must continue them as if nothing had happened.

python scripts/torture.py kills --work digits --count 100
python scripts/torture.py commits --work run grid search
python scripts/torture.py disk                                  as root: it mounts a small file system
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

from experiments.config.command_line import exit_codes


def main() -> int:
    options = parse()
    from campaigns import disk, kills, processes, works  # late: they import everything

    processes.import_all()
    place = Path(tempfile.mkdtemp(prefix="torture-", dir=options.folder)).resolve()
    photographs = (options.photographs or works.draw_photographs(place / "photographs")).resolve()
    known = works.works(photographs)
    failed = False
    for name in options.work or sorted(known):
        started = time.monotonic()
        if options.campaign == "kills":
            result = kills.random_kills(known[name], options.count, options.seed, place / name)
        elif options.campaign == "commits":
            result = kills.after_every_commit(known[name], place / name, options.last)
        else:
            result = disk.disturbed_disk(known[name], options.count, options.seed, place / name, options.failures)
        row = {**dataclasses.asdict(result), "seconds": round(time.monotonic() - started)}
        print(json.dumps(row), flush=True)
        failed |= bool(result.failures)
    return int(failed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", choices=["kills", "commits", "disk"], help="what happens to the commands")
    parser.add_argument(
        "--work", nargs="+", metavar="NAME", help="run digits photographs grid pair search shared torchrun"
    )
    parser.add_argument(
        "--count", type=int, default=10, help="kills, or failures of the disk, per command (default: 10)"
    )
    parser.add_argument(
        "--failures", nargs="+", default=["full", "broken", "deleted", "readonly"], help="of the disk (default: all)"
    )
    parser.add_argument("--last", type=int, metavar="N", help="only the last N commits (default: every one)")
    parser.add_argument("--seed", type=int, default=888, help="of the moments (default: 888)")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="pictures in folders (default: drawn ones)")
    parser.add_argument(
        "--folder", type=Path, help="where all is written and deleted (default: that of temporary files)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    with exit_codes():
        failed = main()
    os._exit(failed)  # libraries complain of objects that are not deleted
