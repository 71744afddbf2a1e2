"""A client's reply: its arrays come back as they were, in few bytes, which both ends count alike."""

import numpy as np
import pytest
import torch

from clients.reply import NodeRecord, bytes_of_reply, reply_with
from fedcof import class_means
from fedcof.wire.encoding import encode_class_means
from server.federation import serialised_bytes
from server.records import sent_in

# What a client of the digits has on average: about six classes in the default backbone's dimension.
DIM, CLASSES = 1280, 6


def uploads(encoding):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(72) % CLASSES
    features = torch.rand(len(labels), DIM, generator=generator)
    return encode_class_means(class_means(features, labels), encoding, step=0.5 if encoding == "coded" else None)


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "int4", "coded"])
@pytest.mark.parametrize("node", [None, NodeRecord(72, 3, "0" * 64)])
def test_a_reply_is_read_and_counted_as_the_server_does(encoding, node):
    arrays = uploads(encoding)
    reply = reply_with(arrays, f"class-means.{encoding}", node)
    sent = sent_in(reply)
    assert sent.tag == f"class-means.{encoding}"
    assert {name: array.tobytes() for name, array in sent.arrays.items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    assert bytes_of_reply(reply) == serialised_bytes(reply)


def test_an_upload_in_int8_is_a_quarter_of_float32_and_not_a_third():
    sizes = {e: bytes_of_reply(reply_with(uploads(e), f"class-means.{e}")) for e in ("float32", "int8", "coded")}
    assert sizes["int8"] < 0.27 * sizes["float32"]
    numbers = sum(array.nbytes for array in uploads("coded").values())
    assert sizes["coded"] - numbers < 550
    assert np.isclose(sizes["float32"], 4 * DIM * CLASSES, rtol=0.03)
