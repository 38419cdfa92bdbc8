"""Networks computed by OpenVINO on a CPU.

A network is converted once, at any size of windows, and rewritten and compiled once for every
size; both are kept in files. Only converting needs torch.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ct_attn.atomic import write_bytes
from ct_attn.inference.backends.backend import Format, Windows
from ct_attn.inference.backends.cache import cache_folder, forget_oldest, processor, short
from ct_attn.model_file import ModelFile

_HINTS: dict[Format, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_NETWORK = "network.xml"
#: Of ``rewriting.py``, in the names of what depends on it: count on when that changes what it makes.
REVISION = 1


def is_installed() -> bool:
    """Whether OpenVINO can be imported (it is not until it is needed)."""
    return find_spec("openvino") is not None


@cache
def core() -> Any:
    """This process's one OpenVINO, kept until the process ends.

    The plugin for processors gives the thread that loads it another stack for signals, and takes
    that memory away with the last object that holds the plugin, in whichever thread that happens.
    The next signal to the first thread (Ctrl-C, a child that ended) would then end the process.
    """
    import openvino  # noqa: PLC0415 # optional

    return openvino.Core()


def best_precision() -> Format:
    """bf16 where the processor computes in it, else fp32."""
    capabilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in capabilities else "fp32"


class OpenVinoBackend:
    """The network of ``model``, converted or from the files of an earlier conversion.

    ``on_note`` hears of what takes time and is done once.
    """

    def __init__(self, model: ModelFile, precision: Format, on_note: Callable[[str], None]) -> None:
        import openvino  # noqa: PLC0415 # optional

        self._library = openvino
        self._core = core()
        self._precision = precision
        self._model = model
        self._on_note = on_note
        self._requests: dict[tuple[int, ...], Any] = {}
        self.folder = cache_folder(model)
        self._key = f"{short(model.digest)}-openvino-{version('openvino')}-r{REVISION}"

    @property
    def name(self) -> str:
        return "openvino cpu"

    @property
    def precision(self) -> Format:
        return self._precision

    @property
    def joins_maps(self) -> bool:
        return False

    def logits(self, windows: Windows) -> Windows:
        request = self.ready(windows.shape)
        found = request.infer({0: windows}, share_inputs=True, share_outputs=True)
        return np.asarray(next(iter(found.values())))

    def convert(self) -> None:
        """Make sure there is a converted network. Raises :class:`CannotConvertError`."""
        self._converted()

    def ready(self, shape: tuple[int, ...]) -> Any:
        """What computes windows of ``shape`` [B, channels, ...], compiled if need be."""
        if shape not in self._requests:
            self._requests.clear()  # the memory of one is as large as its windows need
            self._requests[shape] = self._compiled(shape).create_infer_request()
        return self._requests[shape]

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        sides = "x".join(map(str, shape))
        file = self.folder / f"{self._key}-{processor()}-{self._precision}-{sides}.blob"
        config = {"INFERENCE_PRECISION_HINT": _HINTS[self._precision], "PERFORMANCE_HINT": "LATENCY"}
        if file.is_file():
            try:
                compiled = self._core.import_model(file.read_bytes(), "CPU", config)
            except RuntimeError:
                file.unlink(missing_ok=True)  # of another build, or damaged: made again below
            else:
                os.utime(file)
                return compiled
        from ct_attn.inference.backends.rewriting import rewritten  # noqa: PLC0415 # needs OpenVINO

        network = self._core.read_model(self._converted() / _NETWORK)
        network.reshape({0: self._library.PartialShape(list(shape))})
        compiled = self._core.compile_model(rewritten(network), "CPU", config)
        blob = compiled.export_model()
        write_bytes(file, blob if isinstance(blob, bytes) else blob.getvalue())
        forget_oldest(self.folder, f"{short(self._model.digest)}-openvino-*.blob")
        return compiled

    def _converted(self) -> Path:
        """The folder with the network for windows of any size."""
        folder = self.folder / self._key
        if folder.is_dir():
            return folder
        self._on_note("preparing the network for OpenVINO; this is done once for each model")
        partial = folder.with_name(f".partial-{os.getpid()}-{folder.name}")
        partial.mkdir(parents=True)
        try:
            from ct_attn.inference.backends.conversion import convert  # noqa: PLC0415 # needs torch

            self._library.save_model(convert(self._model), partial / _NETWORK, compress_to_fp16=False)
            partial.rename(folder)
        except FileExistsError:
            pass  # another process was as quick
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder
