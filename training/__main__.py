"""`python -m training RECIPE`: from a data set to an adapter that is proven, checked and ready to route."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from adapters import ConfigError
from training.errors import Stopped
from training.quiet import quiet
from training.recipe import load_recipe, names, parse_changes

RUN_DIR = ".run"
EPILOG = """examples:
  python -m training demo/gardening --live
  python -m training demo/gardening --data mine.jsonl --name mine --register adapters.yaml
  python -m training legal --check

The keys for --set are explained in training/recipes/defaults.yaml. Exit codes: 0 done; 1 it ended early, cannot be
served, or is no better than its base and should have gone somewhere; 2 something given is wrong; 130 Ctrl-C."""


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 fine, 1 it ended early or the adapter is no good, 2 something given is wrong, 130 Ctrl-C."""
    told = _parser().parse_args(argv)
    # As in demo/build.py: beside a busy neighbour, threads that spin for each other are several times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        recipe = load_recipe(told.recipe, _changes(told))
        quiet()
        from training.command import run  # torch and its friends take seconds

        return run(recipe, told, sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except Stopped as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _changes(told: argparse.Namespace) -> dict[str, Any]:
    """Options are short for --set. What the recipe says of the columns of its data does not hold for other data,
    nor does its domain where these have a name of their own."""
    short = {"name": told.name, "stack": told.stack, "data.source": told.data}
    pairs = [f"{key}={json.dumps(value)}" for key, value in short.items() if value is not None]
    if told.data is not None:
        pairs += ["data.columns={}", "data.where={}", "data.config=null", "data.split=train"]
        if told.name is not None:
            pairs += [f"domain={json.dumps(told.name)}", "label=null"]
    return parse_changes([*pairs, *told.set])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("recipe", help=f"a folder, such as demo/gardening, or one of {', '.join(names())}")
    what = parser.add_argument_group("what to train (instead of what the recipe says)")
    what.add_argument(
        "--data",
        metavar="SOURCE",
        help="a JSONL, CSV or Parquet file, or a data set of the hub; its columns are found anew",
    )
    what.add_argument("--name", help="the adapter's, and the domain of --data")
    what.add_argument("--stack", metavar="FILE", help="the adapters.yaml that names base and chat template")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="such as training.epochs=1; may be repeated",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--out", type=Path, default=Path("trained"), help="default: %(default)s")
    how.add_argument("--check", action="store_true", help="check everything; train nothing")
    again = how.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    again.add_argument(
        "--overwrite", action="store_true", help="anew: it takes the place of an earlier one of that name"
    )
    then = parser.add_argument_group("and then (each of them for an adapter that is trained already, too)")
    then.add_argument("--register", type=Path, metavar="FILE", help="write it into that adapters.yaml")
    then.add_argument(
        "--live", nargs="?", const=RUN_DIR, metavar="WHERE",
        help="load it into the stack that runs: its run folder (default: %(const)s), or its router's URL, and the "
        "admin key in LORA_SELECT_ADMIN_KEY",
    )  # fmt: skip
    then.add_argument(
        "--force", action="store_true", help="also one no better than its base, or in the place of another"
    )
    then.add_argument("--merge", action="store_true", help="write base and adapter as one model, OUT/NAME-merged")
    then.add_argument(
        "--gguf", action="store_true", help="write it for llama.cpp, OUT/NAME.gguf (LLAMA_CPP: its sources)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
