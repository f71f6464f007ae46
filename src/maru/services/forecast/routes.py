"""The forecast service's endpoints: document 001's own, many windows at once, and MLflow's webhook."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import orjson

from maru.engine.errors import InputError, ModelFailed
from maru.http.call import Call, Caller
from maru.http.endpoint import Reply, Route
from maru.http.problem import Problem
from maru.http.standard_webhooks import MLFLOW, BadSignature, verify
from maru.http.strict_json import BadJson, loads
from maru.services.forecast import schemas
from maru.services.forecast.callbacks import Callbacks
from maru.services.forecast.declaration import of_predictions, of_reloads
from maru.services.forecast.service import Forecasts, ReloadFailed

REFUSALS = (413, 429, 503, 504, 507)
MAX_METADATA_BYTES = 16 * 1024
"""Of a prediction that has a callback, since that may have to be kept."""

NO_ALIAS = schemas.ReloadRequest()


@dataclass(frozen=True, slots=True)
class Routes:
    """Handlers over one `Forecasts` and its `Callbacks`. Without `hook_key`, which checks that it was MLflow who
    sent an event, there is no door for events."""

    forecasts: Forecasts
    callbacks: Callbacks
    hook_key: bytes | None = None

    async def predict(self, call: Caller, body: schemas.PredictPayload) -> Reply:
        """The next close from one window of features."""
        try:
            result = await self.forecasts.predict(call, [body.X])
        except ModelFailed as error:
            raise Problem(400, "PREDICTION_FAILED", _told(error)) from error  # the document's status
        close = float(result.outputs[0])
        label = self.forecasts.label(result.ref)
        posted = await self._posted(body, {"pred_btc_close_next": close}, label) if body.callback_url else False
        return Reply({"pred_btc_close_next": close, "posted_to_callback": posted, **label})

    async def predict_batch(self, call: Caller, body: schemas.BatchPayload) -> Reply:
        """The next close from each of several windows, in order. A bad window has an error in its place."""
        good = [window for window in body.X if not isinstance(window, schemas.NotAWindow)]
        if not good:
            raise InputError(f"X[0]: {body.X[0]}")
        result = await self.forecasts.predict(call, good, partial=True)
        made = iter(result.outputs)
        outputs = [window if isinstance(window, schemas.NotAWindow) else next(made) for window in body.X]
        predictions = [
            {"error": _told(each)} if isinstance(each, Exception) else {"pred_btc_close_next": each} for each in outputs
        ]
        failed = sum("error" in prediction for prediction in predictions)
        label = self.forecasts.label(result.ref)
        return Reply({"predictions": predictions, "count": len(predictions), "failed": failed, **label})

    async def reload(self, call: Caller, body: schemas.ReloadRequest = NO_ALIAS) -> Reply:
        """Serve what the alias points to now. Nothing fails meanwhile, nor if it can't be."""
        try:
            served = await self.forecasts.reload(body.alias)
        except ReloadFailed as error:
            raise Problem(500, "RELOAD_FAILED", str(error)) from error
        return Reply(schemas.ReloadResponse(model_alias=served.alias, model_version=served.version))

    async def health(self, call: Caller) -> Reply:
        """The process answers, and which model is loaded."""
        return Reply(self.forecasts.health())

    async def registry_event(self, call: Caller, body: schemas.RegistryEvent) -> Reply:
        """MLflow's webhook `model_version_alias.created`: the alias has moved."""
        name, alias = body.data.get("name"), body.data.get("alias")
        moved = body.entity == "model_version_alias" and isinstance(name, str) and isinstance(alias, str)
        following = moved and self.forecasts.hint(str(name), str(alias))
        return Reply(schemas.EventResponse(status="following" if following else "ignored"))

    async def _posted(self, body: schemas.PredictPayload, prediction: dict[str, Any], label: dict[str, str]) -> bool:
        assert body.callback_url is not None
        metadata = {} if body.metadata is None else {"metadata": body.metadata}
        return await self.callbacks.send(body.callback_url, orjson.dumps({**prediction, **metadata, **label}))

    def _window(self, call: Call, data: bytes) -> schemas.PredictPayload:
        body = schemas.PredictPayload.model_validate(_json(data), context=self.forecasts.shape)
        if body.callback_url and body.metadata and len(orjson.dumps(body.metadata)) > MAX_METADATA_BYTES:
            raise InputError(f"metadata: 콜백이 있으면 {MAX_METADATA_BYTES // 1024} KiB까지입니다")
        return body

    def _windows(self, call: Call, data: bytes) -> schemas.BatchPayload:
        return schemas.BatchPayload.model_validate(_json(data), context=self.forecasts.shape)

    def _event(self, call: Call, data: bytes) -> schemas.RegistryEvent:
        assert self.hook_key is not None
        id, timestamp, signature = (call.header(name.encode()) for name in MLFLOW.names())
        try:
            verify(self.hook_key, data, id=id, timestamp=timestamp, signature=signature, now=time.time())
        except BadSignature:
            raise Problem(
                401, "UNAUTHORIZED", "the event is not signed with MLFLOW_WEBHOOK_SECRET, or is old"
            ) from None
        return schemas.RegistryEvent.model_validate(_json(data))

    def routes(self) -> list[Route]:
        own = ("forecasts",)
        routes = [
            Route(
                "POST", "/predict", self.predict, schemas.PredictResponse, REFUSALS,
                envelope=of_predictions, decode=self._window, tags=own,
            ),
            Route(
                "POST", "/predict/batch", self.predict_batch, schemas.BatchResponse, REFUSALS,
                envelope=of_predictions, decode=self._windows, tags=own,
            ),
            Route(
                "POST", "/reload", self.reload, schemas.ReloadResponse, (500, 503),
                envelope=of_reloads, decode=_alias, media_types=("application/json", ""), tags=own,
            ),
            Route("GET", "/health", self.health, schemas.HealthResponse, protected=False, tags=("operations",)),
        ]  # fmt: skip
        if self.hook_key is not None:
            routes.append(
                Route(
                    "POST", "/hooks/mlflow", self.registry_event, schemas.EventResponse, (401,),
                    decode=self._event, protected=False, tags=("operations",),
                )
            )  # fmt: skip
        return routes


def _json(data: bytes) -> Any:
    try:
        return loads(data)
    except BadJson as error:
        raise Problem(400, "NOT_JSON", f"본문이 올바른 JSON이 아닙니다 ({error})") from None


def _alias(call: Call, data: bytes) -> schemas.ReloadRequest:
    given = _json(data) if data.strip() else None
    return schemas.ReloadRequest.model_validate({} if given is None else given)


def _told(error: Exception) -> str:
    """What of an error is for the caller."""
    return str(error) if isinstance(error, (InputError, schemas.NotAWindow)) else "모델이 예측하지 못했습니다"
