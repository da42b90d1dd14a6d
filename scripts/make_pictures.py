"""Make the two pictures of the README, docs/report.png and docs/multirun.png, from the newest reports in outputs/.

python train.py -m experiment=baseline training.epochs=4 model.filters=16,32,64 seed=1,2,3
python train.py experiment=baseline
python scripts/make_pictures.py
"""

import argparse
import io
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from experiments.config import UserError
from experiments.config.command_line import exit_codes

DOCS = Path(__file__).parents[1] / "docs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LARGEST = 200_000  # bytes of a PNG


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, metavar="FILE", help="report.html of a run (default: the newest)")
    parser.add_argument("--multirun", type=Path, metavar="FILE", help="report.html of a multirun (default: the newest)")
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError(f"a browser takes the pictures: install one of {', '.join(BROWSERS)}")
    run = arguments.run or newest("runs/*/artifacts/report.html", "python train.py")
    multirun = arguments.multirun or newest("sweeps/*/report/report.html", "python train.py -m seed=1,2,3")
    for page, name, height in ((run, "report", 1560), (multirun, "multirun", 1500)):
        save(screenshot(browser, page, height), DOCS / f"{name}.png")


def newest(pattern: str, command: str) -> Path:
    """The page below outputs/ that was written last; `command` makes one."""
    pages = sorted(Path("outputs").glob(pattern), key=lambda page: page.stat().st_mtime)
    if not pages:
        raise UserError(f"outputs/{pattern}: there is no such file; {command} makes one")
    return pages[-1]


def screenshot(browser: str, page: Path, height: int) -> Image.Image:
    """The upper `height` pixels of a page that is 1080 pixels wide."""
    if not page.is_file():
        raise UserError(f"{page}: there is no such file")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size=1080,{height}"]
        command = [browser, *options, f"--screenshot={file}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return Image.open(io.BytesIO(file.read_bytes())).convert("RGB").crop((0, 0, 1080, height))


def save(picture: Image.Image, file: Path) -> None:
    """Write a PNG with as many colours as its size allows."""
    for colors in (256, 128, 64, 32, 16):
        picture.quantize(colors, dither=Image.Dither.NONE).save(file, optimize=True)
        if file.stat().st_size < LARGEST:
            break
    print(f"{file}  {file.stat().st_size:,} bytes, {colors} colours")


if __name__ == "__main__":
    with exit_codes():
        main()
