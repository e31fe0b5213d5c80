// Changes to a keyframe plan. Every function returns a new plan and leaves the given one as it was.

import { boxAt, centre, ease, keyframeAt, keyframeBefore, VERSION, visibleAt } from "./keyframes.js";

/** At most this many points are kept of a path drawn by hand. */
const MAX_PATH = 200;
/** Where the document lets keyframes and paths lie, in fractions of the canvas, and the smallest side of a box. */
const [LOW, HIGH] = [-1, 2];
const SMALLEST = 1e-4;
/** Times in a path are at least this far apart. */
const MOMENT = 1e-4;

export const emptyPlan = (canvas) => ({ version: VERSION, ...canvas, tracks: [] });

const replaceTrack = (plan, index, track) => ({
  ...plan, tracks: track ? plan.tracks.with(index, track) : plan.tracks.toSpliced(index, 1),
});

const withKeys = (plan, index, keyframes) => replaceTrack(plan, index, { ...plan.tracks[index], keyframes });

/** One more track with one keyframe; its id is the smallest number that is free. */
export function addTrack(plan, frame, box) {
  let id = 0;
  while (plan.tracks.some((track) => track.id === String(id))) id++;
  const keyframes = [{ frame, box, easing: "linear", visible: true }];
  return { ...plan, tracks: [...plan.tracks, { id: String(id), label: "", interpolation: "linear", keyframes }] };
}

export const removeTrack = (plan, index) => replaceTrack(plan, index, null);

export const changeTrack = (plan, index, change) => replaceTrack(plan, index, { ...plan.tracks[index], ...change });

/** A keyframe where there may be none yet, with the box that the track has there; a drawn path is cut in two. */
export function addKeyframe(plan, index, frame) {
  const track = plan.tracks[index];
  if (keyframeAt(track, frame)) return plan;
  const before = keyframeBefore(track, frame);
  const keys = [...track.keyframes];
  const added = { frame, box: boxAt(track, frame), easing: keys[before]?.easing ?? "linear",
    visible: visibleAt(track, frame) };
  const path = keys[before]?.path;
  if (path && keys[before + 1]) {
    const [a, b] = [keys[before], keys[before + 1]];
    const e = ease(a.easing, (frame - a.frame) / (b.frame - a.frame));
    const [first, second] = cutPath(path, e, centre(added.box));
    keys[before] = withPath(a, first);
    Object.assign(added, second && { path: second });
  }
  keys.splice(before + 1, 0, added);
  return withKeys(plan, index, keys);
}

/** The box of a track at a frame, which becomes a keyframe. Drawn paths on both sides bend along. */
export function setBox(plan, index, frame, box) {
  plan = addKeyframe(plan, index, frame);
  const keys = [...plan.tracks[index].keyframes];
  const at = keys.findIndex((key) => key.frame === frame);
  const [from, to] = [centre(keys[at].box), centre(box)];
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const bend = (path, weight) => path?.map(([u, x, y]) => [u, x + dx * weight(u), y + dy * weight(u)]);
  keys[at] = withPath({ ...keys[at], box }, bend(keys[at].path, (u) => 1 - u));
  if (at > 0) keys[at - 1] = withPath(keys[at - 1], bend(keys[at - 1].path, (u) => u));
  return withKeys(plan, index, keys);
}

/** Easing, visibility and the like of the keyframe at `frame`, which must exist. */
export function changeKeyframe(plan, index, frame, change) {
  const keys = plan.tracks[index].keyframes;
  return withKeys(plan, index, keys.map((key) => (key.frame === frame ? { ...key, ...change } : key)));
}

/** Without the keyframe at `frame`; a track without keyframes is gone. */
export function removeKeyframe(plan, index, frame) {
  const keys = plan.tracks[index].keyframes;
  const at = keys.findIndex((key) => key.frame === frame);
  if (at < 0) return plan;
  if (keys.length === 1) return removeTrack(plan, index);
  const left = keys.toSpliced(at, 1);
  if (at > 0) left[at - 1] = withPath(left[at - 1], undefined); // it led to the keyframe that is gone
  return withKeys(plan, index, left.with(-1, withPath(left.at(-1), undefined)));
}

/** The keyframe at frame `from` goes to frame `to`, or as near as its neighbours let it. */
export function moveKeyframe(plan, index, from, to) {
  const keys = plan.tracks[index].keyframes;
  const at = keys.findIndex((key) => key.frame === from);
  const low = at > 0 ? keys[at - 1].frame + 1 : 0;
  const high = at < keys.length - 1 ? keys[at + 1].frame - 1 : plan.length - 1;
  const frame = Math.min(Math.max(to, low), high);
  return [withKeys(plan, index, keys.with(at, { ...keys[at], frame })), frame];
}

/**
 * A path drawn by hand, from the keyframe at or before `frame` to the next one; where there is none, from the first
 * frame or to the last.
 * samples: [milliseconds, x, y] of the box's centre, in the order drawn.
 */
export function setPath(plan, index, frame, samples) {
  const track = plan.tracks[index];
  const start = pathStart(plan, index, frame);
  const next = track.keyframes.find((key) => key.frame > start)?.frame ?? plan.length - 1;
  if (next <= start) return plan;
  const path = timedPath(samples, plan.width, plan.height);
  if (path.length < 2) return plan;
  const place = (box, [, x, y]) => {
    const [w, h] = [(box[2] - box[0]) / 2, (box[3] - box[1]) / 2];
    return [x - w, y - h, x + w, y + h];
  };
  plan = setBox(addKeyframe(plan, index, next), index, start, place(boxAt(track, start), path[0]));
  plan = setBox(plan, index, next, place(boxAt(track, next), path.at(-1)));
  return changeKeyframe(plan, index, start, { path, easing: "linear" });
}

/** Where a path drawn at `frame` starts: the keyframe at or before it; at the end of the clip, what led there. */
export function pathStart(plan, index, frame) {
  const before = (key) => key.frame <= frame && key.frame < plan.length - 1;
  return plan.tracks[index].keyframes.findLast(before)?.frame ?? 0;
}

/** Samples [milliseconds, x, y] -> the fewest points [u, x, y], u from 0 to 1, within a pixel of them at all times. */
export function timedPath(samples, width, height) {
  const first = samples[0]?.[0];
  const span = (samples.at(-1)?.[0] ?? 0) - first;
  if (!(span > 0)) return [];
  const points = [];
  for (const [time, x, y] of samples) {
    const u = (time - first) / span;
    if (points.length && u - points.at(-1)[0] < MOMENT) points.pop(); // two events in one instant: the later one
    points.push([points.length ? u : 0, x, y]);
  }
  let tolerance = 0.75;
  let kept = thin(points, tolerance, width, height);
  while (kept.length > MAX_PATH) kept = thin(points, tolerance *= 2, width, height);
  return kept;
}

/** The same motion in another number of frames: keyframes move in proportion, of two on one frame the later stays. */
export function stretch(plan, length) {
  const step = plan.length > 1 ? (length - 1) / (plan.length - 1) : 0;
  const tracks = plan.tracks.map((track) => {
    const keys = new Map();
    for (const key of track.keyframes) {
      const frame = Math.round(key.frame * step);
      keys.set(frame, { ...key, frame });
    }
    return { ...track, keyframes: [...keys.values()] };
  });
  return { ...plan, length, tracks };
}

/** Another number of frames at the same timing: what comes after the end is cut off, a keyframe where it is cut. */
export function trim(plan, length) {
  let kept = { ...plan, length: Math.max(length, plan.length) };
  plan.tracks.forEach((track, index) => {
    if (track.keyframes.at(-1).frame >= length) kept = addKeyframe(kept, index, length - 1);
  });
  const tracks = kept.tracks.map((track) => {
    const keys = track.keyframes.filter((key) => key.frame < length);
    return { ...track, keyframes: keys.with(-1, withPath(keys.at(-1), undefined)) };
  });
  return { ...kept, length, tracks };
}

/** The plan with every box and path point where the document allows it; far outside the canvas nobody sees it. */
export function withinReach(plan) {
  const into = (value) => Math.min(Math.max(value, LOW), HIGH);
  const span = (from, to) => {
    const low = Math.min(into(from), HIGH - SMALLEST);
    return [low, Math.max(into(to), low + SMALLEST)];
  };
  const reachable = ({ box, path, ...key }) => {
    const [[x1, x2], [y1, y2]] = [span(box[0], box[2]), span(box[1], box[3])];
    return withPath({ ...key, box: [x1, y1, x2, y2] }, path?.map(([u, x, y]) => [u, into(x), into(y)]));
  };
  return { ...plan, tracks: plan.tracks.map((track) => ({ ...track, keyframes: track.keyframes.map(reachable) })) };
}

function withPath({ path: _, ...key }, path) {
  return path ? { ...key, path } : key;
}

/** A path cut at e: both parts run from u = 0 to u = 1. A part of no length is left out. */
function cutPath(path, e, [x, y]) {
  const before = path.filter(([u]) => u < e - MOMENT).map(([u, px, py]) => [u / e, px, py]);
  const after = path.filter(([u]) => u > e + MOMENT).map(([u, px, py]) => [(u - e) / (1 - e), px, py]);
  return [before.length && [...before, [1, x, y]], after.length && [[0, x, y], ...after]].map((part) => part || null);
}

/** Ramer-Douglas-Peucker, where the distance is between the places at the same time. */
function thin(points, tolerance, width, height) {
  const keep = new Set([0, points.length - 1]);
  const open = [[0, points.length - 1]];
  while (open.length) {
    const [i, j] = open.pop();
    const [a, b] = [points[i], points[j]];
    let worst = tolerance;
    let at = -1;
    for (let k = i + 1; k < j; k++) {
      const part = (points[k][0] - a[0]) / (b[0] - a[0]);
      const error = Math.hypot((points[k][1] - a[1] - (b[1] - a[1]) * part) * width,
        (points[k][2] - a[2] - (b[2] - a[2]) * part) * height);
      if (error > worst) [worst, at] = [error, k];
    }
    if (at >= 0) {
      keep.add(at);
      open.push([i, at], [at, j]);
    }
  }
  return points.filter((_, k) => keep.has(k));
}
