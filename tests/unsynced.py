"""Nothing waits for the disk in the processes of the tests: a process that is killed loses nothing by that."""

import os
import sqlite3

from sqlalchemy import Engine, event

os.fsync = lambda descriptor: None


@event.listens_for(Engine, "connect")
def do_not_wait(connection, _):
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")
