"""Box plans and the keyframe document: what it evaluates to, and that it comes back from text as it went in."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dv2_core.boxes import BoxPlan, BoxTrack, Keyframe, KeyframePlan, KeyframeTrack, cut, from_keyframes
from dv2_core.boxes.curves import centre
from dv2_core.boxes.keyframe_track import EASINGS

#: Examples are the same in every run, and a slow machine is no failure.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("repeatable")

W, H = 448, 256
A, B, C = (0.1, 0.2, 0.3, 0.6), (0.5, 0.4, 0.9, 0.8), (0.2, 0.5, 0.4, 0.9)
easings = st.sampled_from(sorted(EASINGS))


@st.composite
def boxes(draw: st.DrawFn, low: int = -1000, high: int = 2000) -> tuple[float, float, float, float]:
    """Thousandths of the canvas, at least a hundredth wide and high."""
    x1, y1 = draw(st.integers(low, high - 10)), draw(st.integers(low, high - 10))
    x2, y2 = draw(st.integers(x1 + 10, high)), draw(st.integers(y1 + 10, high))
    return x1 / 1000, y1 / 1000, x2 / 1000, y2 / 1000


@st.composite
def paths(draw: st.DrawFn) -> tuple[tuple[float, float, float], ...]:
    inner = sorted(draw(st.sets(st.integers(1, 999), max_size=4)))
    places = st.integers(-1000, 2000)
    return tuple((u / 1000, draw(places) / 1000, draw(places) / 1000) for u in [0, *inner, 1000])


@st.composite
def tracks(draw: st.DrawFn, length: int, obj_id: str) -> KeyframeTrack:
    frames = sorted(draw(st.sets(st.integers(0, length - 1), min_size=1, max_size=5)))
    keys = [
        Keyframe(t, draw(boxes()), draw(easings), draw(st.booleans()), draw(st.just(()) | paths()))  # type: ignore
        for t in frames
    ]
    label = draw(st.sampled_from(["", "duck", 'Ente \u00fc \u9d28 \u2028 "']))
    return KeyframeTrack(tuple(keys), obj_id, label, draw(st.sampled_from(["linear", "smooth"])))  # type: ignore


@st.composite
def plans(draw: st.DrawFn) -> KeyframePlan:
    length = draw(st.integers(1, 24))
    ids = draw(st.lists(st.sampled_from(["0", "1", "duck", "\u9d28"]), min_size=1, max_size=3, unique=True))
    fps = draw(st.sampled_from([8.0, 23.976024, 30.0]))
    size = draw(st.tuples(st.integers(1, 500), st.integers(1, 500)))
    return KeyframePlan(tuple(draw(tracks(length, i)) for i in ids), *size, length, fps)


def track_of(*keys: Keyframe, interpolation: str = "linear") -> KeyframeTrack:
    return KeyframeTrack(keys, interpolation=interpolation)  # type: ignore[arg-type]


def test_a_plan_has_a_length_and_finds_its_tracks_by_id():
    first, second = BoxTrack((A, B), obj_id="0"), BoxTrack((B, C), obj_id="duck")
    plan = BoxPlan([first, second], W, H)  # type: ignore[arg-type]
    assert (plan.length, plan.fps) == (2, 8.0) and plan.tracks == (first, second)
    assert plan.track() is first and plan.track("duck") is second
    assert plan.resample(5).length == 5 and plan.resample(5).tracks[1] == second.resample(5)
    assert hash(plan) == hash(BoxPlan((first, second), W, H))
    with pytest.raises(FrozenInstanceError):
        plan.width = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BoxPlan((), W, H), ["no tracks"]),
        (lambda: BoxPlan(None, W, H), ["None", "BoxTrack"]),  # type: ignore[arg-type]
        (lambda: BoxPlan((A,), W, H), ["0.1", "BoxTrack"]),  # type: ignore[arg-type]
        (lambda: BoxPlan((BoxTrack((A,)), BoxTrack((A, B), obj_id="1")), W, H), ["'0' has 1", "'1' has 2", "resample"]),
        (lambda: BoxPlan((BoxTrack((A,)), BoxTrack((B,))), W, H), ["two tracks", "'0'", "its own"]),
        (lambda: BoxPlan((BoxTrack((A,), obj_id=""),), W, H), ["track 0", "''"]),
        (lambda: BoxPlan((BoxTrack((A,)),), 0, H), ["width", "0", "at least 1"]),
        (lambda: BoxPlan((BoxTrack((A,)),), W, H, 0), ["0 fps", "0.01"]),
        (lambda: BoxPlan((BoxTrack((A,)),), W, H, math.nan), ["nan fps"]),
        (lambda: BoxPlan((BoxTrack((A,)),), W, H).track("cat"), ["'cat'", "'0'", "first"]),
        (lambda: BoxPlan((BoxTrack((A,)),), W, H).resample(0), ["0 frames"]),
        (lambda: KeyframePlan.from_plan(BoxPlan((BoxTrack((A,)),), W, H), -1), ["-1", "tolerance"]),
    ],
)
def test_bad_plans_are_refused_with_a_sentence(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word.lower() in str(error.value).lower()
    assert str(error.value).endswith(".")


def test_each_easing_follows_its_formula_and_size_is_eased_with_the_centre():
    shares = {"linear": 0.25, "ease-in": 0.0625, "ease-out": 0.4375, "ease-in-out": 0.15625, "hold": 0.0}
    for easing, e in shares.items():
        at = track_of(Keyframe(2, A, easing), Keyframe(10, B)).boxes(12)  # type: ignore[arg-type]
        assert at[4] == pytest.approx([a + (b - a) * e for a, b in zip(A, B, strict=True)])
        assert at[0] == at[1] == at[2] == A and at[10] == at[11] == B


def test_a_path_is_followed_at_its_own_speed_from_centre_to_centre():
    path = ((0.0, 0.9, 0.9), (0.25, 0.5, 0.1), (1.0, 0.0, 0.0))
    at = track_of(Keyframe(0, A, path=path), Keyframe(8, B)).boxes(9)
    assert centre(at[0]) == pytest.approx((0.2, 0.4)) and centre(at[8]) == pytest.approx((0.7, 0.6))
    assert centre(at[1]) == pytest.approx((0.35, 0.25)) and centre(at[2]) == pytest.approx((0.5, 0.1))
    assert centre(at[5]) == pytest.approx((0.6, 0.35))
    assert at[4][2] - at[4][0] == pytest.approx(0.3)


def test_a_smooth_track_is_the_catmull_rom_curve_through_its_keyframes():
    keys = [Keyframe(0, A), Keyframe(4, B), Keyframe(6, C)]
    at = track_of(*keys, interpolation="smooth").boxes(7)
    c0, c1, c2 = (centre(key.box) for key in keys)
    for axis in (0, 1):
        m0, m1 = (c1[axis] - c0[axis]) / 4, (c2[axis] - c0[axis]) / 6
        middle = (c0[axis] + c1[axis]) / 2 + 4 * (m0 - m1) / 8
        assert centre(at[2])[axis] == pytest.approx(middle)
    straight = track_of(keys[0], keys[1], interpolation="smooth").boxes(5)
    assert straight[2] == pytest.approx([(a + b) / 2 for a, b in zip(A, B, strict=True)])


def test_visibility_holds_from_its_keyframe_to_the_next():
    track = track_of(Keyframe(1, A, visible=False), Keyframe(3, B), Keyframe(5, C, visible=False))
    assert track.visible(7) == [False, False, False, True, True, False, False]
    assert track.evaluate(7, W, H).visible == tuple(track.visible(7))


def test_what_leaves_the_canvas_is_cut_and_hidden_under_half_a_pixel():
    assert cut((-0.5, 0.25, 0.5, 1.5), 100, 100) == ((0.0, 0.25, 0.5, 1.0), True)
    assert cut((-0.5, 0.2, -0.1, 0.4), 100, 100) == ((0.0, 0.2, 0.01, 0.4), False)
    (x1, y1, x2, y2), shown = cut((0.1, 1.2, 0.3, 1.4), 100, 50)
    assert not shown and (x1, x2, y2) == (0.1, 0.3, 1.0) and y1 == pytest.approx(0.98)
    assert cut((-0.5, 0.2, 0.004, 0.4), 100, 100) == ((0.0, 0.2, 0.01, 0.4), False)
    assert cut((-0.5, 0.2, 0.005, 0.4), 100, 100)[1] is True
    assert cut((-1.0, -1.0, 2.0, 2.0), 7, 5) == ((0.0, 0.0, 1.0, 1.0), True)


def test_a_box_that_is_thinner_than_half_a_pixel_counts_as_outside():
    (x1, _, x2, _), shown = cut((0.5, 0.2, 0.5004, 0.4), 100, 100)
    assert not shown and (x1, x2) == pytest.approx((0.4952, 0.5052))


@given(box=boxes(), width=st.integers(1, 600), height=st.integers(1, 600))
def test_a_cut_box_is_inside_the_canvas_within_the_box_and_at_least_half_a_pixel(box, width, height):
    inside, shown = cut(box, width, height)
    assert BoxTrack((inside,)).boxes == (inside,)
    assert (inside[2] - inside[0]) * width >= 0.5 - 1e-9 and (inside[3] - inside[1]) * height >= 0.5 - 1e-9
    if shown:
        assert inside == (max(box[0], 0), max(box[1], 0), min(box[2], 1), min(box[3], 1))


@given(plan=plans())
def test_a_document_comes_back_from_text_as_it_went_in(plan):
    text = plan.to_json()
    assert KeyframePlan.from_json(text) == plan
    assert KeyframePlan.from_json(text).to_json() == text


@given(plan=plans())
def test_every_document_evaluates_to_boxes_on_the_canvas_and_hits_its_keyframes(plan):
    evaluated = plan.evaluate()
    assert (evaluated.length, evaluated.width, evaluated.fps) == (plan.length, plan.width, plan.fps)
    for track, result in zip(plan.tracks, evaluated.tracks, strict=True):
        assert (result.obj_id, result.label, result.length) == (track.obj_id, track.label, plan.length)
        assert all(0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 for x1, y1, x2, y2 in result.boxes)
        for key in track.keyframes:
            inside, shown = cut(key.box, plan.width, plan.height)
            assert result.boxes[key.frame] == inside and result.visible[key.frame] == (shown and key.visible)


@given(box=boxes(), easing=easings, path=paths(), span=st.integers(2, 12))
def test_time_only_runs_forwards(box, easing, path, span):
    way = ((0.0, 0.0, 0.5), *((u, u, 0.5) for u, _, _ in path[1:-1]), (1.0, 1.0, 0.5))
    ends = Keyframe(0, (-0.1, 0.4, 0.1, 0.6), easing, path=way), Keyframe(span, (0.9, 0.4, 1.1, 0.6))
    middles = [centre(box)[0] for box in track_of(*ends).boxes(span + 1)]
    assert middles == sorted(middles) and middles[0] == 0 and middles[-1] == pytest.approx(1)


@given(plan=plans())
def test_a_plan_as_keyframes_is_the_same_plan(plan):
    evaluated = plan.evaluate()
    again = KeyframePlan.from_plan(evaluated)
    for track, same in zip(evaluated.tracks, again.evaluate().tracks, strict=True):
        assert same.visible == track.visible and (same.obj_id, same.label) == (track.obj_id, track.label)
        for old, new in zip(track.boxes, same.boxes, strict=True):
            assert new == pytest.approx(old, abs=2e-6)


def test_keyframes_of_a_plan_are_only_where_the_motion_turns():
    found = {0: A, 40: B, 41: B, 90: C}
    plan = BoxPlan((from_keyframes(found, 100),), W, H)
    keys = KeyframePlan.from_plan(plan).tracks[0].keyframes
    assert [key.frame for key in keys] == [0, 40, 41, 90, 99]
    shaky = BoxTrack(tuple((0.1 + 0.001 * (t % 2), 0.2, 0.5, 0.6) for t in range(20)))
    assert len(KeyframePlan.from_plan(BoxPlan((shaky,), W, H)).tracks[0].keyframes) == 20
    assert len(KeyframePlan.from_plan(BoxPlan((shaky,), W, H), tolerance=0.002).tracks[0].keyframes) == 2


def test_a_subject_that_hides_in_the_middle_of_a_straight_motion_gets_keyframes_there():
    shown = tuple(t not in (4, 5, 6) for t in range(12))
    track = BoxTrack(from_keyframes({0: A, 11: B}, 12).boxes, shown)
    plan = KeyframePlan.from_plan(BoxPlan((track,), W, H))
    assert [(key.frame, key.visible) for key in plan.tracks[0].keyframes] == [
        (0, True),
        (4, False),
        (7, True),
        (11, True),
    ]
    assert plan.evaluate().tracks[0].visible == shown


@given(plan=plans(), tolerance=st.sampled_from([0.0, 0.003, 0.05]))
def test_simplified_keyframes_stay_within_the_tolerance(plan, tolerance):
    evaluated = plan.evaluate()
    again = KeyframePlan.from_plan(evaluated, tolerance).evaluate()
    for track, same in zip(evaluated.tracks, again.tracks, strict=True):
        for old, new in zip(track.boxes, same.boxes, strict=True):
            assert max(abs(a - b) for a, b in zip(old, new, strict=True)) <= tolerance + 1e-9


def test_the_text_is_compact_and_leaves_defaults_out():
    plan = KeyframePlan((track_of(Keyframe(0, (0.0, 1 / 3, 0.5, 1.0))),), W, H, 16)
    assert plan.to_json() == (
        '{"version":1,"width":448,"height":256,"length":16,"fps":8,"tracks":[{"id":"0","keyframes":'
        '[{"frame":0,"box":[0,0.333333,0.5,1]}]}]}'
    )


def test_points_of_a_path_that_six_digits_cannot_tell_apart_are_written_once():
    path = (
        (0.0, 0.2, 0.4),
        (1e-7, 0.3, 0.3),
        (0.5, 0.4, 0.4),
        (0.5 + 1e-7, 0.5, 0.5),
        (1 - 1e-7, 0.6, 0.6),
        (1.0, 0.7, 0.6),
    )
    text = KeyframePlan((track_of(Keyframe(0, A, path=path), Keyframe(3, B)),), W, H, 4).to_json()
    assert '"path":[[0,0.2,0.4],[0.5,0.4,0.4],[1,0.7,0.6]]' in text
    assert KeyframePlan.from_json(text).to_json() == text


def test_defaults_may_be_written_out():
    key = {"frame": 0, "box": list(A), "easing": "linear", "visible": True}
    track = {"id": "0", "label": "", "interpolation": "linear", "keyframes": [key]}
    text = json.dumps({"version": 1, "width": W, "height": H, "length": 4, "fps": 8, "tracks": [track]})
    assert KeyframePlan.from_json(text) == KeyframePlan((track_of(Keyframe(0, A)),), W, H, 4)


@given(new=st.integers(2, 60), plan=plans())
def test_resampling_a_plan_keeps_its_first_and_last_boxes(new, plan):
    evaluated = plan.evaluate()
    for track, stretched in zip(evaluated.tracks, evaluated.resample(new).tracks, strict=True):
        assert stretched.length == new and stretched.boxes[0] == track.boxes[0]
        assert stretched.boxes[-1] == track.boxes[-1]
