"""Addresses of SQLite databases."""

from pathlib import Path

import pytest

from experiments.runs.databases import database_address, database_file
from experiments.runs.local_store import local_path
from experiments.sweep.samplers import open_storage


@pytest.mark.parametrize("name", ["plain", "why?", "a#b", "50%20", "a b", "ü{0}", "x?a=1"])
def test_an_address_names_its_file(name, tmp_path):
    file = tmp_path / name / "search.db"
    assert database_file(f"sqlite:///{file}") == database_file(database_address(file)) == file
    open_storage(f"sqlite:///{file}")  # with SQLAlchemy
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_other_stores_have_no_file():
    assert database_file("http://127.0.0.1:5000") is None and database_file("postgresql://me@host/db") is None


def test_the_place_of_artifacts_is_a_path_or_an_address():
    assert local_path("C:\\runs") == Path("C:\\runs")  # not an address of the kind C
    assert local_path(Path("/a b/ü?#%").as_uri()) == Path("/a b/ü?#%")
    assert local_path("s3://bucket/runs") is local_path(None) is None
