"""`python -m benchmarks.throughput`: tokens per second and latency of every way to serve adapters."""
