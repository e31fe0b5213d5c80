// What can be done, once for buttons and keys: name -> { title, key, run(state), on?, enabled? }.

import {
  addKeyframe, addTrack, changeKeyframe, changeTrack, moveKeyframe, removeKeyframe, removeTrack, setBox,
} from "./edits.js";
import { moveBox } from "./geometry.js";
import { fromJson, toJson } from "./keyframe_text.js";
import { EASINGS, keyframeAt, visibleAt } from "./keyframes.js";

const START_BOX = [0.35, 0.3, 0.65, 0.7]; // the box that Enter makes

const hasTrack = (state) => Boolean(state.activeTrack);
const stop = (state) => state.set({ playing: false });

/** The frame of the next keyframe of the active track in a direction, or the clip's end. */
function nextKey(state, step) {
  const frames = state.activeTrack?.keyframes.map((key) => key.frame) ?? [];
  const further = frames.filter((frame) => (frame - state.frame) * step > 0);
  if (!further.length) return step > 0 ? state.length - 1 : 0;
  return step > 0 ? Math.min(...further) : Math.max(...further);
}

function goTo(state, frame) {
  stop(state);
  state.goTo(frame);
}

const tool = (name) => ({
  on: (state) => state.tool === name && !state.addingTrack,
  run: (state) => state.set({ tool: name, addingTrack: false }),
});
const option = (name) => ({ on: (state) => state.options[name], run: (state) => state.toggle(name) });

export const COMMANDS = {
  box: { title: "Draw, move and resize boxes", key: "B", ...tool("box") },
  path: {
    title: "Draw the path: the box follows your hand, at its speed, to the next keyframe", key: "P", ...tool("path"),
  },
  newTrack: {
    title: "Another subject: the next box you draw is its own track", key: "N", enabled: hasTrack,
    on: (state) => state.addingTrack, run: (state) => state.set({ addingTrack: !state.addingTrack, tool: "box" }),
  },
  undo: { title: "Undo", key: "Ctrl+Z", enabled: (state) => state.canUndo, run: (state) => state.undo() },
  redo: { title: "Redo", key: "Ctrl+Shift+Z", enabled: (state) => state.canRedo, run: (state) => state.redo() },
  copy: {
    title: "Copy the box of this frame", key: "Ctrl+C", enabled: hasTrack,
    run: (state) => (state.clipboard = copyText(state)),
  },
  paste: {
    title: "Paste the copied box here", key: "Ctrl+V", enabled: (state) => Boolean(state.clipboard),
    run: (state) => pasteText(state, state.clipboard),
  },
  onion: { title: "Onion skin: boxes of other frames and the path", key: "O", ...option("onion") },
  snap: { title: "Snap to the canvas and other boxes (hold Alt: not now)", key: "S", ...option("snap") },
  cells: { title: "Latent cells of 8 pixels: how finely the model sees the box", key: "L", ...option("cells") },
  speed: { title: "Speed colours: green is slow, red is fast", key: "F", ...option("speed") },
  first: { title: "First frame", key: "Home", run: (state) => goTo(state, 0) },
  previousKey: { title: "Keyframe before", key: "Shift+,", run: (state) => goTo(state, nextKey(state, -1)) },
  previous: { title: "Frame before", key: ",", run: (state) => goTo(state, state.frame - 1) },
  play: {
    title: "Play or pause", key: "Space", on: (state) => state.playing,
    run: (state) => state.set({ playing: !state.playing }),
  },
  next: { title: "Next frame", key: ".", run: (state) => goTo(state, state.frame + 1) },
  nextKey: { title: "Next keyframe", key: "Shift+.", run: (state) => goTo(state, nextKey(state, 1)) },
  last: { title: "Last frame", key: "End", run: (state) => goTo(state, state.length - 1) },
  key: {
    title: "Add or remove a keyframe here", key: "K", enabled: hasTrack, on: (state) => Boolean(state.keyframe),
    run(state) {
      const change = state.keyframe ? removeKeyframe : addKeyframe;
      state.commit(change(state.shown, state.track, state.frame));
    },
  },
  visible: {
    title: "Show or hide the subject from this frame on", key: "V", enabled: hasTrack,
    on: (state) => hasTrack(state) && visibleAt(state.activeTrack, state.frame),
    run(state) {
      const visible = !visibleAt(state.activeTrack, state.frame);
      const plan = addKeyframe(state.shown, state.track, state.frame);
      state.commit(changeKeyframe(plan, state.track, state.frame, { visible }));
    },
  },
  smooth: {
    title: "Path through the keyframes: straight or a smooth curve", key: "M", enabled: hasTrack,
    on: (state) => state.activeTrack?.interpolation === "smooth",
    run: (state) => state.commit(changeTrack(state.shown, state.track, {
      interpolation: state.activeTrack.interpolation === "smooth" ? "linear" : "smooth",
    })),
  },
  removeTrack: {
    title: "Delete this track", key: "Shift+Delete", enabled: hasTrack,
    run: (state) => state.commit(removeTrack(state.shown, state.track)),
  },
};

/** The easing from the keyframe at or before this frame to the next one. A drawn path keeps its shape. */
export function setEasing(state, easing) {
  if (!hasTrack(state)) return;
  state.commit(changeKeyframe(state.shown, state.track, state.segmentStart.frame, { easing }));
}

/** Runs the command of a name if it may run now. */
export function run(state, name) {
  const command = COMMANDS[name];
  if (command.enabled?.(state) ?? true) command.run(state);
}

/** The box of this frame as text for the clipboard: a document of one track and one keyframe. */
export function copyText(state) {
  if (!hasTrack(state)) return "";
  const plan = addKeyframe(state.shown, state.track, state.frame);
  const track = plan.tracks[state.track];
  const key = { ...keyframeAt(track, state.frame), path: undefined };
  return toJson({ ...plan, tracks: [{ ...track, keyframes: [key] }] });
}

/** One copied box goes to this frame of the active track; a whole document replaces what is drawn. Else: false. */
export function pasteText(state, text) {
  let pasted;
  try {
    pasted = fromJson(text);
  } catch {
    return false;
  }
  const { tracks: [track, ...others] } = pasted;
  if (others.length || track.keyframes.length > 1) {
    const { width, height, fps } = state.canvas;
    state.commit({ ...pasted, width, height, fps });
    return true;
  }
  const [{ box, visible }] = track.keyframes;
  if (!hasTrack(state)) state.commit(addTrack(state.shown, state.frame, box));
  else {
    const plan = setBox(state.shown, state.track, state.frame, box);
    state.commit(changeKeyframe(plan, state.track, state.frame, { visible }));
  }
  return true;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = new Map(Object.entries(COMMANDS).map(([name, { key }]) => [key.toLowerCase(), name]));
KEYS.set("ctrl+y", "redo").set("delete", "key").set("backspace", "key").set("ctrl+shift+z", "redo");

/** Handles a key pressed on "stage" or "timeline"; true where it was one of ours. */
export function pressKey(state, event, region) {
  if (event.key in ARROWS) {
    (region === "stage" ? nudge : walk)(state, ARROWS[event.key], event);
    return true;
  }
  if (event.key === "Enter" && !hasTrack(state) && !event.ctrlKey) {
    state.commit(addTrack(state.shown, state.frame, START_BOX));
    return true;
  }
  if (event.key === "[" || event.key === "]") {
    state.select(state.track + (event.key === "]" ? 1 : -1));
    return true;
  }
  const easing = EASINGS[Number(event.key) - 1];
  if (easing && !event.ctrlKey && !event.altKey) {
    setEasing(state, easing);
    return true;
  }
  const name = KEYS.get(chord(event));
  if (!name || name === "copy" || name === "paste") return false; // the page's own copy and paste events
  if (name === "key" && chord(event) !== "k" && !state.keyframe) return true; // Delete only ever takes away
  run(state, name);
  return true;
}

/** Pressed keys as COMMANDS write them, lower case. */
function chord(event) {
  const named = { " ": "space", "<": ",", ">": "." }; // Shift+, is < on many keyboards
  const key = named[event.key] ?? event.key.toLowerCase();
  return `${event.ctrlKey || event.metaKey ? "ctrl+" : ""}${event.shiftKey ? "shift+" : ""}${key}`;
}

/** Arrow keys on the stage: one pixel, with Shift eight; with Alt the right and lower edge instead of the box. */
function nudge(state, [dx, dy], event) {
  if (!hasTrack(state)) return;
  const step = event.shiftKey ? 8 : 1;
  const [x, y] = [(dx * step) / state.canvas.width, (dy * step) / state.canvas.height];
  const [x1, y1, x2, y2] = state.evaluated(state.activeTrack).uncut[state.frame];
  const box = event.altKey
    ? [x1, y1, Math.max(x2 + x, x1 + 1 / state.canvas.width), Math.max(y2 + y, y1 + 1 / state.canvas.height)]
    : moveBox([x1, y1, x2, y2], x, y);
  state.commit(setBox(state.shown, state.track, state.frame, box));
}

/** Arrow keys on the timeline: frames and tracks; with Shift keyframes, with Alt the keyframe itself moves. */
function walk(state, [dx, dy], event) {
  if (dy) return state.select(state.track + dy);
  if (event.altKey && state.keyframe) {
    const [plan, frame] = moveKeyframe(state.shown, state.track, state.frame, state.frame + dx);
    state.frame = frame;
    return state.commit(plan);
  }
  goTo(state, event.shiftKey ? nextKey(state, dx) : state.frame + dx);
}
