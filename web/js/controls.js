// Buttons, menus, the line of numbers, and the notice above the stage.

import { COMMANDS, run, setEasing } from "./commands.js";
import { stretch, trim } from "./edits.js";
import { EASINGS } from "./keyframes.js";
import { CELL } from "./stage.js";

/** 16 x 16 line drawings. */
const ICONS = {
  box: "M3 4.5h10v7H3z M1.5 3h3v3h-3z M11.5 10h3v3h-3z",
  path: "M2 13c4 0 3-8 6-8s2 5 6 3",
  newTrack: "M2 4h8v6H2z M12 9v6 M9 12h6",
  undo: "M6 3L3 6l3 3 M3 6h6a4 4 0 0 1 0 8H6",
  redo: "M10 3l3 3-3 3 M13 6H7a4 4 0 0 0 0 8h3",
  copy: "M5.5 5.5h8v8h-8z M10.5 5.5v-3h-8v8h3",
  paste: "M4 3.5h8v10H4z M6 2h4v3H6z M6 8h4 M6 10.5h4",
  onion: "M2 5h6v6H2z M5 3.5h6v6 M8 2h6v6",
  snap: "M4 2v6a4 4 0 0 0 8 0V2 M4 5h2.5 M9.5 5H12 M6.5 2v6a1.5 1.5 0 0 0 3 0V2 M4 2h2.5 M9.5 2H12",
  cells: "M2.5 2.5h11v11h-11z M6.2 2.5v11 M9.8 2.5v11 M2.5 6.2h11 M2.5 9.8h11",
  speed: "M2 12a6 6 0 1 1 12 0 M8 12l3-5",
  help: "M5.5 6a2.5 2.5 0 1 1 3.6 2.2C8.3 8.6 8 9 8 10 M8 12.5v.6",
  first: "M3 3v10 M13 3L6 8l7 5z",
  previousKey: "M4 5.5L1.5 8 4 10.5 6.5 8z M13 4L8.5 8 13 12",
  play: "M4 2.5l9 5.5-9 5.5z",
  pause: "M5 3v10 M11 3v10",
  nextKey: "M12 5.5L9.5 8 12 10.5 14.5 8z M3 4l4.5 4L3 12",
  last: "M13 3v10 M3 3l7 5-7 5z",
  key: "M8 2.5L13.5 8 8 13.5 2.5 8z",
  visible: "M1.5 8C4 3.5 12 3.5 14.5 8 12 12.5 4 12.5 1.5 8z M8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4",
  smooth: "M2 13C5 13 5 3 8 3s3 10 6 10",
  removeTrack: "M3 4.5h10 M6 4.5v-2h4v2 M4.5 4.5l.6 9h5.8l.6-9",
};
const TOOLBAR = [["box", "path", "newTrack"], ["undo", "redo", "copy", "paste"], ["onion", "snap", "cells", "speed"]];
const TRANSPORT = [["first", "previousKey", "play", "nextKey", "last"], ["key", "visible", "removeTrack"]];
const EASING_NAMES = {
  "linear": "Linear", "ease-in": "Ease in", "ease-out": "Ease out", "ease-in-out": "Ease in and out", "hold": "Hold",
};

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export class Controls {
  #buttons = new Map();

  constructor(state) {
    this.state = state;
    this.toolbar = this.#bar("Tools", TOOLBAR);
    this.transport = this.#bar("Playback and keyframes", TRANSPORT);
    this.readout = element("output", { className: "dv2-readout", title: "Frame" });
    this.transport.insertBefore(this.readout, this.transport.children[1]);
    this.easing = element("select", { className: "dv2-easing", title: "Easing between these keyframes (1 to 5)" });
    this.easing.ariaLabel = "Easing between these keyframes";
    for (const name of EASINGS) this.easing.append(new Option(EASING_NAMES[name], name));
    this.easing.addEventListener("change", () => setEasing(state, this.easing.value));
    this.transport.append(element("div", { className: "dv2-group" }, this.#button("smooth"), this.easing));
    this.toolbar.append(element("span", { className: "dv2-space" }), this.#helpButton());
    this.help = helpPanel();
    this.notice = element("div", { className: "dv2-notice", hidden: true });
    this.notice.setAttribute("role", "alert");
    this.status = element("div", { className: "dv2-status" });
  }

  /** Shows the state: which buttons are on, the numbers, the notice. */
  update() {
    const { state } = this;
    for (const [name, button] of this.#buttons) {
      const { on, enabled } = COMMANDS[name];
      if (on) setAttribute(button, "aria-pressed", String(Boolean(on(state))));
      const disabled = !(enabled?.(state) ?? true);
      if (button.disabled !== disabled) button.disabled = disabled;
    }
    setIcon(this.#buttons.get("play"), state.playing ? "pause" : "play");
    setText(this.readout, `${state.frame + 1} / ${state.length}`);
    const segment = state.segmentStart;
    this.easing.disabled = !segment || state.activeTrack.keyframes.length < 2;
    if (this.easing.value !== (segment?.easing ?? "linear")) this.easing.value = segment?.easing ?? "linear";
    this.#updateStatus();
    this.#updateNotice();
  }

  toggleHelp() {
    this.help.hidden = !this.help.hidden;
  }

  #bar(label, groups) {
    const bar = element("div", { className: "dv2-bar" });
    bar.setAttribute("role", "toolbar");
    bar.ariaLabel = label;
    for (const names of groups) {
      bar.append(element("div", { className: "dv2-group" }, ...names.map((name) => this.#button(name))));
    }
    return bar;
  }

  #button(name) {
    const { title, key } = COMMANDS[name];
    const button = iconButton(name, `${title} (${key})`);
    button.dataset.command = name;
    button.addEventListener("click", () => run(this.state, name));
    this.#buttons.set(name, button);
    return button;
  }

  #helpButton() {
    const button = iconButton("help", "Keys and gestures (?)");
    button.addEventListener("click", () => this.toggleHelp());
    return button;
  }

  /** The box in pixels and how fast it goes; a warning takes its place. */
  #updateStatus() {
    const { state } = this;
    const track = state.activeTrack;
    setText(this.status, "");
    this.status.classList.remove("dv2-warning");
    if (state.addingTrack) return setText(this.status, "Drag a box for the new subject.");
    if (state.tool === "path") {
      return setText(this.status, "Draw the path: the box follows at your speed, up to the next keyframe.");
    }
    if (!track) return setText(this.status, "");
    const { width, height } = state.canvas;
    if (!state.plan && !state.draft) {
      return setText(this.status, "The connected boxes. With your first change they become yours.");
    }
    const { uncut, boxes, visible } = state.evaluated(track);
    const [x1, y1, x2, y2] = boxes[state.frame].map((edge, i) => edge * (i % 2 ? height : width));
    const warning = visible[state.frame]
      ? Math.min(x2 - x1, y2 - y1) < CELL && "Thinner than one latent cell (8 px): the model can hardly see it."
      : "Hidden in this frame.";
    this.status.classList.toggle("dv2-warning", Boolean(warning));
    const [a, b] = [uncut[Math.max(state.frame - 1, 0)], uncut[state.frame]];
    const speed = Math.hypot(((b[0] + b[2] - a[0] - a[2]) / 2) * width, ((b[1] + b[3] - a[1] - a[3]) / 2) * height);
    const size = `${short(x2 - x1)} × ${short(y2 - y1)} px`;
    const numbers = `x ${short(x1)}  y ${short(y1)}   ${size}   ${short(speed)} px/frame`;
    const hint = state.shown.tracks.length === 1 && track.keyframes.length === 1 && state.length > 1
      && "Go to another frame and move the box: that makes a keyframe.";
    setText(this.status, warning || hint || numbers);
  }

  #updateNotice() {
    const { state, notice } = this;
    const sentence = state.error ? `${state.error} It is kept as it is; what you draw takes its place.`
      : state.mismatch ? `Drawn for ${state.plan.length} frames; the node now has ${state.canvas.length}.` : "";
    if (notice.dataset.sentence === sentence) return;
    notice.dataset.sentence = sentence;
    notice.hidden = !sentence;
    const choice = (text, title, change) => {
      const button = element("button", { type: "button", className: "dv2-choice", textContent: text, title });
      button.addEventListener("click", () => state.commit(change(state.plan, state.canvas.length)));
      return button;
    };
    notice.replaceChildren(sentence);
    if (!state.mismatch) return;
    notice.append(" ",
      choice("Stretch", "Keyframes move in proportion: the same motion, faster or slower", stretch), " ",
      choice("Keep timing", "Keyframes stay on their frames; what is beyond the end is cut", trim));
  }
}

function iconButton(icon, title) {
  const button = element("button", { type: "button", className: "dv2-button", title });
  button.ariaLabel = title;
  // A click leaves the keyboard where it was, in the stage or the timeline; Tab still gets here.
  button.addEventListener("pointerdown", (event) => event.stopPropagation());
  button.addEventListener("mousedown", (event) => event.preventDefault());
  setIcon(button, icon);
  return button;
}

function setIcon(button, icon) {
  if (button.dataset.icon === icon) return;
  button.dataset.icon = icon;
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  drawing.setAttribute("viewBox", "0 0 16 16");
  path.setAttribute("d", ICONS[icon]);
  drawing.append(path);
  button.replaceChildren(drawing);
}

function helpPanel() {
  const rows = [
    ...Object.values(COMMANDS).map(({ key, title }) => [key, title]),
    ["1 … 5", `Easing: ${Object.values(EASING_NAMES).join(", ")}`],
    ["Arrows", "On the picture: move the box by a pixel (Shift 8; Alt its right and lower edge). On the timeline: "
      + "frames and tracks (Shift keyframes; Alt moves the keyframe)"],
    ["[  ]", "Track before, next track"],
    ["Delete", "Remove the keyframe under the playhead"],
    ["Shift+drag a corner", "Keep the box's shape"],
    ["Double click a name", "Rename the track"],
    ["Escape", "Give up a drag"],
  ];
  const list = element("dl");
  for (const [key, text] of rows) {
    list.append(element("dt", { textContent: key }), element("dd", { textContent: text }));
  }
  return element("div", { className: "dv2-help", hidden: true, tabIndex: 0 }, list);
}

const short = (value) => String(Math.round(value * 10) / 10);

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function setAttribute(target, name, value) {
  if (target.getAttribute(name) !== value) target.setAttribute(name, value);
}
