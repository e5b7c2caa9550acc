"""The image, the compose files and Prometheus' configuration agree with the application. Builds and starts nothing."""

import re
from pathlib import Path

import pytest
import yaml

from app.api.routes import build_router
from app.settings import Settings

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()


class ComposeLoader(yaml.SafeLoader):
    """YAML with Compose's own tag `!reset`, which takes away what the file before said."""


RESET = object()
ComposeLoader.add_constructor("!reset", lambda loader, node: RESET)


def read(name: str) -> dict:
    return yaml.load((ROOT / name).read_text(), ComposeLoader)


def default(setting: str):
    return Settings.model_fields[setting].default


def served_paths() -> set[str]:
    return {route.path for route in build_router(None, None, max_article_chars=1).routes}


@pytest.fixture(scope="module")
def headline() -> dict:
    return read("docker-compose.yml")["services"]["headline"]


def test_compose_reserves_an_nvidia_card(headline):
    [device] = headline["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_override_takes_the_card_away():
    override = read("docker-compose.cpu.yml")["services"]["headline"]
    assert override["deploy"] is RESET
    assert override["environment"]["HEADLINE_DEVICE"] == "cpu"


def test_a_stop_waits_longer_than_the_service_does(headline):
    assert int(headline["stop_grace_period"].removesuffix("s")) > default("shutdown_grace_s")


def test_ports_are_the_applications(headline):
    port = default("port")
    assert headline["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"HEADLINE_PORT={port}" in DOCKERFILE
    assert f"EXPOSE {port}" in DOCKERFILE


@pytest.mark.parametrize("name", ["Dockerfile", "docker-compose.yml", "docker-compose.cpu.yml"])
def test_every_variable_is_a_setting(name):
    variables = set(re.findall(r"\bHEADLINE_[A-Z_]+", (ROOT / name).read_text()))
    assert variables
    assert variables <= {f"HEADLINE_{field.upper()}" for field in Settings.model_fields}


def test_prometheus_scrapes_the_compose_service():
    [job] = read("ops/prometheus/prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"headline:{default('port')}"]}]
    assert job["metrics_path"] in served_paths()
    mounts = read("docker-compose.yml")["services"]["prometheus"]["volumes"]
    assert "./ops/prometheus/prometheus.yml:/etc/prometheus/prometheus.yml:ro" in mounts


def test_image_has_a_pinned_base_an_ordinary_user_and_a_health_check():
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"docker.io/library/python:3.11-slim"}
    user = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)  # a number, so that Kubernetes' runAsNonRoot can tell
    [path] = re.findall(r"^HEALTHCHECK .*\\\n.*'(/readyz)'", DOCKERFILE, re.MULTILINE)
    assert path in served_paths()
    assert re.search(r'^CMD \["headline", "serve"\]$', DOCKERFILE, re.MULTILINE)


def test_what_the_image_copies_is_there_and_not_ignored():
    wanted = {
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    assert all((ROOT / name).exists() for name in wanted)
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert kept == wanted
