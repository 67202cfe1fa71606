"""The parts of other people's resources that our manifests may use, as their schemas have them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

DURATION = r"^\d+(ms|s|m|h|d)$"


class Strict(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


class Metadata(Strict):
    name: str
    namespace: str


class TargetRef(Strict):
    api_version: str | None = None
    kind: str | None = None
    name: str


class Policy(Strict):
    type: Literal["Percent", "Pods"]
    value: int = Field(gt=0)
    period_seconds: int = Field(gt=0, le=1800)


class Rules(Strict):
    stabilization_window_seconds: int = Field(default=0, ge=0, le=3600)
    policies: list[Policy] = Field(min_length=1)


class Behavior(Strict):
    scale_up: Rules
    scale_down: Rules


class AutoscalerConfig(Strict):
    behavior: Behavior


class Advanced(Strict):
    horizontal_pod_autoscaler_config: AutoscalerConfig


class PrometheusQuery(Strict):
    """KEDA takes strings only."""

    server_address: str = Field(pattern=r"^https?://")
    query: str
    threshold: str = Field(pattern=r"^\d+(\.\d+)?$")
    ignore_null_values: Literal["true", "false"]


class Trigger(Strict):
    name: str
    type: Literal["prometheus"]
    metric_type: Literal["AverageValue", "Value"]
    metadata: PrometheusQuery


class ScaledObjectSpec(Strict):
    scale_target_ref: TargetRef
    min_replica_count: int = Field(ge=0)
    max_replica_count: int
    polling_interval: int
    advanced: Advanced
    triggers: list[Trigger] = Field(min_length=1)


class ScaledObject(Strict):
    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: Metadata
    spec: ScaledObjectSpec


class Relabeling(Strict):
    target_label: str
    replacement: str


class Endpoint(Strict):
    port: str
    path: str = Field(pattern="^/")
    interval: str = Field(pattern=DURATION)
    relabelings: list[Relabeling] = []


class Selector(Strict):
    match_labels: dict[str, str] = Field(min_length=1)


class ServiceMonitorSpec(Strict):
    selector: Selector
    endpoints: list[Endpoint] = Field(min_length=1)


class ServiceMonitor(Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["ServiceMonitor"]
    metadata: Metadata
    spec: ServiceMonitorSpec


class RuleGroup(Strict):
    name: str
    rules: list[dict[str, Any]]  # promtool reads them


class PrometheusRuleSpec(Strict):
    groups: list[RuleGroup]


class PrometheusRule(Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PrometheusRule"]
    metadata: Metadata
    spec: PrometheusRuleSpec


CUSTOM: dict[str, type[BaseModel]] = {
    kind.__name__: kind for kind in (ScaledObject, ServiceMonitor, PrometheusRule)
}
