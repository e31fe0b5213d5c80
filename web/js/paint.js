// Colours and small drawing helpers that the stage and the timeline share.

/** Track colours: those of dv2_core.boxes.draw_boxes, so that the editor and the preview agree. */
export const COLOURS = ["#ff4033", "#1aa6ff", "#33d94d", "#ffbf00", "#d94dff", "#00d9cc"];
export const FONT = "11px Inter, system-ui, sans-serif";
export const ACCENT = "#ffffff";

/** Speeds in canvas diagonals per frame that are drawn red: a subject that crosses the picture in ten frames. */
const FAST = 0.1;

export const colourOf = (index) => COLOURS[index % COLOURS.length];

/** Green for still, red from FAST on. */
export const speedColour = (speed) => `hsl(${Math.round(130 * (1 - Math.min(speed / FAST, 1)))} 85% 55%)`;

/** Distance of two centres in pixels. */
export const distance = ([ax, ay], [bx, by], canvas) =>
  Math.hypot((bx - ax) * canvas.width, (by - ay) * canvas.height);

/** The 2d context of a canvas in CSS pixels, sharp at the page's zoom, cleared; and its size and device pixels. */
export function prepare(canvas) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return null; // collapsed, or not on the page
  const zoom = (canvas.getBoundingClientRect().width / width) * devicePixelRatio;
  const ratio = Math.min(Math.max(Math.ceil(zoom * 2) / 2, 1), 3);
  return { context: sized(canvas, width, height, ratio), width, height, ratio };
}

/** A drawing that is kept: it is made again only when what it shows has changed. */
export class Layer {
  #canvas = document.createElement("canvas");
  #drawn = [];

  /** The drawing, width x height CSS pixels; `shows` lists what it depends on, `draw(context)` makes it. */
  picture(width, height, ratio, shows, draw) {
    const now = [width, height, ratio, ...shows];
    if (now.length !== this.#drawn.length || now.some((value, i) => value !== this.#drawn[i])) {
      draw(sized(this.#canvas, width, height, ratio));
      this.#drawn = now;
    }
    return this.#canvas;
  }
}

function sized(canvas, width, height, ratio) {
  const [w, h] = [Math.max(Math.round(width * ratio), 1), Math.max(Math.round(height * ratio), 1)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  return context;
}

/** A pointer event's place on a canvas in its CSS pixels, whatever the page's zoom. */
export function place(canvas, event) {
  const rect = canvas.getBoundingClientRect();
  return [
    ((event.clientX - rect.left) / rect.width) * canvas.clientWidth,
    ((event.clientY - rect.top) / rect.height) * canvas.clientHeight,
  ];
}

export function diamond(context, x, y, radius) {
  context.beginPath();
  context.moveTo(x, y - radius);
  context.lineTo(x + radius, y);
  context.lineTo(x, y + radius);
  context.lineTo(x - radius, y);
  context.closePath();
}

/** White text on a plate, its left bottom corner at (x, y). */
export function tag(context, text, x, y, colour) {
  const width = context.measureText(text).width + 8;
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(x, y - 15, width, 15, [3, 3, 3, 0]);
  context.fill();
  context.fillStyle = "#101010";
  context.textBaseline = "middle";
  context.fillText(text, x + 4, y - 7);
}
