// The timeline: one row a track, keyframes as diamonds, easing between them, the playhead.

import { changeTrack, moveKeyframe } from "./edits.js";
import { centre, ease, keyframeAt } from "./keyframes.js";
import { ACCENT, colourOf, diamond, distance, Layer, place, prepare, speedColour } from "./paint.js";

const RULER = 20;
const ROW = 24;
const NAME = 78; // width of the column of names
const END = 14; // room right of the last frame
const [LEAST_ROWS, SHOWN_ROWS] = [2, 5]; // room for two at once, so that the stage rests; past five it scrolls

export class Timeline {
  #drag = null;
  #first = 0; // row at the top
  #width = 0; // of the canvas as last drawn
  #resting = new Layer();
  #seen = 0; // active track at the last drawing: a newly chosen one is scrolled into view

  constructor(canvas, state, rename) {
    Object.assign(this, { canvas, state, rename });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => (this.#drag ? this.#move(event) : this.#hover(event)));
    canvas.addEventListener("pointerup", () => this.#up());
    canvas.addEventListener("pointercancel", () => this.cancel());
    canvas.addEventListener("dblclick", (event) => this.#rename(event));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  get busy() {
    return this.#drag !== null;
  }

  cancel() {
    const { from } = this.#drag ?? {};
    this.#drag = null;
    if (from !== undefined) this.state.frame = from;
    this.state.preview(null);
  }

  /** CSS pixels that the rows want. */
  get height() {
    return RULER + ROW * Math.min(Math.max(this.state.shown.tracks.length, LEAST_ROWS), SHOWN_ROWS) + 4;
  }

  /** Place of a frame from the left, in CSS pixels. */
  x(frame) {
    const room = this.#width - NAME - END;
    return NAME + 8 + ((room - 8) * frame) / Math.max(this.state.length - 1, 1);
  }

  /** Vertical middle of a track's row. */
  y(index) {
    return RULER + ROW * (index - this.#first) + ROW / 2;
  }

  draw() {
    const prepared = prepare(this.canvas);
    if (!prepared) return;
    const { context, width, height, ratio } = prepared;
    const { state } = this;
    this.#width = width;
    this.#scrollToActive();
    // A drag changes one track, playing and scrubbing none: the others are drawn once.
    const { tracks } = state.shown;
    const others = tracks.map((track, index) => (index === state.track ? null : track));
    const shows = [this.#first, state.length, state.canvas, state.shown.width, state.shown.height, state.options.speed];
    const rest = this.#resting.picture(width, height, ratio, [...shows, ...others], (layer) => {
      this.#drawRuler(layer, width);
      this.#inRows(layer, width, height, () => {
        others.forEach((track, index) => track && this.#drawRow(layer, width, track, index));
      });
    });
    context.drawImage(rest, 0, 0, width, height);
    if (state.activeTrack) {
      this.#inRows(context, width, height, () => this.#drawRow(context, width, state.activeTrack, state.track));
    }
    const x = this.x(state.frame);
    context.strokeStyle = context.fillStyle = ACCENT;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x, 8);
    context.lineTo(x, height);
    context.stroke();
    context.beginPath();
    context.roundRect(x - 5, 2, 10, 9, 3);
    context.fill();
  }

  #inRows(context, width, height, draw) {
    context.save();
    context.beginPath();
    context.rect(0, RULER, width, height - RULER);
    context.clip();
    draw();
    context.restore();
  }

  #drawRuler(context, width) {
    const { length } = this.state;
    context.fillStyle = "#1d1f22";
    context.fillRect(0, 0, width, RULER);
    const gap = this.x(1) - this.x(0);
    const every = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000].find((step) => step * gap >= 26) ?? 2000;
    context.fillStyle = "#8a8f98";
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let frame = 0; frame < length; frame++) {
      const x = this.x(frame);
      const labelled = frame % every === 0 || (frame === length - 1 && frame % every > every / 2);
      if (labelled) context.fillText(String(frame + 1), x, 9);
      if (labelled || gap >= 5) context.fillRect(x - 0.5, labelled ? 15 : 17, 1, labelled ? 5 : 3);
    }
    context.textAlign = "left";
  }

  #drawRow(context, width, track, index) {
    const { state } = this;
    const y = this.y(index);
    const active = index === state.track;
    const colour = colourOf(index);
    if (active) {
      context.fillStyle = "rgb(255 255 255 / 7%)";
      context.fillRect(0, y - ROW / 2, width, ROW);
    }
    context.fillStyle = colour;
    context.beginPath();
    context.roundRect(8, y - 5, 10, 10, 3);
    context.fill();
    context.fillStyle = active ? "#ffffff" : "#a9aeb8";
    context.textBaseline = "middle";
    context.fillText(shorten(context, track.label || `#${track.id}`, NAME - 28), 24, y);
    this.#drawSpan(context, track, y, colour);
    track.keyframes.forEach((key, i) => {
      const next = track.keyframes[i + 1];
      if (next) this.#drawEasing(context, key, next, y);
    });
    this.#drawKeyframes(context, track, y, active, colour);
  }

  #drawKeyframes(context, track, y, active, colour) {
    const { frame } = this.state;
    const crowded = (this.x(this.state.length - 1) - this.x(0)) / track.keyframes.length < 8; // no room for diamonds
    context.strokeStyle = "#101010";
    context.lineWidth = 1.5;
    context.fillStyle = colour;
    for (const key of track.keyframes) {
      if (crowded) context.fillRect(Math.round(this.x(key.frame)) - 0.5, y - 6, 1, 12);
      else this.#drawKeyframe(context, this.x(key.frame), y, active);
    }
    if (!active || !keyframeAt(track, frame)) return;
    context.fillStyle = ACCENT;
    this.#drawKeyframe(context, this.x(frame), y, true);
  }

  #drawKeyframe(context, x, y, active) {
    diamond(context, x, y, active ? 6.5 : 5);
    context.fill();
    context.stroke();
  }

  /** The bar behind the keyframes: hidden frames are gaps; with speed colours it says how fast each frame goes. */
  #drawSpan(context, track, y, colour) {
    const { state } = this;
    const { visible, uncut } = state.evaluated(track);
    const half = (this.x(1) - this.x(0)) / 2;
    const diagonal = Math.hypot(state.canvas.width, state.canvas.height);
    const colours = visible.map((shown, t) => {
      if (!shown) return "";
      if (!state.options.speed) return colour;
      const from = Math.max(t - 1, 0);
      return speedColour(distance(centre(uncut[from]), centre(uncut[t]), state.canvas) / diagonal);
    });
    context.globalAlpha = state.options.speed ? 0.75 : 0.32;
    for (let t = 0; t < visible.length;) { // one rectangle a run of frames that look alike
      const fill = colours[t];
      const start = t;
      while (t < visible.length && colours[t] === fill) t++;
      if (!fill) continue;
      const left = Math.round(Math.max(this.x(start) - half, this.x(0)));
      const right = Math.round(Math.min(this.x(t - 1) + half, this.x(visible.length - 1)));
      context.fillStyle = fill;
      context.fillRect(left, y - 4, Math.max(right - left, 2), 8);
    }
    context.globalAlpha = 1;
  }

  /** The curve of a segment's easing, where it is not just linear; a drawn path as a wave. */
  #drawEasing(context, key, next, y) {
    const middle = (this.x(key.frame) + this.x(next.frame)) / 2;
    if ((key.easing === "linear" && !key.path) || this.x(next.frame) - this.x(key.frame) < 34) return;
    const curve = key.path ? (u) => 0.5 + 0.4 * Math.sin(u * 9) : (u) => ease(key.easing, u);
    context.strokeStyle = "rgb(255 255 255 / 85%)";
    context.lineWidth = 1.3;
    context.beginPath();
    for (let i = 0; i <= 12; i++) context.lineTo(middle - 8 + (i * 16) / 12, y + 5 - 10 * curve(i / 12));
    if (key.easing === "hold" && !key.path) context.lineTo(middle + 8, y - 5);
    context.stroke();
  }

  #scrollToActive() {
    const { state } = this;
    const rows = state.shown.tracks.length;
    const visible = Math.max(Math.floor((this.canvas.clientHeight - RULER) / ROW), 1);
    if (state.track !== this.#seen) {
      this.#first = Math.min(Math.max(this.#first, state.track - visible + 1), state.track);
      this.#seen = state.track;
    }
    this.#first = Math.min(Math.max(this.#first, 0), Math.max(rows - visible, 0));
  }

  #frameAt(x) {
    const step = this.x(1) - this.x(0);
    return Math.min(Math.max(Math.round((x - this.x(0)) / step), 0), this.state.length - 1);
  }

  #rowAt(y) {
    const row = Math.floor((y - RULER) / ROW) + this.#first;
    return y >= RULER && row < this.state.shown.tracks.length ? row : -1;
  }

  /** { row, frame } of the keyframe under a point, or null. */
  #keyAt([x, y], radius) {
    const row = this.#rowAt(y);
    const near = (key) => Math.abs(this.x(key.frame) - x);
    const keys = row < 0 ? [] : this.state.shown.tracks[row].keyframes.filter((key) => near(key) <= radius);
    return keys.length ? { row, frame: keys.reduce((a, b) => (near(b) < near(a) ? b : a)).frame } : null;
  }

  #down(event) {
    if (this.#drag || event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    const point = place(this.canvas, event);
    const { state } = this;
    state.set({ playing: false });
    const key = this.#keyAt(point, event.pointerType === "mouse" ? 8 : 16);
    const row = this.#rowAt(point[1]);
    if (key) {
      state.select(key.row, key.frame);
      this.#drag = { key: key.frame, plan: state.shown, from: key.frame };
    } else {
      state.select(row < 0 ? state.track : row, point[0] < NAME ? state.frame : this.#frameAt(point[0]));
      this.#drag = point[0] < NAME ? null : {};
    }
  }

  #move(event) {
    const { state } = this;
    const frame = this.#frameAt(place(this.canvas, event)[0]);
    if (this.#drag.key === undefined) return state.goTo(frame);
    const [plan, landed] = moveKeyframe(this.#drag.plan, state.track, this.#drag.key, frame);
    state.frame = landed;
    state.preview(plan);
  }

  #up() {
    if (!this.#drag) return;
    this.#drag = null;
    if (this.state.draft) this.state.commit(this.state.draft);
  }

  #hover(event) {
    const point = place(this.canvas, event);
    const over = this.#keyAt(point, 8) ? "ew-resize" : point[0] < NAME ? "pointer" : "default";
    this.canvas.style.cursor = over;
  }

  #rename(event) {
    const [x, y] = place(this.canvas, event);
    const row = this.#rowAt(y);
    if (row < 0 || x >= NAME) return;
    const { state } = this;
    const { label, id } = state.shown.tracks[row];
    this.rename({ left: 20, top: this.y(row) - 10, width: NAME - 20, text: label || `#${id}` }, (text) => {
      state.commit(changeTrack(state.shown, row, { label: text === `#${id}` ? "" : text.slice(0, 60) }));
    });
  }

  /** Scrolls where there is something to scroll; otherwise the wheel stays ComfyUI's. */
  #wheel(event) {
    const rows = this.state.shown.tracks.length;
    if (rows <= Math.floor((this.canvas.clientHeight - RULER) / ROW)) return;
    event.preventDefault();
    event.stopPropagation();
    this.#first += Math.sign(event.deltaY);
    this.state.notify();
  }
}

function shorten(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  while (text && context.measureText(`${text}…`).width > width) text = text.slice(0, -1);
  return `${text}…`;
}
