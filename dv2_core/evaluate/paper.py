"""The numbers that the paper reports (arXiv 2410.13830, Tables 2 to 4), by what of the request the model is given."""

from .judge import PAPER

Row = dict[str, float]


def _joint(*values: float) -> Row:
    return dict(zip(PAPER[:-1], values, strict=True))


def _subject(*values: float) -> Row:
    return dict(zip(("CLIP-T", "CLIP-I", "DINO-I", "T. Cons.", "DD"), values, strict=True))


def _motion(*values: float) -> Row:
    return dict(zip(("CLIP-T", "T. Cons.", "mIoU", "CD"), values, strict=True))


#: Condition -> method -> its values.
ROWS: dict[str, dict[str, Row]] = {
    "boxes + subject": {
        "DreamVideo": _joint(0.289, 0.682, 0.244, 0.692, 0.386, 0.966, 0.169, 0.196),
        "MotionBooth": _joint(0.267, 0.708, 0.301, 0.686, 0.383, 0.970, 0.351, 0.097),
        "DreamVideo-2": _joint(0.303, 0.751, 0.392, 0.694, 0.411, 0.968, 0.670, 0.048),
    },
    "subject only": {
        "DreamVideo": _subject(0.290, 0.714, 0.470, 0.975, 0.592),
        "VideoBooth": _subject(0.274, 0.724, 0.459, 0.970, 0.780),
        "DreamVideo-2": _subject(0.297, 0.721, 0.472, 0.972, 0.952),
    },
    "boxes only": {
        "Peekaboo": _motion(0.318, 0.968, 0.322, 0.117),
        "Direct-a-Video": _motion(0.312, 0.965, 0.355, 0.124),
        "MotionCtrl": _motion(0.321, 0.971, 0.248, 0.122),
        "DreamVideo-2": _motion(0.322, 0.969, 0.752, 0.039),
    },
}
