import { expect, test, vi } from "vitest";
import type { Up } from "../src/messages";
import { type FakeModel, row } from "./fake-kernel";
import { type FakeMaximizer, pixelsOf } from "./fake-maximizer";
import {
  all,
  type MaximizerOptions,
  mountMaximizer,
  named,
  one,
  press,
  theme,
  until,
} from "./mount";

const frames = async (count = 3) => {
  for (let i = 0; i < count; i++) await new Promise((done) => requestAnimationFrame(done));
};

function sent<Kind extends Up["kind"]>(
  model: FakeModel,
  kind: Kind,
): Extract<Up, { kind: Kind }>[] {
  return model.sent.filter((each) => each.kind === kind) as Extract<Up, { kind: Kind }>[];
}

async function ready(options: MaximizerOptions = {}) {
  const mounted = await mountMaximizer(options);
  await frames();
  return mounted;
}

const canvasOf = (root: Element) => one<HTMLCanvasElement>(root, ".pc-optimised .pc-stimulus");
const slider = (root: Element) => one<HTMLInputElement>(root, ".pc-step-slider");
const go = (root: Element) => one<HTMLButtonElement>(root, ".pc-go");
const tab = (root: Element, name: string) => {
  const found = all(root, '[role="tab"]').find((each) => each.textContent?.startsWith(name));
  if (found === undefined) throw new Error(`no tab ${name}`);
  found.click();
  return frames();
};

/** All pixels of the optimised picture, without their alpha. */
function painted(root: Element): number[] {
  const canvas = canvasOf(root);
  const data = canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data ?? [];
  return Array.from(data).filter((_, i) => i % 4 !== 3);
}
const expected = (kernel: FakeMaximizer, track: number, step: number) =>
  Array.from(pixelsOf(kernel.side, 3, track, Math.min(1, step / (0.7 * kernel.total()))));

// --- frames ---

test("start climbs, and each frame that arrives is painted pixel by pixel", async () => {
  const { root, model, kernel } = await ready({ side: 24, pace: 15 });
  go(root).click();
  await until(() => sent(model, "climb").length === 1);
  await until(() => (kernel.tracks[0]?.step ?? 0) > 40);
  kernel.held = true;
  await until(() => one(root, ".pc-at-step").textContent?.startsWith(`step ${lastStep(kernel)}`));
  expect(canvasOf(root).width).toBe(24);
  expect(painted(root)).toEqual(expected(kernel, 1, lastStep(kernel)));
  expect(go(root).textContent).toBe("pause");
  expect(one(root, ".pc-step-count").textContent).toBe(`step ${kernel.tracks[0]?.step}/256`);
});

const lastStep = (kernel: FakeMaximizer) => (kernel.tracks[0]?.step ?? 0) - 1;

test("many frames in one animation frame are painted once, the newest", async () => {
  const { root, kernel } = await ready({ side: 16, climbed: true });
  const context = canvasOf(root).getContext("2d") as CanvasRenderingContext2D;
  const put = vi.spyOn(context, "putImageData");
  kernel.sayFrame(1, 0, 5);
  for (let to = 6; to < 30; to++) kernel.sayFrame(1, to - 1, to);
  await frames(2);
  expect(put).toHaveBeenCalledTimes(1);
  expect(painted(root)).toEqual(expected(kernel, 1, 28));
});

test("frames of the same size are written into the same pixels", async () => {
  const { root, kernel } = await ready({ side: 16, climbed: true });
  const context = canvasOf(root).getContext("2d") as CanvasRenderingContext2D;
  const made = vi.spyOn(context, "createImageData");
  for (let to = 2; to < 8; to++) {
    kernel.sayFrame(1, to - 1, to);
    await frames(2);
  }
  expect(made).not.toHaveBeenCalled();
});

test("nothing below moves while frames come", async () => {
  const { root, kernel } = await ready({ side: 24, measured: true });
  const axis = one(root, ".pc-activation-axis");
  const before = axis.getBoundingClientRect().top;
  go(root).click();
  await until(() => (kernel.tracks[0]?.step ?? 0) > 20);
  kernel.held = true;
  await frames();
  expect(axis.getBoundingClientRect().top).toBe(before);
  expect(go(root).getBoundingClientRect().width).toBe(76);
});

test("an image of one channel is grey, from its lowest to its highest value", async () => {
  const { root, kernel } = await ready({ side: 16, channels: 1, climbed: true });
  const grey = pixelsOf(16, 1, 1, Math.min(1, 255 / (0.7 * kernel.total())));
  expect(painted(root)).toEqual(Array.from(grey).flatMap((value) => [value, value, value]));
});

test("a picture of few pixels is shown in whole multiples of them", async () => {
  const { root } = await ready({ side: 48, climbed: true });
  const { width } = canvasOf(root).getBoundingClientRect();
  const scale = width * devicePixelRatio;
  expect(scale % 48).toBeCloseTo(0, 3);
  expect(getComputedStyle(canvasOf(root)).imageRendering).toBe("pixelated");
});

test("a picture of many pixels is smooth and as large as its box", async () => {
  const { root } = await ready({ side: 72, climbed: true });
  const canvas = canvasOf(root);
  const { width, height } = canvas.getBoundingClientRect();
  const box = canvas.parentElement as HTMLElement;
  expect(width).toBeCloseTo(height, 3);
  expect(Math.max(width - box.clientWidth, height - box.clientHeight)).toBeCloseTo(0, 0);
  expect(getComputedStyle(canvas).imageRendering).toBe("auto");
});

test("pictures of a saved page that are files are painted too", async () => {
  const { root, kernel } = await ready({ side: 16, climbed: true });
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 16;
  const pen = canvas.getContext("2d") as CanvasRenderingContext2D;
  pen.fillStyle = "rgb(10, 200, 30)";
  pen.fillRect(0, 0, 16, 16);
  const blob = await new Promise<Blob>((done) =>
    canvas.toBlob((made) => done(made as Blob), "image/png"),
  );
  const bytes = new DataView(await blob.arrayBuffer());
  kernel.push(
    {
      kind: "frame",
      frame: {
        track: 1,
        step: 255,
        total: 256,
        value: 3,
        picture: {
          renderer: "image",
          height: 16,
          width: 16,
          channels: 3,
          low: 0,
          high: 1,
          coding: "png",
          pixels: { buffer: 0, dtype: "uint8", shape: [bytes.byteLength] },
          values: null,
        },
      },
      curve: {
        track: 1,
        start: 256,
        stride: 1,
        values: { buffer: 1, dtype: "float32", shape: [0] },
      },
    },
    [bytes, new DataView(new ArrayBuffer(0))],
  );
  await until(() => painted(root).slice(0, 3).join() === "10,200,30");
});

for (const family of ["curve", "raster"] as const) {
  test(`a ${family} is drawn, and drawn again in the other theme`, async () => {
    const { root } = await ready({ family, climbed: true });
    const look = () => painted(root).join();
    const light = look();
    expect(new Set(painted(root)).size).toBeGreaterThan(4);
    theme(true);
    await until(() => look() !== light);
    const bar = one(root, ".pc-optimised-picture .pc-heat-bar");
    expect(bar.hidden).toBe(family === "curve");
  });
}

// --- pause, stop, steps ---

test("pause holds, continue goes on where it was, stop ends it", async () => {
  const { root, model, kernel } = await ready({ side: 16, pace: 10, steps: 100_000 });
  go(root).click();
  await until(() => (kernel.tracks[0]?.step ?? 0) > 16 && go(root).textContent === "pause");
  go(root).click();
  await until(() => go(root).textContent === "continue");
  expect(sent(model, "pause")).toHaveLength(1);
  const at = kernel.tracks[0]?.step ?? 0;
  go(root).click();
  await until(() => (kernel.tracks[0]?.step ?? 0) > at);
  expect(sent(model, "climb").map((each) => each.again)).toEqual([true, false]);
  named(root, "Stop this run").click();
  await until(() => go(root).textContent === "start");
  expect(sent(model, "stop")).toHaveLength(1);
  expect(canvasOf(root).width).toBe(16);
});

test("again begins from the first step although something is paused", async () => {
  const { root, model, kernel } = await ready({ side: 16, pace: 10, steps: 100_000 });
  expect(named(root, "again").disabled).toBe(true);
  go(root).click();
  await until(() => (kernel.tracks[0]?.step ?? 0) > 16 && go(root).textContent === "pause");
  go(root).click();
  await until(() => go(root).textContent === "continue");
  named(root, "again").click();
  await until(() => sent(model, "climb").length === 2);
  expect(sent(model, "climb")[1]?.again).toBe(true);
});

test("Escape stops, and Space on the view pauses and goes on", async () => {
  const { root, model } = await ready({ side: 16, steps: 100_000 });
  press(root, " ");
  await until(() => sent(model, "climb").length === 1);
  await until(() => go(root).textContent === "pause");
  press(root, " ");
  await until(() => go(root).textContent === "continue");
  press(root, " ");
  await until(() => go(root).textContent === "pause");
  press(root, "Escape");
  await until(() => go(root).textContent === "start");
  expect(sent(model, "stop")).toHaveLength(1);
});

test("the scrubber asks for kept frames, one at a time and the newest next, and paints them", async () => {
  const { root, model, kernel } = await ready({ side: 16, climbed: true });
  const answer = model.onSend;
  const late: Up[] = [];
  model.onSend = (message) => (message.kind === "scrub" ? late.push(message) : answer(message));
  for (const step of [200, 160, 120, 80]) {
    slider(root).value = String(step);
    slider(root).dispatchEvent(new Event("input", { bubbles: true }));
  }
  expect(sent(model, "scrub").map((each) => each.step)).toEqual([200]);
  model.onSend = answer;
  answer(late[0] as Up);
  await until(() => sent(model, "scrub").length === 2);
  expect(sent(model, "scrub")[1]).toMatchObject({ track: 1, step: 80 });
  await until(() => painted(root).join() === expected(kernel, 1, 80).join());
  expect(one(root, ".pc-at-step").textContent).toContain("step 80");
  expect(one(root, ".pc-optimised .pc-value").title).toBe(String(kernel.valueAt(1, 80)));
});

test("a frame that the page holds is shown without asking", async () => {
  const { root, model } = await ready({ side: 16, climbed: true });
  for (let i = 0; i < 2; i++) {
    slider(root).value = "80";
    slider(root).dispatchEvent(new Event("input", { bubbles: true }));
    await until(() => one(root, ".pc-at-step").textContent?.startsWith("step 80"));
    slider(root).value = "255";
    slider(root).dispatchEvent(new Event("input", { bubbles: true }));
    await until(() => one(root, ".pc-at-step").textContent?.startsWith("step 255"));
  }
  expect(sent(model, "scrub")).toHaveLength(1);
});

test("arrows step from kept frame to kept frame, and say where they are", async () => {
  const { root } = await ready({ side: 16, climbed: true });
  slider(root).focus();
  press(slider(root), "ArrowLeft");
  await until(() => slider(root).value === "248");
  press(slider(root), "ArrowLeft");
  await until(() => slider(root).value === "240");
  expect(slider(root).getAttribute("aria-valuetext")).toMatch(
    /^step 240 of 256, activation [\d.]+$/,
  );
  press(slider(root), "Home");
  await until(() => slider(root).value === "0");
});

test("who looks at an old step stays there while new frames come, and can follow again", async () => {
  const { root, kernel } = await ready({ side: 16, pace: 15, steps: 2000 });
  go(root).click();
  await until(() => (kernel.tracks[0]?.step ?? 0) > 100);
  press(slider(root), "Home");
  await until(() => one(root, ".pc-at-step .pc-number").textContent === "step 7");
  const old = painted(root).join();
  const at = kernel.tracks[0]?.step ?? 0;
  await until(() => (kernel.tracks[0]?.step ?? 0) > at + 40);
  expect(painted(root).join()).toBe(old);
  named(root, "newest").click();
  await until(() => painted(root).join() !== old);
});

// --- what is maximised ---

test("a unit is completed with its class, taken with Enter, and a wrong one is refused beside it", async () => {
  const { root, model } = await ready();
  const box = named<HTMLInputElement>(root, "Unit");
  box.focus();
  box.value = "_fc:c2";
  box.dispatchEvent(new Event("input", { bubbles: true }));
  await until(() => all(root, ".pc-option").length === 2);
  expect(all(root, ".pc-option")[0]?.textContent).toContain("golden retriever");
  press(box, "ArrowDown");
  press(box, "Enter");
  await until(() => sent(model, "aim").length === 1);
  expect(sent(model, "aim")[0]?.terms).toEqual([{ address: "_fc:c207", weight: 1, how: null }]);
  await until(() => one(root, ".pc-term-label").textContent === "golden retriever");
  box.value = "_blocks.99:c1";
  press(box, "Enter");
  await until(() => one(root, ".pc-unit-form .pc-error").textContent !== "");
  expect(one(root, ".pc-unit-form .pc-error").textContent).toBe(
    "There is no unit _blocks.99:c1; the nearest is _blocks.9:c17.",
  );
  // What is refused is not started.
  go(root).click();
  await frames();
  await until(() => sent(model, "aim").length >= 3);
  await frames();
  expect(sent(model, "climb")).toHaveLength(0);
});

test("a sum is built of rows with weights, and a row goes away again", async () => {
  const { root, model } = await ready();
  named(root, "+ term").click();
  const second = named<HTMLInputElement>(root, "Unit 2");
  second.value = "_blocks.9:c3";
  press(second, "Enter");
  await until(() => all(root, ".pc-term").length === 2 && sent(model, "aim").length === 1);
  await frames();
  const weight = named<HTMLInputElement>(root, "Weight of unit 2");
  weight.value = "-0.5";
  weight.dispatchEvent(new Event("change", { bubbles: true }));
  await until(() => sent(model, "aim").length === 2);
  expect(sent(model, "aim")[1]?.terms.map((each) => [each.address, each.weight])).toEqual([
    ["_blocks.9:c17", 1],
    ["_blocks.9:c3", -0.5],
  ]);
  await frames();
  named(root, "Remove unit 1").click();
  await until(() => sent(model, "aim").length === 3);
  await until(() => one(root, ".pc-term input[role=combobox]").ariaLabel === "Unit");
  expect(named<HTMLInputElement>(root, "Unit").value).toBe("_blocks.9:c3");
});

test("what was typed and not entered is taken before a start", async () => {
  const { root, model } = await ready();
  const box = named<HTMLInputElement>(root, "Unit");
  box.focus();
  box.value = "_blocks.9:c3";
  go(root).click();
  await until(() => sent(model, "climb").length === 1);
  const kinds = model.kinds().filter((kind) => kind === "aim" || kind === "climb");
  expect(kinds).toEqual(["aim", "climb"]);
});

test("an objective that is a Python function is shown, and cannot be typed over", async () => {
  const fixed = "It is a Python function.";
  const { root } = await ready({ state: { fixed, terms: [], objective: "contrast" } });
  expect(one(root, ".pc-fixed-objective").textContent).toBe("contrast");
  expect(one(root, ".pc-terms").hidden).toBe(true);
});

test("options are folded away, change one at a time, and a wrong one is refused", async () => {
  const { root, model } = await ready();
  const panel = one(root, ".pc-options");
  expect(panel.hidden).toBe(true);
  one(root, ".pc-options-button").click();
  expect(panel.hidden).toBe(false);
  const size = all<HTMLInputElement>(panel, "input").find((each) =>
    each.getAttribute("aria-label")?.startsWith("size"),
  ) as HTMLInputElement;
  size.value = "16";
  size.dispatchEvent(new Event("change", { bubbles: true }));
  await until(() => one(panel, ".pc-error").textContent?.includes("32 pixels"));
  expect(sent(model, "options")).toHaveLength(1);
  expect(sent(model, "options")[0]).toMatchObject({ size: 16 });
  size.value = "many";
  size.dispatchEvent(new Event("change", { bubbles: true }));
  expect(size.getAttribute("aria-invalid")).toBe("true");
  expect(sent(model, "options")).toHaveLength(1);
});

test("what a search for prompts starts from is asked with the next start", async () => {
  const { root, model } = await ready({ family: "prompt" });
  one(root, ".pc-options-button").click();
  const start = all<HTMLSelectElement>(one(root, ".pc-options"), "select").find(
    (each) => each.getAttribute("aria-label") === "What a search for prompts starts from",
  ) as HTMLSelectElement;
  expect(start.value).toBe("random");
  start.value = "examples";
  start.dispatchEvent(new Event("change", { bubbles: true }));
  one(root, ".pc-go").click();
  await until(() => sent(model, "dream").length === 1);
  expect(sent(model, "dream")[0]).toMatchObject({ start: "examples" });
});

// --- columns and axis ---

test("optimised, corpus and own stand on one axis, and say so in words", async () => {
  const { root } = await ready({ climbed: true, measured: true, own: true, side: 16 });
  const label = one(root, ".pc-axis-svg").getAttribute("aria-label") ?? "";
  expect(label).toMatch(/^Activation: optimised [\d.]+, best of the corpus 4.71, your own 2.31$/);
  const at = (title: string) => {
    const spots = [...root.querySelectorAll<SVGElement>(".pc-axis-svg title")];
    const spot = spots.find((each) => each.textContent?.startsWith(title))?.parentElement;
    return spot?.getBoundingClientRect().left ?? Number.NaN;
  };
  expect(at("your own")).toBeLessThan(at("best of the corpus"));
  expect(at("best of the corpus")).toBeLessThan(at("optimised"));
});

test("what is of another unit is said to be, and not put on this one's axis", async () => {
  const { root, kernel } = await ready({ climbed: true, measured: true, side: 16 });
  kernel.declare({ objective: "_blocks.9:c3" });
  kernel.addTrack("climb", "picture", 100, "done");
  kernel.tracks.shift();
  kernel.sayTracks();
  kernel.sayFrame(2, 0, 100);
  await until(() => one(root, ".pc-corpus-column").dataset.stale !== undefined);
  expect(one(root, ".pc-corpus-column").textContent).toContain("Of another unit, _blocks.9:c17.");
  expect(one(root, ".pc-axis-svg").getAttribute("aria-label")).not.toContain("corpus");
});

test("an empty view says what to do first, with one button that does it", async () => {
  const { root, model } = await ready({ side: 16 });
  const first = one(root, ".pc-optimised .pc-first");
  expect(first.textContent).toBe("Nothing is optimised yet: start.");
  one(first, "button").click();
  await until(() => sent(model, "climb").length === 1);
  one(root, ".pc-corpus-column .pc-first button").click();
  await until(() => all(root, ".pc-corpus-column .pc-example").length === 9);
  expect(sent(model, "examples")).toHaveLength(1);
});

test("the user's picture is made small in the page and sent in pieces, then measured", async () => {
  const { root, model, kernel } = await ready({ state: { shape: [3, 224, 224] } });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [1600, 900];
  const pen = canvas.getContext("2d") as CanvasRenderingContext2D;
  for (let i = 0; i < 4000; i++) {
    pen.fillStyle = `hsl(${(i * 77) % 360} 80% 50%)`;
    pen.fillRect((i * 131) % 1600, (i * 57) % 900, 40, 40);
  }
  const blob = await new Promise<Blob>((done) =>
    canvas.toBlob((made) => done(made as Blob), "image/png"),
  );
  const given = new DataTransfer();
  given.items.add(new File([blob], "holiday.png", { type: "image/png" }));
  const drop = new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true });
  one(root, ".pc-drop").dispatchEvent(drop);
  expect(drop.defaultPrevented).toBe(true);
  await until(() => sent(model, "own").length === 1);
  expect(sent(model, "own")[0]).toMatchObject({ piece: "holiday.png" });
  const pieces = sent(model, "piece");
  expect(pieces.map((each) => each.index)).toEqual(pieces.map((_, i) => i));
  for (const each of pieces) {
    expect(each.data.length).toBeLessThanOrEqual(49_152);
    expect(each.data.length % 4).toBe(0);
    expect(each.of).toBe(pieces.length);
  }
  const bytes = Uint8Array.from(atob(kernel.pieces), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes]));
  expect([bitmap.width, bitmap.height]).toEqual([398, 224]);
  await until(() => all(root, ".pc-own .pc-stimulus").length === 1);
});

test("a file that is no picture is refused in a sentence, and nothing is sent", async () => {
  const { root, model } = await ready();
  const given = new DataTransfer();
  given.items.add(new File(["no picture"], "notes.txt", { type: "text/plain" }));
  one(root, ".pc-drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }),
  );
  await until(() => one(root, ".pc-own .pc-error").textContent !== "");
  expect(one(root, ".pc-own .pc-error").textContent).toBe(
    "“notes.txt” is no picture that this browser can read; choose a PNG, a JPEG or a WebP.",
  );
  expect(sent(model, "piece")).toHaveLength(0);
});

// --- tabs ---

test("facets stand side by side with the images they came from, and a click shows one large", async () => {
  const { root, model, kernel } = await ready({ side: 16, facets: 3 });
  expect(all(root, ".pc-facet")).toHaveLength(3);
  expect(all(root, ".pc-facet")[1]?.textContent).toContain("from 10 images, 6 shown");
  expect(all(root, ".pc-facet")[1]?.querySelectorAll(".pc-members canvas")).toHaveLength(6);
  expect(painted(root)).toEqual(expected(kernel, 1, 255));
  all(root, ".pc-facet-show")[1]?.click();
  await until(() => painted(root).join() === expected(kernel, 2, 255).join());
  expect(all(root, ".pc-facet-show").map((each) => each.getAttribute("aria-pressed"))).toEqual([
    "false",
    "true",
    "false",
  ]);
  // One stop of the Tab order; arrows walk.
  expect(all(root, '.pc-facet-show[tabindex="0"]')).toHaveLength(1);
  all(root, ".pc-facet-show")[0]?.focus();
  press(document.activeElement as Element, "ArrowRight");
  expect(document.activeElement).toBe(all(root, ".pc-facet-show")[1]);
  named(root, "find facets").click();
  await until(() => sent(model, "facets").length === 1);
  expect(sent(model, "facets")[0]?.count).toBeNull();
  named(root, "diverse set").click();
  await until(() => sent(model, "diverse").length === 1);
  expect(sent(model, "diverse")[0]).toMatchObject({ count: 4, strength: 1 });
});

test("tabs are one stop of the Tab order, and arrows show the next", async () => {
  const { root } = await ready({ side: 16, measured: true });
  const tabs = all(root, '[role="tab"]').filter((each) => !each.hidden);
  expect(tabs.filter((each) => each.tabIndex === 0)).toHaveLength(1);
  tabs[0]?.focus();
  press(tabs[0] as Element, "ArrowRight");
  await frames();
  expect(document.activeElement).toBe(tabs[1]);
  expect(one(root, ".pc-examples-panel").offsetParent).not.toBeNull();
  expect(one(root, ".pc-facets").offsetParent).toBeNull();
});

test("examples stand by group, and a click on one puts it into the session", async () => {
  const { root, model } = await ready({ side: 16, measured: true });
  await tab(root, "examples");
  expect(all(root, ".pc-group-name").map((each) => each.textContent)).toEqual([
    "top",
    "90th to 99th percentile",
    "around the median",
    "bottom",
  ]);
  all(root, ".pc-example-group")[2]?.querySelectorAll<HTMLElement>(".pc-example")[1]?.click();
  await until(() => sent(model, "load").length === 1);
  expect(sent(model, "load")[0]?.example).toEqual([2, 1]);
  // One stop of the Tab order a group; arrows walk.
  const group = all(root, ".pc-example-group")[0] as HTMLElement;
  const items = all(group, ".pc-example");
  expect(items.filter((each) => each.tabIndex === 0)).toHaveLength(1);
  items[0]?.focus();
  press(items[0] as Element, "End");
  expect(document.activeElement).toBe(items.at(-1));
  const map = one(root, ".pc-example-group .pc-map");
  expect(map.hidden).toBe(true);
  one<HTMLInputElement>(root, ".pc-examples-panel input[type=checkbox]").click();
  await until(() => !map.hidden);
});

test("token text is text: nothing in it becomes an element", async () => {
  const { root } = await ready({ family: "prompt", dreamed: true, measured: true });
  expect(root.querySelector(".pc-candidates b, .pc-optimised b")).toBeNull();
  expect(one(root, ".pc-candidates").textContent).toContain("<b>");
});

test("a unit that matters stands beside hatched random units of its layer", async () => {
  const { root, model } = await ready({ side: 16, climbed: true });
  await tab(root, "does it matter");
  named(root, "ablate it").click();
  await until(() => sent(model, "matter").length === 1);
  expect(sent(model, "matter")[0]).toMatchObject({ track: 1, candidate: null });
  await until(() => all(root, ".pc-matter-line").length === 8);
  expect(one(root, ".pc-matter-sentence").textContent).toBe(
    "Ablated to its mean, _blocks.9:c17 changes the output by 1.83, more than each of the 5 random units of its layer (their median is 0.0210).",
  );
  const controls = all(root, ".pc-matter-line[data-control] .pc-swatch-control");
  expect(controls).toHaveLength(5);
  for (const each of controls) {
    expect(getComputedStyle(each).backgroundImage).toContain("repeating-linear-gradient");
  }
});

test("stimuli stand above what each does to each unit, and a cell says its value", async () => {
  const { root, model } = await ready({ side: 16 });
  await tab(root, "discriminative");
  const box = one<HTMLInputElement>(root, ".pc-units-box");
  box.value = "";
  press(box, "Enter");
  expect(one(root, ".pc-discriminative .pc-error").textContent).toContain("Name the units");
  box.value = "_fc:c*";
  press(box, "Enter");
  await until(() => all(root, ".pc-stimuli .pc-facet-show").length === 3);
  expect(sent(model, "discriminate")[0]).toMatchObject({ units: ["_fc:c*"], clusters: 8, seed: 0 });
  const cells = one(root, ".pc-response .pc-heat-cells");
  cells.focus();
  press(cells, "ArrowRight");
  await until(() => one(root, ".pc-response .pc-where").textContent !== "");
  expect(one(root, ".pc-response .pc-where").textContent).toMatch(
    /^stimulus \d on _fc:c\d+: [\d.]+/,
  );
  all(root, ".pc-stimuli .pc-facet-show")[2]?.click();
  await until(() => sent(model, "load").length === 1);
  expect(sent(model, "load")[0]?.stimulus).toBe(2);
});

// --- refusals, files, ends ---

test("a refusal stands where the thing is that caused it", async () => {
  const { root, model } = await ready({ side: 16, climbed: true, measured: true, own: true });
  const refuse = (kind: string, sentence: string) => {
    const answer = model.onSend;
    model.onSend = (message) =>
      message.kind === kind
        ? model.say({
            kind: "reply",
            id: message.id,
            ok: false,
            revision: 1,
            error: sentence,
            field: null,
          })
        : answer(message);
  };
  refuse("climb", "The network takes no picture of this size.");
  go(root).click();
  await until(() => one(root, ".pc-run-controls .pc-error").textContent?.includes("this size"));
  refuse("load", "The example is gone.");
  all(root, ".pc-corpus-column .pc-example")[0]?.click();
  await until(
    () => one(root, ".pc-corpus-column .pc-error").textContent === "The example is gone.",
  );
  refuse("facets", "There are fewer images than facets.");
  named(root, "find facets").click();
  await until(() => one(root, ".pc-facets .pc-error").textContent?.includes("fewer images"));
});

test("a run that failed is said in a sentence, and the best picture so far stays", async () => {
  const { root, kernel } = await ready({ side: 16, climbed: true });
  const before = painted(root).join();
  kernel.push({
    kind: "status",
    busy: false,
    what: "",
    error: "The objective became NaN at step 12; the best picture so far is kept.",
    revision: 1,
  });
  const said = () => root.textContent?.includes("became NaN at step 12");
  await until(said);
  expect(painted(root).join()).toBe(before);
  // The last frame and the end of the run come after it; the next start takes it away.
  kernel.sayFrame(1, 254, 255);
  kernel.declare({ activity: null });
  await frames();
  expect(said()).toBe(true);
  go(root).click();
  await until(() => !said());
});

test("what cannot be had here says why, and its tab or button is off", async () => {
  const why = "The corpus is empty.";
  const { root } = await ready({ side: 16, refusals: { examples: why, discriminate: "No." } });
  expect(one(root, ".pc-corpus-column").textContent).toContain(why);
  expect(all(root, '[role="tab"]').filter((each) => !each.hidden)).toHaveLength(3);
  await tab(root, "examples");
  const panel = one(root, ".pc-examples-panel");
  expect(named(panel, "measure the corpus").disabled).toBe(true);
});

test("a sheet, an animation and a table are asked of Python and handed over as files", async () => {
  const { root, model } = await ready({ side: 16, climbed: true });
  const names: string[] = [];
  const click = vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (
    this: HTMLAnchorElement,
  ) {
    names.push(this.download);
  });
  named(root, "Save the steps as an animated GIF").click();
  await until(() => names.length === 1);
  named(root, "Save the activation at each step as CSV").click();
  await until(() => names.length === 2);
  named(root, "Save the axis as SVG").click();
  await until(() => names.length === 3);
  click.mockRestore();
  expect(sent(model, "save").map((each) => [each.what, each.format, each.track])).toEqual([
    ["animation", "gif", 1],
    ["history", "csv", undefined],
  ]);
  expect(names).toEqual([
    "patchclamp-animation.gif",
    "patchclamp-history.csv",
    "patchclamp-_blocks.9-c17-axis.svg",
  ]);
});

test("a saved page draws everything without a kernel, and scrubs what it holds", async () => {
  const { root, model, kernel } = await ready({
    side: 16,
    climbed: true,
    measured: true,
    own: true,
    saved: true,
  });
  await until(() => root.dataset.dead !== undefined || one(root, ".pc-kernel").textContent !== "");
  expect(painted(root)).toEqual(expected(kernel, 1, 255));
  expect(all(root, ".pc-corpus-column .pc-example")).toHaveLength(9);
  const before = sent(model, "scrub").length;
  slider(root).value = "40";
  slider(root).dispatchEvent(new Event("input", { bubbles: true }));
  await until(() => painted(root).join() === expected(kernel, 1, 40).join());
  expect(sent(model, "scrub")).toHaveLength(before);
  expect(go(root).disabled).toBe(true);
  expect(named(root, "choose a picture").disabled).toBe(true);
});

test("a view that ended leaves no listener, timer, frame or node behind", async () => {
  const { root, model, kernel, unmount } = await ready({ side: 16, facets: 2, measured: true });
  await tab(root, "examples");
  go(root).click();
  await until(() => kernel.tracks.length === 1 && (kernel.tracks[0]?.step ?? 0) > 8);
  expect(model.count()).toBeGreaterThan(0);
  const put = vi.spyOn(CanvasRenderingContext2D.prototype, "putImageData");
  unmount();
  expect(model.count()).toBe(0);
  const before = model.sent.length;
  put.mockClear();
  await new Promise((done) => setTimeout(done, 200));
  await frames();
  expect(put).not.toHaveBeenCalled();
  expect(root.isConnected).toBe(false);
  for (const button of all(root, "button")) button.click();
  press(root, " ");
  await frames();
  expect(model.kinds().slice(before)).toEqual([]);
  put.mockRestore();
});

test("a view is no wider than its place, from 480 to 1500 pixels", async () => {
  for (const [family, width] of [
    ["image", 480],
    ["prompt", 480],
    ["image", 900],
    ["prompt", 1500],
  ] as const) {
    const { root } = await ready({
      family,
      width,
      side: 16,
      climbed: family === "image",
      dreamed: family === "prompt",
      measured: true,
      own: true,
    });
    expect(root.scrollWidth, `${family} ${width}`).toBeLessThanOrEqual(root.clientWidth);
    for (const part of all(root, "button, input, select, textarea, canvas")) {
      if (part.offsetParent === null) continue;
      const box = part.getBoundingClientRect();
      if (part.closest(".pc-candidate-scroll, .pc-heat-map, .pc-hidden")) continue;
      expect(box.right, `${family} ${width} ${part.outerHTML.slice(0, 90)}`).toBeLessThanOrEqual(
        root.getBoundingClientRect().right,
      );
    }
  }
});

// --- the session's stack ---

const strip = (root: Element) => one(root, ".pc-session");
const rowsOf = (root: Element) => all(root, ".pc-session .pc-row");

test("a language model's session has its prompt and its stack in the view", async () => {
  const { root, model } = await ready({ family: "prompt" });
  expect(all(strip(root), ".pc-chips [role=option]").length).toBe(10);
  expect(strip(root).textContent).toContain("Nothing in the stack: hold the unit");
  expect(one(root, ".pc-apart").hidden).toBe(true);
  one<HTMLButtonElement>(root, ".pc-hold").click();
  await until(() => rowsOf(root).length === 1);
  expect(sent(model, "add")).toMatchObject([{ address: "L12.N304" }]);
  expect(one(root, ".pc-hold").hidden).toBe(true); // it has its row
});

test("where the stack has rows a line says that searches run without them", async () => {
  const stacked = [row({ key: 1, address: "L5.N7" })];
  const { root, kernel } = await ready({ family: "prompt", stacked });
  expect(one(root, ".pc-apart").hidden).toBe(false);
  expect(one(root, ".pc-apart").textContent).toBe(
    'Searches and all else above run on the model without these rows. Their effects are on log p(" Paris").',
  );
  await until(() => one(rowsOf(root)[0] as Element, ".pc-effect").textContent?.includes("−0.61"));
  kernel.restack([]);
  await until(() => one(root, ".pc-apart").hidden);
});

test("a row is muted, taken out, and all are with R; undo is the session's", async () => {
  const stacked = [row({ key: 1, address: "L5.N7" }), row({ key: 2, address: "L6.N8" })];
  const { root, model } = await ready({ family: "prompt", stacked });
  one<HTMLInputElement>(rowsOf(root)[0] as Element, ".pc-mute").click();
  await until(() => sent(model, "edit").length === 1);
  expect(sent(model, "edit")[0]).toMatchObject({ key: 1, muted: true, final: true });
  one<HTMLButtonElement>(rowsOf(root)[0] as Element, ".pc-remove").click();
  await until(() => rowsOf(root).length === 1);
  press(one(root, ".pc-session h3"), "r");
  await until(() => rowsOf(root).length === 0);
  expect(sent(model, "reset").length).toBe(1);
  press(one(root, ".pc-session h3"), "r"); // there is nothing left to take out
  await frames();
  expect(sent(model, "reset").length).toBe(1);
});

test("edits of a slider go up one at a time, each once the state of the last is here", async () => {
  const stacked = [row({ key: 1, address: "L5.N7" })];
  const { root, model } = await ready({ family: "prompt", stacked });
  const range = one<HTMLInputElement>(root, ".pc-session .pc-slider");
  range.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true }));
  for (const value of ["1", "2", "3"]) {
    range.value = value;
    range.dispatchEvent(new Event("input", { bubbles: true }));
  }
  await until(() => sent(model, "edit").length === 2);
  document.dispatchEvent(new PointerEvent("pointerup"));
  await until(() => sent(model, "edit").at(-1)?.final === true);
  expect(sent(model, "edit").map(({ value, final }) => [value, final])).toEqual([
    [1, false],
    [3, false],
    [3, true],
  ]);
});

test("the session of a module has no stack, and the view shows none", async () => {
  const { root } = await ready({ climbed: true });
  expect(strip(root).hidden).toBe(true);
});
