// The keyframe document as text: read exactly as strictly as dv2_core/boxes/keyframes.py reads it, and written.
//
// A test gives both readers the same malformed documents. What one of them let pass, the other would refuse at the run.

import { EASINGS, INTERPOLATIONS, VERSION } from "./keyframes.js";

const [MAX_TEXT, MAX_DIGITS] = [4e6, 18]; // of the whole text, and of one whole number
const [MAX_SIDE, MAX_FRAMES, MAX_BOXES] = [65536, 1e5, 1e6];
const [MIN_FPS, MAX_FPS] = [0.01, 1000];
const [LOW, HIGH] = [-1, 2]; // how far outside the canvas boxes and paths may lie
const SMALLEST = 1e-5; // side of a box
const WHOLE = new Set(["version", "width", "height", "length", "frame"]);

/** The text of a document -> plan with every default filled in. Throws an Error whose message is a sentence. */
export function fromJson(text) {
  if (text.length > MAX_TEXT && [...text].length > MAX_TEXT) {
    refuse("The box document", "too long", `At most ${MAX_TEXT} characters are read; use fewer keyframes`);
  }
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`The box document is not valid JSON: ${error.message.replace(/\.?$/, ".")}`);
  }
  checkWriting(text);
  if (isObject(value) && Object.hasOwn(value, "version") && value.version !== VERSION) {
    throw new Error(`The box document has version ${show(value.version)}; this editor reads version ${VERSION}.`);
  }
  checkKeys(value, "The box document", ["version", "width", "height", "length", "tracks"], ["fps"]);
  const { width, height, length, fps = 8 } = value;
  checkWhole(width, "The canvas width", 1, MAX_SIDE);
  checkWhole(height, "The canvas height", 1, MAX_SIDE);
  checkWhole(length, "The length in frames", 1, MAX_FRAMES);
  if (!isNumber(fps) || fps < MIN_FPS || fps > MAX_FPS) {
    refuse("The frame rate", show(fps), `It is a number from ${MIN_FPS} to ${MAX_FPS}`);
  }
  const tracks = list(value.tracks, "The list of tracks").map(readTrack);
  if (tracks.length * length > MAX_BOXES) {
    refuse("The number of boxes", tracks.length * length, `At most ${MAX_BOXES} are read; use fewer frames or tracks`);
  }
  const ids = new Set();
  for (const { id, keyframes } of tracks) {
    if (ids.has(id)) refuse("The id of two tracks", show(id), "Give every track an id of its own");
    ids.add(id);
    const { frame } = keyframes.at(-1);
    if (frame >= length) refuse(`The last keyframe of track ${show(id)}`, frame, `The clip has ${length} frames`);
  }
  return { version: VERSION, width, height, length, fps, tracks };
}

/** The document of a plan: compact, six digits, defaults left out. */
export function toJson(plan) {
  return JSON.stringify({
    version: VERSION, width: plan.width, height: plan.height, length: plan.length, fps: plan.fps,
    tracks: plan.tracks.map((track) => ({
      id: track.id,
      ...(track.label && { label: track.label }),
      ...(track.interpolation !== "linear" && { interpolation: track.interpolation }),
      keyframes: track.keyframes.map((key) => ({
        frame: key.frame,
        box: key.box.map(round6),
        ...(key.easing !== "linear" && { easing: key.easing }),
        ...(!key.visible && { visible: false }),
        ...(key.path && { path: key.path.map((point) => point.map(round6)) }),
      })),
    })),
  });
}

const round6 = (value) => Math.round(value * 1e6) / 1e6;
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const within = (value) => value >= LOW && value <= HIGH;

function show(value) {
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function refuse(what, value, fix) {
  throw new Error(`${what} is ${value}. ${fix}.`);
}

/** What JSON.parse hides in a valid text: a key that is there twice, and how a number is written. */
function checkWriting(text) {
  const open = []; // per object or list around the place: the keys so far
  let key = "";
  for (const [token, string, colon] of text.matchAll(/("(?:[^"\\]|\\.)*")\s*(:?)|[{}[\]]|-?\d[\d.eE+-]*/g)) {
    if (token === "{" || token === "[") open.push(new Set());
    else if (token === "}" || token === "]") open.pop();
    else if (colon) {
      key = JSON.parse(string);
      if (open.at(-1).has(key)) refuse("A key that appears twice in one object", show(key), "Keep one of the two");
      open.at(-1).add(key);
      continue;
    } else if (!string) {
      const whole = !/[.eE]/.test(token);
      if (whole && token.length > MAX_DIGITS) refuse("A number", "too long", `At most ${MAX_DIGITS} digits are read`);
      if (!whole && WHOLE.has(key)) refuse(`The ${key}`, token, "Write a whole number without point or exponent");
    }
    key = "";
  }
}

function checkKeys(value, where, needed, optional) {
  if (!isObject(value)) refuse(where, show(value), `It must be an object with ${needed.join(", ")}`);
  for (const key of needed) {
    if (!Object.hasOwn(value, key)) throw new Error(`${where} has no ${show(key)}; it needs ${needed.join(", ")}.`);
  }
  for (const key of Object.keys(value)) {
    if (needed.includes(key) || optional.includes(key)) continue;
    throw new Error(`${where} has an unknown key ${show(key)}; known are ${[...needed, ...optional].join(", ")}.`);
  }
}

function checkWhole(value, what, low, high) {
  if (!Number.isInteger(value) || value < low || value > high) {
    refuse(what, show(value), `It must be a whole number from ${low} to ${high}`);
  }
}

function checkChoice(value, what, choices) {
  if (!choices.includes(value)) refuse(what, show(value), `It is one of ${choices.join(", ")}`);
}

function list(value, what) {
  if (!Array.isArray(value) || !value.length) refuse(what, show(value), "It must be a list with at least one entry");
  return value;
}

function readTrack(track, index) {
  const where = `Track ${index}`;
  checkKeys(track, where, ["id", "keyframes"], ["label", "interpolation"]);
  const { id, label = "", interpolation = "linear" } = track;
  if (typeof id !== "string" || !id) refuse(`${where}: the id`, show(id), "It must be a text");
  if (typeof label !== "string") refuse(`${where}: the label`, show(label), "It must be a text");
  checkChoice(interpolation, `${where}: the interpolation`, INTERPOLATIONS);
  const keyframes = list(track.keyframes, `${where}: the list of keyframes`)
    .map((key, k) => readKeyframe(key, `${where}, keyframe ${k}`));
  keyframes.forEach((key, k) => {
    const before = k ? keyframes[k - 1].frame : -1;
    if (key.frame <= before) {
      refuse(`${where}: the frame of keyframe ${k}`, key.frame, `It must be above that of the one before, ${before}`);
    }
  });
  return { id, label, interpolation, keyframes };
}

function readKeyframe(key, where) {
  checkKeys(key, where, ["frame", "box"], ["easing", "visible", "path"]);
  const { frame, box, easing = "linear", visible = true, path } = key;
  checkWhole(frame, `${where}: the frame`, 0, MAX_FRAMES);
  if (!Array.isArray(box) || box.length !== 4 || !box.every(isNumber)) {
    refuse(`${where}: the box`, show(box), "A box is four numbers [x1, y1, x2, y2]");
  }
  if (!box.every(within)) refuse(`${where}: the box`, show(box), "Boxes are fractions of the canvas, within -1 to 2");
  if (box[2] - box[0] < SMALLEST || box[3] - box[1] < SMALLEST) {
    refuse(`${where}: the box`, show(box), "It has left < right and top < bottom, at least a pixel apart");
  }
  checkChoice(easing, `${where}: the easing`, EASINGS);
  if (typeof visible !== "boolean") refuse(`${where}: visible`, show(visible), "It must be true or false");
  if (path !== undefined) checkPath(path, where);
  return { frame, box, easing, visible, ...(path && { path }) };
}

function checkPath(path, where) {
  list(path, `${where}: the path`).forEach((point, i) => {
    const what = `${where}: point ${i} of the path`;
    if (!Array.isArray(point) || point.length !== 3 || !point.every(isNumber)) {
      refuse(what, show(point), "A point is three numbers [u, x, y]");
    }
    if (!within(point[1]) || !within(point[2])) refuse(what, show(point), "x and y are fractions, within -1 to 2");
    if (i && point[0] <= path[i - 1][0]) refuse(what, show(point), "u must ascend from point to point");
  });
  if (path[0][0] !== 0 || path.at(-1)[0] !== 1) refuse(`${where}: the path`, show(path), "u must go from 0 to 1");
}
