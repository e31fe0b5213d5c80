// What the graph says without running: the file behind an input, and the numbers that nodes will get.

import { isMedia } from "./background.js";

const SUBGRAPH_INPUT = -10; // ComfyUI's id of the node that stands for a subgraph's inputs
const BYPASSED = 4;
const MUTED = 2;
const DEPTH = 12; // nodes between a loader and the editor

/** The picture or video file that reaches an input, as { filename, subfolder, type }, or null. */
export function fileBehind(node, inputName) {
  let source = origin(node, node.inputs?.find((input) => input.name === inputName)?.link);
  for (let depth = 0; source && depth < DEPTH; depth++) {
    const { node: found } = source;
    if (found.mode === MUTED) return null;
    const file = found.mode === BYPASSED ? null : fileOf(found);
    if (file) return file;
    const input = found.inputs?.find((candidate) => candidate.link != null && /IMAGE|VIDEO|\*/.test(candidate.type));
    source = input && origin(found, input.link);
  }
  return null;
}

/** The value that a widget of a node will have: its own, or where it is linked that of a node of one number. */
export function valueOf(node, name) {
  const widget = node.widgets?.find((candidate) => candidate.name === name);
  const input = node.inputs?.find((candidate) => candidate.name === name);
  if (input?.link == null) return widget?.value;
  const numbers = origin(node, input.link)?.node.widgets?.filter((other) => typeof other.value === "number") ?? [];
  return numbers.length === 1 ? numbers[0].value : undefined;
}

/** The node at the other end of a link, through the border of a subgraph where there is one. */
function origin(node, link) {
  if (link == null || !node.graph) return null;
  const { links } = node.graph;
  const found = links.get?.(link) ?? links[link];
  if (!found) return null;
  if (Number(found.origin_id) !== SUBGRAPH_INPUT) {
    const source = node.graph.getNodeById(found.origin_id);
    return source && { node: source, slot: found.origin_slot };
  }
  const host = hostOf(node.graph, node.graph.rootGraph);
  return host ? origin(host, host.inputs?.[found.origin_slot]?.link) : null;
}

/** The node that a subgraph is drawn as. Where it is used several times, the first. */
function hostOf(subgraph, graph) {
  for (const node of graph?.nodes ?? []) {
    if (node.subgraph === subgraph) return node;
    const inner = node.subgraph && hostOf(subgraph, node.subgraph);
    if (inner) return inner;
  }
  return null;
}

/** A loader's file: the widget whose text is a media file's name, "folder/name.png [output]" as ComfyUI writes it. */
function fileOf(node) {
  for (const { name, value } of node.widgets ?? []) {
    if (!["image", "file", "video"].includes(name) || typeof value !== "string") continue;
    const [, path, type = "input"] = /^(.*?)(?: \[(input|output|temp)\])?$/.exec(value);
    if (!isMedia(path)) continue;
    const cut = path.lastIndexOf("/");
    return { filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(cut, 0)), type };
  }
  return null;
}
