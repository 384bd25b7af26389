"""The embedded stack: a hand-written corpus, and the tiny Mistral and three adapters built from it."""
