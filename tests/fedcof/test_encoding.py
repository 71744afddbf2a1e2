"""Uploads as arrays: the round trip, and arrays that are none."""

import numpy as np
import pytest
import torch

from fedcof import UserError, class_means
from fedcof.encoding import decode_class_means, encode_class_means


def test_float32_is_lossless():
    upload = class_means(torch.randn(30, 5), torch.arange(30) % 4)
    back = decode_class_means(encode_class_means(upload))
    assert torch.equal(back.class_ids, upload.class_ids)
    assert torch.equal(back.counts, upload.counts)
    assert torch.equal(back.means, upload.means)


def test_bad_arrays_are_refused():
    arrays = encode_class_means(class_means(torch.randn(6, 2), torch.arange(6) % 3))
    with pytest.raises(UserError, match="lacks means"):
        decode_class_means({name: array for name, array in arrays.items() if name != "means"})
    with pytest.raises(UserError, match="finite"):
        decode_class_means({**arrays, "means": np.full((3, 2), np.nan, dtype=np.float32)})
    with pytest.raises(UserError, match="Unknown encoding 'int3'"):
        encode_class_means(class_means(torch.randn(6, 2), torch.arange(6) % 3), "int3")
