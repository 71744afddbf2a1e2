"""The device and the precision that a name stands for on this machine."""

from __future__ import annotations

import torch

from fedcof.errors import UserError, unknown_name

AUTO = "auto"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def chosen_device(name: str) -> torch.device:
    """Find the device of a name.

    Parameters
    ----------
    name : str
        ``auto`` for a GPU where there is one, or a name that torch knows.

    Returns
    -------
    torch.device
        One that has been tried.

    Raises
    ------
    UserError
        If it cannot be used here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == AUTO else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"The device {name!r} cannot be used here: choose auto, cpu, or one that torch has."
        ) from error
    return device


def chosen_precision(name: str, device: torch.device) -> torch.dtype:
    """Find the type to compute in.

    Parameters
    ----------
    name : str
        ``auto`` for bfloat16 on a GPU that has it and float32 elsewhere, or ``float32``, ``bfloat16``, ``float16``.
    device : torch.device
        Where to compute.

    Returns
    -------
    torch.dtype
        The type.

    Raises
    ------
    UserError
        If the name is unknown.
    """
    if name == AUTO:
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    if name not in PRECISIONS:
        raise unknown_name("precision", name, [AUTO, *PRECISIONS])
    return PRECISIONS[name]
