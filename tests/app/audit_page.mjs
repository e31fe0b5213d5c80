// Looks through curation's audit page in a real browser as a person would, and prints what it saw as JSON.
//   node audit_page.mjs CONFIG.json
// CONFIG: { page, playwright, chromium, screenshots, download, seconds }
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { chromium } = createRequire(import.meta.url)(config.playwright);
const report = { elsewhere: [], pageErrors: [] };
const browser = await chromium.launch({ executablePath: config.chromium, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, acceptDownloads: true });
  await context.route("**/*", (route) => {
    const { protocol, href } = new URL(route.request().url());
    if (["file:", "data:", "blob:"].includes(protocol)) return route.continue();
    report.elsewhere.push(href);
    return route.abort();
  });
  const page = await context.newPage();
  page.setDefaultTimeout(config.seconds * 1000);
  page.on("pageerror", (error) => report.pageErrors.push(String(error)));
  await page.goto(pathToFileURL(config.page).href);
  const visible = () => page.$$eval("article", (all) => all.filter((one) => !one.hidden).map((one) => one.querySelector(".tag").textContent));
  report.groups = await page.$$eval("#groups button", (all) => all.map((one) => one.textContent));
  report.all = await visible();
  report.pictures = await page.$$eval("article img", (all) => all.map((one) => [one.naturalWidth > 0, one.alt]));
  report.texts = await page.$$eval("article .caption", (all) => all.map((one) => one.textContent));
  await page.screenshot({ path: join(config.screenshots, "audit.png") });
  await page.click("#groups button[data-group=still]");
  report.still = await visible();
  await page.keyboard.press("a"); // the still one is used after all
  await page.click("#groups button[data-group=accepted]");
  await page.keyboard.press("j");
  await page.keyboard.press("r"); // the second accepted one is not
  await page.fill("article:not([hidden]) input", "knight");
  await page.keyboard.press("Enter");
  await page.click("#groups button[data-group=broken]");
  await page.keyboard.press("a"); // nothing to overrule
  report.progress = await page.textContent("#progress");
  await page.screenshot({ path: join(config.screenshots, "judged.png") });
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#export")]);
  report.name = download.suggestedFilename();
  await download.saveAs(config.download);
  await page.reload();
  report.kept = await page.textContent("#progress");
} finally {
  await browser.close();
}
console.log(JSON.stringify(report));
