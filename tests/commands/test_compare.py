"""`python scripts/compare.py` as a user types it."""

import subprocess
import sys

from conftest import DIGITS, ROOT, train_py


def test_the_page_is_written_where_the_runs_wrote_theirs(tmp_path):
    done = train_py(*DIGITS, "training.epochs=1", "model.filters=4", "outputs=elsewhere", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.rpartition("--run ")[2].split()[0]
    command = [sys.executable, str(ROOT / "scripts/compare.py"), run_id]
    compared = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / f"elsewhere/compare/{run_id}/report.html").exists() and not (tmp_path / "outputs").exists()
