"""`python -m benchmarks.cliff`: more adapters in use than an engine has slots."""
