"""`python scripts/compare.py` as a user types it."""

from conftest import DIGITS


def test_the_page_is_written_where_the_runs_wrote_theirs(command, tmp_path):
    done = command("train.py", *DIGITS, "training.epochs=1", "model.filters=4", "outputs=elsewhere", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.rpartition("--run ")[2].split()[0]
    compared = command("scripts/compare.py", run_id, cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / f"elsewhere/compare/{run_id}/report.html").exists() and not (tmp_path / "outputs").exists()
