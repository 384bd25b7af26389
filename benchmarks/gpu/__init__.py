"""`python -m benchmarks.gpu`: adapters, router and LAG on a GPU, against its bounds and a notebook."""
