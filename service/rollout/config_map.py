"""The weights as a key of a ConfigMap, which the replicas of a cluster mount."""

from __future__ import annotations

import json
import logging
import re
import ssl
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.rollout.desired import WEIGHTS
from service.rollout.progress import Rollout
from service.rollout.store import Store

log = logging.getLogger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts the token and the certificate authority of a pod's account."""

TIMEOUT_S = 5.0
MAX_BYTES = 4_000_000
MAX_WHY_CHARS = 300

_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_PLACE = re.compile(f"({_NAME})/({_NAME})")
_TOKEN = re.compile(r"[!-~]+")


class ConfigMapError(Exception):
    """The ConfigMap cannot be read or written; the message says why."""


@dataclass(frozen=True, slots=True)
class KubernetesApi:
    """Where the API of a cluster is.

    Attributes:
        url: Its base.
        account: Folder with `token` and `ca.crt`; None where neither is wanted, as by kubectl
            proxy.
        timeout_s: How long each read of an answer may take.
    """

    url: str
    account: Path | None = None
    timeout_s: float = TIMEOUT_S

    def ask(self, method: str, path: str, patch: Any = None) -> Any:
        """Return the JSON that is answered, sending a merge patch where there is one.

        No redirect is followed: it would carry the token elsewhere.

        Raises:
            ConfigMapError: There is no good answer.
        """
        try:
            headers = {"Accept": "application/json", **self._authorization()}
            if patch is not None:
                headers["Content-Type"] = "application/merge-patch+json"
            body = None if patch is None else json.dumps(patch)
            with closing(self._connection()) as connection:
                connection.request(
                    method, urlsplit(self.url).path.rstrip("/") + path, body, headers
                )
                answer = connection.getresponse()
                content = answer.read(MAX_BYTES)
        except (OSError, HTTPException, ValueError) as error:
            raise ConfigMapError(f"{method} {self.url}: {error or type(error).__name__}") from error
        if answer.status != 200:
            raise ConfigMapError(f"{method} {path}: {answer.status} {_why(content)}")
        try:
            return json.loads(content)
        except ValueError as error:
            raise ConfigMapError(f"{method} {path}: the answer is no JSON") from error

    def _authorization(self) -> dict[str, str]:
        if self.account is None:
            return {}
        file = self.account / "token"  # read each time, since it rotates
        token = file.read_text(encoding="utf-8").strip()
        if not _TOKEN.fullmatch(token):  # which http.client would refuse too, and quote
            raise ConfigMapError(f"{file}: this is no token")
        return {"Authorization": f"Bearer {token}"}

    def _connection(self) -> HTTPConnection:
        found = urlsplit(self.url)
        host = found.hostname or ""
        if found.scheme == "http":
            return HTTPConnection(host, found.port, timeout=self.timeout_s)
        authority = None if self.account is None else self.account / "ca.crt"
        context = ssl.create_default_context(cafile=authority)
        return HTTPSConnection(host, found.port, timeout=self.timeout_s, context=context)


def in_cluster(environ: Mapping[str, str], account: Path = ACCOUNT) -> KubernetesApi:
    """Return the API of the cluster that this process is a pod of.

    Raises:
        ConfigMapError: It is none.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigMapError(
            "--config-map: KUBERNETES_SERVICE_HOST and _PORT are not set, so this is no pod of a "
            "cluster: give --kubernetes-api"
        )
    return KubernetesApi(f"https://{f'[{host}]' if ':' in host else host}:{port}", account)


class ConfigMap:
    """A ConfigMap that is there already."""

    def __init__(self, place: str, api: KubernetesApi) -> None:
        """Take its place.

        Args:
            place: `NAMESPACE/NAME`.
            api: Of its cluster.

        Raises:
            ConfigMapError: That is no such place.
        """
        if (parts := _PLACE.fullmatch(place)) is None:
            raise ConfigMapError(f"--config-map: {place!r} is no NAMESPACE/NAME")
        self._path = f"/api/v1/namespaces/{parts[1]}/configmaps/{parts[3]}"
        self._api = api

    def ensure(self, text: str) -> bool:
        """Have its key `weights.json` hold a text; return whether that was news.

        Raises:
            ConfigMapError: It cannot be read or written.
        """
        found = self._api.ask("GET", self._path)
        data = found.get("data") if isinstance(found, dict) else None
        if not isinstance(found, dict) or found.get("kind") != "ConfigMap":
            raise ConfigMapError(f"GET {self._path}: the answer is no ConfigMap")
        if isinstance(data, dict) and data.get(WEIGHTS) == text:
            return False
        self._api.ask("PATCH", self._path, {"data": {WEIGHTS: text}})
        return True


def tell(config_map: ConfigMap, rollout: Rollout, store: Store) -> None:
    """Have a ConfigMap hold what replicas are to do.

    A failure is noted in the state, and another look's to mend.
    """
    why = ""
    fields = {"weight": rollout.weight, "generation": rollout.generation}
    try:
        if rollout.generation > 0 and config_map.ensure(rollout.desired.model_dump_json()):
            log.info("the ConfigMap was written", extra={"fields": fields})
    except ConfigMapError as error:
        why = str(error)
    if why == rollout.untold:
        return
    if why:
        log.warning("the ConfigMap is not written", extra={"fields": {**fields, "error": why}})
    else:
        log.info("the ConfigMap can be written again", extra={"fields": fields})
    with suppress(OSError):  # a full disk keeps no note, and the next look tries again
        store.change(lambda known: known.model_copy(update={"untold": why}))


def _why(content: bytes) -> str:
    """Return what Kubernetes says of a failure, else what it is."""
    try:
        message = json.loads(content)["message"]
    except (ValueError, KeyError, TypeError):
        message = content.decode("utf-8", errors="replace")
    return " ".join(str(message).split())[:MAX_WHY_CHARS]
