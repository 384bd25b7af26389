"""`python -m evaluation replay`: logged requests, decided again under other settings."""
