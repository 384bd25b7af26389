"""What a result was made with, and how its plots look: for benchmarks, evaluation and training."""
