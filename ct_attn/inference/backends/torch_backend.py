"""Networks computed by torch, on a processor or a graphics card."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ct_attn.device import channels_last
from ct_attn.inference.backends.backend import Format, OutOfMemoryError, Windows
from ct_attn.network.folding import folded

_TYPES: dict[Format, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchBackend:
    """``network`` in evaluation mode, normalisations folded where they can be, channels last.

    ``compute``: what of it to call, such as its attention; by default the network.
    ``compiled``: through ``torch.compile``, at the first window of every size; ``on_note``
    hears when that fails, and the network is then computed as it is.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        precision: Format = "fp32",
        compute: Callable[[nn.Module], Callable[[Tensor], Tensor]] = lambda network: network,
        *,
        compiled: bool = False,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        self.device = device
        self._precision: Format = precision
        self.network = channels_last(folded(network).to(device))
        self._compute = compute(self.network)
        self._compiled = torch.compile(self._compute, dynamic=False) if compiled else None
        self._on_note = on_note

    @property
    def name(self) -> str:
        return f"torch {self.device}"

    @property
    def precision(self) -> Format:
        return self._precision

    @property
    def joins_maps(self) -> bool:
        return True

    def logits(self, windows: Windows) -> Windows:
        dtype = _TYPES[self._precision]
        try:
            batch = torch.from_numpy(windows).to(self.device)
            if batch.dim() == 5:
                batch = batch.contiguous(memory_format=torch.channels_last_3d)
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32),
            ):
                logits = self._outputs(batch).float().contiguous()
            return np.asarray(logits.cpu().numpy(), dtype=np.float32)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfMemoryError(str(error).splitlines()[0]) from error

    def _outputs(self, batch: Tensor) -> Tensor:
        if self._compiled is not None:
            try:
                return self._compiled(batch)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # base of all that torch raises here; what is no fault of
                self._compiled = None  # compiling is raised again below
                self._on_note(f"torch.compile failed ({_cause(error)}); the network is computed without")
        return self._compute(batch)


def _cause(error: RuntimeError) -> str:
    """In a few words, of an error that goes on for pages."""
    if "InvalidCxxCompiler" in str(error):
        return "it needs a C++ compiler, such as g++"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
