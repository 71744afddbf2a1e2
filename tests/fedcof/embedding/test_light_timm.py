"""What a backbone imports: no compiler; which is there for whoever asks for it."""

import subprocess
import sys

LIGHT = """
import sys
import torch

from fedcof.embedding.backbones import load_backbone

load_backbone("test_efficientnet", 32, "none").module(torch.zeros(1, 3, 32, 32))
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "triton", "sympy"))]
"""

COMPILED = """
import torch
from torchvision.ops import roi_align

from fedcof.embedding.light_timm import timm

marked = timm.layers.typing.disable_compiler(lambda value: value + 1)
assert marked(1) == 2
assert getattr(timm.layers.typing.disable_compiler(recursive=False)(len), "__name__", "") == "len"
torch.use_deterministic_algorithms(True)
boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]
assert roi_align(torch.ones(1, 1, 8, 8), boxes, 2).shape == (1, 1, 2, 2)
import torch._dynamo

assert torch._dynamo.utils.is_compile_supported("cpu") in (True, False)
assert torch.compiler.disable.__module__.startswith("torch")
"""


def test_embedding_imports_no_compiler():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_the_compiler_is_there_when_it_is_called_for():
    subprocess.run([sys.executable, "-c", COMPILED], check=True)
