"""The walk through the notebook runs, cell after cell, on small data."""

import re

from conftest import ROOT

CELLS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/notebook.md").read_text(), re.DOTALL)


def test_every_cell_runs(here, capsys):
    small = '["data=digits", "data.split=first", "training.epochs=1", "model.filters=4", "threads=1"]'
    cells = [cell.replace('["experiment=notebook"]', small).replace('"cifar10"', '"digits"') for cell in CELLS]
    assert small in cells[0] and len(cells) == 14
    scope: dict = {}
    for cell in cells:
        exec(cell, scope)
    output = capsys.readouterr().out
    assert "(1200, 3, 32, 32) (300, 3, 32, 32) (297, 3, 32, 32)" in output and "1201 flower" in output
    assert scope["extended_result"].classes[-1] == "flower"
