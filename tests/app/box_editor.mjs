// Uses the box editor as an artist would, in ComfyUI's page in a real browser, and prints a report as JSON.
//   node box_editor.mjs CONFIG.json
// CONFIG: { url, playwright, chromium, nodes2, picture, screenshots, seconds }; picture: a file in the input folder.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { openComfy, withPage } from "./launch.mjs";

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
const [NAMES, LEFT, RIGHT, RULER, ROW] = [78, 8, 14, 20, 24]; // the timeline's layout in CSS pixels

const report = { elsewhere: [], pageErrors: [], documents: {}, seen: {} };
await withPage(config, report, { width: 1400, height: 1000 }, use);
console.log(JSON.stringify(report));

async function use(page) {
  await openComfy(page, config.url);
  await page.evaluate(build, config.picture);
  await page.waitForSelector(".dv2-stage canvas");
  const stage = page.locator(".dv2-stage canvas");
  const timeline = page.locator(".dv2-timeline canvas");
  const record = async (name) => {
    await page.waitForTimeout(100);
    report.documents[name] = await documentOf(page);
  };
  const show = (name) => page.screenshot({ path: join(config.screenshots, `${name}.png`) });

  // The connected picture is on the stage without a run: green, darkened a little for the boxes' sake.
  const green = () => {
    const canvas = document.querySelector(".dv2-stage canvas");
    const [r, g, b] = canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 4, 1, 1).data;
    return g > 120 && r < 60 && b < 60;
  };
  await page.waitForFunction(green);
  report.seen.background = await page.evaluate(green);
  await show("1-empty");

  // Draw a box with the mouse on the first frame.
  await drag(page, await inside(stage, 0.25, 0.55), await inside(stage, 0.45, 0.8));
  await record("drawn");
  // Go to the last frame, take the box by its middle and move it: that is a keyframe.
  await page.keyboard.press("End");
  await drag(page, await inside(stage, 0.35, 0.675), await inside(stage, 0.65, 0.35));
  await record("moved");
  // Drag the keyframe on the timeline, from the last frame to frame 9 of 0..11.
  const length = 12;
  const frame = async (index, row = 0) => {
    const box = await timeline.boundingBox();
    const scale = box.width / (await timeline.evaluate((canvas) => canvas.clientWidth));
    const room = box.width / scale - NAMES - LEFT - RIGHT;
    const y = row === null ? 12 : RULER + ROW * (row + 0.5);
    return [box.x + scale * (NAMES + LEFT + (room * index) / (length - 1)), box.y + scale * y];
  };
  await drag(page, await frame(11), await frame(9));
  await record("dragged");
  // Choose an easing, with the menu.
  await page.locator(".dv2-easing").selectOption("ease-in-out");
  await record("eased");
  await show("2-eased");
  // Scrub along the ruler.
  report.seen.scrubbed = [];
  const [from, to] = [await frame(0, null), await frame(5, null)];
  await page.mouse.move(...from);
  await page.mouse.down();
  for (let i = 0; i <= 5; i++) {
    await page.mouse.move(...(await frame(i, null)));
    await page.waitForTimeout(80);
    report.seen.scrubbed.push(await page.locator(".dv2-readout").textContent());
  }
  await page.mouse.move(...to);
  await page.mouse.up();
  await record("scrubbed");
  // Undo and redo, with the keys that ComfyUI also listens to.
  await page.keyboard.press("Control+z");
  await record("undone");
  await page.keyboard.press("Control+Shift+z");
  await record("redone");
  report.seen.nodesAfterUndo = await page.evaluate(() => app.graph._nodes.length);

  // A path drawn by hand, slow then fast; a second subject; a box copied to another frame.
  await page.keyboard.press("Home");
  await page.keyboard.press("p");
  await drawSlowly(page, await inside(stage, 0.1, 0.9), await inside(stage, 0.3, 0.3), await inside(stage, 0.75, 0.6));
  await record("path");
  await page.keyboard.press("n");
  await drag(page, await inside(stage, 0.6, 0.15), await inside(stage, 0.8, 0.4));
  await record("second");
  await page.keyboard.press("Control+c");
  await page.keyboard.press("End");
  await page.keyboard.press("ArrowLeft"); // a nudge on the stage: one pixel, so a keyframe at the end
  await record("nudged");
  await page.keyboard.press("Control+v");
  await record("pasted");
  for (const key of ["l", "f"]) await page.keyboard.press(key);
  await page.waitForTimeout(300);
  await show("3-two-tracks");

  // Collapse and expand, copy the node, reload the page: nothing is lost.
  report.seen.copied = await page.evaluate(async () => {
    const node = app.graph._nodes.find((candidate) => candidate.type === "DV2BoxEditor");
    node.collapse();
    await new Promise((done) => setTimeout(done, 300));
    node.collapse();
    const copy = node.clone();
    app.graph.add(copy);
    const value = copy.widgets.find((widget) => widget.name === "document").value;
    app.graph.remove(copy);
    // ComfyUI looks for changes after the mouse and keys that a person would have used here; else the draft may keep
    // the node collapsed.
    const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
    if (tracker.captureCanvasState) tracker.captureCanvasState();
    else tracker.checkState();
    return value;
  });
  await record("expanded");
  await page.waitForTimeout(1500); // the page keeps its draft of the workflow a moment after a change
  await openComfy(page, config.url, true);
  await page.waitForFunction(() => app.graph._nodes.some((node) => node.type === "DV2BoxEditor"));
  await page.waitForTimeout(500);
  await record("reloaded");
  await page.waitForSelector(".dv2-stage canvas");
  report.seen.stageAfterReload = await page.locator(".dv2-stage canvas").count();

  await page.evaluate(() => {
    window.dv2Events = [];
    for (const kind of ["executed", "execution_success", "execution_error"])
      app.api.addEventListener(kind, (event) => window.dv2Events.push([kind, event.detail]));
    return app.queuePrompt(0, 1);
  });
  await page.waitForFunction(() => Object.keys(app.lastNodeErrors ?? {}).length > 0
    || window.dv2Events.some(([kind]) => kind.startsWith("execution_")));
  report.events = await page.evaluate(() => window.dv2Events);
  report.refused = await page.evaluate(() => app.lastNodeErrors ?? {});
  report.seen.backgroundAfterRun = await page.waitForFunction(green).then(() => true, () => false);
  await show("4-run");
  // Put into a subgraph, the editor still sends what is drawn.
  report.seen.inSubgraph = await page.evaluate(async () => {
    app.graph.convertToSubgraph(new Set([app.graph._nodes.find((node) => node.type === "DV2BoxEditor")]));
    const { output } = await app.graphToPrompt();
    return Object.values(output).find((entry) => entry.class_type === "DV2BoxEditor").inputs.document;
  });
  report.frontend = await page.evaluate(() => window.__COMFYUI_FRONTEND_VERSION__);
  report.nodes2 = await page.evaluate(() => Boolean(LiteGraph.vueNodesMode));
}

/** In the page: a loader, the editor, and what saves its masks as lossless pictures. */
function build(picture) {
  app.graph.clear();
  const add = (type, pos, widgets = {}) => {
    const node = LiteGraph.createNode(type);
    node.pos = pos;
    app.graph.add(node);
    for (const [name, value] of Object.entries(widgets)) {
      const widget = node.widgets.find((candidate) => candidate.name === name);
      widget.value = value;
      widget.callback?.(value);
    }
    return node;
  };
  const loader = add("LoadImage", [80, 320], { image: picture });
  const editor = add("DV2BoxEditor", [400, 160], { length: 12, width: 96, height: 64 });
  const image = add("MaskToImage", [960, 320]);
  const save = add("SaveImage", [960, 450], { filename_prefix: "box_editor" });
  loader.connect(0, editor, editor.inputs.findIndex((input) => input.name === "background"));
  editor.connect(0, image, 0);
  image.connect(0, save, 0);
  app.canvas.ds.offset = [0, 0];
  app.canvas.ds.scale = 1;
  app.canvas.setDirty(true, true);
}

function documentOf(page) {
  return page.evaluate(() => app.graph._nodes.find((node) => node.type === "DV2BoxEditor")
    .widgets.find((widget) => widget.name === "document").value);
}

/** The page's place of a point of the canvas, in parts of the picture's width and height. */
async function inside(stage, u, v) {
  const box = await stage.boundingBox();
  const scale = box.width / (await stage.evaluate((canvas) => canvas.clientWidth));
  const [width, height] = [box.width / scale, box.height / scale];
  const zoom = Math.min((width - 44) / 96, (height - 44) / 64); // 22 pixels are left free around the picture
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  return [x + (u - 0.5) * 96 * zoom * scale, y + (v - 0.5) * 64 * zoom * scale];
}

async function drag(page, from, to) {
  await page.mouse.move(...from);
  await page.mouse.down();
  await page.mouse.move(...to, { steps: 6 });
  await page.mouse.up();
}

async function drawSlowly(page, from, corner, to) {
  await page.mouse.move(...from);
  await page.mouse.down();
  // More moves, not only slower ones: on a busy machine every move takes its time.
  for (const [a, b, steps, wait] of [[from, corner, 12, 60], [corner, to, 3, 10]]) {
    for (let i = 1; i <= steps; i++) {
      await page.mouse.move(a[0] + ((b[0] - a[0]) * i) / steps, a[1] + ((b[1] - a[1]) * i) / steps);
      await page.waitForTimeout(wait);
    }
  }
  await page.mouse.up();
}
