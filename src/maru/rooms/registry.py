"""The MLflow registry, as the settings name it."""

from __future__ import annotations

from maru.runtimes.registry.open import Credentials, open_registry
from maru.runtimes.registry.types import Registry
from maru.settings import ConfigurationError, Settings


def registry_of(settings: Settings) -> Registry:
    """The MLflow registry that is configured."""
    credentials = Credentials(
        settings.mlflow_tracking_token, settings.mlflow_tracking_username, settings.mlflow_tracking_password
    )
    try:
        return open_registry(
            settings.mlflow_tracking_uri, settings.maru_home, credentials if credentials.header() else None
        )
    except ValueError as error:
        raise ConfigurationError(f"MLFLOW_TRACKING_URI {error}") from None
