"""What the embedding service says of itself."""

from __future__ import annotations

from maru import __version__
from maru.http.problem import detail
from maru.http.service import Service
from maru.services.embedding.schemas import MAX_TEXTS, Problem

service = Service(
    name="embedding",
    title="Embedding API",
    version=__version__,
    description="Texts to vectors, with the model that is loaded. "
    f"Up to {MAX_TEXTS:,} texts a request; every answer says which version made it and where its time went.",
    port=8000,
    metric_prefix="embed",
    documented=("/embed", "/batch-embed", "/v1/embeddings"),
    envelope=detail,
    problem_schema=Problem,
    max_body_bytes=8 * 2**20,
)
