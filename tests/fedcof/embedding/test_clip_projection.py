"""Linear maps of CLIP features: a transcription of IsoCLIP in float64, and what reduced coordinates keep."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.embedding.clip_projection import CLIP_PROJECTIONS, projection_matrix, published_cut


def drawn(d, w, k, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(d, k, generator=generator), torch.randn(w, k, generator=generator)


def transcribed(image, text, top, bottom):
    """U_S U_S^T P_i, entry by entry as the formula has it."""
    image, text = image.double().numpy(), text.double().numpy()
    shared = np.zeros((len(image), len(text)))
    for row in range(len(image)):
        for column in range(len(text)):
            shared[row, column] = sum(image[row, i] * text[column, i] for i in range(image.shape[1]))
    left, _, _ = np.linalg.svd(shared)
    rank = min(*image.shape, len(text))
    total = np.zeros((len(image), len(image)))
    for column in range(top, rank - bottom):
        total += np.outer(left[:, column], left[:, column])
    return total @ image


@given(d=st.integers(2, 9), w=st.integers(2, 9), k=st.integers(2, 9), seed=st.integers(0, 99), cuts=st.data())
def test_isoclip_is_the_formula_in_reduced_coordinates(d, w, k, seed, cuts):
    image, text = drawn(d, w, k, seed)
    rank = min(d, w, k)
    top = cuts.draw(st.integers(0, rank - 1))
    bottom = cuts.draw(st.integers(0, rank - 1 - top))
    matrix = projection_matrix("iso", image, text, top, bottom)
    assert matrix.shape == (d, rank - top - bottom)
    assert matrix.dtype == torch.float64
    naive = transcribed(image, text, top, bottom)
    features = np.random.default_rng(seed).normal(size=(5, d))
    whole, reduced = features @ naive, features @ matrix.numpy()
    assert np.allclose(whole @ whole.T, reduced @ reduced.T, atol=1e-8)


@given(d=st.integers(2, 9), w=st.integers(2, 9), k=st.integers(2, 9), seed=st.integers(0, 99))
def test_columns_are_orthogonal_and_fall_in_length_and_have_one_sign(d, w, k, seed):
    matrix = projection_matrix("iso", *drawn(d, w, k, seed), top=1)
    gram = (matrix.T @ matrix).numpy()
    assert np.allclose(gram, np.diag(np.diag(gram)), atol=1e-8)
    assert (np.diff(np.diag(gram)) <= 1e-8).all()
    assert (matrix.gather(0, matrix.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_nothing_left_out_of_a_square_projector_keeps_all_inner_products():
    image, text = drawn(6, 8, 6)
    matrix = projection_matrix("iso", image, text)
    full = projection_matrix("full", image)
    assert torch.allclose(matrix @ matrix.T, full @ full.T, atol=1e-8)


def test_none_and_full_are_the_identity_and_the_projector():
    image, text = drawn(6, 8, 4)
    assert torch.equal(projection_matrix("none", image, text), torch.eye(6, dtype=torch.float64))
    assert torch.equal(projection_matrix("full", image, text), image.double())
    assert projection_matrix("full", image).data_ptr() != image.data_ptr()


def test_means_may_be_projected_after_they_were_taken():
    image, text = drawn(6, 8, 4)
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)).double()
    for kind in CLIP_PROJECTIONS:
        matrix = projection_matrix(kind, image, text, *((1, 1) if kind == "iso" else ()))
        assert torch.allclose((features @ matrix).mean(dim=0), features.mean(dim=0) @ matrix)
        assert torch.allclose(torch.cov((features @ matrix).T), matrix.T @ torch.cov(features.T) @ matrix)


@pytest.mark.parametrize(("top", "bottom"), [(2, 2), (4, 0), (0, 9), (-1, 1), (1, -1)])
def test_cuts_that_leave_nothing_or_are_none_are_one_sentence(top, bottom):
    with pytest.raises(UserError, match="Of the 4 directions that images and texts share"):
        projection_matrix("iso", *drawn(6, 8, 4), top, bottom)


def test_an_unknown_kind_and_projectors_of_two_spaces_are_refused():
    image, text = drawn(6, 8, 4)
    with pytest.raises(UserError, match="Unknown projection 'half': choose one of full, none, iso"):
        projection_matrix("half", image, text)
    for other in (None, text[:, :3]):
        with pytest.raises(ValueError, match="ends in the space of the image projector"):
            projection_matrix("iso", image, other)


def test_published_cuts_leave_directions_in():
    assert published_cut("ViT-B-32-quickgelu", "openai") == (150, 50)
    assert published_cut("ViT-L-14-quickgelu", "openai") == (250, 200)
    assert published_cut("ViT-B-16", "datacomp_xl_s13b_b90k") == (100, 100)
    assert published_cut("ViT-B-16", "laion2b_s34b_b88k") is None
