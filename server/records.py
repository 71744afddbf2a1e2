"""Classifiers, networks and uploads as the records that Flower carries."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, RecordDict

from fedcof import UserError
from fedcof.heads.classifier import Classifier
from fedcof.heads.trainable import Network
from fedcof.run.protocol import PACKED, PACKED_TYPE, tag_of
from fedcof.wire.codec import Sent
from fedcof.wire.packing import unpack_arrays

# numpy's letters for whole numbers, fractions and truth values.
REAL_NUMBERS = "iufb"


def classifier_to_arrays(classifier: Classifier) -> ArrayRecord:
    """Write a classifier as the arrays of a Flower model.

    Parameters
    ----------
    classifier : Classifier
        Of whichever kind.

    Returns
    -------
    ArrayRecord
        Its parameters by name; a linear one has ``weight`` (C, d) float32, ``bias`` (C,) float32 and ``present``
        (C,) bool.
    """
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in classifier.tensors().items()})


def network_to_arrays(network: Network) -> ArrayRecord:
    """Write a network as the arrays of a Flower model.

    Parameters
    ----------
    network : Network
        Any.

    Returns
    -------
    ArrayRecord
        What trains, as :meth:`fedcof.heads.trainable.Network.to_arrays` names it.
    """
    return ArrayRecord({name: Array(array) for name, array in network.to_arrays().items()})


def sent_in(content: RecordDict) -> Sent:
    """Take an upload out of a reply; raises UserError if there is none, or it is no arrays.

    Earlier versions, and clients that somebody else wrote, send each array as one of Flower's own.
    """
    tagged = [(tag_of(name), record) for name, record in content.array_records.items()]
    tag, record = next(((tag, record) for tag, record in tagged if tag is not None), ("", ArrayRecord()))
    if PACKED in record and record[PACKED].stype == PACKED_TYPE:
        if len(record) > 1:
            raise UserError("it sent arrays beside its packed ones")
        return Sent(unpack_arrays(record[PACKED].data), tag)
    try:
        arrays = {key: record[key].numpy() for key in record}
    except Exception as error:
        # Anything may be raised by numpy's reader on bytes that a stranger has made.
        raise UserError(f"its arrays cannot be read ({type(error).__name__}: {error})") from error
    for key, array in arrays.items():
        if array.dtype.kind not in REAL_NUMBERS:
            raise UserError(f"its arrays cannot be read ({key} holds {array.dtype}, which no codec writes)")
    return Sent(arrays, tag)
