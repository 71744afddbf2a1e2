"""What is said of classes: a template, a set by name, and neither."""

import pytest

from fedcof import UserError
from fedcof.embedding.prompts import CLIP_7, DEFAULT_TEMPLATES, TEMPLATE_SETS, prompts, templates


def test_a_template_says_one_thing():
    assert templates("a photo of a {}") == ("a photo of a {}",)
    assert prompts("the {}, a {}, in {0} and {x}", "sea_horse") == ["the sea horse, a sea horse, in {0} and {x}"]


def test_a_set_says_each_of_its_templates():
    assert DEFAULT_TEMPLATES == CLIP_7
    said = prompts(CLIP_7, "teapot")
    assert len(said) == len(set(said)) == 7
    assert said[0] == "itap of a teapot."
    assert all("{}" in template for known in TEMPLATE_SETS.values() for template in known)


def test_the_seven_are_those_of_open_clip():
    open_clip = pytest.importorskip("open_clip")
    assert prompts(CLIP_7, "teapot") == [said("teapot") for said in open_clip.SIMPLE_IMAGENET_TEMPLATES]


@pytest.mark.parametrize("chosen", ["a photo", "clip-8", ""])
def test_neither_is_one_sentence(chosen):
    with pytest.raises(UserError, match=r"has no \{\} where a class's name goes.*clip-7"):
        prompts(chosen, "teapot")
