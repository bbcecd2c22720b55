import { expect, test, vi } from "vitest";
import { userEvent } from "vitest/browser";
import type { Up } from "../src/messages";
import type { FakeModel } from "./fake-kernel";
import { row } from "./fake-kernel";
import {
  type AblatorOptions,
  all,
  hold,
  letGo,
  mountAblator,
  named,
  one,
  press,
  theme,
  until,
} from "./mount";

const frames = async (count = 3) => {
  for (let i = 0; i < count; i++) await new Promise((done) => requestAnimationFrame(done));
};
const rest = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds));

function sent<Kind extends Up["kind"]>(
  model: FakeModel,
  kind: Kind,
): Extract<Up, { kind: Kind }>[] {
  return model.sent.filter((each) => each.kind === kind) as Extract<Up, { kind: Kind }>[];
}

async function ready(options: AblatorOptions = {}) {
  const mounted = await mountAblator(options);
  await frames(4);
  return mounted;
}

const map = (root: Element) => one(root, ".pc-component-map");
const cells = (root: Element) => one(map(root), ".pc-heat-cells");
const where = (root: Element) => one(map(root), ".pc-where").textContent ?? "";

/** A point of the page in the middle of a component's cell: found by what is said of it. */
function pointOf(root: Element, address: string): { clientX: number; clientY: number } {
  const grid = cells(root);
  const box = grid.getBoundingClientRect();
  const looked = () =>
    root.querySelector<HTMLElement>(".pc-components tr[data-pointed]")?.dataset.address;
  const xs: number[] = [];
  const ys: number[] = [];
  for (let y = box.top + 1; y < box.bottom; y += 2) {
    for (let x = box.left + 2; x < box.right; x += 4) {
      grid.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y }));
      if (looked() !== address) continue;
      xs.push(x);
      ys.push(y);
    }
  }
  grid.dispatchEvent(new PointerEvent("pointerleave"));
  if (xs.length === 0) throw new Error(`the map has no ${address}`);
  const middle = (of: number[]) => (Math.min(...of) + Math.max(...of)) / 2;
  return { clientX: middle(xs), clientY: middle(ys) };
}

function pointer(target: Element, type: string, at: { clientX: number; clientY: number }): void {
  target.dispatchEvent(
    new PointerEvent(type, {
      bubbles: true,
      button: 0,
      buttons: type === "pointerup" ? 0 : 1,
      pointerId: 1,
      pointerType: "mouse",
      isPrimary: true,
      ...at,
    }),
  );
}

function click(root: Element, address: string, init: MouseEventInit = {}): void {
  const at = pointOf(root, address);
  for (const type of ["pointermove", "pointerdown", "pointerup"]) pointer(cells(root), type, at);
  cells(root).dispatchEvent(new MouseEvent("click", { bubbles: true, detail: 1, ...at, ...init }));
}

/** Red, green and blue of a canvas at a point of the page. */
function colourAt(canvas: HTMLCanvasElement, at: { clientX: number; clientY: number }): number[] {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  const data = canvas
    .getContext("2d")
    ?.getImageData((at.clientX - box.left) * scale, (at.clientY - box.top) * scale, 1, 1).data;
  return [...(data ?? [])].slice(0, 3);
}
/** Away from the middle, where a cross would be. */
const cellColour = (root: Element, address: string) => {
  const at = pointOf(root, address);
  return colourAt(one<HTMLCanvasElement>(map(root), ".pc-heat-base"), {
    ...at,
    clientX: at.clientX + 8,
  });
};

/** All of a cell's pixels but its rim, as a word. */
function cellPixels(root: Element, address: string): string {
  const canvas = one<HTMLCanvasElement>(map(root), ".pc-heat-base");
  const box = canvas.getBoundingClientRect();
  const { clientX, clientY } = pointOf(root, address);
  const [x, y] = [clientX - box.left - 8, clientY - box.top - 8].map(Math.round) as [
    number,
    number,
  ];
  return String(canvas.getContext("2d")?.getImageData(x, y, 16, 16).data);
}

const ablated = (key: number, address: string, muted = false) =>
  row({
    key,
    address,
    op: "ablate",
    how: "mean",
    label: `ablate ${address}`,
    value: null,
    positions: "",
    range: null,
    muted,
  });

/** The component with the largest effect of one sign. */
function strongest(effectOf: (address: string) => number, of: readonly string[], sign: 1 | -1) {
  return [...of].sort((a, b) => sign * (effectOf(b) - effectOf(a)))[0] as string;
}

// --- the map ---

test("the map is red where ablating lowers the metric, blue where it raises it", async () => {
  const { root, kernel } = await ready();
  const of = kernel.components();
  const [low, high] = [-1, 1].map((sign) =>
    strongest((each) => kernel.effectOf(each), of, sign as 1 | -1),
  ) as [string, string];
  const [red, , blue] = cellColour(root, low);
  expect(red as number).toBeGreaterThan((blue as number) + 40);
  const [red2, , blue2] = cellColour(root, high);
  expect(blue2 as number).toBeGreaterThan((red2 as number) + 20);
  expect(map(root).textContent).toContain("effect on the metric, logits");
});

test("a cell under the pointer says its exact value, and the estimate beside it", async () => {
  const { root, kernel } = await ready();
  const at = pointOf(root, "L2.H1");
  pointer(cells(root), "pointermove", at);
  const value = Math.fround(kernel.effectOf("L2.H1"));
  const said = /^L2\.H1 {2}([−\d.e]+) exact, ([−\d.e]+) estimated$/.exec(where(root));
  expect(Math.fround(Number(said?.[1]?.replace("−", "-")))).toBe(value);
  expect(Number(said?.[2]?.replace("−", "-"))).not.toBe(value);
});

test("a click ablates, another takes it back, and the stack has the row meanwhile", async () => {
  const { root, model, kernel } = await ready();
  click(root, "L1.H2");
  expect(sent(model, "ablations")[0]).toMatchObject({ addresses: ["L1.H2"], how: "mean" });
  expect(sent(model, "ablations")[0]?.solo).toBeFalsy();
  await until(() => kernel.circuit.ablated.includes("L1.H2"));
  await until(() => all(root, ".pc-row").length === 1);
  expect(one(root, ".pc-drill .pc-address-title").textContent).toBe("L1.H2");
  click(root, "L1.H2");
  expect(sent(model, "ablations")).toHaveLength(1); // it might begin a double click
  await until(() => sent(model, "ablations").length === 2);
  await until(() => kernel.circuit.ablated.length === 0);
});

test("what is ablated is crossed at once, before Python has answered", async () => {
  const { root, model } = await ready();
  const before = cellPixels(root, "L1.H2");
  model.onSend = () => undefined;
  click(root, "L1.H2");
  await frames();
  expect(cellPixels(root, "L1.H2")).not.toBe(before);
});

test("the map stays where it is while components are ablated, measured and given back", async () => {
  const { root, kernel } = await ready();
  const { top, left } = boxOf(cells(root));
  const stays = () => expect(boxOf(cells(root))).toMatchObject({ top, left });
  click(root, "L1.H2");
  await until(() => kernel.circuit.ablated.length === 1);
  await frames();
  stays();
  named(map(root), "measure").click();
  await until(() => map(root).querySelector(".pc-run:not([hidden])") !== null);
  stays();
  await until(() => map(root).querySelector(".pc-run:not([hidden])") === null);
  click(root, "L1.H2");
  await until(() => kernel.circuit.ablated.length === 0);
  await frames();
  stays();
});

test("a double click ablates a component alone, also one that is ablated already", async () => {
  const { root, model, kernel } = await ready({ rows: [ablated(1, "L0.H0"), ablated(2, "L1.H2")] });
  const at = pointOf(root, "L1.H2");
  cells(root).dispatchEvent(new MouseEvent("click", { bubbles: true, detail: 1, ...at }));
  await rest(120); // as a hand does
  cells(root).dispatchEvent(new MouseEvent("click", { bubbles: true, detail: 2, ...at }));
  cells(root).dispatchEvent(new MouseEvent("dblclick", { bubbles: true, detail: 2, ...at }));
  await rest(400);
  expect(sent(model, "ablations").map(({ addresses, solo }) => [addresses, solo])).toEqual([
    [["L1.H2"], true],
  ]);
  expect(kernel.circuit.ablated).toEqual(["L1.H2"]);
});

test("a brush ablates all that it covers with one message, and its click is none", async () => {
  const { root, model } = await ready();
  const [from, to] = [pointOf(root, "L1.H0"), pointOf(root, "L2.H1")];
  pointer(cells(root), "pointermove", from);
  pointer(cells(root), "pointerdown", from);
  pointer(cells(root), "pointermove", to);
  await frames();
  pointer(cells(root), "pointerup", to);
  cells(root).dispatchEvent(new MouseEvent("click", { bubbles: true, detail: 1, ...to }));
  expect(sent(model, "ablations").map((each) => each.addresses)).toEqual([
    ["L1.H0", "L1.H1", "L2.H0", "L2.H1"],
  ]);
  await frames();
  expect(one(root, ".pc-drill .pc-address-title").textContent).toBe("4 components");
});

test("keys move over the map, ablate one, several, and one alone", async () => {
  const { root, model } = await ready();
  const grid = cells(root);
  grid.focus();
  press(grid, "ArrowRight"); // the first shows where one is
  press(grid, "ArrowDown");
  press(grid, "ArrowRight");
  expect(where(root)).toMatch(/^L1\.H1 /);
  press(grid, "Enter");
  expect(sent(model, "ablations").at(-1)?.addresses).toEqual(["L1.H1"]);
  press(grid, "ArrowDown", { shiftKey: true });
  press(grid, "ArrowRight", { shiftKey: true });
  press(grid, "Enter");
  expect(sent(model, "ablations").at(-1)?.addresses).toEqual(["L1.H1", "L1.H2", "L2.H1", "L2.H2"]);
  press(grid, "End");
  const event = press(grid, "Enter", { shiftKey: true });
  expect(sent(model, "ablations").at(-1)).toMatchObject({ addresses: ["L2.mlp"], solo: true });
  expect(event.defaultPrevented).toBe(true); // the notebook would run the cell
});

test("Shift+click selects beside what is selected and ablates nothing", async () => {
  const { root, model } = await ready();
  click(root, "L0.H1", { shiftKey: true });
  click(root, "L3.mlp", { shiftKey: true });
  await frames();
  expect(one(root, ".pc-drill").textContent).toContain("L0.H1, L3.mlp");
  expect(sent(model, "ablations")).toHaveLength(0);
});

test("a refused ablation is said, nothing stays crossed, and nothing moves", async () => {
  const { root, model, kernel } = await ready();
  const before = cellPixels(root, "L1.H2");
  const { top } = boxOf(cells(root));
  model.onSend = (message) => kernel.refuse(message.id, "There is nothing to resample from.");
  click(root, "L1.H2");
  await until(() => /resample/.test(one(map(root), ".pc-error").textContent ?? ""));
  await until(() => cellPixels(root, "L1.H2") === before);
  expect(boxOf(cells(root)).top).toBe(top);
});

test("estimates are shown without asking Python; a metric without any says why", async () => {
  const { root, model } = await ready();
  const [seen, messages] = [cellColour(root, "L2.H1"), model.sent.length];
  one<HTMLInputElement>(map(root), '.pc-segment input[value="estimate"]').click();
  await frames(4);
  expect(cellColour(root, "L2.H1")).not.toEqual(seen);
  expect(model.sent).toHaveLength(messages);
  const kl = await ready({ metricKind: "kl" });
  const estimate = one<HTMLInputElement>(map(kl.root), '.pc-segment input[value="estimate"]');
  expect(estimate.disabled).toBe(true);
  expect(estimate.closest("label")?.title).toMatch(/no gradient/);
});

test("another replacement is measured at once; corrupt values that cannot be had are not offered", async () => {
  const { root, model } = await ready({ refusals: { corrupt: "There is no corrupt prompt." } });
  const how = named<HTMLSelectElement>(root, "What is put in the place of an ablated component");
  await userEvent.selectOptions(how, "zero");
  expect(sent(model, "survey").map((each) => each.how)).toEqual(["zero"]);
  expect([...how.options].find((each) => each.value === "corrupt")?.disabled).toBe(true);
  await frames();
  click(root, "L0.H0");
  expect(sent(model, "ablations").at(-1)?.how).toBe("zero");
});

test("before anything is measured one button measures; cells fill in, the rest stays hatched", async () => {
  const { root, model, kernel } = await ready({ mapped: false });
  expect(one(root, ".pc-component-table").textContent).not.toMatch(/[+−]\d/);
  kernel.holdAt = 8;
  named(root, "measure what each one does").click();
  await until(() => sent(model, "survey").length === 1);
  await until(() => /8 of 16 measured/.test(map(root).textContent ?? ""));
  expect(one(map(root), ".pc-run").style.width).toBe("50%");
  await frames();
  const canvas = one<HTMLCanvasElement>(map(root), ".pc-heat-base");
  const seen = (address: string) => {
    const at = pointOf(root, address);
    const near = [-6, -3, 0, 3, 6].flatMap((x) =>
      [-4, 0, 4].map((y) =>
        colourAt(canvas, { clientX: at.clientX + x, clientY: at.clientY + y }).join(),
      ),
    );
    return new Set(near).size;
  };
  expect(seen("L0.H0")).toBe(1);
  expect(seen("L3.mlp")).toBeGreaterThan(1); // lines
  kernel.holdAt = Number.POSITIVE_INFINITY;
  await until(() => kernel.mapDone >= 16);
  await until(() => seen("L3.mlp") === 1);
});

test("a map of an earlier stack is dimmed, and can be measured again", async () => {
  const { root, model, kernel } = await ready();
  const low = strongest((each) => kernel.effectOf(each), kernel.components(), -1);
  const before = cellColour(root, low);
  click(root, "L0.H0");
  await until(() => kernel.circuit.ablated.length === 1);
  await until(() => !named(map(root), "measure").disabled);
  await frames();
  expect(cellColour(root, low)).not.toEqual(before);
  named(map(root), "measure").click();
  await until(() => sent(model, "survey").length === 1);
  await until(() => cellColour(root, low).join() === before.join());
});

// --- the table ---

const order = (root: Element) =>
  all(root, ".pc-components tbody tr").map((each) => each.dataset.address as string);

test("the table begins with the largest effects, and sorts by any column", async () => {
  const { root, kernel } = await ready();
  const effect = (each: string) => Math.fround(kernel.effectOf(each));
  const sizes = order(root).map((each) => Math.abs(effect(each)));
  expect(sizes).toEqual([...sizes].sort((a, b) => b - a));
  named(root, "difference").click();
  await frames();
  expect(order(root)[0]).toBe(strongest(effect, kernel.components(), 1));
  named(root, "difference").click();
  await frames();
  expect(order(root)[0]).toBe(strongest(effect, kernel.components(), -1));
  expect(one(root, ".pc-col-difference").getAttribute("aria-sort")).toBe("ascending");
  named(root, "component").click();
  await frames();
  expect(order(root)).toEqual(kernel.components());
  expect(one(root, ".pc-col-difference").hasAttribute("aria-sort")).toBe(false);
});

test("a row has the metric with and without, and their difference", async () => {
  const { root, kernel } = await ready();
  const row = one(root, '.pc-components tr[data-address="L2.H1"]');
  const numbers = all(row, ".pc-number").map((each) =>
    Number(each.title.replaceAll("−", "-").replace(/^.* /, "")),
  );
  const [intervened = 0, difference = 0, baseline = 0] = numbers;
  expect(difference).toBeCloseTo(kernel.effectOf("L2.H1"), 6);
  expect(intervened - baseline).toBeCloseTo(difference, 6);
});

test("a long table says how many rows it shows, and shows all on request", async () => {
  const { root } = await ready({ layers: 12, heads: 7 });
  expect(order(root)).toHaveLength(60);
  const words = one(root, ".pc-component-table .pc-capped");
  expect(words.textContent).toContain("Of 96 components, the largest 60 are listed.");
  named(words, "list 96").click();
  await frames();
  expect(order(root)).toHaveLength(96);
});

test("the table selects and ablates too", async () => {
  const { root, model } = await ready();
  named(root, "L3.H0").click();
  await frames();
  expect(one(root, ".pc-drill .pc-address-title").textContent).toBe("L3.H0");
  expect(sent(model, "ablations")).toHaveLength(0);
  named<HTMLInputElement>(root, "Ablate L3.H0").click();
  expect(sent(model, "ablations").at(-1)?.addresses).toEqual(["L3.H0"]);
  await until(() => one(root, '.pc-components tr[data-address="L3.H0"]').dataset.ablated === "");
});

// --- inside a component ---

test("a look inside a head gives its parts and positions, and then follows the selection", async () => {
  const { root, model } = await ready();
  named(root, "L3.H0").click();
  await frames();
  expect(sent(model, "drill")).toHaveLength(0);
  named(root, "Look inside L3.H0").click();
  await until(() => sent(model, "drill").length === 1);
  expect(sent(model, "drill")[0]).toMatchObject({ address: "L3.H0", how: "mean" });
  await until(() => all(root, ".pc-drill .pc-bar-line").length === 4);
  expect(all(root, ".pc-drill .pc-bar-line").map((each) => each.textContent?.[0])).toEqual([
    ..."qkvz",
  ]);
  const chips = all(root, ".pc-drill .pc-chip");
  expect(chips).toHaveLength(9);
  await until(() => /effect [−\d]/.test(chips[8]?.getAttribute("aria-label") ?? ""));
  named(root, "L1.H1").click();
  await until(() => sent(model, "drill").length === 2);
  expect(sent(model, "drill")[1]?.address).toBe("L1.H1");
});

test("an MLP's neurons can be put into the stack and taken out, and a head ablated at positions", async () => {
  const { root, model } = await ready();
  named(root, "L2.mlp").click();
  await frames();
  named(root, "Look inside L2.mlp").click();
  await until(() => all(root, ".pc-add-neuron").length === 12);
  named(root, "Ablate L2.N41").click();
  expect(sent(model, "ablations").at(-1)?.addresses).toEqual(["L2.N41"]);
  await until(() => all(root, ".pc-row").length === 1);
  await until(() => all(root, ".pc-add-neuron").length === 12);
  await until(() => /L2.N41/.test(one(root, ".pc-drill").textContent ?? ""));
  named(root, "Take L2.N41 out of the stack").click();
  await until(() => all(root, ".pc-row").length === 0);
  await until(() => all(root, ".pc-drill .pc-chip").length === 9);
  const there = named(root, "ablate there");
  expect(there.disabled).toBe(true);
  for (const at of [4, 8]) all(root, ".pc-drill .pc-chip")[at]?.click();
  expect(there.disabled).toBe(false);
  there.click();
  expect(sent(model, "add").at(-1)).toMatchObject({ address: "L2.mlp@4,8", op: "ablate" });
});

// --- the metric and the prompts ---

test("another kind of metric keeps the tokens that there are, and effects get its unit", async () => {
  const { root, model } = await ready({ pairs: false });
  const kinds = named<HTMLSelectElement>(root, "What is measured");
  await userEvent.selectOptions(kinds, "log_prob");
  expect(sent(model, "objective")[0]).toMatchObject({ metric: "log_prob", token: 7042 });
  await until(() => map(root).textContent?.includes("effect on the metric, nats"));
  await userEvent.selectOptions(kinds, "loss");
  const { id: _, kind: __, ...loss } = sent(model, "objective")[1] as Up & { kind: "objective" };
  expect(loss).toEqual({ metric: "loss" });
  await until(() => one(root, ".pc-metric-chooser .pc-metric-label").hidden);
});

test("target and distractor are chosen from the vocabulary, but where each pair has its own", async () => {
  const { root, model } = await ready({ pairs: false });
  named(root, 'Compared with token " Berlin"; choose another').click();
  const field = named<HTMLInputElement>(root, "Token that the target is compared with");
  await userEvent.fill(field, "Lond");
  await until(() => {
    const options = all(root, ".pc-metric-chooser .pc-option");
    return options.length === 1 && /London/.test(options[0]?.textContent ?? "");
  });
  press(field, "Enter");
  await until(() => sent(model, "objective").length === 1);
  expect(sent(model, "objective")[0]).toMatchObject({
    metric: "logit_difference",
    token: 7042,
    against: 4541,
  });
  const pairs = await ready();
  expect(named(pairs.root, 'Target token " Paris"; choose another').disabled).toBe(true);
});

test("a set of pairs is taken with a count and a seed, stepped through and listed", async () => {
  const { root, model, kernel } = await ready({ pairs: false });
  await userEvent.selectOptions(named<HTMLSelectElement>(root, "Prompts"), "capitals");
  expect(sent(model, "pairs")[0]).toMatchObject({ name: "capitals", count: 16, seed: 0 });
  await until(() => /pair 1 of 16/.test(one(root, ".pc-stepper").textContent ?? ""));
  named(root, "Previous pair").click();
  expect(sent(model, "pair").at(-1)?.index).toBe(15);
  await until(() => kernel.circuit.pairs?.shown === 15);
  await until(() => /Nairobi/.test(one(root, ".pc-pairs-panel").textContent ?? ""));
  named(root, "list").click();
  await until(() => all(root, ".pc-pairs tbody tr").length === 16);
  named(root, "Show pair 5").click();
  expect(sent(model, "pair").at(-1)?.index).toBe(4);
  const count = named<HTMLInputElement>(root, "How many pairs");
  await userEvent.fill(count, "many");
  count.dispatchEvent(new Event("change"));
  await frames();
  expect(one(root, ".pc-pairs-panel .pc-error").textContent).toMatch(/“many” is no whole number/);
  await userEvent.fill(count, "500");
  count.dispatchEvent(new Event("change"));
  await until(() => /has 90 pairs/.test(one(root, ".pc-pairs-panel .pc-error").textContent ?? ""));
});

test("a corrupt prompt is typed, refused beside its field, and what differs is marked", async () => {
  const { root, model } = await ready({ pairs: false, contrast: null });
  named(root, "+ corrupt prompt").click();
  const area = named<HTMLTextAreaElement>(root, "Corrupt prompt");
  expect(area.value).toBe("The capital of France is the city of");
  await userEvent.fill(area, "A much longer prompt");
  press(area, "Enter");
  await until(() => /12 tokens/.test(one(root, ".pc-corrupt").textContent ?? ""));
  expect(area.offsetParent).not.toBeNull();
  await userEvent.fill(area, "The capital of Germany is the city of");
  press(area, "Enter");
  await until(() => root.querySelector(".pc-differs")?.textContent === "Germany");
  expect(sent(model, "second").at(-1)?.text).toBe("The capital of Germany is the city of");
  named(root, "Remove the corrupt prompt").click();
  await until(() => sent(model, "second").at(-1)?.text === null);
});

test("token text is text: markup in a prompt stays words", async () => {
  const odd = 'The <img src=x onerror="document.title=1"> capital';
  const { root, kernel } = await ready({ pairs: false, contrast: `${odd}<b>` });
  kernel.news();
  await frames();
  expect(root.querySelector("img, .pc-corrupt b")).toBeNull();
  expect(one(root, ".pc-corrupt-text").textContent).toBe(`${odd}<b>`);
});

// --- patching ---

const patching = (root: Element) => one(root, ".pc-patching");

test("patching starts, fills in, and is read as shares of what separates clean from corrupt", async () => {
  const { root, model } = await ready();
  one<HTMLInputElement>(patching(root), '.pc-segment input[value="noise"]').click();
  one<HTMLInputElement>(patching(root), '.pc-segment input[value="mlp"]').click();
  await frames();
  named(patching(root), "start").click();
  expect(sent(model, "patching")[0]).toMatchObject({ direction: "noise", over: "mlp" });
  await until(() =>
    /Clean 2.10, corrupt −1.04, averaged over 16 pairs/.test(patching(root).textContent ?? ""),
  );
  await until(() => !named(patching(root), "again").hidden);
  const grid = one(patching(root), ".pc-heat-cells");
  grid.focus();
  press(grid, "ArrowRight");
  const said = one(patching(root), ".pc-where").textContent ?? "";
  const [, raw, share] =
    /^L0\.mlp@0 "<\|im_start\|>" {2}([−\d.]+) logits, ([−\d.]+) of/.exec(said) ?? [];
  const number = (text: string | undefined) => Number(text?.replace("−", "-"));
  expect((number(raw) - -1.0412345) / (2.1034567 - -1.0412345)).toBeCloseTo(number(share), 5);
});

test("patching stops, and keeps what it has", async () => {
  const { root, model, kernel } = await ready();
  kernel.holdAt = 18;
  named(patching(root), "start").click();
  await until(() => /18 of 36/.test(patching(root).textContent ?? ""));
  named(patching(root), "stop").click();
  await until(() => sent(model, "stop").length === 1);
  await until(() => patching(root).querySelector(".pc-run:not([hidden])") === null);
  expect(one(patching(root), ".pc-heat-map").hidden).toBe(false);
  await until(() => !named(patching(root), "go on").hidden);
});

test("without a corrupt prompt nothing can be patched, and the reason stands there", async () => {
  const { root } = await ready({ refusals: { corrupt: "The corrupt prompt has 12 tokens." } });
  expect(patching(root).textContent).toContain("The corrupt prompt has 12 tokens.");
  expect(named(patching(root), "start").disabled).toBe(true);
});

// --- finding a circuit ---

test("without a circuit one button scores all edges; a circuit, its graph and its check follow", async () => {
  const { root, model } = await ready();
  named(root, "score all edges").click();
  expect(sent(model, "find")[0]).toMatchObject({
    method: "eap-ig",
    of: "edges",
    how: "corrupt",
    steps: 5,
  });
  await until(() => all(root, ".pc-node").length > 2);
  expect(one(root, ".pc-graph-head").textContent).toMatch(/The circuit has \d+ edges, all drawn/);
  await until(() => /the circuit alone/.test(one(root, ".pc-checked").textContent ?? ""));
});

test("each method has its own settings, and a wrong one is said before anything is sent", async () => {
  const { root, model } = await ready();
  const steps = named<HTMLInputElement>(root, "Steps of the integrated gradients");
  await userEvent.fill(steps, "0");
  named(root, "find").click();
  await frames();
  expect(one(root, ".pc-circuit-controls .pc-error").textContent).toMatch(/1 to 100/);
  expect(sent(model, "find")).toHaveLength(0);
  const methods = named<HTMLSelectElement>(root, "How edges are scored");
  await userEvent.selectOptions(methods, "acdc");
  await frames();
  expect(steps.offsetParent).toBeNull();
  await userEvent.fill(named<HTMLInputElement>(root, "ACDC's threshold"), "0.02");
  named(root, "find").click();
  expect(sent(model, "find")[0]).toMatchObject({ method: "acdc", threshold: 0.02, runs: 500 });
  await userEvent.selectOptions(methods, "attribution");
  await frames();
  named(root, "find").click();
  expect(sent(model, "find")[1]).toMatchObject({ method: "attribution", of: "nodes" });
});

test("where edges have no meaning the reason stands there and nothing can be found", async () => {
  const { root } = await ready({
    refusals: { edges: "The stream of this model is no plain sum." },
  });
  expect(one(root, ".pc-circuit").textContent).toContain("no plain sum");
  expect(named(root, "find").disabled).toBe(true);
});

// --- its size ---

const slider = (root: Element) => named<HTMLInputElement>(root, "Size of the circuit");

test("a drag asks for one size at a time, of those passed over only the newest, and ends with it", async () => {
  const { root, model, kernel } = await ready({ found: true });
  kernel.held = true; // no check comes
  const move = hold(slider(root));
  for (const at of [700, 650, 600, 550, 500]) {
    move(at);
    await frames(1);
  }
  expect(sent(model, "size")).toHaveLength(1);
  expect(sent(model, "size")[0]?.final).toBe(false);
  kernel.held = false;
  await until(() => sent(model, "size").length === 2);
  const total = kernel.edges.length;
  expect(sent(model, "size")[1]?.count).toBe(Math.round(total ** 0.5));
  letGo();
  slider(root).dispatchEvent(new Event("change"));
  await until(() => sent(model, "size").at(-1)?.final === true);
  expect(sent(model, "size").at(-1)?.count).toBe(Math.round(total ** 0.5));
  await until(() => kernel.circuit.selection?.size === Math.round(total ** 0.5));
});

test("while it is dragged, count, share and threshold are of the size under the hand", async () => {
  const { root, model, kernel } = await ready({ found: true });
  model.onSend = () => undefined;
  hold(slider(root))(500);
  await frames();
  const size = Math.round(kernel.edges.length ** 0.5);
  expect(one<HTMLInputElement>(root, ".pc-size-box").value).toBe(String(size));
  const least = Math.abs(kernel.edges[size - 1]?.estimate ?? 0);
  expect(slider(root).getAttribute("aria-valuetext")).toContain(
    `${size} of ${kernel.edges.length}`,
  );
  const threshold = all(root, ".pc-circuit-size .pc-muted").find((each) =>
    each.textContent?.startsWith("effect of at least"),
  );
  expect(Number(threshold?.title)).toBeCloseTo(least, 6);
  expect(all(root, ".pc-edge")).toHaveLength(size);
});

test("keys change the size by single edges where there are few; a typed size counts as it is", async () => {
  const { root, model } = await ready({ found: true, size: 5 });
  press(slider(root), "ArrowRight");
  expect(sent(model, "size").at(-1)).toMatchObject({ count: 6, final: true });
  await until(() => one<HTMLInputElement>(root, ".pc-size-box").value === "6");
  press(slider(root), "PageUp");
  await until(() => sent(model, "size").at(-1)?.count === 12);
  const box = one<HTMLInputElement>(root, ".pc-size-box");
  await userEvent.fill(box, "all of them");
  box.dispatchEvent(new Event("change"));
  await frames();
  expect(one(root, ".pc-circuit-size .pc-error").textContent).toMatch(/no size of a circuit/);
  await userEvent.fill(box, "33");
  box.dispatchEvent(new Event("change"));
  await until(() => sent(model, "size").at(-1)?.count === 33);
});

test("what is kept is measured exactly, and stale numbers are dimmed until it is", async () => {
  const { root, kernel } = await ready({ found: true });
  const alone = () => all(root, ".pc-checked tbody tr")[1]?.textContent ?? "";
  const { faithfulness } = kernel.checked() as NonNullable<ReturnType<typeof kernel.checked>>;
  expect(alone()).toContain(faithfulness?.toPrecision(3));
  kernel.held = true;
  press(slider(root), "PageDown");
  await until(() => one(root, ".pc-checked").dataset.stale === "");
  kernel.held = false;
  await until(() => one(root, ".pc-checked").dataset.stale === undefined);
  const now = kernel.checked()?.faithfulness ?? 0;
  expect(now).not.toBe(faithfulness);
  expect(alone()).toContain(now.toPrecision(3));
});

test("the curve is measured on request, fills in, and lies on the slider's own axis", async () => {
  const { root, model } = await ready({ found: true });
  expect(all(root, ".pc-plot-lines path")).toHaveLength(0);
  named(root, "measure the curve").click();
  await until(() => sent(model, "check").length === 1);
  await until(() => all(root, ".pc-plot-lines path").length >= 4);
  await until(() => named(root, "Save the curve as SVG"));
  await frames();
  const box = slider(root).getBoundingClientRect();
  const share = Number(slider(root).value) / 1000;
  const handle = box.left + 7 + share * (box.width - 14);
  const line = one<HTMLElement>(root, ".pc-plot-now").getBoundingClientRect();
  expect(Math.abs(line.left + line.width / 2 - handle)).toBeLessThan(1.5);
});

// --- the graph ---

const node = (root: Element, id: string) => one(root, `.pc-node[data-node="${id}"]`);
const boxOf = (element: Element) => element.getBoundingClientRect();

test("layers go from bottom to top, and every edge upwards", async () => {
  const { root } = await ready({ found: true, size: 50 });
  const middle = (id: string) => boxOf(node(root, id)).top;
  const layer = (id: string) =>
    id === "embed" ? -1 : id === "logits" ? 99 : Number(/\d+/.exec(id)?.[0]);
  const ids = all(root, ".pc-node").map((each) => each.dataset.node as string);
  for (const a of ids) {
    for (const b of ids)
      if (layer(a) < layer(b)) expect(middle(a), `${a} ${b}`).toBeGreaterThan(middle(b));
  }
  for (const edge of all(root, ".pc-edge")) {
    const [source = "", reader = ""] = edge.dataset.edge?.split("->") ?? [];
    expect(middle(source)).toBeGreaterThan(middle(reader.split(":")[0] ?? ""));
  }
});

test("of a large circuit the strongest are drawn, which is said", async () => {
  const { root, kernel } = await ready({ layers: 8, heads: 5, found: true, size: 900 });
  expect(all(root, ".pc-edge")).toHaveLength(60);
  expect(one(root, ".pc-graph-head p").textContent).toBe(
    "The circuit has 900 edges; the 60 strongest are drawn.",
  );
  await userEvent.selectOptions(
    named<HTMLSelectElement>(root, "How many edges are drawn at most"),
    "150",
  );
  await until(() => all(root, ".pc-edge").length === 150);
  const drawn = all(root, ".pc-edge").map((each) => each.dataset.edge);
  const best = kernel.edges.slice(0, 150).map(({ source, reader }) => `${source}->${reader}`);
  expect(new Set(drawn)).toEqual(new Set(best));
});

test("width is strength and colour is sign", async () => {
  const { root, kernel } = await ready({ found: true, size: 40 });
  const strength = (address: string | undefined) => {
    const edge = kernel.edges.find(({ source, reader }) => `${source}->${reader}` === address);
    return edge === undefined ? 0 : Number.isNaN(edge.exact) ? edge.estimate : edge.exact;
  };
  const strokes = all(root, ".pc-edge").map((each) => {
    const path = one(each, "path");
    return {
      value: strength(each.dataset.edge),
      wide: Number(path.getAttribute("stroke-width")),
      colour: path.getAttribute("stroke"),
    };
  });
  const sorted = [...strokes].sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  expect(sorted.map((each) => each.wide)).toEqual(
    [...sorted.map((each) => each.wide)].sort((a, b) => b - a),
  );
  const colours = (sign: number) =>
    new Set(strokes.filter((each) => Math.sign(each.value) === sign).map((each) => each.colour));
  expect(colours(1).size).toBe(1);
  expect(colours(-1).size).toBe(1);
  expect([...colours(1)][0]).not.toBe([...colours(-1)][0]);
});

test("a click takes a node out and leaves it in sight, another puts it back", async () => {
  const { root, model, kernel } = await ready({ found: true, size: 40 });
  const before = one(root, ".pc-graph-head p").textContent;
  node(root, "L0.H1").dispatchEvent(new MouseEvent("click", { bubbles: true }));
  await until(() => sent(model, "switch").length === 1);
  expect(sent(model, "switch")[0]?.addresses[0]).toBe("L0.H1");
  await until(() => node(root, "L0.H1").getAttribute("aria-pressed") === "false");
  expect(one(root, ".pc-graph-head p").textContent).not.toBe(before);
  const out = all(root, ".pc-edge:not([data-inside])").map((each) => each.dataset.edge ?? "");
  expect(out.length).toBeGreaterThan(0);
  expect(out.every((each) => each.startsWith("L0.H1->") || each.includes("->L0.H1:"))).toBe(true);
  node(root, "L0.H1").dispatchEvent(new MouseEvent("click", { bubbles: true }));
  await until(() => kernel.circuit.selection?.removed.length === 0);
  await until(() => one(root, ".pc-graph-head p").textContent === before);
});

test("a click on an edge switches that edge", async () => {
  const { root, model, kernel } = await ready({ found: true, size: 20 });
  const [edge] = all(root, ".pc-edge");
  one(edge as Element, ".pc-edge-hit").dispatchEvent(new MouseEvent("click", { bubbles: true }));
  await until(() => sent(model, "switch").length === 1);
  expect(sent(model, "switch")[0]?.addresses).toEqual([edge?.dataset.edge]);
  await until(() => kernel.circuit.selection?.edges === 19);
  await until(() => edge?.dataset.inside === undefined);
});

test("a refused switch is said beside the circuit", async () => {
  const { root, model, kernel } = await ready({ found: true, size: 20 });
  model.onSend = (message) => kernel.refuse(message.id, "L0.H1 has no edge in the circuit.");
  const [first] = all(root, ".pc-node");
  first?.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  await until(() =>
    /no edge in the circuit/.test(one(root, ".pc-circuit > .pc-error").textContent ?? ""),
  );
});

test("an edge that is pointed at says what it does, exact beside estimated; only the last is asked for", async () => {
  const { root, model, kernel } = await ready({ found: true, size: 20 });
  const edges = all(root, ".pc-edge");
  // Faster than the pause after which one is asked for.
  for (const edge of edges.slice(0, 4)) {
    edge.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  }
  await until(() => sent(model, "edge").length === 1);
  const wrong = kernel.edges[3];
  const address = `${wrong?.source}->${wrong?.reader}`;
  expect(sent(model, "edge")[0]?.address).toBe(address);
  const reading = one(root, ".pc-edge-reading");
  await until(() => /metric/.test(reading.textContent ?? ""));
  expect(reading.textContent).toContain(address);
  expect(reading.textContent).toContain("Tokyo");
  expect(one(reading, ".pc-flag").textContent).toContain("off by more than half");
  await rest(200);
  expect(sent(model, "edge")).toHaveLength(1);
});

test("what belongs to a node that is pointed at stands out, and its cell of the map too", async () => {
  const { root } = await ready({ found: true, size: 30 });
  const busy = all(root, ".pc-node").find(
    (each) =>
      /[1-9] edges? in/.test(each.getAttribute("aria-label") ?? "") &&
      /H/.test(each.dataset.node ?? ""),
  ) as HTMLElement;
  busy.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  await frames();
  const bright = all(root, ".pc-edge").filter((each) => Number(each.getAttribute("opacity")) > 0.5);
  expect(bright.length).toBeGreaterThan(0);
  expect(bright.length).toBeLessThan(30);
  for (const each of bright) expect(each.dataset.edge).toContain(busy.dataset.node);
});

test("the graph is one stop of the Tab order; arrows walk its nodes, Enter switches, N names", async () => {
  const { root, model } = await ready({ found: true, size: 40 });
  const nodes = all(root, ".pc-node");
  expect(nodes.filter((each) => each.getAttribute("tabindex") === "0")).toHaveLength(1);
  const start = nodes.find((each) => each.getAttribute("tabindex") === "0") as HTMLElement;
  start.focus();
  press(start, "ArrowUp");
  const above = document.activeElement as HTMLElement;
  expect(above).not.toBe(start);
  expect(boxOf(above).top).toBeLessThan(boxOf(start).top);
  press(above, "Enter");
  await until(() => sent(model, "switch").length === 1);
  await frames();
  expect(document.activeElement).toBe(above);
  press(above, "n");
  await until(
    () => document.activeElement?.getAttribute("aria-label") === `Name of ${above.dataset.node}`,
  );
});

test("nodes are named, grouped and pinned; a pinned one stays however small the circuit is", async () => {
  const { root, model, kernel } = await ready({ found: true, size: 40 });
  const id = all(root, ".pc-node")
    .map((each) => each.dataset.node as string)
    .find((each) => each.startsWith("L3")) as string;
  const [list] = all(root, ".pc-circuit-list");
  named(list as Element, id).click();
  await frames();
  const name = named<HTMLInputElement>(root, `Name of ${id}`);
  await userEvent.fill(name, "mover");
  name.dispatchEvent(new Event("change"));
  await until(() => sent(model, "annotate").length === 1);
  expect(sent(model, "annotate")[0]).toMatchObject({ addresses: [id], name: "mover" });
  await until(() => node(root, id).textContent?.includes("mover"));
  const group = named<HTMLInputElement>(root, `Group of ${id}`);
  await userEvent.fill(group, "late");
  group.dispatchEvent(new Event("change"));
  await until(() => one(root, ".pc-groups").textContent === "late");
  named(root, `Pin ${id}`).click();
  await until(() => kernel.circuit.selection?.notes[0]?.pinned === true);
  press(slider(root), "Home");
  await until(() => all(root, ".pc-edge").length === 0);
  expect(node(root, id)).toBeTruthy();
  expect(one(root, ".pc-graph-head p").textContent).toMatch(/empty/);
});

test("with shared keys and values a key/value head is a node of its own, switched as what it is", async () => {
  const { root, model } = await ready({ layers: 4, heads: 6, kvHeads: 2, found: true, size: 90 });
  const shared = all(root, '.pc-node[data-node$=":kv"]');
  expect(shared.length).toBeGreaterThan(0);
  const [first] = shared;
  const head = first?.dataset.node?.replace(":kv", "") ?? "";
  expect(first?.textContent).toContain("k,v");
  first?.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  expect(sent(model, "switch")[0]?.addresses).toEqual([`${head}:k`, `${head}:v`]);
});

test("Python says which edges are in: the page draws those, whatever their rank", async () => {
  const { root, kernel } = await ready({ found: true, size: 10 });
  const { selection } = kernel.circuit;
  if (selection === null) throw new Error("no selection");
  const late = kernel.edges[30];
  kernel.select({ ...selection, added: [`${late?.source}->${late?.reader}`] });
  kernel.revision += 1;
  kernel.news();
  await until(() => all(root, ".pc-edge").length === 11);
  expect(
    root.querySelector(`.pc-edge[data-edge="${late?.source}->${late?.reader}"]`),
  ).not.toBeNull();
});

test("the same graph at a later revision keeps its curve and what was asked of its edges", async () => {
  const { root, kernel, model } = await ready({ found: true, curved: true, size: 20 });
  const before = all(root, ".pc-plot-lines path").length;
  expect(before).toBeGreaterThan(3);
  const again = (): void => {
    const buffers: DataView[] = [];
    kernel.revision += 1;
    if (kernel.found !== null) kernel.found.revision = kernel.revision;
    const graph = kernel.graph(buffers);
    if (graph !== null) kernel.push({ kind: "graph", graph }, buffers);
  };
  again();
  await frames();
  expect(all(root, ".pc-plot-lines path")).toHaveLength(before);
  kernel.find("eap", "edges", "mean");
  again();
  await until(() => all(root, ".pc-plot-lines path").length === 0);
  expect(model.sent.some((each) => each.kind === "check")).toBe(false);
});

test("the edges are a list too, with a flag where exact values contradict estimates", async () => {
  const { root, model } = await ready({ found: true, size: 20 });
  one<HTMLInputElement>(root, '.pc-circuit-list .pc-segment input[value="edges"]').click();
  await until(() => all(root, ".pc-circuit-edges li").length === 20);
  const flags = all(root, ".pc-circuit-edges .pc-flag").filter((each) => !each.hidden);
  expect(flags.map((each) => each.title)).toContain("the estimate has the other sign");
  const [first] = all(root, ".pc-circuit-edges li");
  one<HTMLInputElement>(first as Element, "input").click();
  await until(() => sent(model, "switch")[0]?.addresses[0] === first?.dataset.edge);
});

// --- interaction and files ---

test("an interaction is of what was selected, and shows the control; A and B must differ", async () => {
  const { root, model } = await ready();
  const panel = one(root, ".pc-interaction");
  expect(named(panel, "measure").disabled).toBe(true);
  named(root, "L0.H1").click();
  await frames();
  named(root, "take as A what is selected").click();
  named(root, "take as B what is selected").click();
  await frames();
  named(panel, "measure").click();
  await frames();
  expect(one(panel, ".pc-error").textContent).toMatch(/L0\.H1 is in both A and B/);
  expect(sent(model, "interact")).toHaveLength(0);
  named(root, "L2.H2").click();
  await frames();
  named(root, "take as B what is selected").click();
  await frames();
  named(panel, "measure").click();
  await until(() => sent(model, "interact").length === 1);
  expect(sent(model, "interact")[0]).toMatchObject({ a: ["L0.H1"], b: ["L2.H2"], how: "mean" });
  await until(
    () => all(panel, ".pc-bar-line").length === 5 && /random draws/.test(panel.textContent ?? ""),
  );
  expect(one(panel, ".pc-control-bar").hidden).toBe(false);
});

test("a circuit is saved as a file and taken from one; a file that is none is refused", async () => {
  const { root, model } = await ready({ found: true });
  const links: HTMLAnchorElement[] = [];
  const click = vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (
    this: HTMLAnchorElement,
  ) {
    links.push(this);
  });
  named(one(root, ".pc-circuit-file"), "save").click();
  await until(() => links.length === 1);
  expect(links[0]?.download).toBe("capitals-circuit.json");
  click.mockRestore();
  const file = one<HTMLInputElement>(root, '.pc-circuit-file input[type="file"]');
  const give = (text: string) => {
    const data = new DataTransfer();
    data.items.add(new File([text], "circuit.json", { type: "application/json" }));
    file.files = data.files;
    file.dispatchEvent(new Event("change"));
  };
  give("no circuit");
  await until(() =>
    /no file of a circuit/.test(one(root, ".pc-circuit > .pc-error").textContent ?? ""),
  );
  give('{"circuit": 1}');
  await until(() => sent(model, "import").length === 2);
  expect(sent(model, "import")[1]?.text).toBe('{"circuit": 1}');
  await until(() => one(root, ".pc-circuit > .pc-error").hidden);
});

test("every drawing is saved as SVG with its words, and well formed", async () => {
  const { root } = await ready({ found: true, curved: true, patched: true });
  const texts: Promise<string>[] = [];
  const make = vi.spyOn(URL, "createObjectURL").mockImplementation((blob) => {
    texts.push((blob as Blob).text());
    return "data:,";
  });
  const click = vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(() => undefined);
  for (const what of ["the map", "the graph", "the curve", "the patching"]) {
    named(root, `Save ${what} as SVG`).click();
  }
  await until(() => texts.length === 4);
  make.mockRestore();
  click.mockRestore();
  const pictures = await Promise.all(texts);
  for (const [i, words] of ["L3", "logits", "1", "France"].entries()) {
    const svg = new DOMParser().parseFromString(pictures[i] ?? "", "image/svg+xml");
    expect(svg.querySelector("parsererror"), words).toBeNull();
    expect(svg.documentElement.textContent).toContain(words);
  }
});

// --- states ---

test("a saved page draws everything, and says that nothing can be changed", async () => {
  const { root, model, kernel } = await ready({
    saved: true,
    found: true,
    curved: true,
    patched: true,
    rows: [ablated(1, "L0.H1")],
  });
  expect(one(root, ".pc-kernel").textContent).toMatch(/saved picture without a kernel/);
  const low = strongest((each) => kernel.effectOf(each), kernel.components(), -1);
  const [red, , blue] = cellColour(root, low);
  expect(red as number).toBeGreaterThan(blue as number);
  expect(all(root, ".pc-node").length).toBeGreaterThan(2);
  expect(all(root, ".pc-plot-lines path").length).toBeGreaterThan(3);
  expect(one(patching(root), ".pc-heat-map").hidden).toBe(false);
  expect(slider(root).disabled).toBe(true);
  for (const label of ["find", "save", "reset"])
    expect(named(root, label).disabled, label).toBe(true);
  const messages = model.sent.length;
  click(root, "L2.H2");
  all(root, ".pc-node")[0]?.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  await rest(400);
  expect(model.sent).toHaveLength(messages);
  expect(one(root, ".pc-drill .pc-address-title").textContent).toBe("L2.H2"); // looking goes on
});

test("the dark theme repaints maps, graph and curve", async () => {
  const { root, kernel } = await ready({ found: true, curved: true, size: 20 });
  const low = strongest((each) => Math.abs(kernel.effectOf(each)), kernel.components(), -1);
  const bright = (colour: number[]) => colour.reduce((sum, part) => sum + part, 0);
  const light = cellColour(root, low);
  const rect = () => one(root, ".pc-node rect").getAttribute("fill");
  const line = () => all(root, ".pc-plot-lines path").at(-1)?.getAttribute("stroke");
  const [box, stroke] = [rect(), line()];
  theme(true);
  await until(() => bright(cellColour(root, low)) < bright(light) / 2);
  await until(() => rect() !== box && line() !== stroke);
});

test("undo is Ctrl+Z anywhere in the view", async () => {
  const { root, model } = await ready({ found: true });
  press(cells(root), "z", { ctrlKey: true });
  press(all(root, ".pc-node")[0] as Element, "z", { ctrlKey: true });
  expect(sent(model, "undo")).toHaveLength(2);
});

test("from 480 to 1,600 pixels nothing sticks out sideways", async () => {
  const { root, el } = await ready({
    layers: 12,
    heads: 12,
    found: true,
    curved: true,
    patched: true,
    size: 200,
    rows: [ablated(1, "L0.H1")],
  });
  all(root, ".pc-components .pc-address")[0]?.click();
  for (const width of [480, 640, 900, 1200, 1600]) {
    el.style.width = `${width}px`;
    await frames(4);
    const right = boxOf(root).right;
    for (const part of all(root, "button, select, input, p, h3, table, svg, canvas, .pc-node")) {
      if (part.closest(".pc-table-scroll, .pc-list-scroll, .pc-pairs-list, .pc-hidden")) continue;
      if (part.classList.contains("pc-hidden") || part.getClientRects().length === 0) continue;
      expect(boxOf(part).right, `${width} ${part.outerHTML.slice(0, 120)}`).toBeLessThanOrEqual(
        right + 1,
      );
    }
  }
});

test("an encoder has no metric: the view says so and measures nothing", async () => {
  const { root } = await ready({ refusals: { prediction: "This model predicts no next token." } });
  expect(one(root, ".pc-metric").hidden).toBe(true);
  expect(one(root, ".pc-distribution").hidden).toBe(true);
  expect(root.textContent).toContain("This model predicts no next token.");
  expect(named(root, "find").disabled).toBe(true);
  expect(named(patching(root), "start").disabled).toBe(true);
});

test("a view that ended leaves no listener and no node behind", async () => {
  const { model, unmount, el } = await ready({ found: true, curved: true });
  unmount();
  expect(model.count()).toBe(0);
  expect(el.children).toHaveLength(0);
  await rest(300);
});
