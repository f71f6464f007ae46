"""Text embeddings, built from the settings."""

from __future__ import annotations

from maru.http.oip import OpenInference
from maru.http.service import ServiceApp
from maru.platform import Platform, Room
from maru.services.embedding.declaration import service as embedding
from maru.services.embedding.routes import Routes as EmbeddingRoutes
from maru.services.embedding.service import Configuration as EmbeddingConfiguration
from maru.services.embedding.service import Embeddings
from maru.services.embedding.tensors import EmbeddingTensors


def build(platform: Platform) -> Room:
    """The service with its models and what runs beside its requests."""
    settings = platform.settings
    configuration = EmbeddingConfiguration(
        home=settings.maru_home,
        model_name=settings.model_name,
        precision=settings.model_quantization,
        max_seq_length=settings.max_seq_length,
        max_batch_size=settings.max_batch_size,
        max_batch_tokens=settings.max_batch_tokens,
        timeout_s=settings.request_timeout_s,
        hf_token=settings.hf_token,
        hf_endpoint=settings.hf_endpoint,
    )
    embeddings = Embeddings(platform.engine, configuration)
    health = platform.health(embeddings.model)
    oip = OpenInference(platform.engine, health, EmbeddingTensors(embeddings))
    app = ServiceApp(
        embedding,
        [*EmbeddingRoutes(embeddings).routes(), *health.routes(), *oip.routes()],
        engine=platform.engine,
        report=platform.telemetry.http,
        authenticator=platform.authenticator("embedding"),
        limiter=platform.limiter(settings.rate_limit_per_min),
        lifespan=platform.opened,
    )
    return Room(embedding, app, health, embeddings.start)
