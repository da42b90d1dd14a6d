"""Training batches of random resized crops of JPEG photographs, in images per second, beside torchvision's way.

python scripts/benchmark/decoding.py                                   1,000 photographs of 500x375, made for it
python scripts/benchmark/decoding.py --photographs pictures --rounds 5
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from settings import PROGRAMS

from experiments.config.command_line import exit_codes
from experiments.files.limits import usable_cpus

OURS = {"map": "this project, from the memory map", "fly": "this project, on the fly"}
BASE = "torchvision: ImageFolder + RandomResizedCrop + DataLoader"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photographs", metavar="FOLDER", type=Path, help="folder of folders of photographs; made if left out")
    add("--count", type=int, default=1000, help="photographs that are made (default: %(default)s)")
    add("--size", type=int, nargs=2, default=(500, 375), metavar=("W", "H"), help="of these (default: 500 375)")
    add("--image-size", type=int, default=224, help="pixels per side of the batches (default: %(default)s)")
    add("--batch", type=int, default=32, help="default: %(default)s")
    add("--epochs", type=int, default=2, help="measured, after one to warm up (default: %(default)s)")
    add("--rounds", type=int, default=3, help="processes per contender (default: %(default)s)")
    add(
        "--workers",
        type=int,
        nargs="+",
        help="of torchvision's DataLoader (default: 0, 1, all processors, and twice as many)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photographs = options.photographs
        if photographs is None:
            photographs = Path(folder, "photographs")
            make(photographs, options.count, *options.size)
        compare(options, photographs.resolve(), Path(folder))
    return 0


def compare(options: argparse.Namespace, photographs: Path, folder: Path) -> None:
    """Measure all contenders in turn, and print their speeds and the ratios within a round."""
    workers = options.workers or sorted({0, 1, usable_cpus(), 2 * usable_cpus()})
    request = {"root": str(photographs), "size": options.image_size, "batch": options.batch, "epochs": options.epochs}
    speeds: dict[str, list[float]] = {}
    differences: dict[str, float] = {}
    for number in range(options.rounds):
        for name, program, more in contenders(workers):
            result = run(program, request | more, folder)
            speeds.setdefault(name, []).append(result["speed"])
            differences |= {f"{name}, {key}": value for key, value in result.get("differences", {}).items()}
            print(f"round {number + 1}: {result['speed']:7,.0f} images/s  {name}", flush=True)
    best = max((name for name in speeds if name.startswith(BASE)), key=lambda name: median(speeds[name]))
    print(
        f"\nthe best of torchvision: {best.removeprefix(BASE + ', ')}; ratios within a round: median (least to greatest)"
    )
    for name, values in speeds.items():
        ratios = [value / base for value, base in zip(values, speeds[best])]
        print(
            f"{median(values):7,.0f} images/s  {median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})  {name}"
        )
    print("\nmean difference from Pillow's pixels, of 255")
    for name, value in differences.items():
        print(f"{value:7.2f}  {name}")


def contenders(workers: list[int]) -> Iterator[tuple[str, str, dict[str, object]]]:
    """(name, program, its part of the request)."""
    for way, name in OURS.items():
        yield name, "photographs_ours.py", {"way": way}
    for count in workers:
        yield f"{BASE}, {count} workers", "photographs_torchvision.py", {"workers": count}


def run(program: str, request: dict[str, object], folder: Path) -> dict:
    """What a contender reports: a process of its own, whose last line is JSON."""
    command = [sys.executable, str(PROGRAMS / program), json.dumps(request)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr}")
    result: dict = json.loads(done.stdout.splitlines()[-1])
    return result


def make(folder: Path, count: int, width: int, height: int) -> None:
    """Parts of scikit-learn's two photographs, of this size, as JPEG files."""
    from sklearn.datasets import load_sample_images  # takes a second

    scenes = [Image.fromarray(scene) for scene in load_sample_images().images]
    rng = np.random.default_rng(0)
    for number in range(count):
        scene = scenes[number % 2]
        wide = rng.uniform(0.5, 1) * min(scene.width, scene.height * width / height)
        high = wide * height / width
        left, top = rng.uniform(0, scene.width - wide), rng.uniform(0, scene.height - high)
        picture = scene.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
        path = folder / f"class{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=90)


if __name__ == "__main__":
    with exit_codes():
        sys.exit(main())
