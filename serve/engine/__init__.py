"""The engine's command line, derived from adapters.yaml, from this machine and from the base."""
