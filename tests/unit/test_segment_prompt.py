"""Where the subject is, typed as JSON in pixels: every form, and a sentence for everything else."""

import pytest

from dv2_core.segment import Prompt, parse_prompt


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("[32, 12]", Prompt(points=((0.5, 0.25),))),
        ("[[32, 12], [64, 48]]", Prompt(points=((0.5, 0.25), (1.0, 1.0)))),
        ("[16, 12, 48, 36]", Prompt(box=(0.25, 0.25, 0.75, 0.75))),
        ("[0, 0, 64, 48]", Prompt(box=(0.0, 0.0, 1.0, 1.0))),
        ('{"box": [16, 12, 48, 36]}', Prompt(box=(0.25, 0.25, 0.75, 0.75))),
        ('{"points": [[32, 12]], "outside": [[0, 0]]}', Prompt(points=((0.5, 0.25),), outside=((0.0, 0.0),))),
        ('{"box": [16, 12, 48, 36], "points": [[32, 24]]}', Prompt((0.25, 0.25, 0.75, 0.75), ((0.5, 0.5),))),
        (" [31.5, 12.25] ", Prompt(points=((31.5 / 64, 12.25 / 48),))),
    ],
)
def test_every_form_is_read_as_fractions_of_the_picture(text: str, prompt: Prompt) -> None:
    assert parse_prompt(text, 64, 48) == prompt


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not valid JSON"),
        ("[1, 2", "is not valid JSON"),
        ("[" * 20_000, "is not valid JSON"),
        ("32, 12", "is not valid JSON"),
        ("dog", "is not valid JSON"),
        ("7", "is no list of points"),
        ("null", "is no list of points"),
        ('"[1, 2]"', "is no list of points"),
        ("true", "is no list of points"),
        ("[]", "Neither a box nor a point"),
        ("{}", "Neither a box nor a point"),
        ('{"outside": [[1, 2]]}', "Neither a box nor a point"),
        ("[1]", "is no point of 2 numbers"),
        ("[1, 2, 3]", "is no point of 2 numbers"),
        ("[1, 2, 3, 4, 5]", "is no point of 2 numbers"),
        ("[true, false]", "is no point of 2 numbers"),
        ('["1", "2"]', "is no point of 2 numbers"),
        ("[[1, 2], 3]", "is no point of 2 numbers"),
        ("[[1, 2, 3]]", "is no point of 2 numbers"),
        ("[[[1, 2]]]", "is no point of 2 numbers"),
        ("[NaN, 2]", "lies outside the picture of 64x48"),
        ("[Infinity, 2]", "lies outside the picture of 64x48"),
        ("[65, 2]", "The point [65, 2] lies outside the picture of 64x48 pixels"),
        ("[2, -1]", "lies outside the picture"),
        ("[48, 36, 16, 12]", "order it as [x1, y1, x2, y2]"),
        ("[16, 12, 16, 36]", "order it as [x1, y1, x2, y2]"),
        ("[16, 12, 65, 36]", "does not lie in the picture of 64x48 pixels"),
        ("[NaN, 12, 48, 36]", "does not lie in the picture"),
        ('{"box": [1, 2]}', "is no box of 4 numbers"),
        ('{"box": {"x": 1}}', "is no box of 4 numbers"),
        ('{"points": [1, 2]}', "is no point of 2 numbers"),
        ('{"points": 5}', "is no list of points"),
        ('{"box": [16, 12, 48, 36], "negative": []}', "the unknown entry 'negative'"),
        ("[1e400, 2]", "lies outside the picture"),
        ("[" + "9" * 400 + ", 2]", "too large for a position"),
    ],
)
def test_everything_else_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as refusal:
        parse_prompt(text, 64, 48)
    assert sentence in str(refusal.value)
    assert len(str(refusal.value)) < 600


def test_a_prompt_outside_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the canvas"):
        Prompt(box=(0.5, 0.5, 1.5, 0.8))
    with pytest.raises(ValueError, match="outside the picture"):
        Prompt(points=((0.5, 1.01),))
