"""The engine's side: what to start, whether it can work, and keeping it up."""
