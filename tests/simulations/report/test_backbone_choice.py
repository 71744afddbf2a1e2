"""Which backbone the class statistics choose is said once a setting, beside the most accurate."""

from dataclasses import replace

import pytest

from fedcof.run.results import append_result
from simulations.report.backbone_choice import backbone_sentences_of
from simulations.report.writing import write_report
from tests.simulations.report.test_report import page_rows, run

LITE, RESNET = "tf_efficientnet_lite0", "resnet18"


def scored(backbone, accuracy, correlation, likelihood=None, **values):
    plain = run(accuracy=accuracy, backbone=backbone, **values)
    return replace(plain, label_correlation=correlation, leave_one_out_likelihood=likelihood)


def test_each_score_picks_one_and_the_most_accurate_is_beside_it():
    sentences = backbone_sentences_of([scored(LITE, 0.6, 0.3, -0.9), scored(RESNET, 0.55, 0.2, -0.7)])
    assert sentences == [
        f"By label correlation the backbone is {LITE} (0.3000 {LITE}, 0.2000 {RESNET}), which is the most "
        "accurate, with 60.00 %.",
        f"By leave-one-out likelihood the backbone is {RESNET} (-0.7000 {RESNET}, -0.9000 {LITE}), with an "
        f"accuracy of 55.00 %; the most accurate is {LITE}, with 60.00 %.",
    ]


def test_seeds_are_averaged():
    runs = [scored(LITE, 0.6, 0.30, seed=0), scored(LITE, 0.6, 0.10, seed=1)]
    runs += [scored(RESNET, 0.5, 0.25, seed=0), scored(RESNET, 0.5, 0.25, seed=1)]
    assert [s.split(" (")[0] for s in backbone_sentences_of(runs)] == [
        f"By label correlation the backbone is {RESNET}"
    ]


def test_settings_are_compared_apart():
    runs = [scored(b, 0.5, c, head=h) for h in ("ridge", "lda") for b, c in ((LITE, 0.1), (RESNET, 0.2))]
    found = backbone_sentences_of(runs)
    assert len(found) == 2
    assert "(fedcof, head ridge)" in found[0]
    assert "(fedcof, head lda)" in found[1]


@pytest.mark.parametrize(
    "runs",
    [
        [scored(LITE, 0.6, 0.3)],
        [scored(LITE, 0.6, 0.3, groups=1), scored(LITE, 0.6, 0.3, groups=2)],
        [scored(LITE, 0.6, 0.3), scored(RESNET, 0.5, None)],
        [scored(LITE, 0.6, 0.3, head="lda"), scored(RESNET, 0.6, 0.3, head="ridge")],
    ],
)
def test_nothing_is_said_of_what_cannot_be_compared(runs):
    assert backbone_sentences_of(runs) == []


def test_weights_are_said_where_the_name_is_not_enough():
    runs = [scored(LITE, 0.6, 0.3), scored(LITE, 0.4, 0.1, weights="none"), scored(RESNET, 0.5, 0.2)]
    (sentence,) = backbone_sentences_of(runs)
    assert f"the backbone is {LITE} with weights pretrained (" in sentence
    assert f"0.1000 {LITE} with weights none" in sentence
    assert f"0.2000 {RESNET}," in sentence


def test_an_unknown_accuracy_is_said_to_be_unknown():
    (sentence,) = backbone_sentences_of([replace(scored(LITE, 0.6, 0.3), accuracy=None), scored(RESNET, 0.5, 0.2)])
    assert sentence.endswith("; whether it is the most accurate is unknown.")


def test_the_report_has_both_numbers_and_the_choice(tmp_path):
    for result in (
        replace(scored(LITE, 0.6, 0.31, -0.95), class_information=12.5),
        scored(RESNET, 0.55, 0.21),
        run("fedncm", accuracy=0.5),
    ):
        append_result(tmp_path, result)
    page = write_report(tmp_path).read_text()
    rows = page_rows(page, "backbones")
    found = {row["backbone"]: (row["label correlation"], row["leave-one-out likelihood, nats"]) for row in rows}
    assert found == {LITE: ("0.3100", "-0.9500"), RESNET: ("0.2100", "\N{EN DASH}")}
    assert f"By label correlation the backbone is {LITE} (" in page
    header, *lines = (tmp_path / "comparison.csv").read_text().splitlines()
    assert header.endswith("label_correlation,leave_one_out_likelihood,class_information,joules,client_joules")
    assert any(line.endswith("0.31,-0.95,12.5,,") for line in lines)
