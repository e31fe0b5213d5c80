// How boxes at some frames become a box at every frame. Pure functions, no page needed.
//
// The twin of dv2_core/boxes/keyframe_track.py: a test runs both over the same documents and compares to 1e-9.
// Boxes are [x1, y1, x2, y2] and points [x, y], fractions of the canvas; frames count from 0.

export const VERSION = 1;
export const EASINGS = ["linear", "ease-in", "ease-out", "ease-in-out", "hold"];
export const INTERPOLATIONS = ["linear", "smooth"];

/** The part of the way done at the part u (0..1) of the time. */
export function ease(name, u) {
  switch (name) {
    case "linear": return u;
    case "ease-in": return u * u;
    case "ease-out": return 1 - (1 - u) * (1 - u);
    case "ease-in-out": return u * u * (3 - 2 * u);
    case "hold": return 0;
  }
  throw new Error(`The easing is "${name}"; it must be one of ${EASINGS.join(", ")}.`);
}

export const centre = ([x1, y1, x2, y2]) => [(x1 + x2) / 2, (y1 + y2) / 2];

/** Index of the last keyframe at or before `frame`, -1 before the first. */
export function keyframeBefore(track, frame) {
  let [low, high] = [-1, track.keyframes.length]; // low is at or before the frame, high after it
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (track.keyframes[middle].frame <= frame) low = middle;
    else high = middle;
  }
  return low;
}

/** The keyframe at exactly this frame, or undefined. */
export const keyframeAt = (track, frame) => track.keyframes.find((key) => key.frame === frame);

/** The box at `frame` before it is cut to the canvas: held before the first and after the last keyframe. */
export function boxAt(track, frame) {
  const keys = track.keyframes;
  const index = keyframeBefore(track, frame);
  if (index < 0) return keys[0].box;
  const a = keys[index];
  if (index === keys.length - 1 || a.frame === frame) return a.box;
  const b = keys[index + 1];
  const e = ease(a.easing, (frame - a.frame) / (b.frame - a.frame));
  const [x1, y1, x2, y2] = a.box.map((edge, i) => mix(edge, b.box[i], e));
  if (e === 0 || (track.interpolation === "linear" && !a.path)) return [x1, y1, x2, y2];
  const [x, y] = centreBetween(track, index, e);
  const [w, h] = [(x2 - x1) / 2, (y2 - y1) / 2];
  return [x - w, y - h, x + w, y + h];
}

/** Whether the subject shows at `frame`: that of the keyframe before, of the first before any. */
export function visibleAt(track, frame) {
  return track.keyframes[Math.max(keyframeBefore(track, frame), 0)].visible;
}

/** Every frame of a track: { boxes, visible, uncut }, boxes cut to the canvas of width x height pixels. */
export function evaluateTrack(track, length, width, height) {
  const uncut = Array.from({ length }, (_, frame) => boxAt(track, frame));
  const cuts = uncut.map((box) => cut(box, width, height));
  return {
    boxes: cuts.map(([box]) => box),
    visible: cuts.map(([, inside], frame) => inside && visibleAt(track, frame)),
    uncut,
  };
}

/** Every frame of every track, in the order of plan.tracks. */
export function evaluate(plan) {
  return plan.tracks.map((track) => evaluateTrack(track, plan.length, plan.width, plan.height));
}

/**
 * A box cut to the canvas, and whether half a pixel or more of it is left each way. What is outside is put onto the
 * nearest edge, one pixel thick.
 */
export function cut(box, width, height) {
  const [x1, x2, acrossX] = cutEdges(box[0], box[2], width);
  const [y1, y2, acrossY] = cutEdges(box[1], box[3], height);
  return [[x1, y1, x2, y2], acrossX && acrossY];
}

const mix = (a, b, e) => a + (b - a) * e;

/** The centre at the part e of the way from keyframe `index` to the next one: along its path, or the smooth curve. */
function centreBetween(track, index, e) {
  const keys = track.keyframes;
  const a = centre(keys[index].box);
  const b = centre(keys[index + 1].box);
  if (keys[index].path) return alongPath(keys[index].path, a, b, e);
  const frames = keys[index + 1].frame - keys[index].frame;
  const from = tangent(keys, index);
  const to = tangent(keys, index + 1);
  return [0, 1].map((axis) => hermite(a[axis], b[axis], from[axis] * frames, to[axis] * frames, e));
}

/** Linear through the path's points [u, x, y] at e; its two ends are the keyframes' centres. */
function alongPath(path, a, b, e) {
  const points = path.map(([u, x, y]) => [u, x, y]);
  points[0] = [points[0][0], ...a];
  points[points.length - 1] = [points[points.length - 1][0], ...b];
  let i = 0;
  while (i < points.length - 2 && points[i + 1][0] < e) i++;
  const [u, x, y] = points[i];
  const [v, p, q] = points[i + 1];
  const part = Math.min(Math.max((e - u) / (v - u), 0), 1);
  return [mix(x, p, part), mix(y, q, part)];
}

/** Catmull-Rom: fractions of the canvas per frame; one-sided at the ends. */
function tangent(keys, index) {
  const before = keys[Math.max(index - 1, 0)];
  const after = keys[Math.min(index + 1, keys.length - 1)];
  const frames = after.frame - before.frame;
  const [a, b] = [centre(before.box), centre(after.box)];
  return [(b[0] - a[0]) / frames, (b[1] - a[1]) / frames];
}

function hermite(a, b, from, to, e) {
  const e2 = e * e;
  const e3 = e2 * e;
  return (2 * e3 - 3 * e2 + 1) * a + (e3 - 2 * e2 + e) * from + (-2 * e3 + 3 * e2) * b + (e3 - e2) * to;
}

function cutEdges(start, end, size) {
  const from = Math.max(start, 0);
  const to = Math.min(end, 1);
  if ((to - from) * size >= 0.5) return [from, to, true];
  const thick = 1 / size;
  const low = Math.min(Math.max((start + end) / 2 - thick / 2, 0), 1 - thick);
  return [low, Math.min(low + thick, 1), false];
}
