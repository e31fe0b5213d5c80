// The editor as one element: toolbar, stage, transport, timeline. Knows the page, but not ComfyUI.

import { Background } from "./background.js";
import { copyText, pasteText, pressKey } from "./commands.js";
import { Controls, element } from "./controls.js";
import { Stage } from "./stage.js";
import { StageInput } from "./stage_input.js";
import { EditorState } from "./state.js";
import { Timeline } from "./timeline.js";

const STYLE = new URL("./box_editor.css", import.meta.url).href;

export class BoxEditor {
  state = new EditorState();
  #frameRequest = 0;
  #playedFrom = 0;

  /** `changed()` is called when there is something new to save. */
  constructor(changed) {
    const { state } = this;
    this.background = new Background(() => this.redraw());
    this.controls = new Controls(state);
    this.stage = new Stage(element("canvas", { className: "dv2-canvas" }), state, this.background);
    this.input = new StageInput(this.stage, state);
    this.timeline = new Timeline(element("canvas", { className: "dv2-canvas" }), state, (...ask) => this.#ask(...ask));
    const stage = this.#region("stage", this.stage.canvas, this.input,
      "Picture with boxes. Arrow keys move the box, Enter makes one, question mark lists all keys.");
    const timeline = this.#region("timeline", this.timeline.canvas, this.timeline,
      "Timeline. Left and right change the frame, up and down the track.");
    this.timelineRegion = timeline;
    stage.append(this.controls.notice, this.controls.help);
    const { toolbar, transport, status } = this.controls;
    const style = element("link", { rel: "stylesheet", href: STYLE });
    // "widget-expands" is ComfyUI's own word, in Nodes 2.0, for a widget that takes the room that is left.
    this.element = element("div", { className: "dv2-editor widget-expands" },
      style, toolbar, stage, transport, timeline, status);
    // ComfyUI would drag the node or open its menu.
    for (const name of ["pointerdown", "contextmenu", "dblclick"]) {
      this.element.addEventListener(name, (event) => event.stopPropagation());
    }
    this.element.addEventListener("contextmenu", (event) => event.preventDefault());
    // A key on a button or menu is not one of ComfyUI's single-letter shortcuts.
    this.element.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
    new ResizeObserver(() => this.redraw()).observe(this.element);
    state.listen((kind) => {
      this.redraw();
      if (kind === "plan") changed();
    });
    this.redraw();
  }

  /** Draws once before the next repaint, however often it is called. */
  redraw() {
    this.#frameRequest ||= requestAnimationFrame((now) => {
      this.#frameRequest = 0;
      if (this.state.playing) this.#play(now);
      else this.#playedFrom = 0;
      this.paint();
    });
  }

  /** Draws now. */
  paint() {
    if (!this.element.isConnected) return;
    this.controls.update();
    const height = `${this.timeline.height}px`;
    if (this.timelineRegion.style.height !== height) this.timelineRegion.style.height = height;
    this.stage.draw();
    this.timeline.draw();
  }

  #play(now) {
    const { state } = this;
    if (!this.element.isConnected) return state.set({ playing: false });
    this.#playedFrom ||= now - (state.frame * 1000) / state.canvas.fps;
    state.goTo(Math.floor(((now - this.#playedFrom) * state.canvas.fps) / 1000) % state.length);
  }

  /**
   * A canvas and the invisible text field that has the keyboard for it. A text field, because there ComfyUI leaves
   * undo, delete, copy and paste to the one who has the focus.
   */
  #region(name, canvas, pointer, label) {
    const keys = element("textarea", { className: "dv2-keys", inputMode: "none", spellcheck: false });
    keys.ariaLabel = label;
    canvas.addEventListener("pointerdown", () => keys.focus({ preventScroll: true }));
    canvas.addEventListener("mousedown", (event) => event.preventDefault()); // would take the focus away again
    keys.addEventListener("keydown", (event) => this.#keyDown(event, name, pointer));
    keys.addEventListener("input", () => (keys.value = ""));
    for (const kind of ["copy", "cut"]) {
      keys.addEventListener(kind, (event) => {
        this.state.clipboard = copyText(this.state);
        event.clipboardData.setData("text/plain", this.state.clipboard);
        event.preventDefault();
        event.stopPropagation();
        this.redraw();
      });
    }
    keys.addEventListener("paste", (event) => {
      event.preventDefault();
      event.stopPropagation();
      pasteText(this.state, event.clipboardData.getData("text/plain"));
    });
    return element("div", { className: `dv2-region dv2-${name}` }, canvas, keys);
  }

  #keyDown(event, region, pointer) {
    let ours = true;
    if (event.key === "Escape") {
      if (pointer.busy) pointer.cancel();
      else if (!this.controls.help.hidden) this.controls.toggleHelp();
      else this.state.set({ tool: "box", addingTrack: false, playing: false });
    } else if (event.key === "?") this.controls.toggleHelp();
    else ours = pressKey(this.state, event, region);
    if (!ours) return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** A text field over the timeline; `done(text)` unless Escape is pressed. */
  #ask({ left, top, width, text }, done) {
    const field = element("input", { className: "dv2-rename", value: text, maxLength: 60 });
    Object.assign(field.style, { left: `${left}px`, top: `${top}px`, width: `${width}px` });
    const close = (keep) => {
      field.onblur = null;
      field.remove();
      this.timelineRegion.querySelector(".dv2-keys").focus({ preventScroll: true });
      if (keep) done(field.value.trim());
    };
    field.onblur = () => close(true);
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter" || event.key === "Escape") close(event.key === "Enter");
    });
    this.timelineRegion.append(field);
    field.focus();
    field.select();
  }
}
