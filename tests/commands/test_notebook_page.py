"""The walk through the notebook runs, cell after cell, on small data."""

import re

import numpy as np
from PIL import Image

from conftest import ROOT

CELLS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/notebook.md").read_text(), re.DOTALL)


def test_every_cell_runs(here, capsys):
    stripes = np.zeros((40, 60, 3), dtype=np.uint8)
    stripes[:, ::7] = (230, 120, 20)
    Image.fromarray(stripes).save("tiger.jpg")
    small = '["data=digits", "data.split=first", "training.epochs=1", "model.filters=4", "threads=1"]'
    cells = [cell.replace('["experiment=notebook"]', small).replace('"cifar10"', '"digits"') for cell in CELLS]
    assert small in cells[0] and len(cells) == 14
    scope: dict = {}
    for cell in cells:
        exec(cell, scope)
    output = capsys.readouterr().out
    assert "(1200, 3, 32, 32) (300, 3, 32, 32) (297, 3, 32, 32)" in output and "1201 tiger" in output
    assert scope["extended_result"].classes[-1] == "tiger"
