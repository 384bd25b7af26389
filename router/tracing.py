"""Optional traces over OTLP: one span a request, with its decision; the engine's spans become its children."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from router.life import Life

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

SERVICE = "lora-select-router"
EXPORT_S = 2
"""For one batch, tries included: at the end of the process it is waited for."""


def to_collector(url: str) -> Traces:
    """Traces that are sent to an OTLP collector's base URL, in batches and from a thread of their own."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"{url.rstrip('/')}/v1/traces", timeout=EXPORT_S))
    )
    return Traces(provider)


class Traces:
    """An Observer, which is told of a request's beginning as well: its span must be known before the engine's."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(SERVICE)
        self._open: dict[int, Span] = {}

    def began(self, life: Life) -> None:
        """Open the span, below the client's where it sent a `traceparent`, and hand its own to the engine."""
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()
        parent = propagator.extract({"traceparent": life.traceparent} if life.traceparent else {})
        span = self._tracer.start_span(
            f"POST {life.endpoint}", parent, kind=SpanKind.SERVER, start_time=_ns(life.at)
        )
        self._open[id(life)] = span
        carrier: dict[str, str] = {}
        propagator.inject(carrier, set_span_in_context(span))
        life.traceparent = carrier.get("traceparent", life.traceparent)

    def ended(self, lives: Sequence[Life]) -> None:
        """Close their spans."""
        for life in lives:
            self._end(life)

    def _end(self, life: Life) -> None:
        span = self._open.pop(id(life))
        span.set_attributes({key: value for key, value in _attributes(life).items() if value is not None})
        if life.first_byte_s is not None:
            span.add_event("first byte", timestamp=_ns(life.at + life.first_byte_s))
        span.end(_ns(life.at + life.duration_s))

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def _attributes(life: Life) -> dict[str, Any]:
    said = {
        "http.request.id": life.request_id,
        "http.response.status_code": life.status,
        "error.type": life.error,
        "gen_ai.usage.input_tokens": life.prompt_tokens,
        "gen_ai.usage.output_tokens": life.completion_tokens,
        "lora_select.client": life.client.name or None,
        "lora_select.response_cache": life.cache,
    }
    if life.routed:
        said |= {
            "gen_ai.request.model": life.routed.decision.model,
            "lora_select.reason": life.routed.decision.reason.value,
            "lora_select.score": life.routed.decision.score,
            "lora_select.classify_ms": life.routed.classify_ms,
        }
    return said


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
