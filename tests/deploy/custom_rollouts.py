"""What of the rollout tools' resources our manifests may use, as their schemas have it."""

from typing import Literal

from pydantic import BaseModel, Field

from tests.deploy.custom import DURATION, Metadata, Strict, TargetRef


class Expression(Strict):
    key: str
    operator: Literal["In"]
    values: list[str] = Field(min_length=1)


class Expressions(Strict):
    match_expressions: list[Expression] = Field(min_length=1)


class Rule(Strict):
    action: Literal["replace", "drop"] = "replace"
    source_labels: list[str] = Field(default=[])
    target_label: str = ""
    regex: str = "(.*)"
    replacement: str = "$1"


class PodEndpoint(Strict):
    port: str
    path: str = Field(pattern="^/")
    interval: str = Field(pattern=DURATION)
    relabelings: list[Rule] = Field(default=[])
    metric_relabelings: list[Rule] = Field(default=[])


class PodMonitorSpec(Strict):
    selector: Expressions
    pod_metrics_endpoints: list[PodEndpoint] = Field(min_length=1)


class PodMonitor(Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: Metadata
    spec: PodMonitorSpec


class Exact(Strict):
    exact: str


class Regex(Strict):
    regex: str


class Port(Strict):
    number: int


class Destination(Strict):
    host: str
    port: Port


class WeightedDestination(Strict):
    destination: Destination
    weight: int = Field(default=100, ge=0, le=100)


class Percent(Strict):
    value: int = Field(ge=0, le=100)


class Mirror(Strict):
    destination: Destination
    percentage: Percent


class Retries(Strict):
    attempts: int = Field(ge=0)


class HeaderMatch(Strict):
    headers: dict[str, Exact]


class HttpRoute(Strict):
    name: str
    match: list[HeaderMatch] = Field(default=[])
    route: list[WeightedDestination] = Field(min_length=1)
    mirrors: list[Mirror] = Field(default=[])
    retries: Retries


class VirtualServiceSpec(Strict):
    hosts: list[str] = Field(min_length=1)
    http: list[HttpRoute] = Field(min_length=1)


class VirtualService(Strict):
    api_version: Literal["networking.istio.io/v1"]
    kind: Literal["VirtualService"]
    metadata: Metadata
    spec: VirtualServiceSpec


class PrometheusProvider(Strict):
    address: str = Field(pattern="^http://")
    query: str


class Provider(Strict):
    prometheus: PrometheusProvider


class Measure(Strict):
    name: str
    initial_delay: str = Field(pattern=DURATION)
    interval: str = Field(pattern=DURATION)
    count: int = Field(ge=1)
    failure_limit: int = Field(ge=0)
    inconclusive_limit: int = Field(ge=0)
    success_condition: str
    failure_condition: str
    provider: Provider


class AnalysisTemplateSpec(Strict):
    metrics: list[Measure] = Field(min_length=1)


class AnalysisTemplate(Strict):
    api_version: Literal["argoproj.io/v1alpha1"]
    kind: Literal["AnalysisTemplate"]
    metadata: Metadata
    spec: AnalysisTemplateSpec


class Scale(Strict):
    replicas: int | None = None
    match_traffic_weight: bool | None = None


class PathMatch(Strict):
    path: Regex


class MirrorRoute(Strict):
    name: str
    percentage: int | None = Field(default=None, ge=0, le=100)
    match: list[PathMatch] | None = None


class TemplateName(Strict):
    template_name: str


class Analysis(Strict):
    templates: list[TemplateName] = Field(min_length=1)


class Step(Strict):
    set_weight: int | None = Field(default=None, ge=0, le=100)
    set_canary_scale: Scale | None = None
    set_mirror_route: MirrorRoute | None = None
    analysis: Analysis | None = None


class RoutedService(Strict):
    name: str
    routes: list[str]


class IstioRouting(Strict):
    virtual_service: RoutedService


class Routing(Strict):
    managed_routes: list[TargetRef]
    istio: IstioRouting


class Labels(Strict):
    labels: dict[str, str]


class CanaryStrategy(Strict):
    stable_service: str
    canary_service: str
    canary_metadata: Labels
    traffic_routing: Routing
    steps: list[Step] = Field(min_length=1)


class Strategy(Strict):
    canary: CanaryStrategy


class Reference(Strict):
    api_version: str
    kind: str
    name: str


class Workload(Reference):
    scale_down: Literal["never", "onsuccess", "progressively"]


class MatchLabels(Strict):
    match_labels: dict[str, str] = Field(min_length=1)


class RolloutSpec(Strict):
    selector: MatchLabels
    workload_ref: Workload
    min_ready_seconds: int
    progress_deadline_seconds: int
    strategy: Strategy


class Rollout(Strict):
    api_version: Literal["argoproj.io/v1alpha1"]
    kind: Literal["Rollout"]
    metadata: Metadata
    spec: RolloutSpec


class ScalerReference(Reference):
    primary_scaler_queries: dict[str, str]


class FlaggerService(Strict):
    port: int
    port_name: str
    target_port: str
    retries: Retries


class Range(Strict):
    min: float
    max: float


class CanaryMetric(Strict):
    name: str
    interval: str = Field(pattern="^[0-9]+(m|s)")
    template_ref: TargetRef
    threshold_range: Range


class CanaryAnalysis(Strict):
    interval: str = Field(pattern="^[0-9]+(m|s)")
    threshold: int
    mirror: bool
    mirror_weight: int = Field(ge=0, le=100)
    step_weights: list[int]
    metrics: list[CanaryMetric] = Field(min_length=1)


class CanarySpec(Strict):
    provider: Literal["istio"]
    target_ref: Reference
    autoscaler_ref: ScalerReference
    progress_deadline_seconds: int
    service: FlaggerService
    analysis: CanaryAnalysis


class Canary(Strict):
    api_version: Literal["flagger.app/v1beta1"]
    kind: Literal["Canary"]
    metadata: Metadata
    spec: CanarySpec


class MetricProvider(Strict):
    type: Literal["prometheus"]
    address: str = Field(pattern="^http://")


class MetricTemplateSpec(Strict):
    provider: MetricProvider
    query: str


class MetricTemplate(Strict):
    api_version: Literal["flagger.app/v1beta1"]
    kind: Literal["MetricTemplate"]
    metadata: Metadata
    spec: MetricTemplateSpec


RESOURCES: dict[str, type[BaseModel]] = {
    kind.__name__: kind
    for kind in (
        PodMonitor,
        VirtualService,
        AnalysisTemplate,
        Rollout,
        Canary,
        MetricTemplate,
    )
}
