// Load Boxes: a button and a drop on the node bring a JSON, CSV or video file into ComfyUI's input folder.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const ACCEPTED = [".json", ".csv", ".mp4", ".mov", ".m4v", ".webm", ".mkv"];

const isAccepted = (file) => ACCEPTED.some((suffix) => file.name.toLowerCase().endsWith(suffix));

function complain(detail) {
  app.extensionManager.toast.add({ severity: "error", summary: "Load Boxes", detail, life: 8000 });
}

async function upload(widget, file) {
  if (!isAccepted(file)) return complain(`${file.name} is none of ${ACCEPTED.join(", ")}.`);
  const body = new FormData();
  body.append("image", file); // ComfyUI's one upload route, for every kind of file
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (answer.status !== 200) return complain(`${file.name} was not uploaded: ${answer.status} ${answer.statusText}.`);
  const { name, subfolder } = await answer.json();
  const value = subfolder ? `${subfolder}/${name}` : name;
  if (!widget.options.values.includes(value)) widget.options.values.push(value);
  widget.value = value;
  widget.callback?.(value);
}

function pick(widget) {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: ACCEPTED.join(",") });
  input.onchange = () => input.files.length && upload(widget, input.files[0]);
  input.click();
}

app.registerExtension({
  name: "DV2.LoadBoxes",
  nodeCreated(node) {
    if (node.comfyClass !== "DV2LoadBoxes") return;
    const widget = node.widgets.find(({ name }) => name === "file");
    const button = node.addWidget("button", "choose file to upload", null, () => pick(widget));
    button.serialize = false; // a button has no value to save
    node.onDragOver = (event) => Boolean(event?.dataTransfer?.types?.includes("Files"));
    node.onDragDrop = (event) => {
      const [file] = event?.dataTransfer?.files ?? [];
      if (file) upload(widget, file);
      return Boolean(file);
    };
  },
});
