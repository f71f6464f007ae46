"""The embedding service's endpoints: document 003's own, and OpenAI's."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass

from maru.engine.types import Result
from maru.http import openai
from maru.http.call import Call, Caller
from maru.http.endpoint import Reply, Route
from maru.services.embedding import schemas
from maru.services.embedding.model import Embedding, SentenceEncoder, Text
from maru.services.embedding.service import Embeddings

REFUSALS = (413, 503, 504, 507)


@dataclass(frozen=True, slots=True)
class Routes:
    """Handlers over one `Embeddings`."""

    embeddings: Embeddings

    async def embed(self, call: Caller, body: schemas.EmbedRequest) -> Reply:
        """One text to one vector."""
        result = await self._embedded(call, [body.text], body)
        embedding: Embedding = result.outputs[0]
        return Reply(
            {
                "embedding": embedding.vector,
                "dimension": len(embedding.vector),
                "model": self.embeddings.model_name,
                "tokens": embedding.tokens,
            }
        )

    async def batch_embed(self, call: Caller, body: schemas.BatchEmbedRequest) -> Reply:
        """Several texts to as many vectors, in the same order."""
        outputs: list[Embedding] = (await self._embedded(call, body.texts, body)).outputs
        return Reply(
            {
                "embeddings": [embedding.vector for embedding in outputs],
                "dimension": len(outputs[0].vector),
                "count": len(outputs),
                "model": self.embeddings.model_name,
                "tokens": sum(embedding.tokens for embedding in outputs),
            }
        )

    async def openai(self, call: Caller, body: schemas.EmbeddingsRequest) -> Reply:
        """OpenAI's embeddings API on the same model."""
        model = self.embeddings.resolve(body.model)
        texts = [Text(content, None, body.dimensions, True, True) for content in body.contents()]
        outputs: list[Embedding] = (await self.embeddings.embed(call, texts, model)).outputs
        tokens = sum(embedding.tokens for embedding in outputs)
        packed = body.encoding_format == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(embedding.vector.tobytes()).decode() if packed else embedding.vector,
            }
            for index, embedding in enumerate(outputs)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Reply({"object": "list", "data": data, "model": body.model, "usage": usage})

    async def tokenize(self, call: Caller, body: schemas.TokenizeRequest) -> Reply:
        """The token ids that texts are cut into."""
        with self.embeddings.lease() as lease:
            model = (await lease.resident()).model
            assert isinstance(model, SentenceEncoder)
            tokens = await asyncio.to_thread(model.tokenize, body.texts)
        counts = [len(ids) for ids in tokens]
        return Reply({"tokens": tokens, "counts": counts, "model": self.embeddings.model_name})

    async def health(self, call: Caller) -> Reply:
        """The process answers, and whether its model is loaded."""
        return Reply(self.embeddings.health())

    async def _embedded(self, call: Call, texts: Sequence[str], options: schemas.Options) -> Result:
        chosen = (options.task, options.dimensions, options.normalize, options.truncate)
        return await self.embeddings.embed(call, [Text(text, *chosen) for text in texts])

    def routes(self) -> list[Route]:
        own, door = ("embeddings",), ("openai",)
        return [
            Route("POST", "/embed", self.embed, schemas.EmbedResponse, REFUSALS, tags=own),
            Route("POST", "/batch-embed", self.batch_embed, schemas.BatchEmbedResponse, REFUSALS, tags=own),
            Route("POST", "/tokenize", self.tokenize, schemas.TokenizeResponse, REFUSALS, tags=own),
            Route("GET", "/health", self.health, schemas.HealthResponse, protected=False, tags=("operations",)),
            Route(
                "POST", "/v1/embeddings", self.openai, schemas.EmbeddingsResponse, (404, *REFUSALS),
                envelope=openai.envelope, problem_schema=openai.OpenAIProblem, tags=door,
            ),
            *openai.Models(self.embeddings.cards).routes(),
        ]  # fmt: skip
