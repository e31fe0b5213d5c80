// Opens ComfyUI's page in a real browser, loads and runs each workflow there, and prints a report as JSON.
//   node browser.mjs CONFIG.json
// CONFIG: { url, playwright, chromium, nodes2, workflows: { name: workflow }, screenshots, seconds }
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { openComfy, withPage } from "./launch.mjs";

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));

// In the page: drops the video that the run saved on an empty canvas; the workflow that comes back.
async function dropVideo() {
  const [saved] = window.dv2Events.flatMap(([kind, { output }]) => (kind === "executed" && output?.images) || [])
    .filter(({ filename, type }) => type === "output" && filename.endsWith(".mp4"));
  if (!saved) return null;
  const bytes = await (await fetch(`/view?${new URLSearchParams(saved)}`)).blob();
  app.graph.clear();
  await app.handleFile(new File([bytes], saved.filename, { type: "video/mp4" }));
  for (let tenths = 0; tenths < 100 && !app.graph._nodes.length; tenths++)
    await new Promise((resolve) => setTimeout(resolve, 100));
  return app.graph.serialize().nodes.map((node) => [String(node.id), node.widgets_values ?? []]);
}

const report = { elsewhere: [], pageErrors: [], brokenPictures: [], workflows: {} };
await withPage(config, report, { width: 1400, height: 900 }, async (page) => {
  page.on("response", (response) => {
    if (response.status() >= 400 && response.url().includes("/view?")) report.brokenPictures.push(response.url());
  });
  await openComfy(page, config.url);
  await page.evaluate(() => {
    window.dv2Events = [];
    for (const kind of ["execution_start", "progress", "executed", "execution_success", "execution_error"])
      app.api.addEventListener(kind, (event) => window.dv2Events.push([kind, event.detail]));
  });
  for (const [name, workflow] of Object.entries(config.workflows)) {
    const seen = await page.evaluate(async ([name, workflow]) => {
      window.dv2Events.length = 0;
      await app.loadGraphData(workflow, true, true, name);
      const nodes = app.graph._nodes;
      return {
        nodes: nodes.map((node) => node.type),
        missing: nodes.filter((node) => !LiteGraph.registered_node_types[node.type]).map((node) => node.type),
        prompt: (await app.graphToPrompt()).output,
        saved: app.graph.serialize().nodes.map((node) => [String(node.id), node.widgets_values ?? []]),
      };
    }, [name, workflow]);
    await page.waitForTimeout(1500); // pictures of chosen files are fetched now
    await page.screenshot({ path: join(config.screenshots, `${name}-loaded.png`) });
    await page.evaluate(() => app.queuePrompt(0, 1));
    const ended = () => Object.keys(app.lastNodeErrors ?? {}).length > 0
      || window.dv2Events.some(([kind]) => ["execution_success", "execution_error"].includes(kind));
    await page.waitForFunction(ended);
    await page.waitForTimeout(1500); // the previews are drawn after the event
    await page.screenshot({ path: join(config.screenshots, `${name}-finished.png`) });
    seen.refused = await page.evaluate(() => app.lastNodeErrors ?? {});
    seen.events = await page.evaluate(() => window.dv2Events);
    seen.dropped = await page.evaluate(dropVideo);
    report.workflows[name] = seen;
  }
  report.frontend = await page.evaluate(() => window.__COMFYUI_FRONTEND_VERSION__);
  report.nodes2 = await page.evaluate(() => Boolean(LiteGraph.vueNodesMode));
});
console.log(JSON.stringify(report));
