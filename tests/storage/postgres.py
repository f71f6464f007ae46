"""A real PostgreSQL, reached by a socket file, so that it needs no port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest


def _program(name: str) -> str | None:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(versions[0]) if versions else shutil.which(name)


def has_timescale() -> bool:
    """Whether the PostgreSQL here has TimescaleDB. Debian's has not: it is built from its source."""
    postgres = _program("postgres")
    return postgres is not None and bool(list(Path(postgres).parents[1].glob("lib/timescaledb.so")))


TIMESCALE = {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}


class PostgresServer:
    """A server with a database of its own for each who asks. It won't be run by root, so root lends it to another."""

    def __init__(self, **settings: str) -> None:
        """`settings` are those of postgresql.conf beside our own."""
        if _program("initdb") is None:
            pytest.skip("there is no PostgreSQL here")
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix="maru-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._as: dict[str, Any] = {"cwd": "/", "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if os.geteuid() == 0:
            names = {user.pw_name for user in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            shutil.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def __enter__(self) -> PostgresServer:
        command = [str(_program("initdb")), "-D", str(self._data), "-U", "maru", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run(command, check=True, **self._as)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start it and wait until it answers. It syncs nothing to the disk: it is killed, the machine isn't."""
        settings = {"listen_addresses": "", "unix_socket_directories": self._folder, "fsync": "off", **self._settings}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen([str(_program("postgres")), "-D", str(self._data), *options], **self._as)
        until = time.monotonic() + 30
        while True:
            try:
                self.run("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT ends every connection in order, SIGQUIT as a crash does."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def run(self, statement: str, database: str = "postgres") -> list[Any]:
        with psycopg.connect(f"host={self._folder} user=maru dbname={database}", autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        self.run(f"CREATE DATABASE {name}")
        return f"postgresql://maru@/{name}?host={self._folder}"
