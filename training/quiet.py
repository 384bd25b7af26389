"""`quiet()`: only errors and our own bars are shown. Called before the libraries that it is about are imported."""

from __future__ import annotations

import logging


def quiet() -> None:
    """Loading and saving a tiny model draws six bars otherwise."""
    # While it is imported, it tells which faster kernels it could download.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # It tells of each of its retries; when they are in vain, the error says so.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
