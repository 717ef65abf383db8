"""What one observation costs: prometheus_client and the OpenTelemetry SDK with its Prometheus reader. For ADR 3."""

import timeit

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import Counter, Histogram

histogram = Histogram("evidence_seconds", "x", ["method"]).labels("/x")
counter = Counter("evidence", "x")
meter = MeterProvider(metric_readers=[PrometheusMetricReader()]).get_meter("evidence")
otel_histogram, otel_counter = meter.create_histogram("evidence_otel_seconds"), meter.create_counter("evidence_otel")
attributes = {"method": "/x"}

for name, observe in {
    "prometheus_client histogram": lambda: histogram.observe(0.01),
    "OpenTelemetry histogram": lambda: otel_histogram.record(0.01, attributes),
    "prometheus_client counter": lambda: counter.inc(),
    "OpenTelemetry counter": lambda: otel_counter.add(1, attributes),
}.items():
    print(f"{name:28} {min(timeit.repeat(observe, number=20_000, repeat=9)) / 20_000 * 1e6:6.2f} us")
