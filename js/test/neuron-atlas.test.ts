import { expect, test } from "vitest";
import { layersOf } from "../src/atlas-search";
import type { Up } from "../src/messages";
import { ODD } from "./fake-atlas";
import type { FakeModel } from "./fake-kernel";
import { type AtlasOptions, all, mountAtlas, named, one, press, until } from "./mount";

const frames = async (count = 3) => {
  for (let i = 0; i < count; i++) await new Promise((done) => requestAnimationFrame(done));
};

function sent<Kind extends Up["kind"]>(
  model: FakeModel,
  kind: Kind,
): Extract<Up, { kind: Kind }>[] {
  return model.sent.filter((each) => each.kind === kind) as Extract<Up, { kind: Kind }>[];
}

async function ready(options: AtlasOptions = {}) {
  const mounted = await mountAtlas(options);
  await frames();
  return mounted;
}

const scroller = (root: Element) => one(root, ".pc-neuron-scroll");
const lines = (root: Element) => all(root, ".pc-neuron-rows .pc-neuron-row");
const known = (root: Element) => lines(root).filter((each) => each.dataset.address !== undefined);
const addresses = (root: Element) => known(root).map((each) => each.dataset.address);
const grid = (root: Element, column: string) =>
  all(root, `.pc-neuron-rows .pc-neuron-row[data-address] .pc-neuron-${column}`).map(
    (each) => each.textContent,
  );
const head = (root: Element, name: string) => {
  const found = all(root, ".pc-column-head").find((each) => each.textContent === name);
  if (found === undefined) throw new Error(`no column ${name}`);
  return found;
};
const type = (root: Element, label: string, text: string) => {
  const input = named<HTMLInputElement>(root, label);
  input.value = text;
  input.dispatchEvent(new Event("change", { bubbles: true }));
};
const TOKEN = "Search by a token";
const LAYERS = "Layers, such as 3 or 10:20";
const LEAST = "How special a neuron is at least";

// --- the table ---

test("of 46,080 rows those are drawn that are seen, and asked for that are not known", async () => {
  const { root, model, kernel } = await ready();
  expect(kernel.state.count).toBe(46_080);
  expect(one(root, ".pc-neuron-rows").getBoundingClientRect().height).toBeCloseTo(46_080 * 24, 0);
  expect(lines(root).length).toBeLessThan(40);
  expect(addresses(root).slice(0, 3)).toEqual(kernel.rows(0, 3).map((row) => row.address));
  // The rows of the first answer are enough for what is seen at first.
  expect(sent(model, "page")).toEqual([]);
  scroller(root).scrollTop = 24 * 20_000;
  await until(() => addresses(root).includes(kernel.rows(20_005, 1)[0]?.address));
  expect(lines(root).length).toBeLessThan(40);
  const asked = sent(model, "page");
  expect(asked.length).toBeLessThanOrEqual(2);
  for (const { start, count } of asked) {
    expect(count).toBe(100);
    expect(start).toBeGreaterThanOrEqual(19_900);
    expect(start).toBeLessThanOrEqual(20_000);
  }
});

test("while it is scrolled one page is asked for at a time, and the newest of those that wait", async () => {
  const { root, model, kernel } = await ready();
  kernel.held = true;
  for (const to of [5_000, 9_000, 14_000, 30_000]) {
    scroller(root).scrollTop = 24 * to;
    await frames(2);
  }
  await until(() => sent(model, "page").length === 1);
  expect(lines(root).every((each) => each.dataset.waiting !== undefined)).toBe(true);
  kernel.release();
  await until(() => addresses(root).includes(kernel.rows(30_002, 1)[0]?.address));
  const starts = sent(model, "page").map((each) => each.start);
  expect(starts[0]).toBe(4_900);
  expect(starts).not.toContain(9_000);
  expect(starts).not.toContain(14_000);
});

test("rows that are known are not asked for again", async () => {
  const { root, model, kernel } = await ready();
  scroller(root).scrollTop = 24 * 120;
  await until(() => addresses(root).includes(kernel.rows(125, 1)[0]?.address));
  await frames();
  const before = sent(model, "page").length;
  scroller(root).scrollTop = 24 * 110;
  await frames();
  scroller(root).scrollTop = 24 * 120;
  await frames();
  expect(sent(model, "page")).toHaveLength(before);
});

test("rows of an older sifting are dropped", async () => {
  const { root, kernel } = await ready();
  kernel.held = true;
  scroller(root).scrollTop = 24 * 20_000;
  await frames();
  const old = kernel.rows(20_000, 1)[0]?.address;
  kernel.sift({ order: "address", falling: false });
  await frames();
  kernel.release();
  await until(() => addresses(root)[0] === "L0.N0");
  expect(scroller(root).scrollTop).toBe(0);
  scroller(root).scrollTop = 24 * 20_000;
  await until(() => addresses(root).includes("L13.N32"));
  expect(addresses(root)).not.toContain(old);
});

test("a head sorts, again the other way, and says so", async () => {
  const { root, model, kernel } = await ready();
  head(root, "peak").click();
  await until(() => kernel.state.sifted.order === "peak");
  expect(sent(model, "sift")[0]).toMatchObject({ order: "peak", falling: true, brushed: true });
  await until(() => known(root).length > 10);
  const cell = head(root, "peak").parentElement as HTMLElement;
  await until(() => cell.getAttribute("aria-sort") === "descending");
  head(root, "peak").click();
  await until(() => cell.getAttribute("aria-sort") === "ascending");
  head(root, "fires").click();
  await until(() => kernel.state.sifted.order === "firing");
  expect(sent(model, "sift")[2]).toMatchObject({ order: "firing", falling: false });
});

test("heads stand above their columns and are not cut off", async () => {
  for (const width of [480, 900, 1500]) {
    const { root } = await ready({ width });
    for (const name of ["address", "score", "token", "firing", "peak"]) {
      const above = one(root, `.pc-neuron-head .pc-neuron-${name}`).getBoundingClientRect();
      const below = one(root, `.pc-neuron-rows .pc-neuron-${name}`).getBoundingClientRect();
      expect(Math.abs(above.left - below.left), `${name} at ${width}`).toBeLessThan(0.6);
      expect(Math.abs(above.right - below.right), `${name} at ${width}`).toBeLessThan(0.6);
    }
    const text = head(root, "peak").getBoundingClientRect();
    const box = one(root, ".pc-neuron-top").getBoundingClientRect();
    expect(text.top).toBeGreaterThanOrEqual(box.top - 0.5);
    expect(text.bottom).toBeLessThanOrEqual(box.bottom + 0.5);
    // Nothing sticks out of the view.
    expect(root.scrollWidth).toBeLessThanOrEqual(root.clientWidth);
  }
});

test("a row that is pressed before it is known is met when it is", async () => {
  const { root, model, kernel } = await ready();
  kernel.held = true;
  scroller(root).scrollTop = 24 * 3_000;
  await until(() => lines(root).some((each) => each.id.endsWith("-3003")));
  lines(root)
    .find((each) => each.id.endsWith("-3003"))
    ?.click();
  await frames();
  expect(sent(model, "meet")).toEqual([]);
  kernel.release();
  const wanted = kernel.rows(3_003, 1)[0]?.address;
  await until(() => sent(model, "meet").length === 1);
  expect(sent(model, "meet")[0]?.address).toBe(wanted);
});

test("arrows, pages, ends and Enter walk the table", async () => {
  const { root, model, kernel } = await ready();
  const view = scroller(root);
  view.focus();
  press(view, "ArrowDown");
  press(view, "ArrowDown");
  await frames();
  const active = () => document.getElementById(view.getAttribute("aria-activedescendant") ?? "");
  expect(active()?.dataset.address).toBe(kernel.rows(2, 1)[0]?.address);
  press(view, "End");
  await until(() => active()?.dataset.address === kernel.rows(46_079, 1)[0]?.address);
  // The last row is seen whole.
  const last = active()?.getBoundingClientRect();
  expect(last?.bottom).toBeLessThanOrEqual(view.getBoundingClientRect().bottom + 1);
  press(view, "Enter");
  await until(() => sent(model, "meet").length === 1);
  press(view, "Home");
  await frames();
  expect(view.scrollTop).toBe(0);
  expect(view.getAttribute("aria-rowcount")).toBe("46081");
  expect(active()?.getAttribute("aria-rowindex")).toBe("2");
});

// --- the search ---

test("a token is searched for, and its column comes and goes", async () => {
  const { root, model, kernel } = await ready();
  expect(one(root, ".pc-neuron-head .pc-neuron-z").checkVisibility()).toBe(false);
  type(root, TOKEN, " dog ");
  await until(() => kernel.state.sifted.token === "dog");
  expect(sent(model, "sift")[0]).toMatchObject({ token: "dog", order: "z", falling: true });
  await until(() => grid(root, "z").length > 5);
  await until(() => one(root, ".pc-neuron-head .pc-neuron-z").checkVisibility());
  await until(() => /^[+−]\d/.test(grid(root, "z")[0] ?? ""));
  type(root, TOKEN, "");
  await until(() => kernel.state.sifted.order === "score");
});

test("layers, scores and the matrix are asked for together", async () => {
  const { root, model, kernel } = await ready();
  type(root, LAYERS, "10:12");
  await until(() => kernel.state.count === 3 * 1536);
  await until(() => root.textContent?.includes("4,608 of 46,080 neurons"));
  // Python has not said yet what it makes of the first when the second is asked for.
  type(root, LEAST, "5.5");
  one<HTMLInputElement>(root, ".pc-segments input[value=gate]").click();
  expect(kernel.state.sifted.least).toBeNull();
  await until(() => kernel.state.sifted.matrix === "gate");
  expect(sent(model, "sift").at(-1)).toMatchObject({
    layers: [10, 12],
    least: 5.5,
    matrix: "gate",
  });
  await until(() => root.textContent?.includes("of 46,080 neurons"));
  named(root, "clear").click();
  await until(() => kernel.state.count === 46_080);
  await until(() => named<HTMLInputElement>(root, LAYERS).value === "");
});

test("what is no range, no number or no token is a sentence at the search", async () => {
  const { root, model } = await ready();
  const search = one(root, ".pc-atlas-search");
  type(root, LAYERS, "3:99");
  expect(one(search, ".pc-error").textContent).toContain("0:29 would be all");
  type(root, LAYERS, "");
  type(root, LEAST, "much");
  expect(one(search, ".pc-error").textContent).toContain("is no number");
  expect(sent(model, "sift")).toHaveLength(1);
  type(root, LEAST, "1e9");
  await until(() => search.textContent?.includes("No neuron is that special."));
  // Rows come when they come: nothing is compared before all that is drawn is known.
  const known = () =>
    addresses(root).length > 0 && root.querySelector(".pc-neuron-row[data-waiting]") === null;
  await until(known);
  const before = addresses(root);
  type(root, LEAST, "");
  type(root, TOKEN, "zzz");
  await until(() => search.textContent?.includes("No token of smollm2 reads 'zzz'"));
  await until(known);
  expect(addresses(root)).toEqual(before);
});

test("a range of layers is read as people write it", () => {
  expect(layersOf("3", 30)).toEqual([3, 3]);
  expect(layersOf(" 10 – 20 ", 30)).toEqual([10, 20]);
  expect(layersOf("", 30)).toBeNull();
  for (const wrong of ["a", "9:3", "0:30", "-1"]) expect(layersOf(wrong, 30)).toBeUndefined();
});

test("a brush is said and taken away", async () => {
  const { root, model, kernel } = await ready();
  kernel.sift({ brush: [0.01, 0.2, 3.5, 50] });
  await until(() => one(root, ".pc-brush").textContent?.includes("1.0 % to 20 %"));
  head(root, "mean").click();
  await until(() => sent(model, "sift").length === 1);
  expect(sent(model, "sift")[0]?.brushed).toBe(true);
  await until(() => kernel.state.sifted.order === "mean");
  named(root, "Take the brush away").click();
  await until(() => kernel.state.sifted.brush === null);
  await until(() => !one(root, ".pc-brush").checkVisibility());
});

// --- the card ---

test("a pressed row shows its card, and what is in it leads on", async () => {
  const { root, model, kernel } = await ready();
  known(root)[1]?.click();
  const address = kernel.rows(1, 1)[0]?.address as string;
  await until(() => one(root, ".pc-card-address").textContent === address);
  await until(() => one(root, ".pc-card").checkVisibility());
  await until(() => known(root)[1]?.getAttribute("aria-selected") === "true");
  expect(all(root, ".pc-decoded dt").map((each) => each.textContent)).toEqual([
    "writes ↑",
    "writes ↓",
    "reads (up) ↑",
    "reads (up) ↓",
    "reads (gate) ↑",
    "reads (gate) ↓",
  ]);
  expect(all(root, ".pc-histogram rect")).toHaveLength(48);
  const next = all(root, ".pc-near [data-meet]")[0];
  next?.click();
  await until(() => one(root, ".pc-card-address").textContent === next?.dataset.meet);
  named(root, "Close the card").click();
  await until(() => !one(root, ".pc-card").checkVisibility());
  expect(sent(model, "meet").at(-1)?.address).toBeNull();
});

test("a card that Python shows or puts away is shown and put away", async () => {
  const { root, kernel } = await ready();
  const { card, buffers } = kernel.packedCard("L7.N8");
  kernel.push({ kind: "card", card, weighed: null }, buffers);
  await until(() => one(root, ".pc-card-address").textContent === "L7.N8");
  kernel.push({ kind: "card", card: null, weighed: null });
  await until(() => !one(root, ".pc-card").checkVisibility());
});

test("no token's text is taken for markup", async () => {
  const { root } = await ready({ card: "L12.N304", weighed: true });
  all(root, ".pc-atlas-example")[0]?.click();
  await until(() => one(root, ".pc-atlas-text[data-whole]").textContent?.includes(ODD));
  expect(root.textContent).toContain(ODD);
  expect(all(root, "img:not(.pc-saved-chart)")).toEqual([]);
  expect("taken" in window).toBe(false);
});

test("an example is read at every token around it, and folded again", async () => {
  const { root, model } = await ready({ card: "L12.N304" });
  const first = () => all(root, ".pc-atlas-example")[0] as HTMLElement;
  first().focus();
  first().click();
  await until(() => first().getAttribute("aria-expanded") === "true");
  const shaded = all(first(), ".pc-shaded");
  expect(shaded).toHaveLength(8);
  expect(shaded[2]?.dataset.at).toBe("");
  expect(shaded[2]?.title).toContain("9.25");
  // Who opened it with a key is still on it.
  expect(document.activeElement).toBe(first());
  first().click();
  await until(() => first().getAttribute("aria-expanded") === "false");
  expect(sent(model, "shade")).toHaveLength(1);
});

test("an example that cannot be read says why beneath itself", async () => {
  const { root, model, kernel } = await ready({ card: "L12.N304" });
  const take = kernel.take.bind(kernel);
  kernel.take = (message) =>
    message.kind === "shade"
      ? kernel.refuse(message.id, "The corpus has no token at that place.")
      : take(message);
  const third = all(root, ".pc-atlas-example")[2] as HTMLElement;
  third.click();
  await until(() => sent(model, "shade").length === 1);
  await until(() => one(root, ".pc-card-examples .pc-error").checkVisibility());
  const now = all(root, ".pc-atlas-example")[2];
  expect(now?.nextElementSibling?.textContent).toBe("The corpus has no token at that place.");
});

test("a chosen token is weighed beside random neurons of the layer", async () => {
  const { root, model } = await ready({ card: "L12.N304" });
  const chips = all(root, ".pc-decoded-token");
  expect(chips.filter((each) => each.getAttribute("aria-pressed") === "true")).toHaveLength(1);
  chips[3]?.click();
  expect(chips[3]?.getAttribute("aria-pressed")).toBe("true");
  named(root, "measure its effect").click();
  await until(() => all(root, ".pc-weighed tbody tr").length === 6);
  const [asked] = sent(model, "weigh");
  expect(asked?.address).toBe("L12.N304");
  const figures = all(root, ".pc-weighed tbody tr:first-child .pc-weighed-figure");
  expect(figures.map((each) => each.textContent)).toEqual(["+2.41", "−1.30"]);
  // Bars go to either side of one middle, as long as their numbers.
  const [up, down] = all(root, ".pc-weighed tbody tr:first-child .pc-lane-bar");
  expect(up?.style.left).toBe("50%");
  expect(down?.style.right).toBe("50%");
  expect(up?.getBoundingClientRect().width).toBeGreaterThan(
    down?.getBoundingClientRect().width ?? 0,
  );
});

test("a neuron is clamped from its card, and the clamp's own view stands under it", async () => {
  const { root, model, kernel } = await ready({ card: "L12.N304" });
  let removed = 0;
  model.widget_manager = {
    get_model: async (id) => id,
    create_view: async (made) => {
      const el = document.createElement("p");
      el.textContent = `view of ${made}`;
      return { el, remove: () => (removed += 1) };
    },
  };
  named(root, "clamp it").click();
  await until(() => kernel.state.held);
  expect(sent(model, "hold")[0]?.address).toBe("L12.N304");
  model.traits.clamp = "IPY_MODEL_one";
  model.trigger("change:clamp");
  await until(() => one(root, ".pc-child-clamp").textContent === "view of one");
  await until(() => one(root, ".pc-child-clamp").checkVisibility());
  model.traits.clamp = "IPY_MODEL_two";
  model.trigger("change:clamp");
  await until(() => one(root, ".pc-child-clamp").textContent === "view of two");
  expect(removed).toBe(1);
  known(root)[0]?.dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
  await until(() => sent(model, "hold").length === 2);
});

test("the host's chart takes its place without moving the table", async () => {
  const { root, model } = await ready({ width: 1200 });
  expect(one(root, ".pc-atlas-plot").textContent).toContain("is being made");
  const before = one(root, ".pc-neuron-scroll").getBoundingClientRect();
  const card = one(root, ".pc-atlas-columns").getBoundingClientRect().height;
  model.widget_manager = {
    get_model: async (id) => id,
    create_view: async () => {
      const el = document.createElement("canvas");
      [el.width, el.height] = [430, 300];
      return { el, remove: () => undefined };
    },
  };
  model.traits.chart = "IPY_MODEL_chart";
  model.trigger("change:chart");
  await until(() => one(root, ".pc-child-chart").checkVisibility());
  await until(() => !all(root, ".pc-atlas-plot .pc-note").some((each) => each.checkVisibility()));
  expect(one(root, ".pc-neuron-scroll").getBoundingClientRect()).toEqual(before);
  expect(one(root, ".pc-atlas-columns").getBoundingClientRect().height).toBe(card);
});

// --- building, saving, leaving ---

test("without an atlas the view says what building does, and one button does it", async () => {
  const { root, model, kernel } = await ready({ built: false });
  expect(one(root, ".pc-building").textContent).toContain("46,080 neurons");
  expect(one(root, ".pc-atlas-found").checkVisibility()).toBe(false);
  named(root, "build the atlas").click();
  await until(() => sent(model, "build").length === 1);
  const bar = one<HTMLProgressElement>(root, ".pc-build-progress");
  await until(() => bar.checkVisibility() && bar.value === 40);
  expect(bar.max).toBe(410);
  await until(() => !named<HTMLButtonElement>(root, "stop").disabled);
  named(root, "stop").click();
  await until(() => !bar.checkVisibility());
  kernel.push({
    kind: "status",
    revision: 1,
    busy: false,
    what: "",
    error: "The disk is full: nothing was lost.",
  });
  await until(() => one(root, ".pc-building").textContent?.includes("The disk is full"));
});

test("a saved page has its rows, its card and its plot, and asks nobody", async () => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [40, 30];
  const blob = await new Promise<Blob>((done) => canvas.toBlob((made) => done(made as Blob)));
  const scatter = new Uint8Array(await blob.arrayBuffer());
  const { root, model } = await ready({ saved: true, scatter, card: "L12.N304", weighed: true });
  const picture = one<HTMLImageElement>(root, ".pc-saved-chart");
  await until(() => picture.naturalWidth === 40);
  await until(() => picture.checkVisibility());
  expect(known(root).length).toBeGreaterThan(10);
  expect(one(root, ".pc-card-address").textContent).toBe("L12.N304");
  expect(all(root, ".pc-weighed tbody tr")).toHaveLength(6);
  scroller(root).scrollTop = 24 * 4_000;
  await frames();
  known(root)[0]?.click();
  await frames();
  expect(model.kinds().filter((kind) => kind !== "hello")).toEqual([]);
  expect(named<HTMLButtonElement>(root, "clamp it").disabled).toBe(true);
});

test("an atlas of weights alone has no plot, no histogram and no examples", async () => {
  const { root } = await ready({ corpus: false, card: "L12.N304" });
  expect(one(root, ".pc-atlas-plot").checkVisibility()).toBe(false);
  expect(grid(root, "firing")[0]).toBe("–");
  expect(root.textContent).toContain("no corpus read");
});

test("listeners end with the view", async () => {
  const { root, model, unmount } = await ready({ card: "L12.N304" });
  const view = scroller(root);
  expect(model.count()).toBeGreaterThan(0);
  unmount();
  expect(model.count()).toBe(0);
  const before = model.sent.length;
  view.scrollTop = 24 * 9_000;
  view.dispatchEvent(new Event("scroll"));
  press(view, "Enter");
  head(root, "peak").click();
  all(root, ".pc-near [data-meet]")[0]?.click();
  await new Promise((done) => setTimeout(done, 30));
  expect(model.sent).toHaveLength(before);
});
