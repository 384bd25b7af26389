"""Whether vLLM would load an adapter, and serve it rightly: known from its files, before anything starts."""
