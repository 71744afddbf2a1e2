"""What is known of the images to come, in predictions and in what leaves as an export."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from fedcof import UserError
from fedcof.run.results import append_result
from simulations.export import export
from simulations.narrowing import NOTHING, Narrowing
from simulations.prediction import predict
from tests.simulations.test_prediction import odd_images, quadratic_run, saved_run


@pytest.fixture
def saved(tmp_path):
    run, head, backbone = saved_run(tmp_path)
    run = replace(run, nats_per_score=0.5)
    append_result(tmp_path, run)
    np.savez(tmp_path / "federation.npz", counts=np.array([[1, 0, 7], [0, 0, 0]]))
    return run, head, backbone


def scores_of(folder, run, known, paths):
    return [dict(found.classes) for found in predict(folder, run, paths, known)]


def test_a_client_predicts_by_its_own_frequencies(tmp_path, saved):
    run, *_ = saved
    paths = odd_images(tmp_path)[:3]
    (tmp_path / "counts.txt").write_text("ant 1\ncat 7\n")
    before = scores_of(tmp_path, run, NOTHING, paths)
    for known in (Narrowing(client=0), Narrowing(frequencies=tmp_path / "counts.txt")):
        for found, scores in zip(scores_of(tmp_path, run, known, paths), before, strict=True):
            expected = {
                name: scores[name] + np.log(share) / 0.5 for name, share in (("ant", 1 / 8), ("cat", 7 / 8))
            }
            assert found == pytest.approx(expected, rel=1e-4)


def test_only_some_classes_leave_with_the_model(tmp_path, saved):
    onnxruntime = pytest.importorskip("onnxruntime")
    run, _, backbone = saved
    paths = odd_images(tmp_path)[:3]
    known = Narrowing(classes="cat,ant")
    export(tmp_path, "timm", known=known)
    export(tmp_path, "onnx", known=known)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (of_onnx,) = session.run(["scores"], {"images": images.numpy()})
    with torch.inference_mode():
        expected = known.classifier(tmp_path, run).scores(backbone.module(images))
        of_timm = model(images)
    for scores in (of_timm, torch.from_numpy(of_onnx)):
        torch.testing.assert_close(scores[:, [0, 2]], expected[:, [0, 2]], rtol=1e-3, atol=1e-3)
        assert (scores[:, 1] < -50_000).all()
    assert all(set(found) == {"ant", "cat"} for found in scores_of(tmp_path, run, known, paths))


def test_a_prior_leaves_with_a_quadratic_head(tmp_path):
    run, backbone = quadratic_run(tmp_path, "none")
    append_result(tmp_path, replace(run, nats_per_score=2.0))
    (tmp_path / "counts.txt").write_text("ant 1\nbee 3\n")
    known = Narrowing(frequencies=tmp_path / "counts.txt")
    export(tmp_path, "timm", known=known)
    features = torch.rand(5, backbone.feature_dim, generator=torch.Generator().manual_seed(0))
    found = torch.export.load(tmp_path / "timm" / "head.pt2").module()(features)
    whole = NOTHING.classifier(tmp_path, run).scores(features)[:, :2]
    expected = whole + torch.tensor([1 / 4, 3 / 4]).log() / 2.0
    torch.testing.assert_close(found[:, :2], expected, rtol=1e-4, atol=1e-4)
    assert (found[:, 2:] < -1e29).all()


def test_what_cannot_be_known_is_one_sentence(tmp_path, saved, fedcof):
    run, *_ = saved
    (image, *_) = odd_images(tmp_path)
    for arguments, sentence in [
        (["--classes", "dog"], "no class 'dog'"),
        (["--classes", ""], "names none"),
        (["--client", "2"], "There is no client 2: give a number from 0 to 1"),
        (["--client", "1"], "Client 1 has no sample"),
        (["--frequencies", tmp_path / "none.txt"], "There is no file"),
        (["--client", "0", "--classes", "ant"], "each say which classes there are: give one"),
    ]:
        code, error = fedcof("predict", tmp_path, image, *arguments)
        assert (code, sentence in error) == (2, True), error
        assert fedcof("export", tmp_path, *arguments) == (code, error)
    with pytest.raises(UserError, match="kept no scale of its scores"):
        Narrowing(client=0).classifier(tmp_path, replace(run, nats_per_score=None))
    (tmp_path / "federation.npz").unlink()
    with pytest.raises(UserError, match="where a simulation keeps who held what"):
        Narrowing(client=0).classifier(tmp_path, run)
