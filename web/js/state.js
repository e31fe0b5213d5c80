// What the editor knows: the document, what is selected, how it is shown, and the way back (undo). No page needed.

import { emptyPlan, withinReach } from "./edits.js";
import { fromJson, toJson } from "./keyframe_text.js";
import { evaluateTrack, keyframeAt, keyframeBefore } from "./keyframes.js";

const MAX_UNDO = 200;

export class EditorState {
  /** The document as committed; null while nothing is drawn. */
  plan = null;
  /** The document during a drag: shown, but neither saved nor in the history yet. */
  draft = null;
  /** Boxes of the connected input, as of the last run: shown while nothing is drawn. */
  seed = null;
  /** Whether boxes are connected that only a run can tell. */
  seedAwaited = false;
  /** The node's own sizes; the document follows them, but for its length (see `mismatch`). */
  canvas = { width: 64, height: 64, length: 8, fps: 8 };
  frame = 0;
  track = 0;
  /** "box" draws, moves and resizes; "path" records the mouse. */
  tool = "box";
  /** The next box drawn becomes a track of its own. */
  addingTrack = false;
  options = { onion: true, snap: true, cells: false, speed: false };
  playing = false;
  /** The copied box, as text; the buttons may not read the clipboard. */
  clipboard = "";
  /** A sentence where the saved document cannot be read. */
  error = "";
  #loaded = { plan: null, text: "" };
  #past = [];
  #future = [];
  #listeners = new Set();
  #evaluated = new WeakMap();

  /** Calls `listener(kind)` after every change: "plan" where the saved text changed, else "view". */
  listen(listener) {
    this.#listeners.add(listener);
  }

  notify(kind = "view") {
    for (const listener of this.#listeners) listener(kind);
  }

  /** What is on the screen: always a plan, maybe one without tracks. */
  get shown() {
    return this.draft ?? this.plan ?? this.seed ?? emptyPlan(this.canvas);
  }

  get length() {
    return this.shown.length;
  }

  get activeTrack() {
    return this.shown.tracks[this.track];
  }

  /** The keyframe under the playhead. */
  get keyframe() {
    return this.activeTrack && keyframeAt(this.activeTrack, this.frame);
  }

  /** The keyframe whose way to the next one the playhead is in; on and after the last one, the one before it. */
  get segmentStart() {
    if (!this.activeTrack) return undefined;
    const last = Math.max(this.activeTrack.keyframes.length - 2, 0);
    return this.activeTrack.keyframes[Math.min(Math.max(keyframeBefore(this.activeTrack, this.frame), 0), last)];
  }

  /** Whether the document has another number of frames than the node asks for. */
  get mismatch() {
    return this.plan !== null && this.plan.length !== this.canvas.length;
  }

  /** Every frame of a track of the shown plan, computed once per version of the track. */
  evaluated(track) {
    const { width, height, length } = this.shown;
    const known = this.#evaluated.get(track);
    if (known?.width === width && known.height === height && known.boxes.length === length) return known;
    const fresh = { ...evaluateTrack(track, length, width, height), width, height };
    this.#evaluated.set(track, fresh);
    return fresh;
  }

  /** Shows a plan while the pointer is down. */
  preview(plan) {
    this.draft = plan;
    this.notify();
  }

  /** Makes a plan the document; one step of undo. */
  commit(plan) {
    this.draft = null;
    // Just what is saved, with its six digits.
    const next = plan.tracks.length ? fromJson(toJson(withinReach(plan))) : null;
    if (same(next, this.plan) && !this.error) return this.notify();
    this.#past.push(this.plan);
    if (this.#past.length > MAX_UNDO) this.#past.shift();
    this.#future = [];
    this.#show(next);
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  undo() {
    this.draft = null;
    if (!this.canUndo) return;
    this.#future.push(this.plan);
    this.#show(this.#past.pop());
  }

  redo() {
    this.draft = null;
    if (!this.canRedo) return;
    this.#past.push(this.plan);
    this.#show(this.#future.pop());
  }

  /** The text that is saved in the workflow: "" for nothing drawn. */
  get text() {
    if (this.plan === this.#loaded.plan) return this.#loaded.text;
    return this.plan ? toJson(this.plan) : "";
  }

  /** A workflow was loaded. Its text is kept as it is, readable or not, until somebody draws. */
  set text(value) {
    const text = typeof value === "string" ? value : "";
    if (text === this.text) return;
    [this.plan, this.draft, this.error] = [null, null, ""];
    [this.#past, this.#future] = [[], []];
    try {
      if (text.trim()) this.plan = fromJson(text);
    } catch (error) {
      this.error = error.message;
    }
    this.#loaded = { plan: this.plan, text };
    this.#clamp();
    this.notify();
  }

  /** The node's sizes changed. Boxes are fractions, so only another length needs a decision of the person. */
  setCanvas(canvas) {
    if (same(canvas, this.canvas)) return;
    this.canvas = canvas;
    const { width, height, fps } = canvas;
    if (this.plan && !same([width, height, fps], [this.plan.width, this.plan.height, this.plan.fps])) {
      this.plan = { ...this.plan, width, height, fps };
      this.notify("plan");
    }
    this.#clamp();
    this.notify();
  }

  setSeed(seed) {
    this.seed = seed;
    this.#clamp();
    this.notify();
  }

  select(track, frame = this.frame) {
    [this.track, this.frame] = [track, frame];
    this.addingTrack = false;
    this.#clamp();
    this.notify();
  }

  goTo(frame) {
    this.frame = frame;
    this.#clamp();
    this.notify();
  }

  set(change) {
    Object.assign(this, change);
    this.notify();
  }

  toggle(option) {
    this.options = { ...this.options, [option]: !this.options[option] };
    this.notify();
  }

  #show(plan) {
    if (this.error) this.#loaded = { plan: null, text: "" };
    [this.plan, this.error] = [plan, ""];
    this.#clamp();
    this.notify("plan");
  }

  #clamp() {
    this.frame = Math.min(Math.max(Math.round(this.frame), 0), this.length - 1);
    this.track = Math.min(Math.max(this.track, 0), Math.max(this.shown.tracks.length - 1, 0));
  }
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
