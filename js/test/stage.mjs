// Pictures of the views with fake data, for whoever works on how it looks:
//   node js/test/stage.mjs FOLDER [scene, or how its name begins ...]
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright";

const here = dirname(fileURLToPath(import.meta.url));
const [folder = "stage", ...wanted] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
const site = mkdtempSync(join(tmpdir(), "pc-stage-"));
await build({
  entryPoints: {
    stage: join(here, "stage.ts"),
    clamp: join(here, "../src/neuron-clamp.css"),
    inspector: join(here, "../src/attention-inspector.css"),
    ablator: join(here, "../src/circuit-ablator.css"),
    maximizer: join(here, "../src/activation-maximizer.css"),
    atlas: join(here, "../src/neuron-atlas.css"),
  },
  outdir: site,
  bundle: true,
  format: "esm",
  logLevel: "warning",
});
// What JupyterLab's two default themes say, as far as the view reads it.
const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>stage</title>
<link rel="stylesheet" href="inspector.css"><link rel="stylesheet" href="ablator.css"><link rel="stylesheet" href="maximizer.css"><link rel="stylesheet" href="atlas.css"><link rel="stylesheet" href="clamp.css"><style>
body { margin: 12px; --jp-ui-font-family: system-ui, sans-serif; --jp-code-font-family: Menlo, "DejaVu Sans Mono", monospace;
 --jp-layout-color0:#fff; --jp-layout-color1:#fff; --jp-layout-color2:#eee; --jp-ui-font-color0:rgba(0,0,0,1);
 --jp-border-color2:#e0e0e0; --jp-brand-color1:#1976d2; background:#fff }
body[data-jp-theme-light=false] { --jp-layout-color0:#111; --jp-layout-color1:#212121; --jp-layout-color2:#424242;
 --jp-ui-font-color0:rgba(255,255,255,1); --jp-border-color2:#424242; --jp-brand-color1:#2196f3; background:#111 }
</style><div id="view"></div><script type="module" src="stage.js"></script></html>`;
writeFileSync(join(site, "index.html"), page);

const find = (name) =>
  (process.env.PATH ?? "")
    .split(delimiter)
    .map((path) => join(path, name))
    .find(existsSync);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? find("chromium"),
  args: ["--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"],
});
const scenes = {
  wide: { width: 1100, query: "scene=stack" },
  "wide-dark": { width: 1100, query: "scene=stack&dark" },
  narrow: { width: 520, query: "scene=stack" },
  "narrow-dark": { width: 520, query: "scene=stack&dark" },
  widest: { width: 1500, query: "scene=stack" },
  medium: { width: 820, query: "scene=stack" },
  one: { width: 1100, query: "scene=one" },
  empty: { width: 1100, query: "scene=empty" },
  saved: { width: 1100, query: "scene=stack&saved" },
  ranked: {
    width: 1100,
    query: "scene=one",
    async act(view) {
      await view.getByRole("button", { name: "direct effect" }).click();
      await view.waitForSelector(".pc-pick");
    },
  },
  error: {
    width: 1100,
    query: "scene=stack",
    async act(view) {
      await view.getByRole("combobox", { name: "Add a neuron" }).fill("L99.N1x");
      await view.keyboard.press("Enter");
      await view.locator(".pc-box").first().fill("abc");
      await view.keyboard.press("Enter");
      await view.waitForTimeout(100);
    },
  },
  large: {
    width: 1400,
    query: "scene=one",
    act: (view) => view.getByRole("button", { name: "Large type" }).click(),
  },
};
const knockOut = async (view) => {
  await view.getByRole("radio", { name: "knock out" }).check();
  const cells = await view.locator(".pc-pattern-scroll").boundingBox();
  const at = (x, y) => [cells.x + x * cells.width, cells.y + y * cells.height];
  await view.mouse.move(...at(0.1, 0.5));
  await view.mouse.down();
  await view.mouse.move(...at(0.3, 0.7), { steps: 4 });
  await view.mouse.up();
  await view.mouse.move(...at(0.5, 0.9));
};
Object.assign(scenes, {
  "ai-wide": { width: 1300, query: "scene=heads" },
  "ai-dark": { width: 1300, query: "scene=heads&dark", act: knockOut },
  "ai-knocked": { width: 1100, query: "scene=small", act: knockOut },
  "ai-narrow": { width: 520, query: "scene=small" },
  "ai-medium": { width: 860, query: "scene=heads" },
  "ai-widest": { width: 1600, query: "scene=heads", act: knockOut },
  "ai-saved": { width: 1100, query: "scene=small&saved" },
  "ai-unlocked": { width: 1100, query: "scene=unlocked" },
  "ai-encoder": { width: 1100, query: "scene=encoder" },
  "ai-long": { width: 1300, query: "scene=long" },
  "ai-odd": { width: 1100, query: "scene=odd" },
  "ai-second": { width: 1300, query: "scene=second" },
  "ai-second-dark": { width: 1300, query: "scene=second&dark" },
  "ai-hover": {
    width: 1300,
    query: "scene=heads",
    async act(view) {
      await view.getByRole("button", { name: "Measure composition" }).click();
      await view.waitForTimeout(700);
      await view.locator(".pc-chip").nth(17).hover();
    },
  },
  "ai-large": {
    width: 1500,
    query: "scene=small",
    act: (view) => view.getByRole("button", { name: "Large type" }).click(),
  },
});
const pressCell = async (view, x, y) => {
  await view.locator(".pc-component-map .pc-heat-cells").click({ position: { x, y } });
  await view.waitForTimeout(100);
};
Object.assign(scenes, {
  "ca-wide": { width: 1300, query: "scene=circuit" },
  "ca-dark": { width: 1300, query: "scene=circuit&dark" },
  "ca-narrow": { width: 520, query: "scene=circuit" },
  "ca-narrow-dark": { width: 520, query: "scene=circuit&dark" },
  "ca-medium": { width: 920, query: "scene=circuit" },
  "ca-widest": { width: 1640, query: "scene=circuit" },
  "ca-widest-dark": { width: 1640, query: "scene=circuit&dark" },
  "ca-bare": { width: 1300, query: "scene=bare" },
  "ca-alone": { width: 1300, query: "scene=alone" },
  "ca-tiny": { width: 1300, query: "scene=tiny" },
  "ca-saved": { width: 1300, query: "scene=circuit&saved" },
  "ca-inside": {
    width: 1640,
    query: "scene=circuit",
    async act(view) {
      await pressCell(view, 120, 300);
      await view.getByRole("button", { name: /Look inside/ }).click();
      await view.waitForTimeout(500);
      await view.locator(".pc-graph-box").scrollIntoViewIfNeeded();
      const [x, y] = await view.evaluate(() => {
        const path = document.querySelectorAll(".pc-edge-hit")[3];
        const at = path.getPointAtLength(path.getTotalLength() / 3);
        const { x, y } = at.matrixTransform(path.getScreenCTM());
        return [x, y];
      });
      await view.mouse.move(x, y);
      await view.waitForTimeout(700);
    },
  },
  "ca-many": {
    width: 1640,
    query: "scene=circuit",
    async act(view) {
      await view.getByLabel("How many edges are drawn at most").selectOption("150");
      await view.getByRole("radio", { name: "edges" }).last().check();
      await view.waitForTimeout(900);
    },
  },
  "ca-interaction": {
    width: 1300,
    query: "scene=circuit",
    async act(view) {
      await pressCell(view, 140, 140);
      await view.getByRole("button", { name: "take as A what is selected" }).click();
      await pressCell(view, 180, 260);
      await view.getByRole("button", { name: "take as B what is selected" }).click();
      await view.getByRole("button", { name: "measure", exact: true }).click();
    },
  },
  "ca-large": {
    width: 1600,
    query: "scene=tiny",
    act: (view) => view.getByRole("button", { name: "Large type" }).click(),
  },
});
const tab = (name) => (view) => view.getByRole("tab", { name: new RegExp(`^${name}`) }).click();
Object.assign(scenes, {
  "am-wide": { width: 1300, query: "scene=picture" },
  "am-dark": { width: 1300, query: "scene=picture&dark", act: tab("does it matter") },
  "am-widest": { width: 1500, query: "scene=facets" },
  "am-medium": { width: 900, query: "scene=picture", act: tab("examples") },
  "am-medium-dark": { width: 900, query: "scene=facets&dark" },
  "am-narrow": { width: 480, query: "scene=facets" },
  "am-narrow-dark": { width: 480, query: "scene=prompts&dark" },
  "am-fresh": { width: 1300, query: "scene=fresh" },
  "am-prompts": { width: 1300, query: "scene=prompts" },
  "am-prompts-dark": { width: 1500, query: "scene=prompts&dark" },
  "am-prompts-examples": { width: 900, query: "scene=prompts", act: tab("examples") },
  "am-unasked": { width: 1300, query: "scene=unasked" },
  "am-saved": { width: 1300, query: "scene=facets&saved" },
  "am-stimuli": { width: 1300, query: "scene=picture", act: tab("discriminative") },
  "am-curve": { width: 1300, query: "scene=curve", act: tab("examples") },
  "am-raster": { width: 1300, query: "scene=raster&dark", act: tab("discriminative") },
  "am-digits": { width: 1100, query: "scene=digits" },
  "am-function": { width: 1100, query: "scene=function" },
  "am-running": {
    width: 1300,
    query: "scene=running",
    async act(view) {
      await view.getByRole("button", { name: "options" }).click();
      await view.getByRole("button", { name: "+ term" }).click();
      await view.getByRole("combobox", { name: "Unit 2" }).fill("_blocks.9:c9999");
      await view.keyboard.press("Enter");
      await view.waitForTimeout(200);
      await view.getByRole("combobox", { name: "Unit 2" }).fill("_fc:c2");
      await view.waitForTimeout(300);
    },
  },
  "am-large": {
    width: 1500,
    query: "scene=picture",
    act: (view) => view.getByRole("button", { name: "Large type" }).click(),
  },
});
Object.assign(scenes, {
  "na-wide": { width: 1200, query: "scene=atlas" },
  "na-dark": { width: 1200, query: "scene=atlas&dark" },
  "na-widest": {
    width: 1500,
    query: "scene=atlas-search",
    async act(view) {
      await view.locator(".pc-atlas-example").first().click();
      await view.locator(".pc-neuron-scroll").focus();
      await view.keyboard.press("End");
      await view.keyboard.press("ArrowUp");
      await view.waitForTimeout(300);
    },
  },
  "na-medium": { width: 900, query: "scene=atlas" },
  "na-narrow": { width: 480, query: "scene=atlas" },
  "na-narrow-dark": { width: 480, query: "scene=atlas-search&dark" },
  "na-list": {
    width: 1200,
    query: "scene=atlas-list",
    async act(view) {
      await view.getByLabel("Layers, such as").fill("3:99");
      await view.keyboard.press("Enter");
    },
  },
  "na-decoded": { width: 1200, query: "scene=atlas-decoded" },
  "na-unbuilt": {
    width: 900,
    query: "scene=atlas-unbuilt",
    act: (view) => view.getByRole("button", { name: "build the atlas" }).click(),
  },
  "na-saved": { width: 1200, query: "scene=atlas&saved" },
  "na-large": {
    width: 1500,
    query: "scene=atlas",
    act: (view) => view.getByRole("button", { name: "Large type" }).click(),
  },
});
for (const [name, { width, query, act }] of Object.entries(scenes)) {
  if (wanted.length > 0 && !wanted.some((each) => name.startsWith(each))) continue;
  const view = await browser.newPage({ viewport: { width, height: 700 }, deviceScaleFactor: 2 });
  view.on("pageerror", (error) => console.error(name, error.stack));
  await view.goto(`${pathToFileURL(join(site, "index.html"))}?${query}`);
  await view.waitForSelector(".pc-body:not([hidden])");
  await view.waitForTimeout(700);
  await act?.(view);
  await view.waitForTimeout(300);
  await view.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
  await view.close();
}
await browser.close();
rmSync(site, { recursive: true });
