// What a node says after a run: what it has read, and below that its warnings. Python's side is nodes/notices.py.
import { app } from "../../scripts/app.js";

const LINE = "font: 11px/1.35 sans-serif; overflow-wrap: anywhere; user-select: text; cursor: text; ";

function show(node, [text, ...warnings]) {
  let widget = node.widgets?.find(({ name }) => name === "dv2_said");
  if (!widget) {
    const element = document.createElement("div");
    element.setAttribute("role", "status");
    element.style.cssText = "box-sizing: border-box; width: 100%; height: 100%; overflow: auto; padding: 2px 6px";
    const options = { serialize: false, hideOnZoom: false, getMinHeight: () => 20 * element.dataset.rows };
    widget = node.addDOMWidget("dv2_said", "DV2_SAID", element, options);
    widget.serialize = false; // words, not a setting: nothing of it is saved with the workflow
  }
  const lines = [[text, "color: var(--descrip-text, #999)"], ...warnings.map((line) => [`⚠ ${line}`, "color: #e8a33d"])];
  widget.element.dataset.rows = 1 + 3 * warnings.length; // a warning takes about three lines of a node's width
  widget.element.replaceChildren(...lines.map(([line, style]) => {
    const row = document.createElement("div");
    row.style.cssText = LINE + style;
    row.textContent = line;
    return row;
  }));
  node.expandToFitContent?.();
  node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: "DV2.Notices",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("DV2")) return;
    const before = node.onExecuted;
    node.onExecuted = function (output) {
      before?.apply(this, arguments);
      if (output?.dv2_said) show(this, output.dv2_said);
    };
  },
});
