// Makes the editor the widget of every DV2_BOX_DOCUMENT input and keeps it in step with its node.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { BoxEditor } from "./editor.js";
import { fromJson } from "./keyframe_text.js";
import { fileBehind, valueOf } from "./upstream.js";

const NODE = "DV2BoxEditor";
const WATCH = 400; // milliseconds between looks at the rest of the graph, which tells nobody when it changes
const SIZES = ["width", "height", "length", "fps"];
const [WIDTH, TALLER] = [490, 160]; // of a new node: its width, and how much it is higher than it must be
const LEAST = 320; // height of the editor

function viewUrl({ filename, subfolder, type }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

app.registerExtension({
  name: "DreamVideo2.BoxEditor",
  getCustomWidgets: () => ({ DV2_BOX_DOCUMENT: documentWidget }),
  nodeCreated(node) {
    if (node.comfyClass === NODE) node.setSize([WIDTH, node.computeSize()[1] + TALLER]);
  },
});

function documentWidget(node, inputName) {
  const editor = new BoxEditor(() => {
    widget.callback?.(widget.value);
    rememberChange();
  });
  const widget = node.addDOMWidget(inputName, "DV2_BOX_DOCUMENT", editor.element, {
    getValue: () => editor.state.text,
    setValue: (text) => (editor.state.text = text),
    getMinHeight: () => LEAST,
    hideOnZoom: false,
    serialize: true,
  });
  follow(node, editor);
  const timer = setInterval(() => follow(node, editor), WATCH);
  const removed = widget.onRemove;
  widget.onRemove = function () {
    clearInterval(timer);
    removed?.call(this);
  };
  const executed = node.onExecuted;
  node.onExecuted = function (output) {
    executed?.call(this, output);
    show(editor, output);
  };
  return { widget, minHeight: LEAST };
}

/** The node's sizes and its background, as they are in the graph now. */
function follow(node, editor) {
  if (!node.graph) return;
  const { state, background } = editor;
  const canvas = { ...state.canvas };
  for (const name of SIZES) {
    const value = Number(valueOf(node, name));
    if (value > 0) canvas[name] = value;
  }
  state.setCanvas(canvas);
  const linked = (name) => node.inputs?.find((input) => input.name === name)?.link != null;
  const file = fileBehind(node, "background");
  if (file || !linked("background")) background.setFile(file && { name: file.filename, url: viewUrl(file) });
  const connected = linked("bounding_boxes");
  if (state.seed && !connected) state.setSeed(null);
  if (state.seedAwaited !== (connected && !state.seed)) state.set({ seedAwaited: connected && !state.seed });
}

/** What the node found out when it ran: the sizes of linked inputs, the boxes to start from, the background. */
function show(editor, { dv2_canvas: [canvas] = [], dv2_seed: [seed] = [], dv2_background: frames }) {
  if (canvas) editor.state.setCanvas(canvas);
  editor.state.setSeed(seed ? fromJson(seed) : null);
  if (frames) editor.background.setFrames(frames.map((entry) => ({ url: viewUrl(entry), frame: entry.frame })));
}

/** Tells ComfyUI's own undo and its unsaved mark; it looks by itself only after mouse and keys that reach it. */
function rememberChange() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState?.();
}
