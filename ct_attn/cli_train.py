"""The commands that make models: ``ct-attn train`` and ``ct-attn plan``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ct_attn.errors import UserError
from ct_attn.terminal import Device, progress_bar, stdout


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as pipelines/phantom/attention_unet.yaml.")],
    data: Annotated[Path, typer.Option(help="The manifest of the data set.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")],
    fold: Annotated[
        str, typer.Option(help="The fold to validate on, or all: one run after the other, OUTPUT/fold_K.")
    ] = "0",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the output folder.")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field: training.epochs=50.")
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option(help="A trained model to start from: every tensor that fits is taken.")
    ] = None,
    init_part: Annotated[
        list[str] | None, typer.Option(help="With --init-from, take only this part: encoder, decoder.0 ...")
    ] = None,
    pretrained_encoder: Annotated[
        Path | None, typer.Option(help="Weights for a ResNet encoder (.safetensors or .pth).")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for prepared cases [default: .ct_attn_cache beside the manifest, or where that "
            "cannot be written, cache in the run's folder].",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    devices: Annotated[
        int,
        typer.Option(help="Processes on each machine, each with a GPU of its own (or on the CPU).", min=1),
    ] = 1,
    nodes: Annotated[
        int, typer.Option(help="Machines; srun or torchrun starts the processes (docs/clusters.md).", min=1)
    ] = 1,
) -> None:
    """Train a recipe's network on a manifest's cases."""
    from functools import partial

    from ct_attn.cross_validation import train_folds
    from ct_attn.recipe import read_recipe
    from ct_attn.train import train as train_one
    from ct_attn.training.launch import find_launch
    from ct_attn.training.start import Start

    launch = find_launch(devices, nodes)
    if fold == "all" and launch.n_processes > 1:
        raise UserError(
            "--fold all",
            expected="one process, which trains the folds in turn",
            found=f"{launch.n_processes} processes",
            remedy="start one training per fold (docs/clusters.md)",
        )
    checked = read_recipe(recipe, set_ or [])
    start = Start(model=init_from, parts=tuple(init_part or ()), encoder=pretrained_encoder)
    run: Callable[..., Path | tuple[Path, ...]] = (
        train_folds if fold == "all" else partial(train_one, fold=_fold_number(fold), launch=launch)
    )
    with progress_bar() as progress:
        made = run(
            checked,
            data,
            output,
            progress=progress,
            start=start,
            resume=resume,
            device=device,
            cache=cache,
        )
    if launch.is_first:
        for model in (made,) if isinstance(made, Path) else made:
            stdout.print(f"model  {model}")


def _fold_number(fold: str) -> int:
    if not fold.isdecimal():
        raise UserError(f"--fold {fold}", expected="a number or all", found=fold, remedy="mend the option")
    return int(fold)


def plan(
    data: Annotated[Path, typer.Option(help="The manifest of the data set.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The recipe to write (.yaml).")],
    memory_gib: Annotated[
        float | None, typer.Option("--memory", help="GiB a training may use; default: most of what is free.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Propose a recipe for a data set and this machine, and say why."""
    from ct_attn.plan import plan as run
    from ct_attn.recipe import write_recipe

    if output.exists():
        raise UserError(
            output, expected="a new file", found="one that exists", remedy="choose another -o or remove it"
        )
    memory_bytes = None if memory_gib is None else memory_gib * 2**30
    with progress_bar() as progress:
        made = run(data, progress=progress, memory_bytes=memory_bytes, device=device)
    write_recipe(made.recipe, output)
    for reason in made.reasons:
        stdout.print(reason, markup=False)
    stdout.print(f"recipe  {output}")
