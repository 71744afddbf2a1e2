"""timm, imported without torch's compiler, which it and torchvision would import and no backbone here needs.

That is more than 800 modules, a third of what all imports of an embedding take.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import torch

_COMPILER = "torch._dynamo.utils"
_disable = torch.compiler.disable

Function = Callable[..., object]


class _Later(ModuleType):
    """Stands for the compiler while others are imported, and gives way to it where more is asked of it."""

    @staticmethod
    def is_compile_supported(device_type: str) -> bool:
        # torchvision.ops asks for this when it is imported, and calls it in a layer for object detection.
        return bool(import_module(_COMPILER).is_compile_supported(device_type))

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        _give_way(self)
        return getattr(import_module(_COMPILER), name)


def _disable_later(fn: Function | None = None, *args: object, **options: object) -> Function:
    """Do as ``torch.compiler.disable`` does when the function is called, for which timm has it as a decorator."""
    if fn is None:
        return lambda function: _disable_later(function, *args, **options)

    @functools.cache
    def disabled() -> Function:
        made: Function = _disable(fn, *args, **options)  # type: ignore[no-untyped-call]
        return made

    @functools.wraps(fn)
    def called(*given: object, **named: object) -> object:
        return disabled()(*given, **named)

    return called


@contextmanager
def _compiler_later() -> Iterator[None]:
    if _COMPILER in sys.modules:
        yield
        return
    stand_in = _Later(_COMPILER)
    sys.modules[_COMPILER] = stand_in
    torch.compiler.disable = _disable_later
    try:
        yield
    finally:
        torch.compiler.disable = _disable
        _give_way(stand_in)


def _give_way(stand_in: ModuleType) -> None:
    if sys.modules.get(_COMPILER) is stand_in:
        del sys.modules[_COMPILER]


with _compiler_later():
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

__all__ = ["create_transform", "resolve_model_data_config", "timm"]
