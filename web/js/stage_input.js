// Mouse, pen and finger on the stage: draw, move and resize boxes, record paths.

import { addTrack, pathStart, setBox, setPath } from "./edits.js";
import { cursorOf, moveBox, ordered, reach, resizeBox, snap, snapLines, toCanvas } from "./geometry.js";
import { boxAt, centre, keyframeAt } from "./keyframes.js";
import { place } from "./paint.js";
import { CELL } from "./stage.js";

const SNAP = 7; // CSS pixels
const START = 3; // CSS pixels that a press may wander and still be a click
const SIZE = 0.3; // of the canvas: the box of a path that is drawn before any box

export class StageInput {
  #drag = null;

  constructor(stage, state) {
    [this.stage, this.state] = [stage, state];
    const { canvas } = stage;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => (this.#drag ? this.#move(event) : this.#hover(event)));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => this.cancel());
  }

  get busy() {
    return this.#drag !== null;
  }

  /** Gives up the drag; nothing has changed. */
  cancel() {
    this.#end();
    this.state.preview(null);
  }

  #down(event) {
    if (this.#drag || event.button !== 0) return;
    this.stage.canvas.setPointerCapture(event.pointerId);
    const point = place(this.stage.canvas, event);
    const view = this.stage.measure();
    const { state } = this;
    state.set({ playing: false });
    const from = toCanvas(view, point);
    const began = this.#begin(point, from, event); // may go to another track or frame
    this.#drag = { pointer: event.pointerId, point, from, plan: state.shown, frame: state.frame, ...began };
    this.#hover(event);
  }

  /** What a press starts: what to do on each move, and on release. */
  #begin(point, from, event) {
    const { state } = this;
    const track = state.activeTrack;
    const found = this.stage.pick(point, radiusOf(event));
    if (state.tool === "path" && !state.addingTrack) return this.#beginPath(from, found, event);
    if (found?.kind === "box") {
      state.select(found.index);
      return { box: this.stage.boxOf(state.activeTrack), name: "move" };
    }
    if (found?.kind === "key") {
      state.goTo(found.frame);
      return { box: keyframeAt(track, found.frame).box, name: "move" };
    }
    if (found?.kind === "grip") return { box: this.stage.boxOf(track), name: found.name };
    return { name: "draw" };
  }

  #beginPath(from, found, event) {
    const { activeTrack, shown, track, frame } = this.state;
    const start = activeTrack ? boxAt(activeTrack, pathStart(shown, track, frame)) : null;
    // Taken by the box it moves from where it is; elsewhere it starts at the pointer.
    const shift = found && start ? [centre(start)[0] - from[0], centre(start)[1] - from[1]] : [0, 0];
    return { name: "path", shift, samples: [[event.timeStamp, from[0] + shift[0], from[1] + shift[1]]] };
  }

  #move(event) {
    const drag = this.#drag;
    if (event.pointerId !== drag.pointer) return;
    const point = place(this.stage.canvas, event);
    drag.moved ||= Math.hypot(point[0] - drag.point[0], point[1] - drag.point[1]) >= START;
    if (!drag.moved) return;
    const to = toCanvas(this.stage.view, point);
    if (drag.name === "path") return this.#extendPath(event);
    this.state.preview(this.#change(drag, to, event.altKey, event.shiftKey));
  }

  /** The plan with the drag at canvas point `to`. */
  #change(drag, to, free, keepShape) {
    const { state } = this;
    const lines = state.options.snap && !free ? this.#lines(drag) : null;
    if (drag.name === "move") {
      const [dx, dy] = [to[0] - drag.from[0], to[1] - drag.from[1]];
      const moved = this.#snapMove(moveBox(drag.box, dx, dy), lines);
      return setBox(drag.plan, state.track, drag.frame, moved);
    }
    const [x, y] = this.#snapPoint(to, lines, drag.name);
    if (drag.name === "draw") {
      const [x1, y1] = (drag.start ??= this.#snapPoint(drag.from, lines, "draw"));
      return this.#place(drag, ordered(x1, y1, x, y, state.canvas));
    }
    let box = resizeBox(drag.box, drag.name, [x, y], state.canvas);
    if (keepShape && drag.name.length === 2) box = proportional(drag.box, box, drag.name);
    return setBox(drag.plan, state.track, drag.frame, box);
  }

  /** A drawn box: the active track's at this frame, or of a new track. */
  #place(drag, box) {
    const fresh = this.state.addingTrack || !drag.plan.tracks.length;
    drag.fresh = fresh;
    return fresh ? addTrack(drag.plan, drag.frame, box) : setBox(drag.plan, this.state.track, drag.frame, box);
  }

  #extendPath(event) {
    const { samples, shift } = this.#drag;
    // Coalesced events keep the speed of a fast stroke.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const part of events.length ? events : [event]) {
      const [x, y] = toCanvas(this.stage.view, place(this.stage.canvas, part));
      samples.push([part.timeStamp, x + shift[0], y + shift[1]]);
    }
    this.stage.overlay.stroke = samples;
    this.state.notify();
  }

  #up(event) {
    const drag = this.#drag;
    if (!drag || event.pointerId !== drag.pointer) return;
    const { state } = this;
    this.#end();
    if (!drag.moved) return state.preview(null);
    if (drag.name === "path") return this.#finishPath(drag);
    const plan = state.draft ?? drag.plan;
    state.commit(plan);
    if (drag.fresh) state.select(plan.tracks.length - 1);
  }

  #finishPath({ plan, samples, frame }) {
    const { state } = this;
    if (!plan.tracks.length) {
      const [, x, y] = samples[0];
      plan = addTrack(plan, 0, [x - SIZE / 2, y - SIZE / 2, x + SIZE / 2, y + SIZE / 2]);
    }
    state.commit(setPath(plan, state.track, frame, samples));
    state.set({ tool: "box" });
  }

  #end() {
    this.#drag = null;
    this.stage.overlay.lines = { x: null, y: null };
    this.stage.overlay.stroke = null;
  }

  #hover(event) {
    const { state, stage } = this;
    if (state.tool === "path") return void (stage.canvas.style.cursor = "crosshair");
    const found = stage.pick(place(stage.canvas, event), radiusOf(event));
    stage.canvas.style.cursor = found?.kind === "grip" ? cursorOf(found.name) : found ? "pointer" : "crosshair";
  }

  /** Lines to snap to: of the other tracks at this frame, and of this track's neighbouring keyframes. */
  #lines(drag) {
    if (drag.lines) return drag.lines;
    const { state } = this;
    const boxes = drag.plan.tracks.flatMap((track, index) => (index === state.track
      ? track.keyframes.filter((key) => key.frame !== drag.frame).map((key) => key.box)
      : [boxAt(track, drag.frame)]));
    return (drag.lines = snapLines(state.canvas, boxes.slice(0, 40), state.options.cells, CELL));
  }

  #snapMove(box, lines) {
    if (!lines) return box;
    const { canvas } = this.state;
    const { view, overlay } = this.stage;
    const edges = (low, high) => [low, high, (low + high) / 2];
    const x = snap(edges(box[0], box[2]), lines.x, SNAP / view.width, canvas.width);
    const y = snap(edges(box[1], box[3]), lines.y, SNAP / view.height, canvas.height);
    overlay.lines = { x: x.line, y: y.line };
    return moveBox(box, x.shift, y.shift);
  }

  #snapPoint([px, py], lines, name) {
    if (!lines) return [px, py];
    const { canvas } = this.state;
    const { view, overlay } = this.stage;
    const x = snap([px], lines.x, SNAP / view.width, canvas.width);
    const y = snap([py], lines.y, SNAP / view.height, canvas.height);
    const along = (axis) => name === "draw" || /[ew]/.test(name) === (axis === "x") || name.length === 2;
    overlay.lines = { x: along("x") ? x.line : null, y: along("y") ? y.line : null };
    return [px + x.shift, py + y.shift];
  }
}

const radiusOf = (event) => (event.pointerType === "mouse" ? 9 : 20);

/** `box` with the shape of `old`, the corner opposite to `handle` kept. */
function proportional(old, box, handle) {
  const factor = Math.max((box[2] - box[0]) / (old[2] - old[0]), (box[3] - box[1]) / (old[3] - old[1]));
  const [w, h] = [(old[2] - old[0]) * factor, (old[3] - old[1]) * factor];
  const x1 = handle.includes("w") ? old[2] - w : old[0];
  const y1 = handle.includes("n") ? old[3] - h : old[1];
  const kept = [x1, y1, x1 + w, y1 + h];
  return kept.every((edge) => reach(edge) === edge) ? kept : box; // a thin box would shoot far out of the canvas
}
