"""What docker-compose.yml mounts is there, ports are where users look, and services find each other. `make compose` asks Compose's own parser."""

from typing import Any

import yaml

from processes import ROOT, output, quiet_environment
from system import leeway

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_ports_are_where_users_look() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {
        "kafka": ["9092:9092"],
        "leeway": ["8000:8000"],
        "metrics": ["8001:8000"],
        "dashboard": ["8501:8501"],
        "kafka-ui": ["8080:8080"],
        "prometheus": ["9090:9090"],
        "alertmanager": ["9093:9093"],
        "grafana": ["3000:3000"],
    }


def test_every_mount_is_a_file_of_this_repository_or_a_volume() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                # The reference is the user's.
                assert source == "./reference.json" or (ROOT / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]


def test_prometheus_and_alertmanager_find_their_files_and_each_other() -> None:
    folder = ROOT / "deploy/prometheus"
    for file, services in (
        ("targets/leeway.yml", {"leeway:8000", "metrics:8000", "alerts:8000"}),
        ("alertmanagers/alertmanager.yml", {"alertmanager:9093"}),
    ):
        targets = {target for group in yaml.safe_load((folder / file).read_text()) for target in group["targets"]}
        assert targets == services
        assert {target.split(":")[0] for target in targets} <= set(SERVICES)
    assert "./deploy/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]


def test_programs_of_leeway_read_one_configuration() -> None:
    for name, command in (("leeway", "run"), ("alerts", "alert"), ("metrics", "metrics"), ("dashboard", "dashboard")):
        service = SERVICES[name]
        assert service["command"] == [command, "--config", "/etc/leeway/leeway.toml"]
        assert "./deploy/leeway.toml:/etc/leeway/leeway.toml:ro" in service["volumes"]
        assert service["environment"]["KAFKA_BOOTSTRAP_SERVERS"] == "kafka:29092"


def test_the_mounted_configuration_is_valid() -> None:
    effective = output([leeway(), "run", "--config", ROOT / "deploy/leeway.toml", "--check-config"], env=quiet_environment())
    assert 'reference = "/etc/leeway/reference.json"' in effective
    assert 'scopes = ["partition", "global"]' in effective
