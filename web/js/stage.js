// Draws the picture with the boxes of the current frame, ghosts of the others and the path between them.

import { boxToScreen, fit, grip, HANDLES, toScreen } from "./geometry.js";
import { centre } from "./keyframes.js";
import { ACCENT, colourOf, diamond, distance, Layer, prepare, speedColour, tag } from "./paint.js";

export const CELL = 8; // pixels of a latent cell: what the model sees as one
const RIM = "rgb(0 0 0 / 40%)"; // beside lines, so that they show on any picture
const GHOSTS = 3; // frames before and after the current one that onion skin shows

export class Stage {
  /** Guides, the stroke and the grip in hand; set by the pointer. */
  overlay = { lines: { x: null, y: null }, stroke: null, hover: null };
  view = null;
  #picture = new Layer();

  constructor(canvas, state, background) {
    Object.assign(this, { canvas, state, background });
  }

  /** How the canvas lies on the stage now. */
  measure() {
    this.view = fit(this.canvas.clientWidth, this.canvas.clientHeight, this.state.canvas);
    return this.view;
  }

  draw() {
    const prepared = prepare(this.canvas);
    if (!prepared) return;
    const { context, ratio } = prepared;
    const { state } = this;
    const view = this.measure();
    this.#drawCanvas(context, view, ratio);
    if (state.options.cells) this.#drawCells(context, view);
    state.shown.tracks.forEach((track, index) => index !== state.track && this.#drawOther(context, view, track, index));
    if (state.activeTrack) this.#drawActive(context, view, state.activeTrack, state.track);
    this.#drawOverlay(context, view);
    if (!state.shown.tracks.length && !this.overlay.stroke) this.#invite(context, view);
  }

  /** What lies under a screen point: { kind: "grip", name } of the active box, "key", "box", or null. */
  pick(point, radius) {
    const { state } = this;
    const view = this.measure();
    const track = state.activeTrack;
    if (track && !state.addingTrack) {
      const name = grip(view, this.boxOf(track), point, radius);
      if (name) return { kind: "grip", name };
      for (const key of state.options.onion ? track.keyframes : []) {
        const [x, y] = toScreen(view, centre(key.box));
        if (Math.hypot(point[0] - x, point[1] - y) <= radius) return { kind: "key", frame: key.frame };
      }
    }
    for (let index = state.shown.tracks.length - 1; index >= 0; index--) {
      if (index === state.track || state.addingTrack) continue;
      if (grip(view, this.boxOf(state.shown.tracks[index]), point, 0) === "move") return { kind: "box", index };
    }
    return null;
  }

  /** The box of a track at the current frame, uncut: what is on the screen and under the pointer. */
  boxOf(track) {
    return this.state.evaluated(track).uncut[this.state.frame];
  }

  #drawCanvas(context, view, ratio) {
    context.fillStyle = "#26282c";
    context.fillRect(view.x, view.y, view.width, view.height);
    const picture = this.background.at(this.state.frame, this.state.length);
    if (picture) {
      context.drawImage(this.#scaled(picture, view, ratio), view.x, view.y, view.width, view.height);
      context.fillStyle = "rgb(0 0 0 / 18%)"; // boxes stay readable on a bright picture
      context.fillRect(view.x, view.y, view.width, view.height);
    } else {
      this.#lines(context, view, 3, 3, "rgb(255 255 255 / 5%)");
    }
    context.strokeStyle = "rgb(255 255 255 / 22%)";
    context.lineWidth = 1;
    context.strokeRect(view.x - 0.5, view.y - 0.5, view.width + 1, view.height + 1);
  }

  /** A large picture is scaled once. A video goes on changing, so it is drawn as it is. */
  #scaled(picture, { width, height }, ratio) {
    if (!(picture instanceof HTMLImageElement)) return picture;
    return this.#picture.picture(width, height, ratio, [picture], (layer) => {
      layer.imageSmoothingQuality = "high";
      layer.drawImage(picture, 0, 0, width, height);
    });
  }

  #lines(context, view, columns, rows, colour) {
    context.beginPath();
    for (let i = 1; i < columns; i++) {
      context.moveTo(view.x + (view.width * i) / columns, view.y);
      context.lineTo(view.x + (view.width * i) / columns, view.y + view.height);
    }
    for (let i = 1; i < rows; i++) {
      context.moveTo(view.x, view.y + (view.height * i) / rows);
      context.lineTo(view.x + view.width, view.y + (view.height * i) / rows);
    }
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.stroke();
  }

  /** The latent grid, and how much of each cell the active box fills: what is left of it for the model. */
  #drawCells(context, view) {
    const { state } = this;
    const { width, height } = state.canvas;
    const track = state.activeTrack;
    if (track && state.evaluated(track).visible[state.frame]) {
      const [x1, y1, x2, y2] = state.evaluated(track).boxes[state.frame]
        .map((edge, i) => (edge * (i % 2 ? height : width)) / CELL);
      const share = (cell, low, high) => Math.min(cell + 1, high) - Math.max(cell, low);
      context.fillStyle = colourOf(state.track);
      for (let row = Math.floor(y1); row < y2; row++) {
        for (let column = Math.floor(x1); column < x2; column++) {
          context.globalAlpha = 0.45 * share(column, x1, x2) * share(row, y1, y2);
          const [x, y, w, h] = boxToScreen(view, [
            (column * CELL) / width, (row * CELL) / height,
            Math.min(((column + 1) * CELL) / width, 1), Math.min(((row + 1) * CELL) / height, 1),
          ]);
          context.fillRect(x, y, w, h);
        }
      }
      context.globalAlpha = 1;
    }
    if (view.scale * CELL >= 3) this.#lines(context, view, width / CELL, height / CELL, "rgb(255 255 255 / 14%)");
  }

  #drawOther(context, view, track, index) {
    const [x, y, width, height] = boxToScreen(view, this.boxOf(track));
    const colour = colourOf(index);
    context.globalAlpha = this.state.evaluated(track).visible[this.state.frame] ? 0.9 : 0.4;
    this.#outline(context, x, y, width, height, colour, 1.5, this.state.evaluated(track).visible[this.state.frame]);
    tag(context, track.label || `#${track.id}`, x - 0.75, y, colour);
    context.globalAlpha = 1;
  }

  #drawActive(context, view, track, index) {
    const { state } = this;
    const colour = colourOf(index);
    const { uncut, visible } = state.evaluated(track);
    if (state.options.onion) this.#drawGhosts(context, view, track, uncut, colour);
    if (state.options.onion || state.options.speed) this.#drawPath(context, view, track, uncut, colour);
    const [x, y, width, height] = boxToScreen(view, uncut[state.frame]);
    const shown = visible[state.frame];
    context.globalAlpha = shown ? 0.16 : 0.05;
    context.fillStyle = colour;
    context.fillRect(x, y, width, height);
    context.globalAlpha = shown ? 1 : 0.55;
    this.#outline(context, x, y, width, height, colour, 2, shown);
    const name = track.label || `#${track.id}`;
    tag(context, shown ? name : `${name} hidden`, x - 1, y - 1, colour);
    context.globalAlpha = 1;
    if (state.playing || state.tool === "path") return;
    for (const [u, v] of Object.values(HANDLES)) {
      const corner = u !== 0.5 && v !== 0.5;
      if (!corner && Math.min(width, height) <= 40) continue;
      context.fillStyle = state.keyframe ? ACCENT : colour; // hollow between keyframes: a drag makes one
      context.strokeStyle = "#101010";
      context.lineWidth = 1;
      context.beginPath();
      context.roundRect(x + u * width - 3.5, y + v * height - 3.5, 7, 7, 1.5);
      context.fill();
      context.stroke();
    }
  }

  #outline(context, x, y, width, height, colour, line, solid) {
    context.setLineDash(solid ? [] : [5, 4]);
    context.lineWidth = line + 2;
    context.strokeStyle = RIM;
    context.strokeRect(x, y, width, height);
    context.lineWidth = line;
    context.strokeStyle = colour;
    context.strokeRect(x, y, width, height);
    context.setLineDash([]);
  }

  #drawGhosts(context, view, track, uncut, colour) {
    const { frame } = this.state;
    context.strokeStyle = colour;
    context.lineWidth = 1;
    for (let step = GHOSTS; step >= 1; step--) {
      context.globalAlpha = 0.3 - 0.07 * step;
      for (const ghost of [frame - step, frame + step]) {
        if (uncut[ghost]) context.strokeRect(...boxToScreen(view, uncut[ghost]));
      }
    }
    context.setLineDash([3, 3]);
    context.globalAlpha = 0.6;
    context.fillStyle = colour;
    context.textBaseline = "bottom";
    const before = track.keyframes.findLast((key) => key.frame < frame);
    const after = track.keyframes.find((key) => key.frame > frame);
    for (const key of [before, after]) {
      if (!key) continue;
      const [x, y, width, height] = boxToScreen(view, key.box);
      context.strokeRect(x, y, width, height);
      context.fillText(String(key.frame + 1), x + 3, y + height - 2);
    }
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  #drawPath(context, view, track, uncut, colour) {
    const { state } = this;
    const centres = uncut.map(centre);
    const points = centres.map((point) => toScreen(view, point));
    const diagonal = Math.hypot(state.canvas.width, state.canvas.height);
    const line = state.options.speed ? 3 : 1.5;
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = line + 2;
    context.strokeStyle = RIM;
    context.beginPath();
    for (const point of points) context.lineTo(...point);
    context.stroke();
    context.lineWidth = line;
    context.globalAlpha = state.options.speed ? 0.95 : 0.85;
    let colourNow = state.options.speed ? "" : colour; // one stroke for all frames of one colour
    context.beginPath();
    context.moveTo(...points[0]);
    for (let t = 1; t < points.length; t++) {
      const speed = distance(centres[t - 1], centres[t], state.canvas) / diagonal;
      const next = state.options.speed ? speedColour(speed) : colour;
      if (next !== colourNow) {
        context.strokeStyle = colourNow;
        context.stroke();
        context.beginPath();
        context.moveTo(...points[t - 1]);
        colourNow = next;
      }
      context.lineTo(...points[t]);
    }
    context.strokeStyle = colourNow;
    context.stroke();
    context.globalAlpha = 1;
    context.fillStyle = colour;
    for (const [x, y] of points) context.fillRect(x - 1.5, y - 1.5, 3, 3);
    context.strokeStyle = "#101010";
    context.lineWidth = 1;
    let last = [-99, -99];
    for (const key of track.keyframes) {
      const [x, y] = toScreen(view, centre(key.box));
      if (key.frame !== state.frame && Math.hypot(x - last[0], y - last[1]) < 6) continue; // one on the other
      last = [x, y];
      diamond(context, x, y, key.frame === state.frame ? 6 : 5);
      context.fillStyle = key.frame === state.frame ? ACCENT : colour;
      context.fill();
      context.stroke();
    }
  }

  #drawOverlay(context, view) {
    const { lines, stroke } = this.overlay;
    context.strokeStyle = "#ff4fd8";
    context.lineWidth = 1;
    context.beginPath();
    if (lines.x !== null) {
      const [x] = toScreen(view, [lines.x, 0]);
      context.moveTo(x, view.y - 8);
      context.lineTo(x, view.y + view.height + 8);
    }
    if (lines.y !== null) {
      const [, y] = toScreen(view, [0, lines.y]);
      context.moveTo(view.x - 8, y);
      context.lineTo(view.x + view.width + 8, y);
    }
    context.stroke();
    if (!stroke) return;
    context.strokeStyle = ACCENT;
    context.lineWidth = 2;
    context.beginPath();
    for (const [, x, y] of stroke) context.lineTo(...toScreen(view, [x, y]));
    context.stroke();
  }

  #invite(context, view) {
    const text = this.state.seedAwaited ? "Run once to start from the connected boxes, or drag a box of your own."
      : "Drag a box around the place where the subject starts.";
    context.setLineDash([6, 5]);
    context.lineWidth = 1.5;
    context.strokeStyle = "rgb(255 255 255 / 45%)";
    context.strokeRect(...boxToScreen(view, [0.34, 0.16, 0.66, 0.62]));
    context.setLineDash([]);
    context.font = "13px Inter, system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    const [middle, low] = [this.canvas.clientWidth / 2, view.y + view.height * 0.8];
    const lines = wrap(context, text, this.canvas.clientWidth - 60);
    const width = Math.max(...lines.map((line) => context.measureText(line).width)) + 24;
    context.fillStyle = "rgb(15 16 18 / 80%)";
    context.beginPath();
    context.roundRect(middle - width / 2, low - lines.length * 9 - 6, width, lines.length * 18 + 12, 8);
    context.fill();
    context.fillStyle = "#ffffff";
    lines.forEach((line, i) => context.fillText(line, middle, low + (i - (lines.length - 1) / 2) * 18));
    context.textAlign = "left";
  }
}

/** Text as lines that are at most `width` wide. */
function wrap(context, text, width) {
  const lines = [];
  for (const word of text.split(" ")) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
