"""Where models come from: their names, versions and aliases. What is in memory is the manager's."""

from __future__ import annotations

from collections.abc import Iterator

from maru.engine.errors import ModelNotFound, ModelNotReady
from maru.engine.model import ModelSpec

LATEST = "latest"
"""The alias that a plain model name stands for."""


class Repository:
    """The versions that may be served. Names are looked up and never become paths."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, ModelSpec]] = {}
        self._aliases: dict[str, dict[str, str]] = {}
        self._expected: set[str] = set()

    def expect(self, name: str) -> None:
        """A model of that name is on its way: until it is added, asking for it is asking too early."""
        self._expected.add(name)

    def add(self, spec: ModelSpec, *aliases: str) -> list[ModelSpec]:
        """Make a version known, and point these aliases of its model at it. The first version of a model is
        also its `latest` until another is.

        Returns the versions that have thereby lost their last alias or their place. They are forgotten.
        """
        name, version = spec.ref.name, spec.ref.version
        versions = self._versions.setdefault(name, {})
        known = self._aliases.setdefault(name, {})
        left = {known[alias] for alias in aliases if alias in known}
        replaced = [versions[version]] if version in versions and versions[version].ref != spec.ref else []
        versions[version] = spec
        known.setdefault(LATEST, version)
        known.update(dict.fromkeys(aliases, version))
        return replaced + [versions.pop(old) for old in left - set(known.values())]

    def remove(self, name: str, version: str) -> None:
        """Forget a version and the aliases that point at it."""
        self._versions.get(name, {}).pop(version, None)
        aliases = self._aliases.get(name, {})
        for alias in [alias for alias, target in aliases.items() if target == version]:
            del aliases[alias]
        if not self._versions.get(name):
            self._versions.pop(name, None)
            self._aliases.pop(name, None)

    def resolve(self, model: str) -> ModelSpec:
        """The version that `name`, `name@version` or `name@alias` stands for now.

        ModelNotReady for one that is expected, ModelNotFound for any other.
        """
        name, _, which = model.partition("@")
        version = self._aliases.get(name, {}).get(which or LATEST, which)
        try:
            return self._versions[name][version]
        except KeyError:
            if name in self._expected and name not in self._versions:
                raise ModelNotReady("the model is not loaded yet") from None
            raise ModelNotFound("no model of that name") from None

    def aliases(self, name: str) -> dict[str, str]:
        """Alias to version, for one model."""
        return dict(self._aliases.get(name, {}))

    def __iter__(self) -> Iterator[ModelSpec]:
        return (spec for versions in self._versions.values() for spec in versions.values())
