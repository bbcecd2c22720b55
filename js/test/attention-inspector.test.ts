import axe from "axe-core";
import { expect, test, vi } from "vitest";
import { userEvent } from "vitest/browser";
import type { Up } from "../src/messages";
import { REPEATED, tokensOf } from "./fake-inspector";
import type { FakeModel } from "./fake-kernel";
import {
  all,
  type InspectorOptions,
  mountInspector,
  named,
  one,
  press,
  still,
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

const scroller = (root: Element) => one(root, ".pc-pattern-scroll");
const cellSize = (root: Element) =>
  Number.parseFloat(one(root, ".pc-pattern-tools .pc-number").textContent ?? "");

/** A point of the page in the middle of a cell of the large pattern. */
function pointOf(root: Element, destination: number, source: number) {
  const box = scroller(root).getBoundingClientRect();
  const cell = cellSize(root);
  return {
    clientX: box.left + (source + 0.5) * cell - scroller(root).scrollLeft,
    clientY: box.top + (destination + 0.5) * cell - scroller(root).scrollTop,
  };
}

function pointer(root: Element, type: string, destination: number, source: number): void {
  scroller(root).dispatchEvent(
    new PointerEvent(type, {
      bubbles: true,
      button: 0,
      buttons: type === "pointerup" ? 0 : 1,
      pointerId: 1,
      isPrimary: true,
      ...pointOf(root, destination, source),
    }),
  );
}

async function clickCell(root: Element, destination: number, source: number): Promise<void> {
  for (const type of ["pointermove", "pointerdown", "pointerup"]) {
    pointer(root, type, destination, source);
  }
  scroller(root).dispatchEvent(
    new MouseEvent("click", { bubbles: true, detail: 1, ...pointOf(root, destination, source) }),
  );
  await frames();
}

/** The centre of a head in the grid, which shows all in its own order. */
async function clickHead(root: Element, layer: number, head: number, detail = 1): Promise<void> {
  const grid = one(root, ".pc-heads");
  const canvas = one<HTMLCanvasElement>(root, ".pc-heads-cells");
  // Arrow keys move from the locked head; the first only shows it.
  grid.focus();
  press(grid, "Home");
  for (let i = 0; i < 40; i++) press(grid, "ArrowUp");
  press(grid, "Home");
  for (let i = 0; i < layer; i++) press(grid, "ArrowDown");
  for (let i = 0; i < head; i++) press(grid, "ArrowRight");
  expect(canvas.width).toBeGreaterThan(0);
  press(grid, "Enter", { shiftKey: detail > 1 });
  await frames();
}

const radio = (root: Element, value: string) =>
  one<HTMLInputElement>(root, `.pc-segment input[value="${value}"]`);

async function ready(options: InspectorOptions = {}) {
  const mounted = await mountInspector(options);
  await until(() => mounted.root.querySelector(".pc-pattern-box") !== null);
  await frames(4);
  return mounted;
}

const colourAt = (root: Element, destination: number, source: number): number[] => {
  const canvas = one<HTMLCanvasElement>(root, ".pc-pattern-cells");
  const box = canvas.getBoundingClientRect();
  const { clientX, clientY } = pointOf(root, destination, source);
  const scale = canvas.width / box.width;
  const data = canvas
    .getContext("2d")
    ?.getImageData((clientX - box.left) * scale, (clientY - box.top) * scale, 1, 1).data;
  return [...(data ?? [])].slice(0, 3);
};

// --- looking ---

test("a head is locked from the grid with the keyboard, and its picture is asked for", async () => {
  const { root, model, kernel } = await ready({ head: [3, 2] });
  expect(one(root, ".pc-pattern-title").textContent).toBe("L3.H2");
  await clickHead(root, 4, 1);
  await until(() => sent(model, "inspect").length === 1);
  expect(sent(model, "inspect")[0]?.head).toEqual([4, 1]);
  expect(one(root, ".pc-pattern-title").textContent).toBe("L4.H1");
  await until(() => sent(model, "head").length === 1 && sent(model, "tiles").length === 1);
  expect(sent(model, "tiles")[0]).toMatchObject({ layer: 4, head: 1, look: "now" });
  await until(() => kernel.attention.head?.join() === "4,1");
  await frames();
  expect(one(root, ".pc-head-panel .pc-address-title").textContent).toBe("L4.H1");
});

test("what is chosen shows at once, and Python's word counts when it has taken it", async () => {
  const { root, model, kernel } = await ready({ head: [3, 2] });
  const answer = model.onSend;
  model.onSend = () => undefined;
  await clickHead(root, 0, 0);
  expect(one(root, ".pc-pattern-title").textContent).toBe("L0.H0"); // nobody has answered
  model.onSend = answer;
  for (const message of model.sent.slice(-3)) kernel.take(message);
  await frames();
  kernel.attention = { ...kernel.attention, head: [2, 5] };
  kernel.news();
  await until(() => one(root, ".pc-pattern-title").textContent === "L2.H5");
});

test("a refused gesture says so beside its cause and goes back", async () => {
  const { root, kernel, model } = await ready({ second: "One two three four" });
  model.onSend = (message) => kernel.refuse(message.id, "The second prompt is too long.");
  radio(root, "second").click();
  await until(() => !one(root, ".pc-looks .pc-error").hidden);
  expect(one(root, ".pc-looks .pc-error").textContent).toMatch(/too long/);
  await until(() => radio(root, "now").checked);
});

test("weights turn into value-weighted cells and logits on the page, without a new tile", async () => {
  const { root, model, kernel } = await ready({ head: [3, 2] });
  const before = sent(model, "tiles").length;
  const weight = colourAt(root, 9, 9);
  radio(root, "value").click();
  await frames(4);
  expect(one(root, ".pc-pattern-panel .pc-heat-bar .pc-word").textContent).toBe("value-weighted");
  expect(colourAt(root, 9, 9)).not.toEqual(weight);
  radio(root, "contribution").click();
  await until(() => kernel.attention.mode === "contribution");
  await frames();
  expect(one(root, ".pc-pattern-panel .pc-heat-bar .pc-word").textContent).toBe("logits");
  expect(sent(model, "tiles")).toHaveLength(before);
});

test("a choice that makes no sense cannot be made, and says why", async () => {
  const { root } = await ready({ causal: false, head: [1, 3] });
  for (const [value, why] of [
    ["before", /nothing in the stack acts/],
    ["difference", /nothing in the stack acts/],
    ["second", /no second prompt/],
    ["contribution", /encoder/],
  ] as const) {
    expect(radio(root, value).disabled, value).toBe(true);
    expect(radio(root, value).closest("label")?.title).toMatch(why);
  }
  expect(radio(root, "value").disabled).toBe(false);
});

// --- the value of a cell ---

test("a cell's tile value shows in the pointer's own frame, its exact value when it comes", async () => {
  const { root, model, kernel } = await ready({ head: [3, 2] });
  const answer = model.onSend;
  model.onSend = () => undefined;
  pointer(root, "pointermove", 6, 6);
  await frames(2);
  const near = one(root, ".pc-exact").textContent ?? "";
  expect(near).toMatch(/^weight ≈ 0\.\d+$/);
  expect(one(root, ".pc-where").textContent).toBe('6 " mat" reads 6 " mat"');
  const [question] = sent(model, "cell");
  expect(question).toMatchObject({ layer: 3, head: 2, destination: 6, source: 6 });
  model.onSend = answer;
  kernel.take(question as Up);
  await frames();
  const exact = kernel.cells(3, 2, "now")[6 * kernel.state.tokens.length + 6] as number;
  expect(one(root, ".pc-exact").textContent).toContain(`weight ${exact}`);
  expect(Number(near.replace(/[^\d.]/g, "")) / exact).toBeCloseTo(1, 1);
});

test("one cell is asked for at a time, and of those passed over only the last", async () => {
  const { root, model, kernel } = await ready({ head: [3, 2] });
  model.onSend = () => undefined;
  for (let source = 0; source <= 8; source++) {
    pointer(root, "pointermove", 8, source);
    await frames(1);
  }
  await frames();
  expect(sent(model, "cell").map((each) => each.source)).toEqual([0]);
  kernel.take(sent(model, "cell")[0] as Up);
  await frames();
  expect(sent(model, "cell").map((each) => each.source)).toEqual([0, 8]);
});

test("what is not a number is called so, and not zero", async () => {
  const { root } = await ready({ head: [3, 2], hole: [9, 4] });
  pointer(root, "pointermove", 9, 4);
  await until(() => one(root, ".pc-exact").textContent?.includes("not a number"));
  pointer(root, "pointermove", 4, 9);
  await until(() => one(root, ".pc-exact").textContent === "nothing: it comes later");
});

// --- tokens ---

test("a token under the pointer shades where it looks and what looks at it, and points into the matrix", async () => {
  const { root } = await ready({ head: [4, 1] });
  const chips = all(root, ".pc-prompts > .pc-prompt .pc-chip");
  const shade = (i: number) => getComputedStyle(one(chips[i] as Element, ".pc-chip-text"));
  chips[17]?.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  await frames(2);
  expect(one(root, ".pc-prompt .pc-said").textContent).toBe(
    '← " mat" looks at · looks at " mat" →',
  );
  await still();
  const [dark, pale] = [shade(7).backgroundColor, shade(10).backgroundColor];
  expect(dark).not.toBe(pale); // an induction head looks at what came after the earlier copy
  expect(Number(/\d+/.exec(dark)?.[0])).toBeLessThan(60);
  one(root, ".pc-chips").dispatchEvent(new PointerEvent("pointerleave"));
  await frames(2);
  expect(one(root, ".pc-prompt .pc-said").textContent).toBe("moved, KL in nats");
});

test("a cell under the pointer marks its two tokens", async () => {
  const { root } = await ready({ head: [4, 1] });
  pointer(root, "pointermove", 17, 7);
  await frames(2);
  const marked = all(root, ".pc-chip[data-pointed]").map((chip) => Number(chip.dataset.position));
  expect(marked).toEqual([7, 17]);
  scroller(root).dispatchEvent(new PointerEvent("pointerleave"));
  await frames(2);
  expect(all(root, ".pc-chip[data-pointed]")).toHaveLength(0);
});

test("an encoder shows both ways at once, and neither metric nor next tokens", async () => {
  const { root } = await ready({ causal: false, head: [1, 3] });
  all(root, ".pc-chip")[5]?.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  await frames(2);
  expect(one(root, ".pc-said").textContent).toMatch(/shade: what .* looks at · line: what looks/);
  expect(one(root, ".pc-metric").hidden).toBe(true);
  expect(one(root, ".pc-distribution").hidden).toBe(true);
  expect(one(root, ".pc-lower > .pc-note").textContent).toMatch(/encoder/);
});

test("typing runs after a pause, one text at a time, and Enter makes it final", async () => {
  const { root, model } = await ready();
  named(root, "edit").click();
  const area = named<HTMLTextAreaElement>(root, "Prompt");
  expect(all(root, ".pc-chip").length).toBeGreaterThan(3);
  expect(one(root, ".pc-looking").hidden).toBe(false);
  area.focus();
  await userEvent.fill(area, "One two");
  expect(sent(model, "prompt")).toHaveLength(0);
  await until(() => sent(model, "prompt").length === 1);
  expect(sent(model, "prompt")[0]).toMatchObject({ text: "One two", final: false });
  await until(() => all(root, ".pc-prompt .pc-chip").length === 3);
  await userEvent.fill(area, "One two three");
  await userEvent.keyboard("{Enter}");
  await until(() => sent(model, "prompt").length === 2);
  expect(sent(model, "prompt")[1]).toMatchObject({ text: "One two three", final: true });
  await until(() => one(root, ".pc-editor").hidden);
  await rest(500);
  expect(sent(model, "prompt")).toHaveLength(2);
});

test("Escape takes back what was typed, also what ran already", async () => {
  const { root, model, kernel } = await ready();
  const began = kernel.state.prompt;
  named(root, "edit").click();
  const area = named<HTMLTextAreaElement>(root, "Prompt");
  await userEvent.fill(area, "Other words");
  await until(() => kernel.state.prompt === "Other words");
  press(area, "Escape");
  await until(() => kernel.state.prompt === began);
  expect(sent(model, "prompt").at(-1)).toMatchObject({ text: began, final: true });
});

// --- knocking out ---

test("a click knocks a cell out and the same again takes it back, by mouse and by key", async () => {
  const { root, model, kernel } = await ready({ head: [4, 1] });
  radio(root, "knock").click();
  await frames();
  await clickCell(root, 17, 7);
  await until(() => kernel.knocked.length === 1);
  expect(sent(model, "knock")[0]).toMatchObject({
    layers: [4, 5],
    heads: [1],
    destinations: [17, 18],
    sources: [7, 8],
    how: "renormalise",
  });
  await until(() => one(root, ".pc-row").textContent?.includes("L4.H1[17<-7]"));
  await until(() => !radio(root, "before").disabled);
  scroller(root).focus();
  press(scroller(root), "ArrowRight");
  press(scroller(root), "ArrowLeft");
  await frames();
  press(scroller(root), " ");
  press(scroller(root), "Enter");
  await until(() => sent(model, "knock").length > 1);
});

test("a brush knocks a rectangle out, in the way that is chosen", async () => {
  const { root, model, kernel } = await ready({ head: [4, 1] });
  radio(root, "knock").click();
  await userEvent.selectOptions(
    named<HTMLSelectElement>(root, "How attention is knocked out"),
    "to zero",
  );
  await frames();
  pointer(root, "pointermove", 10, 2);
  pointer(root, "pointerdown", 10, 2);
  pointer(root, "pointermove", 14, 6);
  await frames();
  pointer(root, "pointerup", 14, 6);
  await until(() => kernel.knocked.length === 1);
  expect(sent(model, "knock")[0]).toMatchObject({
    destinations: [10, 15],
    sources: [2, 7],
    how: "zero",
  });
});

test("a knock-out changes what is predicted, and a muted one does not", async () => {
  const { root, kernel } = await ready({ head: [4, 1] });
  named(root, "Knock out L4.H1").click();
  await until(() => kernel.knocked.length === 1);
  expect(kernel.knocked[0]).toMatchObject({ layers: [4, 5], heads: [1], destinations: null });
  await until(() => one(root, ".pc-change").textContent?.startsWith("Δ"));
  one<HTMLInputElement>(root, ".pc-mute").click();
  await until(() => kernel.knocked[0]?.muted === true);
  await until(() => one(root, ".pc-change").textContent === "no change");
});

test("all heads of some layers are cut from token to token by a form, which refuses nonsense", async () => {
  const { root, model, kernel } = await ready({ head: [4, 1] });
  const [from, to, low] = ["From token", "To token", "First layer"].map((name) =>
    named<HTMLInputElement>(root, name),
  ) as [HTMLInputElement, HTMLInputElement, HTMLInputElement];
  const error = one(root, ".pc-knock .pc-error");
  for (const [a, b, why] of [
    ["x", "5", /“x” is no token/],
    ["3", "99", /no token 99: tokens go from 0 to 20/],
    ["9", "5", /cannot read token 9, which comes after/],
    ["5-3", "9", /goes backwards/],
  ] as const) {
    await userEvent.fill(from, a);
    await userEvent.fill(to, b);
    await userEvent.keyboard("{Enter}");
    expect(error.textContent).toMatch(why);
  }
  expect(sent(model, "knock")).toHaveLength(0);
  await userEvent.fill(from, "2-3");
  await userEvent.fill(to, "9");
  await userEvent.fill(low, "1");
  await userEvent.keyboard("{Enter}");
  await until(() => kernel.knocked.length === 1);
  expect(sent(model, "knock")[0]).toMatchObject({
    layers: [1, 6],
    destinations: [9, 10],
    sources: [2, 4],
  });
  expect(sent(model, "knock")[0]?.heads ?? null).toBeNull();
  expect(error.hidden).toBe(true);
});

test("K changes between looking and knocking out", async () => {
  const { root } = await ready();
  press(root, "k");
  await until(() => radio(root, "knock").checked);
  press(root, "K");
  await until(() => radio(root, "inspect").checked);
});

// --- scores ---

test("scores are sorted and filtered by, and measured when somebody wants them", async () => {
  const { root, kernel, model } = await ready({ head: [4, 1] });
  const order = named<HTMLSelectElement>(root, "Heads sorted by");
  const effect = [...order.options].find((option) => option.value === "effect");
  expect(effect?.disabled).toBe(true);
  kernel.held = true;
  named(root, "Measure effect of ablating of all heads").click();
  await until(() => sent(model, "assess").length === 1);
  await until(() => named(root, "Measure effect of ablating of all heads").textContent === "25 %");
  kernel.held = false;
  await until(() => effect?.disabled === false);
  expect(named(root, "Measure effect of ablating of all heads").hidden).toBe(true);
  await userEvent.selectOptions(order, "induction");
  await userEvent.fill(named<HTMLInputElement>(root, "Least score shown"), "0.3");
  await until(() => /^\d+ of 48$/.test(one(root, ".pc-heads-panel h3").textContent ?? ""));
  named(root, "all heads").click();
  await until(() => one(root, ".pc-heads-panel h3").textContent === "48 heads");
  await userEvent.fill(named<HTMLInputElement>(root, "Last layer shown"), "x");
  await until(() => !one(root, ".pc-heads-panel .pc-error").hidden);
  expect(kernel.computed).toBe(0);
});

test("a double click shows the heads of that layer alone, and again all", async () => {
  const { root } = await ready({ head: [4, 1] });
  await clickHead(root, 2, 3, 2);
  await until(() => one(root, ".pc-heads-panel h3").textContent === "8 of 48");
  expect(one(root, ".pc-pattern-title").textContent).toBe("L2.H3");
  const grid = one(root, ".pc-heads");
  press(grid, "Enter", { shiftKey: true });
  await until(() => one(root, ".pc-heads-panel h3").textContent === "48 heads");
});

test("composition lists heads whose addresses lock them, and follows the locked head", async () => {
  const { root, model } = await ready({ head: [4, 1] });
  expect(sent(model, "compose")).toHaveLength(0);
  named(root, "Measure composition with all other heads").click();
  await until(() => all(root, ".pc-composed").length > 0);
  expect(all(root, ".pc-composition tbody tr")).toHaveLength(3);
  const button = all(root, ".pc-composed")[0] as HTMLElement;
  const address = one(button, ".pc-composed-name").textContent;
  button.click();
  await until(() => one(root, ".pc-pattern-title").textContent === address);
  await until(() => sent(model, "compose").length === 2);
});

// --- two prompts ---

test("a second prompt is compared, aligned and paired by hand", async () => {
  const { root, model, kernel } = await ready({ head: [4, 1] });
  named(root, "+ second prompt").click();
  await userEvent.fill(named<HTMLTextAreaElement>(root, "Second prompt"), "A dog sat");
  await userEvent.keyboard("{Enter}");
  await until(() => kernel.attention.second !== null);
  await until(() => all(root, ".pc-second .pc-chip").length === 4);
  const [first, second] = [all(root, ".pc-prompt .pc-chip"), all(root, ".pc-second .pc-chip")];
  first[2]?.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  await frames(2);
  expect(second[2]?.dataset.pointed).toBe("");
  second[1]?.click();
  expect(one(root, ".pc-second .pc-error").textContent).toMatch(/Select one token/);
  first[2]?.click();
  second[1]?.click();
  await until(() => sent(model, "align").length === 1);
  expect(sent(model, "align")[0]?.pair).toEqual([2, 1]);
  await until(() => kernel.attention.second?.partners[2] === 1);
  await frames();
  second[1]?.click();
  await until(() => sent(model, "align").length === 2);
  expect(sent(model, "align")[1]?.pair).toEqual([2, null]);
  named(root, "by tokens").click();
  await until(() => sent(model, "align").at(-1)?.by === "tokens");
  radio(root, "second-difference").click();
  await until(() => sent(model, "tiles").at(-1)?.look === "second-difference");
  named(root, "Remove the second prompt").click();
  await until(() => kernel.attention.second === null && radio(root, "second").disabled);
});

// --- states ---

test("tiles that never come do not make the view ask without end", async () => {
  const { root, model } = await ready({ head: [3, 2], withoutTiles: true });
  await until(() => sent(model, "tiles").length === 1);
  await rest(300);
  expect(sent(model, "tiles")).toHaveLength(1);
  await until(() => !one(root, ".pc-pattern-panel > .pc-run").hidden);
});

test("tiles of a prompt that is gone are left, and those of the present one are asked for", async () => {
  const { root, model, kernel } = await ready({ head: [3, 2] });
  const answer = model.onSend;
  model.onSend = () => undefined;
  await clickHead(root, 4, 1);
  await until(() => sent(model, "tiles").length === 1);
  model.onSend = answer;
  const old = sent(model, "tiles")[0] as Up;
  kernel.take({ kind: "prompt", id: 0, text: "Quite another text" });
  await frames();
  kernel.take(old); // answered with the pattern of the new prompt, of another length
  await until(() => all(root, ".pc-prompt .pc-chip").length === 4);
  await until(() => sent(model, "tiles").length > 1);
  pointer(root, "pointermove", 3, 3);
  await until(() => one(root, ".pc-exact").textContent?.startsWith("weight 0."));
  expect(one(root, ".pc-pattern-panel .pc-error").hidden).toBe(true);
});

test("another target makes other logits: what is known of the old one's is asked again", async () => {
  const { root, model, kernel } = await ready({ head: [3, 2], mode: "contribution" });
  const cells = kernel.cells(3, 2, "now", "contribution").map(Math.abs);
  const strongest = cells.indexOf(Math.max(...cells));
  const n = kernel.state.tokens.length;
  const before = sent(model, "head").length;
  all(root, ".pc-token")[1]?.click();
  await until(() => sent(model, "target").length === 1);
  await until(() => sent(model, "head").length === before + 1);
  await until(() => sent(model, "tiles").length === 1);
  await until(() => Math.min(...colourAt(root, Math.floor(strongest / n), strongest % n)) < 100);
});

test("refused tiles are said beside the pattern, once", async () => {
  const { root, model, kernel } = await ready({ head: [3, 2] });
  const answer = model.onSend;
  model.onSend = (message) => {
    if (message.kind === "tiles") kernel.refuse(message.id, "That needs 3.2 GB, more than 2.");
    else answer(message);
  };
  await clickHead(root, 0, 0);
  await until(() => !one(root, ".pc-pattern-panel .pc-error").hidden);
  expect(one(root, ".pc-pattern-panel .pc-error").textContent).toMatch(/3\.2 GB/);
  const asked = sent(model, "tiles").length;
  await rest(200);
  expect(sent(model, "tiles")).toHaveLength(asked);
});

test("without a locked head the view says what to do first, with one button that does it", async () => {
  const { root, kernel } = await ready({ head: null });
  expect(one(root, ".pc-middle .pc-first").hidden).toBe(false);
  expect(one(root, ".pc-pattern-panel").hidden).toBe(true);
  named(root, "the head with the most induction").click();
  await until(() => kernel.attention.head !== null);
  await until(() => !one(root, ".pc-pattern-panel").hidden);
});

test("a saved page draws its grid, its pattern and its scores, and asks for nothing", async () => {
  const { root, model } = await ready({ saved: true, head: [4, 1] });
  await until(() => colourAt(root, 17, 7).some((part) => part < 200));
  expect(one(root, ".pc-kernel").textContent).toMatch(/without a kernel/);
  expect(all(root, ".pc-scores tr")).toHaveLength(9);
  const asked = model.kinds();
  pointer(root, "pointermove", 17, 7);
  await frames(2);
  expect(one(root, ".pc-exact").textContent).toMatch(/≈/);
  radio(root, "value").click(); // the numbers for it are in the page
  await frames();
  expect(one(root, ".pc-pattern-panel .pc-heat-bar .pc-word").textContent).toBe("value-weighted");
  expect(model.kinds()).toEqual(asked);
  expect(radio(root, "knock").disabled).toBe(true);
});

test("token text is text in every part: no markup becomes an element", async () => {
  const evil = ["<script>globalThis.hacked=1</script>", " <img src=x onerror=globalThis.hacked=1>"];
  const { root } = await ready({
    head: [3, 2],
    state: { tokens: tokensOf([...evil, " x"]), prompt: evil.join("") },
    second: "<b>bold</b> text",
  });
  pointer(root, "pointermove", 2, 1);
  await frames();
  expect(root.querySelectorAll("script, img, b")).toHaveLength(0);
  expect("hacked" in globalThis).toBe(false);
  expect(one(root, ".pc-where").textContent).toContain(evil[0] as string);
  expect(all(root, ".pc-lines-token").some((each) => each.textContent === evil[0])).toBe(true);
});

test("one token is a prompt too", async () => {
  const { root } = await ready({ state: { tokens: tokensOf(["Hi"], false), prompt: "Hi" } });
  pointer(root, "pointermove", 0, 0);
  await until(() => /^weight (1|0\.9999)/.test(one(root, ".pc-exact").textContent ?? ""));
  expect(one(root, ".pc-where").textContent).toBe('0 "Hi" reads 0 "Hi"');
});

test("a saved file holds what is seen", async () => {
  const { root } = await ready({ head: [4, 1] });
  const saved: string[] = [];
  const click = vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (
    this: HTMLAnchorElement,
  ) {
    saved.push(this.download);
  });
  named(root, "Save the pattern as SVG").click();
  named(root, "Save the heads as PNG").click();
  await until(() => saved.length === 2);
  click.mockRestore();
  expect(saved).toEqual([
    expect.stringMatching(/L4\.H1.*\.svg$/),
    expect.stringMatching(/heads.*\.png$/),
  ]);
});

// --- themes, widths, access, end ---

for (const dark of [false, true]) {
  for (const options of [
    { measured: ["effect" as const], second: "The dog sat" },
    { saved: true },
    { causal: false, head: [1, 3] as [number, number] },
    { head: null },
  ]) {
    test(`axe finds nothing serious (${dark ? "dark" : "light"}, ${Object.keys(options)})`, async () => {
      const { root, el } = await ready({ dark, ...options });
      if (!("saved" in options) && !("head" in options)) {
        named(root, "Measure composition with all other heads").click();
        named(root, "Knock out L3.H2").click();
        await until(() => all(root, ".pc-composed").length > 0 && all(root, ".pc-row").length > 0);
      }
      await still();
      const { violations } = await axe.run(el, {
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
        rules: {
          region: { enabled: false },
          "page-has-heading-one": { enabled: false },
          "heading-order": { enabled: false },
        },
      });
      const grave = violations.filter(
        (each) => each.impact === "serious" || each.impact === "critical",
      );
      expect(
        grave.map(
          (each) =>
            `${each.id}: ${each.nodes.map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`).join("\n")}`,
        ),
      ).toEqual([]);
    });
  }
}

test("everything that can be pressed can be reached with Tab and has a name and 24 pixels", async () => {
  const { root } = await ready({ measured: ["effect"], second: "The dog sat" });
  for (const part of all<HTMLButtonElement>(
    root,
    "button, input, select, textarea, [tabindex='0']",
  )) {
    if (part.offsetParent === null) continue;
    expect(part.tabIndex, part.outerHTML).toBeGreaterThanOrEqual(0);
    const label = part.getAttribute("aria-label") ?? part.textContent?.trim() ?? "";
    const outer = part.closest("label")?.textContent ?? "";
    expect((label + outer).length, part.outerHTML).toBeGreaterThan(0);
    const box = (part.closest("label") ?? part).getBoundingClientRect();
    if (part.matches(".pc-mute, .pc-grip, .pc-chip")) continue;
    expect(box.height, part.outerHTML).toBeGreaterThanOrEqual(24);
  }
});

for (const width of [480, 640, 800, 960, 1100, 1600]) {
  test(`nothing scrolls sideways or is cut off at ${width} px`, async () => {
    const { root } = await ready({
      width,
      layers: 12,
      heads: 12,
      measured: ["effect"],
      second: REPEATED.join(""),
      state: {
        tokens: tokensOf([...REPEATED, " an-extraordinarily-long-token-that-will-not-fit", "\n"]),
        prompt: REPEATED.join(""),
      },
    });
    named(root, "Measure composition with all other heads").click();
    await until(() => all(root, ".pc-composed").length > 0);
    for (const large of [false, true]) {
      if (large) named(root, "Large type").click();
      await frames(4);
      const edge = root.getBoundingClientRect().right;
      for (const part of all(root, "button, input, select, canvas, table, p, section")) {
        if (part.offsetParent === null) continue;
        expect(
          Math.floor(part.getBoundingClientRect().right),
          part.outerHTML.slice(0, 120),
        ).toBeLessThanOrEqual(edge);
      }
      expect(root.scrollWidth).toBeLessThanOrEqual(root.clientWidth);
    }
  });
}

test("the view follows the host's theme", async () => {
  const { root } = await ready({ head: [4, 1] });
  const light = colourAt(root, 12, 1);
  expect(light[0]).toBeGreaterThan(200);
  theme(true);
  await until(() => root.dataset.pcTheme === "dark" && (colourAt(root, 12, 1)[0] ?? 255) < 80);
  theme(false);
  await until(() => (colourAt(root, 12, 1)[0] ?? 0) > 200);
});

test("a view that ended leaves no listener, timer, frame or node behind", async () => {
  const open = new Map<string, number>();
  const count = (type: string, by: number) => open.set(type, (open.get(type) ?? 0) + by);
  const watch = (target: EventTarget) => {
    const add = target.addEventListener.bind(target);
    target.addEventListener = ((
      type: string,
      listener: never,
      options?: AddEventListenerOptions,
    ) => {
      count(type, 1);
      const signal = typeof options === "object" ? options.signal : undefined;
      signal?.addEventListener("abort", () => count(type, -1));
      add(type, listener, options);
    }) as never;
    return () => Reflect.deleteProperty(target, "addEventListener");
  };
  const undo = [document, document.body, globalThis as unknown as EventTarget].map(watch);
  const { root, el, model, unmount } = await ready({ head: [4, 1] });
  radio(root, "knock").click();
  pointer(root, "pointerdown", 10, 2);
  pointer(root, "pointermove", 12, 4);
  named(root, "Measure composition with all other heads").click();
  await frames(1);
  unmount(); // in the middle of a drag
  for (const each of undo) each();
  expect(model.count()).toBe(0);
  expect([...open].filter(([, left]) => left !== 0)).toEqual([]);
  expect(el.childElementCount).toBe(0);
  const messages = model.sent.length;
  await rest(700);
  expect(model.sent).toHaveLength(messages);
});
