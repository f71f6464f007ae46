"""Every environment variable, under the documents' own names. `.env` is read too; the environment wins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from maru.auth.secrets import check_secret
from maru.http.addresses import AllowedHosts
from maru.http.standard_webhooks import key_of

Names = Annotated[frozenset[str], NoDecode, BeforeValidator(lambda given: _names(given))]


class ConfigurationError(Exception):
    """A setting is missing or wrong. The message is one line that names it and shows no secret."""


def _names(given: Any) -> Any:
    return frozenset(filter(None, map(str.strip, given.split(",")))) if isinstance(given, str) else given


def _blank_is_unset(given: Any) -> Any:
    return None if isinstance(given, str) and not given.strip() else given


OptionalText = Annotated[str | None, BeforeValidator(_blank_is_unset)]


class Settings(BaseSettings):
    """What can be set. `docs/operate.md` says the same, and a test that it does."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    # The platform
    maru_home: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        Path("~/.maru"), description="Where state lives: models, keys, caches.", validate_default=True
    )
    api_keys: Names = Field(
        frozenset(), description="Plain API keys that are managed elsewhere, separated by commas.", repr=False
    )
    database_url: OptionalText = Field(None, description="SQLAlchemy URL; default: SQLite in MARU_HOME.", repr=False)
    redis_url: OptionalText = Field(
        None, description="Shares rate limits and results between processes; default: in process.", repr=False
    )
    debug: bool = Field(False, description="Log more. Never shows more to callers.")
    log_format: Literal["json", "text"] | None = Field(
        None, description="json, or text for a terminal; default: text where stdout is a terminal."
    )
    request_timeout_s: float = Field(30.0, gt=0, le=3600, description="A request's deadline.")
    drain_grace_s: float = Field(30.0, ge=0, le=3600, description="How long running work may take after SIGTERM.")
    drain_delay_s: float = Field(
        2.0, ge=0, le=300, description="How long new work is still taken after SIGTERM, until balancers know."
    )
    result_cache_mb: int = Field(64, ge=0, le=1_048_576, description="Memory for results already computed, in MiB.")
    result_cache_ttl_s: float = Field(3600.0, gt=0, description="How long a result is kept.")
    max_models: int = Field(0, ge=0, description="Models in memory at once; 0: no bound.")
    max_model_mb: int = Field(0, ge=0, description="Memory of loaded models in MiB; 0: no bound.")
    max_connections: int = Field(1024, ge=1, description="Open connections.")
    otel_exporter_otlp_endpoint: OptionalText = Field(None, description="Where traces are sent (OTLP over HTTP).")

    allowed_fetch_hosts: Names = Field(
        frozenset(), description="Hosts (`name` or `name:port`) that callers' URLs may name though they are not public."
    )

    # Embedding (document 003)
    model_name: OptionalText = Field(
        None,
        description="A sentence-transformers folder, `all-MiniLM-L6-v2`, or a repository on the hub; default: "
        "google/embeddinggemma-300m when HF_TOKEN is set, all-MiniLM-L6-v2 otherwise.",
    )
    model_quantization: Literal["int8", "fp16", "fp32"] = Field("int8", description="The model's precision.")
    max_batch_size: int = Field(32, ge=1, le=4096, description="Texts given to the model at once.")
    max_seq_length: int | None = Field(None, ge=8, le=131_072, description="Tokens; default: the model's own.")
    max_batch_tokens: int = Field(512, ge=16, le=1_048_576, description="Tokens given to the model at once.")
    hf_token: OptionalText = Field(None, description="The hub's access token, for gated models.", repr=False)
    hf_endpoint: OptionalText = Field(None, description="Another hub than huggingface.co.")
    supabase_jwt_secret: OptionalText = Field(None, description="Verifies access tokens (HS256).", repr=False)
    supabase_url: OptionalText = Field(None, description="The project whose published keys verify access tokens.")
    supabase_anon_key: OptionalText = Field(None, description="Taken for the document's sake; not used.", repr=False)
    rate_limit_per_min: int = Field(10, ge=0, description="Requests a minute for each user; 0: no limit.")

    # Forecast (document 001)
    mlflow_tracking_uri: OptionalText = Field(
        None, description="The MLflow server or its database; default: a registry in MARU_HOME.", repr=False
    )
    mlflow_tracking_token: OptionalText = Field(None, description="The MLflow server's bearer token.", repr=False)
    mlflow_tracking_username: OptionalText = Field(None, description="Or a name for it.", repr=False)
    mlflow_tracking_password: OptionalText = Field(None, description="And its password.", repr=False)
    registered_model_name: str = Field(
        "BTC_LSTM_Production", min_length=1, pattern=r"^[^@/:]+$", description="The model's name in the registry."
    )
    model_alias: str = Field("staging", min_length=1, description="The alias whose version is served.")
    model_alias_poll_s: float = Field(
        0.0, ge=0, le=86_400, description="Seconds between looks at whether the alias has moved; 0: never."
    )
    seq_len_required: int = Field(12, ge=1, le=4096, description="Steps in a window.")
    n_features_required: int = Field(18, ge=1, le=4096, description="Features in a step.")
    allow_pickled_models: bool = Field(
        False, description="Run models that are not ONNX, which are programs, in a process of their own."
    )
    forecast_python: OptionalText = Field(
        None, description="The Python for those, with mlflow and what they need; default: this one."
    )
    callback_secret: OptionalText = Field(None, description="Signs callbacks (Standard Webhooks).", repr=False)
    mlflow_webhook_secret: OptionalText = Field(
        None, description="Verifies MLflow's webhooks at `/hooks/mlflow`, which is not there without it.", repr=False
    )

    # Recommend (document 002)
    recommend_poll_s: float = Field(
        2.0, gt=0, le=86_400, description="Seconds between looks at which bundle is promoted."
    )
    recommend_candidate_share: float = Field(
        0.5, ge=0, le=1, description="The share of sessions that a candidate bundle is given, while there is one."
    )
    recommend_sessions: int = Field(100_000, ge=1, description="Sessions whose vectors are kept, for 24 hours.")
    recommend_starter_events: int = Field(
        45_000,
        ge=0,
        le=500_000_000,
        description="Of the simulated shop that the first bundle is trained on, 5,000 or more; 0: no such bundle.",
    )
    feedback_max_events: int = Field(5_000_000, ge=1, description="Events kept for the next training, the latest.")

    # Language models (document 004)
    models_dir: Path | None = Field(None, description="The folder of language models; default: `llm` in MARU_HOME.")
    max_loaded_models: int = Field(2, ge=1, description="Language models in memory at once.")
    timescale_url: OptionalText = Field(
        None, description="PostgreSQL, with TimescaleDB or without, for benchmarks; default: DATABASE_URL.", repr=False
    )
    gpu_monitoring_interval_ms: int = Field(
        100, ge=10, le=60_000, description="Between two samples of the GPUs during a benchmark."
    )
    llm_timeout_s: float = Field(300.0, gt=0, le=3600, description="The deadline of an answer.")
    llm_slots: int = Field(8, ge=1, le=256, description="Answers that one model computes at once.")
    llm_context: int = Field(4096, ge=64, le=1_048_576, description="Tokens of a prompt and its answer.")
    llm_batch: int = Field(256, ge=16, le=4096, description="Tokens of a prompt that are read at once.")
    llm_threads: int = Field(0, ge=0, description="Threads of a model; 0: one for each core.")
    llm_gpu_layers: int = Field(-1, ge=-1, description="Layers on the GPU; -1: as many as fit.")
    llm_cache_mb: int = Field(0, ge=0, description="Memory for prompts whose slots were taken over, in MiB.")
    llm_queue: int = Field(64, ge=0, le=4096, description="Requests that may wait for each model.")
    llm_patience_s: float = Field(
        30.0, ge=0, le=600, description="How long a language model waits for room while others are in use."
    )
    llm_pinned: Names = Field(frozenset(), description="Models that are loaded at the start, and stay.")
    llama_server: OptionalText = Field(None, description="A llama-server program, to be used in the package's place.")
    llm_python: OptionalText = Field(
        None,
        description="A Python with torch, transformers, psutil, starlette and uvicorn, for safetensors; "
        "default: this one.",
    )

    # Style (document 000)
    style_model: OptionalText = Field(
        None, description="A style bundle's folder; default: what was pulled or trained, or else the starter."
    )
    style_max_concurrent: int = Field(2, ge=1, le=256, description="Calls of the style model that run at once.")
    style_queue_size: int = Field(10, ge=0, le=4096, description="Calls that wait behind those.")
    style_api_keys: Names = Field(
        frozenset(), description="Plain API keys of the style service, beside API_KEYS.", repr=False
    )

    @field_validator("recommend_starter_events")
    @classmethod
    def _enough_to_measure(cls, value: int) -> int:
        if 0 < value < 5_000:
            raise ValueError("should be 0, or 5000 at least")
        return value

    @field_validator("callback_secret", "mlflow_webhook_secret")
    @classmethod
    def _a_webhook_secret(cls, value: str | None, info: Any) -> str | None:
        if value is not None:
            check_secret(info.field_name.upper(), value, least=16)
            key_of(value)
        return value

    @field_validator("allowed_fetch_hosts")
    @classmethod
    def _hosts(cls, value: frozenset[str]) -> frozenset[str]:
        AllowedHosts(value)
        return value

    @field_validator("hf_token", "supabase_anon_key", "supabase_url")
    @classmethod
    def _not_a_placeholder(cls, value: str | None, info: Any) -> str | None:
        if value is not None:
            check_secret(info.field_name.upper(), value, least=1, published=True)
        return value

    @field_validator("supabase_jwt_secret")
    @classmethod
    def _a_secret(cls, value: str | None) -> str | None:
        if value is not None:
            check_secret("SUPABASE_JWT_SECRET", value, published=True)
        return value

    @field_validator("api_keys", "style_api_keys")
    @classmethod
    def _good_keys(cls, value: frozenset[str], info: Any) -> frozenset[str]:
        for key in value:
            check_secret(info.field_name.upper(), key, least=16)
        return value

    @classmethod
    def read(cls, **given: Any) -> Settings:
        """From the environment and `.env`. ConfigurationError, in one line, when a value is wrong."""
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(str(part) for part in first["loc"][:1]).upper()
            said = first["msg"].removeprefix("Value error, ")
            raise ConfigurationError(said if said.startswith(name) else f"{name}: {said}") from None

    @classmethod
    def table(cls) -> str:
        """All settings as a Markdown table."""
        rows = ["| setting | default | |", "|---|---|---|"]
        for name, setting in cls.model_fields.items():
            default = setting.get_default()
            shown = "" if default in (None, frozenset()) else f"`{'false' if default is False else default}`"
            rows.append(f"| `{name.upper()}` | {shown} | {setting.description} |")
        return "\n".join(rows)
