from __future__ import annotations

import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, select, text
from sqlalchemy.exc import OperationalError

from maru.storage.database import Moment, connect, create

MAKE = """
import sys
import maru.storage.api_keys
from maru.storage.database import connect, create
print("ready", flush=True)
sys.stdin.readline()
for i in range(30):
    create(connect(f"{sys.argv[1]}{i}"))
"""


def test_sqlite_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/db/maru.db")
    with engine.connect() as connection:
        pragmas = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        values = [connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() for pragma in pragmas]
    assert values == ["wal", 2, 5000, 1]


def test_the_file_and_its_folder_are_for_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "state" / "maru.db"
    create(connect(f"sqlite:///{file}"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    for beside in file.parent.iterdir():  # the write-ahead log holds the same rows
        assert stat.S_IMODE(beside.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("url", ["", "nonsense", "http://x/y", "nosuch://x/y", "sqlite:/x"])
def test_a_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL"):
        connect(url)


@pytest.mark.parametrize("url", ["mysql+mysqldb://u:hidden-password@h/x", "oracle://u:hidden-password@h/x"])
def test_a_missing_driver_is_named_and_the_password_is_not(url: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL needs the package") as refusal:
        connect(url)
    assert "hidden-password" not in str(refusal.value)


def test_tables_are_made_once_however_many_processes_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/maru.db"
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes: list[Any] = [subprocess.Popen([sys.executable, "-c", MAKE, url], **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    results = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, results
    with connect(f"{url}29").connect() as connection:
        found = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars()
        assert "api_keys" in set(found)


def test_moments_come_back_aware_and_in_utc(tmp_path: Path) -> None:
    other = MetaData()
    table = Table("moments", other, Column("id", Integer, primary_key=True), Column("at", Moment))
    engine = connect(f"sqlite:///{tmp_path}/maru.db")
    other.create_all(engine)
    seoul = datetime(2026, 1, 2, 3, 4, 5, 678, timezone(timedelta(hours=9)))
    with engine.begin() as connection:
        connection.execute(table.insert(), [{"id": 1, "at": seoul}, {"id": 2, "at": None}])
        there, nothing = connection.execute(select(table.c.at).order_by(table.c.id)).scalars()
    assert there == seoul and there.tzinfo is UTC
    assert nothing is None
    with pytest.raises(Exception, match="time zone"), engine.begin() as connection:
        connection.execute(table.insert(), [{"id": 3, "at": datetime(2026, 1, 1)}])


@pytest.mark.parametrize("query", ["", "?connect_timeout=2"])
def test_a_postgresql_that_takes_connections_and_says_nothing_is_given_up(query: str) -> None:
    with ThreadPoolExecutor() as threads, socket.create_server(("127.0.0.1", 0)) as silent:
        engine = connect(f"postgresql://maru@127.0.0.1:{silent.getsockname()[1]}/maru{query}")
        with pytest.raises(OperationalError):
            threads.submit(engine.connect).result(30)
