"""`python scripts/compare.py` as a user types it."""

from conftest import DIGITS


def test_the_page_is_written_where_the_runs_wrote_theirs(command, ready_store, tmp_path):
    ready_store(tmp_path)
    done = command("train.py", *DIGITS, "training.epochs=1", "model.filters=4", "outputs=elsewhere", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.rpartition("--run ")[2].split()[0]
    compared = command("scripts/compare.py", run_id, cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / f"elsewhere/compare/{run_id}/report.html").exists() and not (tmp_path / "outputs").exists()


def test_every_multirun_has_a_page_of_its_own(command, multirun, tmp_path):
    """Names with the same 80 characters at their start, and equal names."""
    small = (*DIGITS, "training.epochs=1", "model.dense_width=8")
    long = f"sweep.name={'a' * 90}"
    for options in (
        (long + "1", "model.filters=2,3"),
        (long + "2", "model.filters=2,4"),
        (long + "2", "model.filters=3,4"),
    ):
        code, output = multirun(tmp_path, *small, *options)
        assert code == 0, output
        compared = command("scripts/compare.py", cwd=tmp_path)
        assert compared.returncode == 0, compared.stderr
    again = command("scripts/compare.py", cwd=tmp_path)
    pages = list((tmp_path / "outputs/compare").iterdir())
    assert len(pages) == 3 and again.stdout.count("report.html") and all(page.name.startswith("aaaa") for page in pages)
