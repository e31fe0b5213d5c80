// ComfyUI's page in a real browser that reaches nothing but this machine: what the scripts beside this one share.
import { createRequire } from "node:module";

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"];
const SETTINGS = {
  "Comfy.TutorialCompleted": true, // no template dialog in the way on the first visit
  "Comfy.InstalledVersion": "1.99.0",
  "Comfy.Workflow.ShowMissingModelsWarning": false,
  "Comfy.Notification.ShowVersionUpdates": false,
};

/**
 * Gives `use` an empty page, and closes the browser after it.
 * config: { url, playwright, chromium, nodes2, seconds }; seconds: for any one thing in the page.
 * report: what the page asks of other hosts goes to its `elsewhere`, what it throws to its `pageErrors`.
 */
export async function withPage(config, report, viewport, use) {
  const { chromium } = createRequire(import.meta.url)(config.playwright);
  const answer = await fetch(`${config.url}/settings`, {
    method: "POST", headers: { "Content-Type": "application/json", "Comfy-User": "" },
    body: JSON.stringify({ ...SETTINGS, "Comfy.VueNodes.Enabled": config.nodes2 }),
  });
  if (!answer.ok) throw new Error(`settings were refused with ${answer.status}`);
  const browser = await chromium.launch({ executablePath: config.chromium, headless: true, args: FLAGS });
  try {
    const context = await browser.newContext({ viewport });
    await context.route("**/*", (route) => {
      const url = new URL(route.request().url());
      if (url.hostname === "127.0.0.1" || ["data:", "blob:"].includes(url.protocol)) return route.continue();
      report.elsewhere.push(url.href);
      return route.abort();
    });
    const page = await context.newPage();
    page.setDefaultTimeout(config.seconds * 1000);
    page.on("pageerror", (error) => report.pageErrors.push(String(error)));
    await use(page);
  } finally {
    await browser.close();
  }
}

/** Opens ComfyUI, or loads the page again, and waits until it can be used. */
export async function openComfy(page, url, again = false) {
  const loaded = { waitUntil: "domcontentloaded" };
  await (again ? page.reload(loaded) : page.goto(url, loaded));
  await page.waitForFunction(() => window.app?.extensionManager && window.app?.graph);
  await page.waitForFunction(() => !document.querySelector("#splash-loader, .p-blockui-mask"));
}
