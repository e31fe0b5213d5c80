// What a node says after a run: what it has read, and below that its warnings. Python's side is nodes/notices.py.
import { app } from "../../../scripts/app.js";

const SPEAKERS = [
  "DV2BoxesToMask", "DV2BoxesFromMasks", "DV2BoxesFromVideo", "DV2LoadBoxes", "DV2SaveBoxes", "DV2BoxAdherence",
  "DV2BestOfN",
];
const LINE = "font: 11px/16px sans-serif; overflow-wrap: anywhere; user-select: text; ";
const CALM = "color: var(--descrip-text, #999)", WARNING = "color: #e8a33d";

// Made with the node and not when it first speaks: Nodes 2.0 shows no widget that comes later.
function addVoice(node) {
  const element = document.createElement("div");
  element.setAttribute("role", "status");
  element.style.cssText = "box-sizing: border-box; width: 100%; min-height: 18px; overflow: auto; padding: 1px 6px";
  let rows = 1;
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => 2 + 16 * rows };
  const widget = node.addDOMWidget("dv2_said", "DV2_SAID", element, options);
  widget.serialize = false; // words, not a setting: nothing of it is saved with the workflow
  return ([text, ...warnings]) => {
    rows = 1 + 3 * warnings.length; // a warning takes about three lines of a node's width
    element.style.minHeight = `${2 + 16 * rows}px`;
    const lines = [[text, CALM], ...warnings.map((line) => [`⚠ ${line}`, WARNING])];
    element.replaceChildren(...lines.map(([line, colour]) => {
      const row = Object.assign(document.createElement("div"), { textContent: line });
      row.style.cssText = LINE + colour;
      return row;
    }));
    node.expandToFitContent?.();
    node.setDirtyCanvas?.(true, true);
  };
}

app.registerExtension({
  name: "DV2.Notices",
  nodeCreated(node) {
    if (!SPEAKERS.includes(node.comfyClass)) return;
    const say = addVoice(node);
    const before = node.onExecuted;
    node.onExecuted = function (output) {
      before?.apply(this, arguments);
      if (output?.dv2_said) say(output.dv2_said);
    };
  },
});
