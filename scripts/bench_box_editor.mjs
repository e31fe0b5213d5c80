// How long the box editor takes for one mouse move of a drag, at 64 frames and 8 tracks, in a real browser.
//   DV2_PLAYWRIGHT=.cache/tests/playwright-core DV2_CHROMIUM=/usr/bin/chromium node scripts/bench_box_editor.mjs
// Prints the milliseconds of the handler (all that runs before the next event can) and of drawing one picture.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, resolve } from "node:path";

const { chromium } = createRequire(import.meta.url)(resolve(process.env.DV2_PLAYWRIGHT ?? "playwright-core"));
const WEB = new URL("../web/js/", import.meta.url);
const TYPES = { ".js": "text/javascript", ".css": "text/css" };
const [FRAMES, TRACKS, MOVES] = [64, 8, 400];

const server = createServer(async (request, response) => {
  const file = request.url.slice(1);
  if (!file) return response.setHeader("Content-Type", "text/html").end("<!doctype html><body>");
  if (!/^[a-z_]+\.(js|css)$/.test(file)) return response.writeHead(404).end();
  response.setHeader("Content-Type", TYPES[extname(file)]).end(await readFile(new URL(file, WEB)));
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const browser = await chromium.launch({
  executablePath: process.env.DV2_CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"],
});
try {
  const page = await browser.newPage({ viewport: { width: 800, height: 800 } });
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const times = await page.evaluate(async ([frames, tracks, moves]) => {
    const { BoxEditor } = await import("/editor.js");
    const { addTrack, changeTrack, setBox } = await import("/edits.js");
    const editor = new BoxEditor(() => {});
    editor.element.style.cssText = "width:480px;height:560px";
    document.body.append(editor.element);
    const { state, stage } = editor;
    state.setCanvas({ width: 448, height: 256, length: frames, fps: 8 });
    let plan = state.shown;
    for (let i = 0; i < tracks; i++) {
      const box = (t) => {
        const [x, y] = [0.35 + 0.3 * Math.sin(t / 9 + i), 0.35 + 0.3 * Math.cos(t / 7 + i)];
        return [x, y, x + 0.25, y + 0.25];
      };
      plan = addTrack(plan, 0, box(0));
      for (let t = 9; t < frames; t += 9) plan = setBox(plan, i, t, box(t));
      plan = changeTrack(plan, i, { interpolation: "smooth" });
    }
    state.commit(plan);
    for (const option of ["cells", "speed"]) state.toggle(option);
    state.select(3, 31); // between two keyframes
    await new Promise((done) => setTimeout(done, 500)); // the style sheet
    editor.paint();
    const { x, y, width, height } = stage.measure();
    const rect = stage.canvas.getBoundingClientRect();
    const [u1, v1, u2, v2] = stage.boxOf(state.activeTrack);
    const start = [rect.left + x + ((u1 + u2) / 2) * width, rect.top + y + ((v1 + v2) / 2) * height];
    stage.canvas.setPointerCapture = () => {};
    const send = (type, i) => stage.canvas.dispatchEvent(new PointerEvent(type, {
      pointerId: 1, pointerType: "mouse", button: 0, bubbles: true,
      clientX: start[0] + 40 * Math.sin(i / 15), clientY: start[1] + 30 * Math.sin(i / 11),
    }));
    const timed = (job) => {
      const from = performance.now();
      job();
      return performance.now() - from;
    };
    const [handler, drawing] = [[], []];
    send("pointerdown", 0);
    for (let i = 1; i <= moves; i++) {
      handler.push(timed(() => send("pointermove", i)));
      drawing.push(timed(() => editor.paint()));
      if (i % 20 === 0) await new Promise(requestAnimationFrame);
    }
    if (!state.draft) throw new Error("the drag did not move a box");
    send("pointerup", moves);
    return { handler, drawing };
  }, [FRAMES, TRACKS, MOVES]);
  for (const [name, list] of Object.entries(times)) {
    const sorted = list.slice(MOVES / 10).sort((a, b) => a - b); // the first ones compile
    const at = (part) => sorted[Math.floor(part * (sorted.length - 1))].toFixed(2);
    console.log(`${name}: median ${at(0.5)} ms, fastest tenth ${at(0.1)} ms, 95 % ${at(0.95)} ms`);
  }
  if (process.argv[2]) await page.screenshot({ path: process.argv[2] });
} finally {
  await browser.close();
  server.close();
}
