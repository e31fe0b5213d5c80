// Where things are on the stage: canvas fractions <-> screen pixels, what lies under the pointer, and snapping.

/** Handles of a box: name -> [part of the width, part of the height]. */
export const HANDLES = {
  nw: [0, 0], n: [0.5, 0], ne: [1, 0], e: [1, 0.5], se: [1, 1], s: [0.5, 1], sw: [0, 1], w: [0, 0.5],
};
const CURSORS = { nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw", n: "ns", s: "ns", e: "ew", w: "ew" };
const MARGIN = 22; // around the canvas, so that boxes can leave it
const REACH = 0.95; // how far a box or path may leave the canvas, in canvas sizes; the document allows 1

/** How the canvas lies in a stage of the given CSS pixels: { x, y, width, height, scale }, scale = CSS px per pixel. */
export function fit(stageWidth, stageHeight, canvas) {
  const scale = Math.max(
    Math.min((stageWidth - 2 * MARGIN) / canvas.width, (stageHeight - 2 * MARGIN) / canvas.height), 0.01);
  const [width, height] = [canvas.width * scale, canvas.height * scale];
  return { x: (stageWidth - width) / 2, y: (stageHeight - height) / 2, width, height, scale };
}

export const toScreen = (view, [x, y]) => [view.x + x * view.width, view.y + y * view.height];

export const toCanvas = (view, [x, y]) => [(x - view.x) / view.width, (y - view.y) / view.height].map(reach);

export function boxToScreen(view, [x1, y1, x2, y2]) {
  return [...toScreen(view, [x1, y1]), (x2 - x1) * view.width, (y2 - y1) * view.height];
}

export const reach = (value) => Math.min(Math.max(value, -REACH), 1 + REACH);

/** The handle of a box under a screen point, or "move" inside it, or null. `radius` is larger for fingers. */
export function grip(view, box, [px, py], radius) {
  const [x, y, width, height] = boxToScreen(view, box);
  // On a small box the side handles would cover everything: corners only.
  const names = Object.keys(HANDLES).filter((name) => name.length === 2 || Math.min(width, height) > 5 * radius);
  const inside = px >= x && px <= x + width && py >= y && py <= y + height;
  const near = inside ? Math.min(radius, width / 4, height / 4) : radius; // leave room to move a small box
  for (const name of names) {
    const [u, v] = HANDLES[name];
    if (Math.abs(px - x - u * width) <= near && Math.abs(py - y - v * height) <= near) return name;
  }
  return inside ? "move" : null;
}

export const cursorOf = (name) => (name === "move" ? "move" : name ? `${CURSORS[name]}-resize` : "crosshair");

/** A box moved by (dx, dy), not further out than the document allows. */
export function moveBox([x1, y1, x2, y2], dx, dy) {
  const limit = (delta, low, high) => Math.min(Math.max(delta, -REACH - low), 1 + REACH - high);
  const [mx, my] = [limit(dx, x1, x2), limit(dy, y1, y2)];
  return [x1 + mx, y1 + my, x2 + mx, y2 + my];
}

/** A box whose handle is dragged to a canvas point; it may turn over, and keeps a pixel. */
export function resizeBox([x1, y1, x2, y2], handle, [x, y], canvas) {
  if (handle.includes("w")) x1 = x;
  if (handle.includes("e")) x2 = x;
  if (handle.includes("n")) y1 = y;
  if (handle.includes("s")) y2 = y;
  return ordered(x1, y1, x2, y2, canvas);
}

/** The box between two canvas points. */
export function ordered(x1, y1, x2, y2, canvas) {
  const span = (a, b, size) => {
    const [low, high] = [Math.min(a, b), Math.max(a, b)];
    return high - low >= 1 / size ? [low, high] : [low, low + 1 / size];
  };
  const [[left, right], [top, bottom]] = [span(x1, x2, canvas.width), span(y1, y2, canvas.height)];
  return [left, top, right, bottom];
}

/**
 * Lines that edges snap to, in fractions: { x: [...], y: [...] } — the canvas's edges and middle, the edges of other
 * boxes, and with `cells` the latent grid of `cell` pixels.
 */
export function snapLines(canvas, boxes, cells, cell) {
  const lines = { x: [0, 0.5, 1], y: [0, 0.5, 1] };
  for (const [x1, y1, x2, y2] of boxes) {
    lines.x.push(x1, x2);
    lines.y.push(y1, y2);
  }
  if (cells) {
    for (let x = cell; x < canvas.width; x += cell) lines.x.push(x / canvas.width);
    for (let y = cell; y < canvas.height; y += cell) lines.y.push(y / canvas.height);
  }
  return lines;
}

/**
 * The shift that brings one of `edges` (fractions) onto the nearest line within `reach`, or onto a whole pixel:
 * { shift, line }, line null where only the pixel grid was met.
 */
export function snap(edges, lines, within, size) {
  let best = { shift: Math.round(edges[0] * size) / size - edges[0], line: null };
  let nearest = within;
  for (const edge of edges) {
    for (const line of lines) {
      const distance = Math.abs(line - edge);
      if (distance < nearest) [nearest, best] = [distance, { shift: line - edge, line }];
    }
  }
  return best;
}
