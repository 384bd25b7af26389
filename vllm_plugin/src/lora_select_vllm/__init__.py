"""LoRA-Select inside vLLM: `lora_select` in every process, `lora_select_control` in the API server."""


def install() -> None:
    """The general plugin. vLLM calls it in API server, engine core and every worker, maybe several times."""
    from lora_select_vllm import frontend, residency, workers

    workers.install()
    residency.install()
    frontend.install()
