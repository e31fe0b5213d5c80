"""The editor's arithmetic in the page (web/js) is that of dv2_core.boxes: Node runs the very files the page loads."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dv2_core.boxes import Keyframe, KeyframePlan, KeyframeTrack
from tests.unit.test_boxes_malformed_keyframes import GOOD, MALFORMED, TEXT, changed, places

WEB = Path(__file__).resolve().parents[2] / "web" / "js"
EASINGS = ("linear", "ease-in", "ease-out", "ease-in-out", "hold")
MODULES = ("keyframes", "keyframe_text", "edits", "state")
CANVAS = dict(width=64, height=48)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory):
    """Runs a function's body in Node, with the editor's modules and ``given`` at hand; gives back what it returns."""
    folder = tmp_path_factory.mktemp("web")
    for name in (f"{module}.js" for module in MODULES):
        shutil.copy(WEB / name, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    program = os.environ.get("DV2_NODE") or shutil.which("node") or "node"

    def run(body: str, given: Any = None) -> Any:
        imports = "".join(f'import * as {n} from "./{n}.js";' for n in MODULES)
        (folder / "given.json").write_text(json.dumps(given))
        (folder / "main.js").write_text(
            f'import {{ readFileSync }} from "node:fs"; {imports}\n'
            'const given = JSON.parse(readFileSync(new URL("given.json", import.meta.url)));\n'
            f"const result = (() => {{ {body} }})();\nconsole.log(JSON.stringify(result ?? null));"
        )
        done = subprocess.run([program, folder / "main.js"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def random_plan(seed: int) -> KeyframePlan:
    """Every easing, both interpolations, paths, hidden keyframes, boxes that leave the canvas."""
    random_ = random.Random(seed)
    length = random_.choice((1, 2, 5, 16, 33))
    tracks = []
    for i in range(random_.randint(1, 3)):
        frames = sorted(random_.sample(range(length), random_.randint(1, min(length, 5))))
        keys = []
        for frame in frames:
            x, y = random_.uniform(-0.9, 1.2), random_.uniform(-0.9, 1.2)
            box = (x, y, x + random_.uniform(0.001, 0.7), y + random_.uniform(0.001, 0.7))
            inner = sorted(round(random_.uniform(0.01, 0.99), 3) for _ in range(random_.randint(0, 4)))
            inner = [u for u, before in zip(inner, [0.0, *inner], strict=False) if u - before > 0.001]
            path = tuple((u, random_.random(), random_.random()) for u in (0.0, *inner, 1.0))
            easing: Any = random_.choice(EASINGS)
            keys.append(Keyframe(frame, box, easing, random_.random() < 0.8, path if random_.random() < 0.4 else ()))
        tracks.append(KeyframeTrack(tuple(keys), str(i), f"té{i}" * (i % 2), random_.choice(("linear", "smooth"))))
    return KeyframePlan(tuple(tracks), random_.choice((64, 448)), random_.choice((64, 255)), length, 8.0)


def key(frame: int, box: list[float], **more: Any) -> dict[str, Any]:
    return {"frame": frame, "box": box, **more}


def document(*tracks: list[dict[str, Any]], length: int = 9) -> str:
    entries = [{"id": str(i), "keyframes": keys} for i, keys in enumerate(tracks)]
    return json.dumps({"version": 1, **CANVAS, "length": length, "fps": 8, "tracks": entries})


def test_the_page_moves_boxes_between_keyframes_as_python_does_to_1e_9(node):
    texts = [random_plan(seed).to_json() for seed in range(150)]
    seen = node("return given.map((text) => keyframes.evaluate(keyframe_text.fromJson(text)));", texts)
    edges = 0
    for text, tracks in zip(texts, seen, strict=True):
        expected = KeyframePlan.from_json(text).evaluate().tracks
        assert len(tracks) == len(expected)
        for track, other in zip(tracks, expected, strict=True):
            assert tuple(track["visible"]) == other.visible, text
            for box, expected_box in zip(track["boxes"], other.boxes, strict=True):
                assert box == pytest.approx(expected_box, rel=0, abs=1e-9), text
                edges += 4
    assert edges > 5000


def test_what_the_page_saves_is_what_python_reads_and_saves(node):
    texts = [random_plan(seed).to_json() for seed in range(40)]
    saved = node("return given.map((text) => keyframe_text.toJson(keyframe_text.fromJson(text)));", texts)
    for text, again in zip(texts, saved, strict=True):
        assert json.loads(again) == json.loads(text)
        assert KeyframePlan.from_json(again) == KeyframePlan.from_json(text)


def test_the_page_refuses_the_very_documents_that_python_refuses(node):
    """Each place of a document spoiled in many ways, each character left out, and the malformed ones by hand."""
    spoiled: list[Any] = [
        None, True, False, -1, 0, 1, 2, 7, 9, 16, 17, 10**6, 10**18, 0.0, 0.5, 1.0, 1.5, -0.999999, 1e-7, 2.0000001,
        3.5, "", "0", "1", "hold", "smooth", "Linear", [], {}, [0, 0, 1, 1], [[0, 0, 0], [1, 1, 1]], [0.5, 0.5, 0.5],
        {"a": 1},
    ]  # fmt: skip
    texts = [changed(*place, to=bad) for place in places(GOOD) for bad in spoiled]
    texts += [changed(*place) for place in places(GOOD)]
    texts += [TEXT[:i] + TEXT[i + 1 :] for i in range(len(TEXT))]
    texts += [text for text, _ in MALFORMED] + [random_plan(seed).to_json() for seed in range(20)]
    texts += [TEXT.replace("448", number) for number in ("448.0", "4.48e2", "4480e-1", "-0", "0448", "9" * 19)]
    texts += [TEXT.replace('"id": "1"', f'"id": {name}') for name in ('"\\u0030"', '"a\\"b:"', '"{", "id": "x"')]
    refused = node(
        """
        return given.map((text) => {
          try {
            keyframe_text.fromJson(text);
            return "";
          } catch (error) {
            return error.message;
          }
        });
        """,
        texts,
    )
    for text, sentence in zip(texts, refused, strict=True):
        assert bool(sentence) == bool(python_refusal(text)), (text[:500], sentence, python_refusal(text))
        if sentence:
            assert sentence[0].isupper() and sentence.endswith(".") and len(sentence) < 400 and "\n" not in sentence
    assert 100 < refused.count("") < len(texts) / 2


def python_refusal(text: str) -> str:
    try:
        KeyframePlan.from_json(text)
    except ValueError as error:
        return str(error)
    return ""


def test_a_new_keyframe_on_a_drawn_path_or_a_straight_way_changes_no_frame(node):
    start, end = [0.1, 0.1, 0.3, 0.3], [0.6, 0.5, 0.9, 0.9]
    path = [[0, 0.2, 0.2], [0.3, 0.5, 0.1], [0.6, 0.4, 0.9], [1, 0.75, 0.7]]
    text = document([key(0, start, path=path), key(8, end)], [key(0, start), key(8, end)])
    before, after = node(
        "const plan = keyframe_text.fromJson(given);"
        "const cut = [0, 1].reduce((p, i) => edits.addKeyframe(p, i, 3), plan);"
        "return [keyframes.evaluate(plan), keyframes.evaluate(cut)].map((ts) => ts.map((t) => t.boxes.flat()));",
        text,
    )
    for old, new in zip(before, after, strict=True):
        assert new == pytest.approx(old, abs=1e-9)


def test_a_drawn_path_keeps_the_speed_of_the_hand_within_a_pixel(node):
    """Slow first, then fast: half of the time for a tenth of the way."""
    samples = [[10 * i, 0.2 + (0.06 * i / 50 if i <= 50 else 0.06 + 0.54 * (i - 50) / 50), 0.5] for i in range(101)]
    text = document([key(0, [0.1, 0.4, 0.3, 0.6])], length=21)
    document_text, uncut = node(
        "const plan = edits.setPath(keyframe_text.fromJson(given.text), 0, 0, given.samples);"
        "return [keyframe_text.toJson(plan), keyframes.evaluate(plan)[0].uncut];",
        {"text": text, "samples": samples},
    )
    centres = [(box[0] + box[2]) / 2 for box in uncut]
    assert centres[0] == pytest.approx(0.2) and centres[20] == pytest.approx(0.8)
    for frame, centre in enumerate(centres):
        assert abs(centre - samples[frame * 5][1]) * CANVAS["width"] < 1
    plan = KeyframePlan.from_json(document_text)
    assert [k.frame for k in plan.tracks[0].keyframes] == [0, 20]
    assert len(plan.tracks[0].keyframes[0].path) == 3  # of 101 samples


def test_another_length_stretches_the_motion_or_keeps_its_timing_and_python_reads_both(node):
    text = document([key(0, [0, 0, 0.2, 0.2]), key(8, [0.8, 0.8, 1, 1])], length=9)
    stretched, cut, longer = (
        KeyframePlan.from_json(result)
        for result in node(
            "const plan = keyframe_text.fromJson(given);"
            "return [edits.stretch(plan, 5), edits.trim(plan, 5), edits.trim(plan, 20)].map(keyframe_text.toJson);",
            text,
        )
    )
    assert [k.frame for k in stretched.tracks[0].keyframes] == [0, 4] and stretched.length == 5
    assert stretched.tracks[0].keyframes[1].box == (0.8, 0.8, 1, 1)
    assert [k.frame for k in cut.tracks[0].keyframes] == [0, 4] and cut.length == 5
    assert cut.tracks[0].keyframes[1].box == pytest.approx((0.4, 0.4, 0.6, 0.6))
    assert [k.frame for k in longer.tracks[0].keyframes] == [0, 8] and longer.length == 20


def test_every_edit_leaves_a_document_that_python_reads(node):
    texts = node(
        """
        const plan = keyframe_text.fromJson(given);
        const out = [
          edits.addTrack(plan, 4, [0.1, 0.1, 0.2, 0.2]),
          edits.setBox(plan, 0, 2, [-0.9, -0.9, -0.5, -0.5]),
          edits.setBox(plan, 0, 8, [1.5, 1.5, 1.9, 1.9]),
          edits.removeKeyframe(plan, 0, 4), edits.removeKeyframe(plan, 0, 8),
          edits.moveKeyframe(plan, 0, 4, 100)[0], edits.moveKeyframe(plan, 0, 4, -5)[0],
          edits.stretch(plan, 2), edits.trim(plan, 3), edits.addKeyframe(plan, 0, 7),
          edits.changeKeyframe(plan, 0, 4, { visible: false, easing: "hold" }),
        ];
        return out.map(keyframe_text.toJson);
        """,
        document([key(0, [0, 0, 0.2, 0.2]), key(4, [0.4, 0, 0.6, 0.2], path=[[0, 0, 0], [0.5, 0.9, 0.9], [1, 1, 1]]),
                  key(8, [0.8, 0.8, 1, 1])]),
    )  # fmt: skip
    plans = [KeyframePlan.from_json(text) for text in texts]
    frames = [[k.frame for k in plan.tracks[0].keyframes] for plan in plans]
    assert frames[5] == [0, 7, 8] and frames[6] == [0, 1, 8]  # a keyframe stays between its neighbours
    assert [track.obj_id for track in plans[0].tracks] == ["0", "1"]


def test_no_chain_of_edits_makes_a_document_that_python_refuses(node):
    """Boxes thrown far out of the canvas, paths through them, keyframes in the middle of paths, other lengths."""
    texts = node(
        """
        let seed = 7;
        const random = (low, high) => { // Park and Miller's generator
          seed = (seed * 48271) % 2147483647;
          return low + ((high - low) * seed) / 2147483647;
        };
        const whole = (high) => Math.floor(random(0, high));
        const editor = new state.EditorState();
        const box = () => {
          const [x, y] = [random(-3, 3), random(-3, 3)];
          return [x, y, x + random(1e-7, 2), y + random(1e-7, 2)];
        };
        const stroke = () => {
          let time = 0;
          return Array.from({ length: 2 + whole(40) }, () => [time += whole(3), random(-0.9, 1.9), random(-0.9, 1.9)]);
        };
        const seen = [];
        for (let i = 0; i < 400; i++) {
          const plan = editor.shown;
          const [t, frame] = [whole(plan.tracks.length), whole(plan.length)];
          const key = plan.tracks[t]?.keyframes[0].frame;
          const changes = [
            () => edits.addTrack(plan, frame, box()), () => edits.setBox(plan, t, frame, box()),
            () => edits.setBox(plan, t, frame, box()), () => edits.setPath(plan, t, frame, stroke()),
            () => edits.setPath(plan, t, frame, stroke()), () => edits.addKeyframe(plan, t, frame),
            () => edits.addKeyframe(plan, t, frame), () => edits.removeKeyframe(plan, t, key),
            () => edits.moveKeyframe(plan, t, key, frame)[0], () => edits.stretch(plan, 1 + whole(20)),
            () => edits.trim(plan, 1 + whole(20)),
            () => edits.changeKeyframe(plan, t, key, { easing: keyframes.EASINGS[whole(5)] }),
            () => edits.changeKeyframe(plan, t, key, { visible: random(0, 1) < 0.5 }),
            () => edits.changeTrack(plan, t, { interpolation: keyframes.INTERPOLATIONS[whole(2)] }),
          ];
          const next = changes[plan.tracks.length ? whole(changes.length) : 0]();
          editor.commit(next.tracks.length > 4 ? edits.removeTrack(next, 0) : next);
          seen.push(editor.text);
        }
        return seen;
        """
    )
    plans = [KeyframePlan.from_json(text) for text in texts if text]
    assert len(plans) > 350
    assert any(key.path for plan in plans for track in plan.tracks for key in track.keyframes)


def test_undo_and_redo_walk_through_the_committed_documents_and_loading_forgets_them(node):
    result = node(
        """
        const editor = new state.EditorState();
        const seen = [editor.text];
        editor.commit(edits.addTrack(editor.shown, 0, [0.1, 0.1, 0.5, 0.5]));
        seen.push(editor.text);
        editor.preview(edits.setBox(editor.shown, 0, 3, [0.2, 0.2, 0.6, 0.6]));
        const dragged = editor.text;
        editor.commit(editor.draft);
        seen.push(editor.text);
        const back = [(editor.undo(), editor.text), (editor.undo(), editor.text), editor.canUndo];
        const forth = [(editor.redo(), editor.text), (editor.redo(), editor.text), editor.canRedo];
        editor.text = seen[1];
        return { seen, dragged, back, forth, loaded: [editor.text, editor.canUndo, editor.canRedo] };
        """
    )
    seen = result["seen"]
    assert seen[0] == "" and len(set(seen)) == 3
    assert result["dragged"] == seen[1]  # a drag that is not finished is not saved
    assert result["back"] == [seen[1], seen[0], False]
    assert result["forth"] == [seen[1], seen[2], False]
    assert result["loaded"] == [seen[1], False, False]


def test_hand_edits_win_over_connected_boxes_and_a_document_that_cannot_be_read_is_kept(node):
    seed = document([key(0, [0, 0, 0.2, 0.2])])
    result = node(
        """
        const editor = new state.EditorState();
        editor.setCanvas({ width: 64, height: 48, length: 9, fps: 8 });
        editor.setSeed(keyframe_text.fromJson(given));
        const untouched = editor.text;
        editor.commit(edits.setBox(editor.shown, 0, 4, [0.5, 0.5, 0.9, 0.9]));
        const drawn = editor.text;
        editor.setSeed(keyframe_text.fromJson(given.replace("0.2", "0.3")));
        const afterwards = editor.text;
        editor.text = given;
        const loaded = editor.text;
        editor.text = "{from the future}";
        return { untouched, drawn, afterwards, loaded, unreadable: editor.text, error: editor.error };
        """,
        seed,
    )
    assert result["loaded"] == seed  # to the letter: opening a workflow does not change it
    assert result["untouched"] == ""  # so that a later run may still bring other boxes
    assert [k["frame"] for k in json.loads(result["drawn"])["tracks"][0]["keyframes"]] == [0, 4]
    assert result["afterwards"] == result["drawn"]
    assert result["unreadable"] == "{from the future}"
    assert "not valid JSON" in result["error"]
