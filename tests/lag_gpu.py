"""LAG's CUDA path on CPU tensors, its Triton kernels and vLLM's interpreted; test_lag_gpu runs it.

Float16, since the interpreter multiplies bfloat16 as integers.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.lag_layer import (  # isort: skip  # it makes vLLM take Triton on
    BASE,
    BATCHES,
    COLUMNS,
    FIXED,
    INPUTS,
    LAYERS,
    LIBRARY,
    NUMBER,
    OBSERVER,
    PADDED,
    ROWS,
    VIRTUAL,
    Layer,
    cycled,
    expected,
    made,
    picked,
)

from lora_select_vllm.gpu import RoutedPunicaGPU
from lora_select_vllm.kernels import FEW_ROWS, choose, expand
from lora_select_vllm.lag import route, scores
from lora_select_vllm.trace import Rows
from lora_select_vllm.workers import _batch_kept, _batch_traced
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import (
    destroy_distributed_environment,
    destroy_model_parallel,
    init_distributed_environment,
    initialize_model_parallel,
    tensor_model_parallel_all_reduce,
)
from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers
from vllm.v1.worker.gpu.lora_utils import LoraState
from vllm.v1.worker.gpu.model_runner import GPUModelRunner

from tests.servers import free_port


@pytest.fixture(scope="module")
def layer() -> Layer:
    # Weights live as long as the process: vLLM remembers them by address.
    return made()


@pytest.mark.parametrize("ids", BATCHES.values(), ids=BATCHES)
def test_each_row_gets_what_plain_torch_says(layer: Layer, ids: list[int]) -> None:
    x, y = torch.randn(ROWS, INPUTS).half(), torch.randn(ROWS, sum(COLUMNS)).half()
    layer.mapped(ids)
    wanted = y.double() + expected(layer, x, ids)
    # Two roundings to float16 of numbers up to 64, and of z.
    torch.testing.assert_close(layer.add(y, x).double(), wanted, atol=0.06, rtol=2e-3)


def test_the_comparison_has_power(layer: Layer) -> None:
    x = torch.randn(ROWS, INPUTS).half()
    for one, other in ((11, 12), (12, 13), (13, 14), (15, 16), (1, 2)):
        differing = (expected(layer, x, cycled(one)) - expected(layer, x, cycled(other))).norm(dim=1) > 5
        assert differing.any()


def test_rows_that_a_graph_pads_with_stay_as_they_are(layer: Layer) -> None:
    layer.mapped([11] * PADDED)
    layer.mapped(BATCHES["mixed"])
    x, y = torch.randn(PADDED, INPUTS).half(), torch.zeros(PADDED, sum(COLUMNS)).half()
    x[ROWS:] = torch.nan
    layer.add(y, x)
    assert not y[ROWS:].any()
    wanted = expected(layer, x, BATCHES["mixed"])
    torch.testing.assert_close(y.double(), wanted, atol=0.06, rtol=2e-3)


def test_who_was_chosen_is_counted(layer: Layer) -> None:
    ids = [*BATCHES["all of LAG"][:-1], OBSERVER]
    x, y = torch.randn(ROWS, INPUTS).half(), torch.zeros(ROWS, sum(COLUMNS)).half()
    layer.mapped([BASE, *ids[1:]])
    for one in layer.bank.slices:
        one.chosen.zero_()
    trace = layer.wrapper.trace
    trace.begin([Rows("a", 0, 3, tuple("wxyz"), 1), Rows("b", 5, ROWS - 4, tuple("wxyz"), 4)], LIBRARY, "cpu")
    layer.add(y, x)
    trace.begin([], LIBRARY, "cpu")
    votes = torch.zeros(ROWS, LIBRARY, dtype=torch.int64)
    for row, adapter in list(enumerate(ids))[1:]:
        for part in range(len(COLUMNS)):
            for slot in picked(layer, x[row], part, adapter):
                votes[row, slot - FIXED] += 1
    first, second = trace.of("a", 1), trace.of("b")
    assert first["layers"] == [[[0] * LIBRARY, votes[row].tolist(), [0] * LIBRARY] for row in (2, 3)]
    assert first["votes"] == votes[1:4].sum(dim=0).tolist()
    assert second["votes"] == votes[4:].sum(dim=0).tolist()
    assert (first["chosen"], second["chosen"][:5]) == (votes[1:4].max(dim=1).indices.tolist(), [-1] * 5)
    assert first["share"] == pytest.approx((votes[1:4].amax(dim=1) / votes[1:4].sum(dim=1)).tolist())
    # What is only observed is nobody's use.
    assert sum(one.chosen for one in layer.bank.slices).tolist() == votes[:-1].sum(dim=0).tolist()
    assert sum(second["shares"]) == pytest.approx(votes[4:].sum().item(), rel=1e-3)


def test_the_second_model_runners_batch_tells_whose_rows_are_which(layer: Layer) -> None:
    batch = InputBatch.make_dummy(3, 10, InputBuffers(3, 10, torch.device("cpu")))
    state, trace = LoraState(3), layer.wrapper.trace
    for at, adapter in enumerate((1, 12, 13)):
        state.lora_ids[at] = adapter
    manager = SimpleNamespace(
        settings=SimpleNamespace(library_slots=LIBRARY),
        virtual=VIRTUAL,
        names=lambda: tuple("wxyz"),
        wrapper=layer.wrapper,
        device="cpu",
    )
    runner = SimpleNamespace(lora_state=state, lora_manager=SimpleNamespace(_adapter_manager=manager))
    assert hasattr(GPUModelRunner, "prepare_inputs")
    _batch_kept(lambda _: batch)(runner)
    _batch_traced(lambda _: None)(runner)
    trace.votes[:10, NUMBER] = torch.arange(10, dtype=torch.uint8).unsqueeze(1)
    trace.begin([], LIBRARY, "cpu")
    # 10 tokens of three requests: 3, 3 and 4.
    assert [trace.of(batch.req_ids[at])["votes"][0] for at in (1, 2)] == [3 + 4 + 5, 6 + 7 + 8 + 9]


@pytest.mark.parametrize(
    ("slots", "rank", "rows", "most"), [(4, 16, 33, 2), (1, 8, 1, 1), (5, 24, 20, 3), (40, 4, 7, 40)]
)
def test_the_kernel_chooses_as_the_reference(slots: int, rank: int, rows: int, most: int) -> None:
    torch.manual_seed(0)
    libraries, layers, at = 2, 3, 2
    z, w = torch.randn(rows, slots, rank), torch.randn(slots, 2 * rank + 1, rank)
    if slots > 2:  # twins: of equals the first is taken
        z[:, 2], w[2] = z[:, 1], w[1]
    present = torch.arange(slots) != slots - 2
    member = torch.rand(rows + 3, libraries, slots) < 0.6
    member[0] = False
    k, projection, observe = (torch.randint(0, top, (rows + 3,)) for top in (most, 2, 2))
    k, projection, observe = k + 1, projection.bool(), observe.bool()
    chosen = torch.zeros(slots, dtype=torch.int64)
    votes, shares = torch.ones(rows + 3, layers, slots, dtype=torch.uint8), torch.zeros(rows + 3, slots)
    best = choose(z, w, present, member, k, projection, observe, torch.tensor([at]), chosen, votes, shares)
    its, short = member[:rows] & present, projection[:rows]
    wanted = torch.stack([route(z, w, its[:, one], k[:rows], short) for one in range(libraries)])
    assert best.tolist() == wanted.masked_fill(observe[:rows], -1).tolist()
    hits = wanted.unsqueeze(-1) == torch.arange(slots)
    assert chosen.tolist() == (hits & ~observe[:rows].view(1, -1, 1)).sum(dim=(0, 1)).tolist()
    assert votes[:rows, at].tolist() == (1 + hits.sum(dim=0)).tolist()
    assert (votes[rows:] == 1).all()
    assert (votes[:, :at] == 1).all()
    _, norm, projected = scores(z, w)
    score = torch.where(short.unsqueeze(1), projected, norm).unsqueeze(1).masked_fill(~its, 0)
    part = score / score.sum(dim=-1, keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(shares[:rows], part.sum(dim=1))


def test_a_row_that_has_overflowed_gets_a_member() -> None:
    z = torch.full((1, 5, 8), torch.nan)
    member, one = torch.tensor([[[False, True, False, True, False]]]), torch.ones(1, dtype=torch.bool)
    counts = torch.zeros(5, dtype=torch.int64), torch.zeros(1, 1, 5, dtype=torch.uint8), torch.zeros(1, 5)
    best = choose(z, torch.ones(5, 17, 8), member[0, 0], member, one.long(), one, ~one, torch.tensor([0]), *counts)
    assert best.tolist() == [[1]]


@pytest.mark.parametrize("rows", [7, FEW_ROWS + 1])
def test_what_was_chosen_is_added(rows: int) -> None:
    torch.manual_seed(0)
    slots, rank, outs, offset = 3, 24, 40, 8
    z, b, best = (
        torch.randn(rows, slots, rank),
        torch.randn(slots, 1, outs, rank).half(),
        torch.full((2, rows), -1),
    )
    best[0, ::3], best[1, ::2] = 1, 2
    y = torch.randn(rows, offset + outs).half()
    wanted = y.double()
    for library in best:
        for row in (library >= 0).nonzero().flatten():
            wanted[row, offset:] += b[library[row], 0].double() @ z[row, library[row]].double()
    expand(y, z, b, best.int(), offset)
    torch.testing.assert_close(y.double(), wanted, atol=0.02, rtol=2e-3)


def test_torch_compile_traces_it_once_for_all_steps(layer: Layer) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, examples: Any) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, examples)

    compiled = torch.compile(lambda y, x: layer.add(y * 1, x) + 1, backend=backend, fullgraph=True, dynamic=True)
    for name in ("all of LAG", "observed"):
        layer.mapped(BATCHES[name])
        x, y = torch.randn(ROWS, INPUTS).half(), torch.zeros(ROWS, sum(COLUMNS)).half()
        torch.testing.assert_close(compiled(y, x), layer.add(y.clone(), x) + 1)
    (graph,) = graphs
    assert [str(node.target) for node in graph.graph.nodes].count("vllm.lora_select_add_routed") == len(COLUMNS)


def test_it_is_idle_only_where_a_step_has_no_rows_for_it(layer: Layer) -> None:
    def idle(*ids: int) -> bool:
        layer.mapped(ids)
        return bool(layer.wrapper.idle)

    assert (idle(BASE, BASE), idle(BASE, 1), idle(1, 11)) == (True, True, False)
    for index in range(len(VIRTUAL)):
        layer.wrapper.tables.clear(index)
    # As in vLLM's trial runs, that kernels are compiled in and graphs captured.
    assert (idle(BASE, BASE), idle(BASE, 1)) == (True, False)
    for index, told in enumerate(VIRTUAL.values()):
        layer.wrapper.tables.put(index, *told)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_ranks_choose_by_the_sum_of_their_scores(layer: Layer, tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(half, (free_port(), tmp_path), nprocs=2, start_method="fork")
    x, parts = torch.load(tmp_path / "0")[0], [torch.load(tmp_path / str(rank))[1].double() for rank in (0, 1)]
    wanted = expected(layer, x, BATCHES["mixed"])
    torch.testing.assert_close(sum(parts), wanted, atol=0.06, rtol=2e-3)


def half(rank: int, port: int, folder: Path) -> None:
    """A row-parallel layer on one of two ranks: x, and what it adds."""
    os.environ["VLLM_DIST_IDENT"] = str(port)  # vLLM's executors set it; for shared memory
    init_distributed_environment(2, rank, f"tcp://127.0.0.1:{port}", backend="gloo")
    with set_current_vllm_config(VllmConfig()):
        initialize_model_parallel(2)
    mine = slice(rank * INPUTS // 2, (rank + 1) * INPUTS // 2)
    layer = made(mine, tensor_model_parallel_all_reduce)
    x, y = torch.randn(ROWS, INPUTS).half(), torch.zeros(ROWS, sum(COLUMNS)).half()
    layer.mapped(BATCHES["mixed"])
    torch.save((x, layer.add(y, x[:, mine].contiguous())), folder / str(rank))
    destroy_model_parallel()  # type: ignore[no-untyped-call]
    destroy_distributed_environment()  # type: ignore[no-untyped-call]


def test_what_cannot_be_is_refused() -> None:
    config = SimpleNamespace(max_loras=FIXED, specialize_active_lora=True, max_lora_rank=64)
    with pytest.raises(ValueError, match="--specialize-active-lora"):
        RoutedPunicaGPU(PADDED, 8, "cpu", lora_config=config).take_library(LIBRARY, LAYERS)
    config.specialize_active_lora = False
    with pytest.raises(ValueError, match="600 library slots of rank 64, 8192 in all at most"):
        RoutedPunicaGPU(PADDED, 8, "cpu", lora_config=config).take_library(600, LAYERS)
