"""API keys as they are stored: never the key, only its SHA-256."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Column, Engine, Float, LargeBinary, Row, String, Table, Text, or_, select
from sqlalchemy.exc import IntegrityError

from maru.storage.database import Moment, metadata

_api_keys = Table(
    "api_keys",
    metadata,
    Column("public_id", String(8), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("name", String(64), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("weight", Float, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment),
    Column("revoked", Moment),
    Column("last_used", Moment),
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: whose it is, what it may do, and until when. `digest` is the SHA-256 of the whole key."""

    public_id: str
    digest: bytes = field(repr=False)
    name: str
    scopes: frozenset[str]
    weight: float
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    last_used: datetime | None = None


class ApiKeys:
    """The table of keys. Its methods block for about a millisecond and belong in a worker thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, key: ApiKey) -> bool:
        """Store a new key. False when its public id is taken."""
        row = {
            "public_id": key.public_id,
            "digest": key.digest,
            "name": key.name,
            "scopes": " ".join(sorted(key.scopes)),
            "weight": key.weight,
            "created": key.created,
            "expires": key.expires,
            "revoked": key.revoked,
            "last_used": key.last_used,
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(_api_keys.insert(), row)
        except IntegrityError:
            return False
        return True

    def find(self, public_id: str) -> ApiKey | None:
        """The key of that public id, whether or not it may still be used."""
        with self._engine.connect() as connection:
            row = connection.execute(select(_api_keys).where(_api_keys.c.public_id == public_id)).first()
        return None if row is None else _key(row)

    def all(self) -> list[ApiKey]:
        """Every key, oldest first, the revoked and expired ones too."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_api_keys).order_by(_api_keys.c.created, _api_keys.c.public_id))
            return [_key(row) for row in rows]

    def revoke(self, public_id: str, when: datetime) -> bool:
        """End a key for good. False when there is none, or it was revoked already."""
        keys = _api_keys
        statement = keys.update().where(keys.c.public_id == public_id, keys.c.revoked.is_(None))
        with self._engine.begin() as connection:
            return connection.execute(statement.values(revoked=when)).rowcount == 1

    def touch(self, public_id: str, when: datetime) -> None:
        """Note that the key was used, unless that was noted less than a minute before."""
        keys = _api_keys
        stale = or_(keys.c.last_used.is_(None), keys.c.last_used <= when - timedelta(minutes=1))
        statement = keys.update().where(keys.c.public_id == public_id, stale)
        with self._engine.begin() as connection:
            connection.execute(statement.values(last_used=when))


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        public_id=row.public_id,
        digest=row.digest,
        name=row.name,
        scopes=frozenset(row.scopes.split()),
        weight=row.weight,
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
        last_used=row.last_used,
    )
