"""The compose files against the repository, the Dockerfile and the service's settings."""

import re
from typing import Any

import yaml

from service.settings import PREFIX, Settings
from tests.deploy.parts import DEPLOY, ROOT

Services = dict[str, dict[str, Any]]
TARGET = re.compile(r"^FROM \S+ AS (\S+)$", re.M)
ARGUMENT = re.compile(r"^ARG (\w+)", re.M)
TOOLKIT = "compose.gpu.yml"


def services(file: str = "compose.yml") -> Services:
    loaded = yaml.safe_load((DEPLOY / file).read_text(encoding="utf-8"))
    found: Services = loaded["services"]
    return found


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_settings_are_the_services_own() -> None:
    for file in ("compose.yml", TOOLKIT):
        names = services(file)["service"]["environment"]
        assert {name.removeprefix(PREFIX).lower() for name in names} <= set(Settings.model_fields)


def test_every_service_says_when_it_is_healthy_and_waits_for_who_does() -> None:
    everything = services()
    for name, service in everything.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        for other, wait in service.get("depends_on", {}).items():
            assert other in everything
            assert wait == {"condition": "service_healthy"}


def test_override_names_services_that_exist() -> None:
    assert set(services(TOOLKIT)) <= set(services())


def test_images_are_built_here_or_pinned() -> None:
    targets, arguments = TARGET.findall(dockerfile()), ARGUMENT.findall(dockerfile())
    for name, service in services().items():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
            assert service["build"]["target"] in targets
            assert set(service["build"]["args"]) <= set(arguments)
        else:
            assert re.search(r":v?\d+\.\d+", service["image"]), name


def test_files_that_are_mounted_exist() -> None:
    named = set(yaml.safe_load((DEPLOY / "compose.yml").read_text(encoding="utf-8"))["volumes"])
    for service in services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in named or source.startswith("${"), source


def test_nothing_is_heard_beyond_this_machine() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_containers_can_do_no_more_than_they_must() -> None:
    for name, service in services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges"], name


def test_no_secret_is_written_down() -> None:
    for file in ("compose.yml", TOOLKIT):
        for service in services(file).values():
            names = " ".join(service.get("environment", {})).lower()
            assert not re.search("password|secret|token|keys", names)


def test_prometheus_scrapes_services_that_exist() -> None:
    text = (DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8")
    for job in yaml.safe_load(text)["scrape_configs"]:
        for target in job["static_configs"][0]["targets"]:
            assert target.split(":")[0] in services()


def test_grafana_reads_the_prometheus_beside_it() -> None:
    text = (DEPLOY / "grafana/datasource.yml").read_text(encoding="utf-8")
    (datasource,) = yaml.safe_load(text)["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
    assert "prometheus" in services()


def test_triton_is_given_the_precision_that_the_service_asks_for() -> None:
    for file in ("compose.yml", TOOLKIT):
        options = services(file)["triton"]["build"]["args"]["TRITON_OPTIONS"]
        assert options.split()[-1] == services(file)["service"]["environment"][f"{PREFIX}PRECISION"]


def test_stop_has_time_for_every_accepted_request() -> None:
    grace_s = int(services()["service"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > Settings().stop_timeout_s
