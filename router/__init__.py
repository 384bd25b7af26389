"""The public endpoint: reads a request, chooses the adapter, forwards to the engine."""
