"""The tests. Engine, browser and libraries share the cores, where OpenMP threads spin for each other: one each."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything reads it
