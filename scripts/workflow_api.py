"""A saved workflow (what the web page writes) as a prompt (what ComfyUI's server executes), without a browser.

Covers what this pack's templates use: nodes, links and widgets. Reroutes, subgraphs, muted and bypassed nodes are
refused with a sentence. ``info`` is always the server's answer to GET /object_info. Standard library only.
"""

from typing import Any

Json = dict[str, Any]

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
AFTER_GENERATE = {"fixed", "increment", "decrement", "randomize"}
UPLOADS = ("image_upload", "video_upload", "audio_upload")
NOTES = {"Note", "MarkdownNote"}


class WorkflowError(ValueError):
    """The workflow cannot be run as it is; the message says why."""


def nodes_of_class(workflow: Json, class_type: str) -> list[Json]:
    return [node for node in workflow["nodes"] if node["type"] == class_type]


def only_node(workflow: Json, class_type: str) -> Json:
    """The one node of that class.

    Raises:
        WorkflowError: there is none, or more than one.
    """
    found = nodes_of_class(workflow, class_type)
    if len(found) != 1:
        raise WorkflowError(f"The workflow has {len(found)} nodes of type {class_type}; exactly one is needed.")
    return found[0]


def set_widget(node: Json, info: Json, name: str, value: Any) -> None:
    """Change a widget of a saved node in place.

    Raises:
        WorkflowError: the node has no such widget.
    """
    slots = _widget_slots(node, info)
    if name not in slots:
        raise WorkflowError(f"{node['type']} has no widget {name!r}; it has {', '.join(slots) or 'none'}.")
    node["widgets_values"][slots[name]] = value


def to_prompt(workflow: Json, info: Json) -> Json:
    """The workflow in API form: ``{node id: {"class_type", "inputs", "_meta"}}``, a link as ``[node id, output]``."""
    if workflow.get("definitions", {}).get("subgraphs"):
        raise WorkflowError("The workflow has subgraphs; run it from ComfyUI's page.")
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt: Json = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        if node.get("mode", 0) != 0:
            raise WorkflowError(f"Node {node['id']} ({node['type']}) is muted or bypassed; remove it or switch it on.")
        spec = _spec(node, info)
        values = node.get("widgets_values") or []
        inputs = {name: values[slot] for name, slot in _widget_slots(node, info).items()}
        for socket in node.get("inputs", []):
            if socket.get("link") is not None:
                inputs[socket["name"]] = links[socket["link"]]
        title = node.get("title") or spec.get("display_name") or node["type"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}
    return prompt


def upstream(prompt: Json, node_id: str) -> set[str]:
    """Ids of all nodes that ``node_id`` depends on, itself included."""
    seen: set[str] = set()
    todo = [node_id]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += [value[0] for value in prompt[current]["inputs"].values() if _is_link(value)]
    return seen


def text_behind(prompt: Json, node_id: str, name: str) -> str:
    """Id of the CLIPTextEncode that reaches input ``name`` ("positive", "negative") of a node.

    On the way through nodes that take and give both conditionings, the input of the same name is followed.

    Raises:
        WorkflowError: no text reaches that input.
    """
    current, seen = prompt[node_id], {node_id}
    while True:
        inputs = current["inputs"]
        link = inputs.get(name) if _is_link(inputs.get(name)) else inputs.get("conditioning")
        if not _is_link(link) or link[0] in seen:
            raise WorkflowError(f"No CLIPTextEncode reaches {name!r} of {prompt[node_id]['class_type']}.")
        seen.add(link[0])
        current = prompt[link[0]]
        if current["class_type"] == "CLIPTextEncode":
            return link[0]


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _spec(node: Json, info: Json) -> Json:
    if node["type"] not in info:
        raise WorkflowError(f"This ComfyUI has no node of type {node['type']}.")
    return info[node["type"]]


def _widget_slots(node: Json, info: Json) -> dict[str, int]:
    """Where each widget's value lies in ``widgets_values``.

    The page writes one value per widget in the order of the inputs, also for widgets whose input is linked. After a
    seed it writes what to do with it after a run, and at the end one value for an upload button. Optional widgets that
    the node has gained since have no value yet, and keep their default.
    """
    spec = _spec(node, info)["input"]
    values = node.get("widgets_values") or []
    declared = {socket["name"] for socket in node.get("inputs", []) if "widget" in socket}
    slots: dict[str, int] = {}
    position = needed = 0
    for group in ("required", "optional"):
        inputs = spec.get(group) or {}
        for name, entry in inputs.items():
            kind, options = entry[0], entry[1] if len(entry) > 1 else {}
            plain = isinstance(kind, list) or kind in WIDGET_TYPES or options.get("socketless")
            plain = plain and not options.get("forceInput")
            if not (plain or name in declared):
                continue
            slots[name] = position
            position += 1
            seed = options.get("control_after_generate") or name in ("seed", "noise_seed")
            if seed and position < len(values) and values[position] in AFTER_GENERATE:
                position += 1
        if group == "required":
            needed = position
    if any(len(entry) > 1 and entry[1].get(upload) for entry in spec["required"].values() for upload in UPLOADS):
        position += 1
    elif needed <= len(values) < position:
        return {name: slot for name, slot in slots.items() if slot < len(values)}
    if position != len(values):
        raise WorkflowError(
            f"Node {node['id']} ({node['type']}) was saved with {len(values)} widget values, but this version of the "
            f"node has {position}. Open the workflow in ComfyUI and save it again."
        )
    return slots
