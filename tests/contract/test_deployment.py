"""The image and the Compose file, as far as they can be read: settings, secrets, restarts, ends."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace_server import main, serve
from headrace_server.events import relay_process
from headrace_server.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVER = COMPOSE["data-pipeline"]
UNUSED = {"DATABASE_URL"}
"""A setting that is there to be warned about."""


def test_each_setting_is_explained_and_nothing_else() -> None:
    text = (ROOT / ".env.example").read_text()
    explained = set(re.findall(r"^(?:# )?([A-Z0-9_]+)=", text, re.MULTILINE))
    settings = {(field.alias or name).upper() for name, field in Settings.model_fields.items()}
    assert explained == settings - UNUSED


def test_each_setting_reaches_the_container_unless_the_place_decides_it() -> None:
    assert SERVER["env_file"] == ".env"
    assert set(SERVER["environment"]) == {
        "RAY_ADDRESS",
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_USAGE_STATS_ENABLED",
        "S3_ENDPOINT",
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_SECURITY_PROTOCOL",
        "HEADRACE_DATA_DIR",
        "HEADRACE_GRPC_ADDRESS",
        "HEADRACE_HTTP_ADDRESS",
    }


@pytest.mark.parametrize("service", ["ray-head", "data-pipeline"])
def test_ray_asks_for_a_token_and_tells_nobody_of_its_use(service: str) -> None:
    environment = COMPOSE[service]["environment"]
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert COMPOSE[service]["init"]


def test_what_ends_is_started_again() -> None:
    assert {name: service["restart"] for name, service in COMPOSE.items()} == dict.fromkeys(
        COMPOSE, "unless-stopped"
    )


def test_ports_are_on_loopback_alone() -> None:
    ports = [port for service in COMPOSE.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_server_has_the_time_to_end_that_it_takes_at_most() -> None:
    draining = serve.GRACE_SECONDS + 3 * serve.END_SECONDS
    most = draining + relay_process.STOP_SECONDS + main.LEAVE_SECONDS
    assert int(SERVER["stop_grace_period"].removesuffix("s")) > most


def test_an_image_holds_what_it_is_built_from_and_no_secret() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"]
    assert rules[0] == "*"
    assert rules[-1] == "**/.*"
    taken = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert all(any(source == each or source.startswith(f"{each}/") for each in taken) for source in copied)
    assert "SECRET" not in DOCKERFILE


def test_what_seldom_changes_is_a_layer_of_its_own_and_kernels_are_compiled() -> None:
    others, sources = DOCKERFILE.index("--no-install-workspace"), DOCKERFILE.index("COPY server server")
    kernels, user = DOCKERFILE.index("import warm"), DOCKERFILE.index("USER headrace")
    assert others < sources < kernels < user
    assert "HEALTHCHECK" in DOCKERFILE
