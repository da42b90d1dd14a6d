"""Make the two pictures of the README, docs/report.png and docs/multirun.png, from the newest reports in outputs/.

python train.py -m data=digits training.epochs=4 model.filters=8,16,32 seed=1,2,3
python train.py experiment=baseline training.epochs=4 model.filters=64 seed=3 threads=1 evaluate_test=true
python scripts/make_pictures.py
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from experiments.config import UserError
from experiments.config.command_line import exit_codes
from experiments.config.defaults import default

DOCS = Path(__file__).parents[1] / "docs"
SIZE, LARGEST = (1080, 1840), 200_000  # pixels of a page, from its top; bytes of a PNG


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, metavar="FILE", help="report.html of a run (default: the newest)")
    parser.add_argument("--multirun", type=Path, metavar="FILE", help="report.html of a multirun (default: the newest)")
    arguments = parser.parse_args()
    pages = arguments.run or newest("runs/*/artifacts"), arguments.multirun or newest("sweeps/*/report")
    for page, name in zip(pages, ("report", "multirun")):
        screenshot(page, DOCS / f"{name}.png")


def newest(folder: str) -> Path:
    if not (
        pages := sorted(Path(default("outputs")).glob(f"{folder}/report.html"), key=lambda page: page.stat().st_mtime)
    ):
        raise UserError(f"outputs/{folder}/report.html: there is no such file; python scripts/make_pictures.py --help")
    return pages[-1]


def screenshot(page: Path, file: Path) -> None:
    """Write a PNG of the upper part of a page, with as many colours as its size allows."""
    if not (browser := shutil.which("chromium") or shutil.which("google-chrome")):
        raise UserError("scripts/make_pictures.py needs Chromium: apt-get install chromium")
    if not page.is_file():
        raise UserError(f"{page}: there is no such file")
    with tempfile.TemporaryDirectory() as folder:
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size={},{}".format(*SIZE)]
        options += [f"--screenshot={folder}/page.png", page.resolve().as_uri()]
        subprocess.run([browser, *options], check=True, capture_output=True, timeout=120)
        picture = Image.open(f"{folder}/page.png").convert("RGB")
    for colors in (256, 128, 64, 32, 16):
        picture.quantize(colors, dither=Image.Dither.NONE).save(file, optimize=True)
        if (size := file.stat().st_size) < LARGEST:
            break
    print(f"{file}  {size:,} bytes, {colors} colours")


if __name__ == "__main__":
    with exit_codes():
        main()
