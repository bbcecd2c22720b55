import { userEvent } from "@vitest/browser/context";
import { expect, test, vi } from "vitest";
import { EIFFEL, packed, resultOf, row } from "./fake-kernel";
import { all, hold, letGo, mount, named, one, press, show, theme, until } from "./mount";

const slider = (root: Element, at = 0) =>
  all<HTMLInputElement>(root, ".pc-slider")[at] as HTMLInputElement;
const box = (root: Element, at = 0) =>
  all<HTMLInputElement>(root, ".pc-box")[at] as HTMLInputElement;
const after = (root: Element) => one(root, ".pc-after").textContent;
const frames = async (count = 3) => {
  for (let i = 0; i < count; i++) await new Promise((done) => requestAnimationFrame(done));
};

// --- dragging ---

test("a drag of 60 moves ends where the pointer let go: page, Python and pixels agree", async () => {
  const { root, kernel, model } = await mount({ rows: [row()], delay: 40 });
  const to = hold(slider(root));
  for (let i = 1; i <= 60; i++) {
    to(8 - i / 10);
    if (i % 6 === 0) await new Promise((done) => setTimeout(done, 16));
  }
  letGo();
  await until(() => kernel.state.rows[0]?.value === 2);
  const sent = () => model.sent.filter((each) => each.kind === "edit");
  await until(() => sent().at(-1)?.final === true);
  const edits = sent();
  expect(edits.length).toBeLessThan(30);
  expect(edits.at(-1)).toMatchObject({ value: 2, final: true });
  expect(edits.slice(0, -1).every((each) => each.final === false)).toBe(true);
  const { result } = resultOf(kernel.state.rows, EIFFEL.length);
  await until(() =>
    one(root, ".pc-after").title.includes(String(Math.abs(result.metric?.after ?? Number.NaN))),
  );
  expect(slider(root).value).toBe("2");
  expect(box(root).value).toBe("2.00");
});

test("what Python says about a row that is held is not put under the hand that holds it", async () => {
  const { root, kernel } = await mount({ rows: [row()], delay: 5 });
  const element = slider(root);
  const to = hold(element);
  to(5);
  await frames();
  kernel.change([row({ value: -3 })]);
  await frames();
  expect(slider(root)).toBe(element); // the very node survives
  expect(element.value).toBe("5");
  to(6);
  letGo();
  await until(() => kernel.state.rows[0]?.value === 6);
  await frames();
  kernel.change([row({ value: -3 })]);
  await until(() => element.value === "-3");
  expect(box(root).value).toBe("-3.00");
});

test("an older result never overwrites a newer one", async () => {
  const { root, kernel, model } = await mount({ rows: [row()], effects: false });
  kernel.held = true;
  const at = (value: number) => resultOf([row({ value })], EIFFEL.length);
  kernel.revision = 20;
  model.say({ kind: "result", revision: 20, result: at(9).result }, [packed(at(9).moved)]);
  await until(() => after(root) !== "−2.92");
  const shown = after(root);
  model.say({ kind: "result", revision: 19, result: at(1).result }, [packed(at(1).moved)]);
  await frames();
  expect(after(root)).toBe(shown);
});

test("an older state never overwrites a newer one", async () => {
  const { root, kernel, model } = await mount({ rows: [row()] });
  const old = { kind: "state", revision: kernel.revision, state: kernel.state };
  kernel.change([row({ value: 4 })]);
  await until(() => box(root).value === "4.00");
  model.say(old);
  await frames();
  expect(box(root).value).toBe("4.00");
});

test("a dragged slider's curve is drawn, and its line moves with the value", async () => {
  const { root } = await mount({ rows: [row({ range: { low: -10, high: 10 }, value: 0 })] });
  const canvas = one<HTMLCanvasElement>(root, ".pc-curve");
  const dark = () => {
    const pen = canvas.getContext("2d") as CanvasRenderingContext2D;
    // Half way down only the hairline is nearly black.
    const strip = pen.getImageData(0, Math.round(canvas.height * 0.1), canvas.width, 1).data;
    const found: number[] = [];
    for (let x = 0; x < canvas.width; x++) {
      if (
        (strip[4 * x + 3] as number) > 200 &&
        (strip[4 * x] as number) < 60 &&
        (strip[4 * x + 2] as number) < 60
      )
        found.push(x);
    }
    return found.length === 0 ? -1 : found.reduce((a, b) => a + b, 0) / found.length / canvas.width;
  };
  await until(() => dark() > 0);
  const to = hold(slider(root));
  to(5);
  await frames();
  expect(dark()).toBeGreaterThan(0.7);
  to(-5);
  await frames();
  expect(dark()).toBeLessThan(0.3);
  letGo();
});

test("arrow keys move the slider and make one undo step when they are let go", async () => {
  const { root, model } = await mount({ rows: [row()] });
  slider(root).focus();
  await userEvent.keyboard("{ArrowRight>3/}");
  await until(() => model.kinds().includes("edit"));
  await until(() => model.sent.filter((each) => each.kind === "edit").at(-1)?.final === true);
  const edits = model.sent.filter((each) => each.kind === "edit");
  expect(Number(edits.at(-1)?.value)).toBeGreaterThan(8);
  expect(edits.filter((each) => each.final === true)).toHaveLength(1);
});

// --- numbers, units, positions ---

test("a number typed in standard deviations goes up raw", async () => {
  const { root, kernel } = await mount({ rows: [row()] });
  const unit = named<HTMLSelectElement>(root, "Unit of L12.N304's value");
  await userEvent.selectOptions(unit, "sd");
  expect(box(root).value).toBe("6.87");
  await userEvent.fill(box(root), "2");
  await userEvent.keyboard("{Enter}");
  await until(() => Math.abs((kernel.state.rows[0]?.value ?? 0) - (0.31 + 2 * 1.12)) < 1e-9);
});

test("what is no number is refused beside the box, and the row stays as it was", async () => {
  const { root, kernel, model } = await mount({ rows: [row()] });
  await userEvent.fill(box(root), "eight");
  await userEvent.keyboard("{Enter}");
  const error = one(root, ".pc-row .pc-error");
  expect(error.textContent).toMatch(/“eight” is not a number/);
  expect(model.kinds()).not.toContain("edit");
  expect(kernel.state.rows[0]?.value).toBe(8);
  await userEvent.fill(box(root), "3");
  await userEvent.keyboard("{Enter}");
  await until(() => kernel.state.rows[0]?.value === 3);
  expect(error.hidden).toBe(true);
});

test("selected tokens become a row's positions", async () => {
  const { root, kernel } = await mount({ rows: [row()] });
  const at = named<HTMLSelectElement>(root, "Where L12.N304 is touched");
  await userEvent.selectOptions(at, "selected tokens");
  expect(one(root, ".pc-row .pc-error").textContent).toMatch(/No tokens are selected/);
  const chips = all(root, ".pc-chip");
  chips[3]?.click();
  chips[5]?.click();
  await userEvent.selectOptions(at, "selected tokens");
  await until(() => kernel.state.rows[0]?.positions === "3,5");
  await until(() => at.value === "3,5");
});

// --- tokens ---

test("token text is text: markup in a prompt, a token or a name never becomes an element", async () => {
  const evil = "<script>globalThis.hacked=1</script><img src=x onerror=globalThis.hacked=1>";
  const { root, kernel, model } = await mount({
    rows: [row({ label: evil, address: evil })],
    state: {
      tokens: [{ position: 0, id: 1, text: evil, bos: false }],
      prompt: evil,
      model: evil,
      notes: [evil],
      metric: { label: evil, target: { id: 1, text: evil }, against: null },
    },
  });
  const { result } = resultOf([], 1);
  result.top = [{ id: 5, text: evil, before: 0.5, after: 0.4 }];
  model.say({ kind: "result", revision: 9, result }, [packed([0.1])]);
  kernel.push({ kind: "generated", side: "clamped", text: evil, token: 1, index: 0, done: true });
  kernel.push({ kind: "status", busy: true, what: evil, error: evil, revision: 10 });
  await frames();
  expect(root.querySelectorAll("script, img")).toHaveLength(0);
  expect("hacked" in globalThis).toBe(false);
  expect(one(root, ".pc-chip-text").textContent).toBe(evil);
  expect(one(root, ".pc-token").textContent).toBe(evil);
  expect(one(root, '[data-side="clamped"] .pc-own').textContent).toBe(evil);
});

test("spaces and newlines are seen, a newline breaks the line, and both copy as themselves", async () => {
  const texts = ["<|im_start|>", "One", " two", "\n", "three", "\n\n"];
  const { root } = await mount({
    state: {
      tokens: texts.map((text, position) => ({
        position,
        id: position,
        text,
        bos: position === 0,
      })),
    },
  });
  const chips = all(root, ".pc-chip");
  expect(chips[0]?.textContent).toContain("BOS");
  expect(chips[0]?.title).toContain("<|im_start|>");
  expect(one(chips[2] as Element, ".pc-chip-text").textContent).toBe(" two");
  const dot = getComputedStyle(one(chips[2] as Element, ".pc-space"), "::before");
  expect([dot.content, Number(dot.opacity) < 0.6]).toEqual(['"·"', true]);
  const sign = getComputedStyle(one(chips[3] as Element, ".pc-newline"), "::before");
  expect(sign.content).toBe('"↵"');
  expect(one(chips[3] as Element, ".pc-chip-text").textContent).toBe("\n");
  const top = (i: number) => (chips[i] as Element).getBoundingClientRect().top;
  expect(top(3)).toBe(top(2));
  expect(top(4)).toBeGreaterThan(top(3) + 10);
  expect(all(chips[5] as Element, ".pc-newline")).toHaveLength(2);
});

test("every fifth chip has its position under it", async () => {
  const { root } = await mount();
  const numbers = all(root, ".pc-position").map((each) => each.dataset.at);
  expect(numbers).toEqual(["0", "", "", "", "", "5", "", "", "", ""]);
});

test("a chip's shade is how far its prediction moved", async () => {
  const { root } = await mount({ rows: [row()] });
  const shade = (i: number) =>
    getComputedStyle(all(root, ".pc-chip-text")[i] as Element).backgroundColor;
  await until(() => shade(9) !== shade(1));
  await until(() => shade(1) === "rgb(255, 255, 255)");
});

// --- adding ---

test("an address is typed with completion and added with the selected tokens", async () => {
  const { root, kernel } = await mount();
  all(root, ".pc-chip")[3]?.click();
  const field = one<HTMLInputElement>(root, ".pc-picker [role=combobox]");
  await userEvent.fill(field, "L12.N30");
  await until(() => all(root, ".pc-option").length === 6);
  await userEvent.keyboard("{ArrowDown}{ArrowDown}{Enter}");
  await until(() => kernel.state.rows.length === 1);
  expect(kernel.state.rows[0]).toMatchObject({ address: "L12.N300", positions: "3" });
  await until(() => field.value === "");
});

test("a wrong address is refused in a sentence beside it", async () => {
  const { root } = await mount();
  await userEvent.fill(one<HTMLInputElement>(root, ".pc-picker [role=combobox]"), "L99.Nope");
  await userEvent.keyboard("{Enter}");
  await until(() => !one(root, ".pc-picker .pc-error").hidden);
  expect(one(root, ".pc-picker .pc-error").textContent).toMatch(/names nothing/);
});

test("a ranking lists neurons with value and bar, and a click adds one", async () => {
  const { root, kernel, model } = await mount();
  named(root, "gradient").click();
  await until(() => all(root, ".pc-pick").length === 20);
  expect(model.sent.at(-1)).toMatchObject({ kind: "rank", by: "gradient", massive: false });
  const first = all(root, ".pc-pick")[0] as HTMLElement;
  expect(one(first, ".pc-number").textContent).toBe("+9.13");
  expect(one(first, ".pc-ranked-bar").style.width).toBe("100%");
  first.click();
  await until(() => kernel.state.rows.length === 1);
});

// --- rows ---

test("rows are muted, soloed, moved with Alt and removed", async () => {
  const rows = [row({ key: 1 }), row({ key: 2, address: "L5.N99" })];
  const { root, kernel } = await mount({ rows });
  named<HTMLInputElement>(root, "L5.N99 is on").click();
  await until(() => kernel.state.rows[1]?.muted === true);
  named(root, "Solo L5.N99").click();
  await until(() => kernel.state.rows[0]?.muted === true && !kernel.state.rows[1]?.muted);
  const grip = one<HTMLElement>(root, '.pc-row[data-key="2"] .pc-grip');
  grip.focus();
  press(grip, "ArrowUp", { altKey: true });
  await until(() => kernel.state.rows[0]?.key === 2);
  await until(() => all(root, ".pc-row")[0]?.dataset.key === "2");
  expect(document.activeElement).toBe(grip);
  named(root, "Remove L5.N99").click();
  await until(() => kernel.state.rows.length === 1 && all(root, ".pc-row").length === 1);
});

test("an effect stands beside its random control", async () => {
  const { root } = await mount({ rows: [row()] });
  await until(() => one(root, ".pc-effect").textContent?.includes("["));
  expect(one(root, ".pc-effect").textContent).toMatch(
    /effect.*−2\.57.*control.*−0\.07 \[−0\.26, 0\.12\]/,
  );
  expect(one(root, ".pc-effect").title).toMatch(/5 random neurons/);
});

test("curves are asked for once things rest, and again when their surroundings change", async () => {
  const rows = [row({ key: 1 }), row({ key: 2, address: "L5.N99" })];
  const { root, kernel, model } = await mount({ rows });
  const asked = () => model.sent.filter((each) => each.kind === "curve").map((each) => each.key);
  await new Promise((done) => setTimeout(done, 600));
  expect(asked()).toEqual([]); // hello brought them
  const to = hold(slider(root));
  to(3);
  letGo();
  await until(() => kernel.state.rows[0]?.value === 3);
  await until(() => asked().length > 0);
  await new Promise((done) => setTimeout(done, 500));
  expect(asked()).toEqual([2]); // a row's own value is its curve's axis
});

// --- keyboard ---

test("Ctrl+Z and Shift+Ctrl+Z undo and redo inside the view", async () => {
  const { root, kernel } = await mount({ rows: [row()] });
  named(root, "Remove L12.N304").click();
  await until(() => kernel.state.rows.length === 0 && !named(root, "undo").disabled);
  expect(press(root, "z", { ctrlKey: true }).defaultPrevented).toBe(true);
  await until(() => kernel.state.rows.length === 1);
  press(root, "Z", { ctrlKey: true, shiftKey: true });
  await until(() => kernel.state.rows.length === 0);
  press(root, "z", { metaKey: true });
  await until(() => kernel.state.rows.length === 1);
});

test("half-typed text keeps its own undo", async () => {
  const { root, model } = await mount({ rows: [row()] });
  const field = one<HTMLInputElement>(root, ".pc-picker [role=combobox]");
  await userEvent.fill(field, "L12");
  expect(press(field, "z", { ctrlKey: true }).defaultPrevented).toBe(false);
  expect(model.kinds()).not.toContain("undo");
});

test("R resets everything, but not while someone types", async () => {
  const { root, kernel, model } = await mount({ rows: [row()] });
  const field = one<HTMLInputElement>(root, ".pc-picker [role=combobox]");
  field.focus();
  press(field, "r");
  press(one(root, ".pc-select"), "r");
  press(root, "r", { ctrlKey: true });
  expect(model.kinds()).not.toContain("reset");
  press(slider(root), "r");
  await until(() => kernel.state.rows.length === 0);
  expect(one(root, ".pc-stack-end").textContent).toContain("reset");
  expect(named(root, "reset").title).toContain("(R)");
});

test("keys go on working when what had the focus is gone or off", async () => {
  const { root, kernel } = await mount({ rows: [row()] });
  slider(root).focus();
  await userEvent.keyboard("r");
  await until(() => all(root, ".pc-row").length === 0);
  await userEvent.keyboard("{Control>}z{/Control}");
  await until(() => kernel.state.rows.length === 1);
  await until(() => !named(root, "redo").disabled);
  named(root, "redo").focus();
  await userEvent.keyboard("{Enter}");
  await until(() => kernel.state.rows.length === 0 && named(root, "redo").disabled);
  await userEvent.keyboard("{Control>}z{/Control}");
  await until(() => kernel.state.rows.length === 1);
});

test("keys of the view do not reach the notebook around it", async () => {
  const { root } = await mount({ rows: [row()] });
  const heard: string[] = [];
  const listen = (event: KeyboardEvent) => heard.push(event.key);
  document.addEventListener("keydown", listen);
  for (const key of ["r", "ArrowUp", "a", "z"]) press(slider(root), key);
  press(slider(root), "Enter", { shiftKey: true });
  press(slider(root), "s", { ctrlKey: true });
  document.removeEventListener("keydown", listen);
  expect(heard).toEqual(["Enter", "s"]);
});

test("Escape stops what runs", async () => {
  const { root, model } = await mount({ rows: [row()] });
  press(root, "Escape");
  expect(model.kinds()).not.toContain("stop");
  named(root, "run: continue the prompt").click();
  await until(
    () => (one(root, '[data-side="clamped"] .pc-continued').textContent ?? "").length > 10,
  );
  press(root, "Escape");
  await until(() => model.kinds().includes("stop"));
});

// --- prompt, target, continuations, code ---

test("the prompt is edited in place: Enter applies, Escape does not, empty is refused", async () => {
  const { root, kernel, model } = await mount();
  named(root, "edit").click();
  const area = named<HTMLTextAreaElement>(root, "Prompt");
  expect(area.value).toBe("The Eiffel Tower is located in the city of");
  await userEvent.fill(area, "");
  await userEvent.keyboard("{Enter}");
  expect(one(root, ".pc-editor .pc-error").textContent).toMatch(/empty/);
  await userEvent.keyboard("{Escape}");
  expect(model.kinds()).not.toContain("prompt");
  named(root, "edit").click();
  await userEvent.fill(area, "One two");
  await userEvent.keyboard("{Enter}");
  await until(() => kernel.state.prompt === "One two" && all(root, ".pc-chip").length === 3);
  expect(one(root, ".pc-editor").hidden).toBe(true);
});

test("token ids have no text to edit", async () => {
  const { root } = await mount({ state: { prompt: null } });
  await until(() => named(root, "edit").disabled);
  expect(named(root, "edit").title).toMatch(/token ids/);
});

test("a click on a next token makes it the target, and so does a search", async () => {
  const { root, kernel } = await mount({ rows: [row()] });
  all(root, ".pc-token")[1]?.click();
  await until(() => kernel.state.metric?.target.text === " London");
  one(root, ".pc-metric-label").click();
  await userEvent.fill(named<HTMLInputElement>(root, "Target token"), "lyon");
  await until(() => all(root, ".pc-metric .pc-option").length === 1);
  await userEvent.keyboard("{Enter}");
  await until(() => kernel.state.metric?.target.text === " Lyon");
  await until(() => one(root, "tr[data-target]").textContent?.includes("Lyon"));
});

test("continuations stream side by side with their settings", async () => {
  const { root, model } = await mount({ rows: [row()] });
  await userEvent.fill(named<HTMLInputElement>(root, "Number of tokens"), "4");
  await userEvent.fill(named<HTMLInputElement>(root, "Seed"), "7");
  await userEvent.keyboard("{Enter}");
  await until(() => model.sent.at(-1)?.kind === "generate");
  expect(model.sent.at(-1)).toMatchObject({ count: 4, seed: 7, temperature: 0 });
  await until(
    () => one(root, '[data-side="baseline"] .pc-continued').textContent === " and so on and",
  );
  await until(() => named(root, "Stop continuing").disabled);
  await userEvent.fill(named<HTMLInputElement>(root, "Seed"), "1.5");
  named(root, "run: continue the prompt").click();
  expect(one(root, ".pc-generate .pc-error").textContent).toMatch(/no seed/);
});

// --- states ---

test("stale and computing are visible after a while, and not before", async () => {
  const { root, kernel } = await mount({ rows: [row()] });
  kernel.held = true;
  const line = one(root, ".pc > .pc-run");
  const seen: Record<string, number> = {};
  const look = new MutationObserver(() => {
    if (!line.hidden) seen.line ??= performance.now() - began;
    if (root.dataset.stale !== undefined) seen.stale ??= performance.now() - began;
  });
  look.observe(root, {
    attributes: true,
    subtree: true,
    attributeFilter: ["hidden", "data-stale"],
  });
  const began = performance.now();
  kernel.change([row({ value: 1 })]);
  await until(() => seen.line !== undefined && seen.stale !== undefined);
  look.disconnect();
  // However late a busy machine is, it is never early.
  expect(seen.line).toBeGreaterThanOrEqual(140);
  expect(seen.stale).toBeGreaterThanOrEqual(290);
  expect(getComputedStyle(one(root, ".pc-distribution")).transitionProperty).toContain("opacity");
  kernel.result();
  await until(() => root.dataset.stale === undefined && one(root, ".pc > .pc-run").hidden);
});

test("a failed run is said, and the last good picture stays", async () => {
  const { root, kernel } = await mount({ rows: [row()] });
  const before = after(root);
  kernel.held = true;
  kernel.change([row({ value: 1 })]);
  kernel.push({
    kind: "status",
    busy: false,
    what: "",
    error: "Not finite; take a smaller value.",
    revision: kernel.revision,
  });
  await until(() => !one(root, ".pc-body > .pc-error").hidden);
  expect(one(root, ".pc-body > .pc-error").textContent).toMatch(/Not finite/);
  expect(after(root)).toBe(before);
  await new Promise((done) => setTimeout(done, 400));
  expect(root.dataset.stale).toBeUndefined();
  kernel.held = false;
  kernel.change([row({ value: 2 })]);
  await until(() => one(root, ".pc-body > .pc-error").hidden);
});

test("a dead kernel is said; controls rest, the picture and its addresses stay", async () => {
  const { root, model, el } = await mount({ rows: [row()] });
  el.classList.add("jupyter-widgets-disconnected");
  model.trigger("comm_live_update");
  await until(() => !one(root, ".pc-kernel").hidden);
  expect(one(root, ".pc-kernel").textContent).toMatch(/No kernel/);
  expect(slider(root).disabled).toBe(true);
  expect(named(root, "Copy L12.N304@-1").disabled).toBe(false);
  expect(after(root)).toBe("−2.92");
});

test("a kernel that is silent for two seconds is called busy", async () => {
  const { root, model } = await mount({ rows: [row()] });
  const answer = model.onSend;
  model.onSend = () => undefined;
  named(root, "Remove L12.N304").click();
  await vi.waitFor(() => expect(one(root, ".pc-kernel").textContent).toMatch(/busy/), 4000);
  model.onSend = answer;
  model.say({ kind: "status", busy: false, what: "", error: null, revision: 1 });
  await until(() => one(root, ".pc-kernel").hidden);
});

test("a saved page draws its last picture and says what needs a kernel", async () => {
  const { root } = await mount({ rows: [row()], saved: true });
  expect(one(root, ".pc-kernel").textContent).toMatch(/saved picture without a kernel/);
  expect(after(root)).toBe("−2.92");
  expect(all(root, ".pc-token")[0]?.textContent).toBe(" Paris");
  expect(one(root, ".pc-effect").textContent).toMatch(/control/);
  expect(one(root, '[data-side="clamped"]').textContent).toMatch(/London, England/);
  expect(slider(root).disabled).toBe(true);
  const canvas = one<HTMLCanvasElement>(root, ".pc-curve");
  await until(() => {
    const pixels = canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels?.some((value) => value > 0);
  });
});

test("messages that make no sense are left alone", async () => {
  const { root, model } = await mount({ rows: [row()] });
  for (const junk of [
    null,
    3,
    "x",
    [],
    {},
    { kind: 7 },
    { kind: "nonsense" },
    { kind: "reply", id: null, ok: false, error: "?" },
  ]) {
    model.say(junk);
  }
  await frames();
  expect(after(root)).toBe("−2.92");
});

test("nothing that comes in moves a row under the hand that holds it", async () => {
  const { root, kernel, model } = await mount({ rows: [row()], silent: true, width: 520 });
  const { body, buffers } = kernel.hello();
  kernel.revision = 2;
  await until(() => model.sent.length > 0);
  const early = { ...body, result: null, result_revision: null, effects: [], curves: [] };
  model.say(
    { kind: "reply", id: model.sent[0]?.id, ok: true, revision: 1, body: early },
    buffers.slice(0, 1),
  );
  await until(() => all(root, ".pc-slider").length === 1);
  await frames();
  const top = () => slider(root).getBoundingClientRect().top;
  const before = top();
  const what = "measuring what each neuron is on a hundred reference texts";
  kernel.push({ kind: "status", busy: true, what, error: null, revision: 2 });
  kernel.result();
  await until(() => one(root, ".pc-status").textContent === what && after(root) === "−2.92");
  await frames();
  expect(top()).toBe(before);
  named(root, "Remove L12.N304").click(); // nobody answers
  await vi.waitFor(() => expect(one(root, ".pc-kernel").textContent).toMatch(/busy/), 4000);
  expect(one(root, ".pc-kernel").offsetParent).not.toBeNull();
  expect(top()).toBe(before);
});

test("a model that predicts no next token shows neither metric nor tokens, and says so", async () => {
  const { root, model } = await mount({ rows: [row()] });
  const { result } = resultOf([], 10);
  const moved = Float32Array.from({ length: 10 }, (_, i) => i / 1000);
  const encoded = { ...result, top: [], metric: null, moved_as: "cosine" };
  model.say({ kind: "result", revision: 9, result: encoded }, [packed(moved)]);
  await until(() => one(root, ".pc-metric").hidden && one(root, ".pc-out").hidden);
  expect(one(root, ".pc-body > .pc-note").textContent).toMatch(/predicts no next token/);
  expect(one(root, ".pc-legend").textContent).toMatch(/1 − cosine/);
});

// --- many views, and their end ---

test("two views of one model both follow, each with its own requests", async () => {
  const first = await mount({ rows: [row()] });
  const second = show(first.model);
  await until(() => second.root.querySelector(".pc-next tbody tr"));
  const to = hold(slider(first.root));
  to(4);
  letGo();
  await until(() => slider(second.root).value === "4" && after(second.root) === after(first.root));
  first.unmount();
  const again = hold(slider(second.root));
  again(5);
  letGo();
  await until(() => first.kernel.state.rows[0]?.value === 5);
});

test("a view that ended leaves no listener, timer, frame or node behind", async () => {
  const added = new Map<string, number>();
  const watch = (target: EventTarget) => {
    const add = target.addEventListener.bind(target);
    target.addEventListener = ((
      type: string,
      listener: never,
      options?: AddEventListenerOptions,
    ) => {
      if (!(typeof options === "object" && options.signal))
        added.set(type, (added.get(type) ?? 0) + 1);
      else if (options.signal.aborted === false) {
        added.set(type, (added.get(type) ?? 0) + 1);
        options.signal.addEventListener("abort", () => added.set(type, (added.get(type) ?? 0) - 1));
      }
      add(type, listener, options);
    }) as never;
    return () => Reflect.deleteProperty(target, "addEventListener");
  };
  const undo = [document, document.body, globalThis as unknown as EventTarget].map(watch);
  const { root, el, model, unmount } = await mount({ rows: [row()] });
  const to = hold(slider(root));
  to(3);
  await frames();
  unmount(); // in the middle of a drag
  letGo();
  for (const each of undo) each();
  expect(model.count()).toBe(0);
  expect([...added.values()].every((count) => count === 0)).toBe(true);
  expect(el.childElementCount).toBe(0);
  const sent = model.sent.length;
  await new Promise((done) => setTimeout(done, 700));
  expect(model.sent).toHaveLength(sent);
});

// --- themes and widths ---

test("the view follows the host's theme, canvases too", async () => {
  const { root, el } = await mount({ rows: [row()] });
  const canvas = one<HTMLCanvasElement>(root, ".pc-bar");
  // A fifth along: pale in the light theme, deep blue in the dark one.
  const first = () => canvas.getContext("2d")?.getImageData(14, 2, 1, 1).data[0] ?? -1;
  await until(() => first() > 200);
  expect(root.dataset.pcTheme).toBe("light");
  el.style.display = "none"; // as JupyterLab does for the moment in which it changes its theme
  theme(true);
  await Promise.resolve();
  el.style.display = "";
  await until(() => root.dataset.pcTheme === "dark" && first() < 60);
  expect(getComputedStyle(root).backgroundColor).toBe("rgb(17, 17, 17)");
  theme(false);
  await until(() => root.dataset.pcTheme === "light" && first() > 200);
});

for (const width of [480, 560, 640, 760, 900, 1000, 1100, 1600]) {
  test(`nothing scrolls sideways or is cut off at ${width} px`, async () => {
    const { root } = await mount({
      width,
      rows: [
        row({ massive: true }),
        row({
          key: 2,
          op: "ablate",
          value: null,
          how: "resample",
          range: null,
          address: "L29.N1535",
        }),
        row({
          key: 3,
          address: "L12.resid_post[a_long_name_of_a_direction]",
          positions: "1,2,3,4,5",
        }),
      ],
    });
    for (const large of [false, true]) {
      if (large) named(root, "Large type").click();
      named(root, "activation").click();
      await frames();
      const edge = root.getBoundingClientRect().right;
      for (const part of all(root, "button, input, select, canvas, table, p, .pc-effect")) {
        if (part.offsetParent === null) continue;
        expect(
          part.getBoundingClientRect().right,
          part.outerHTML.slice(0, 120),
        ).toBeLessThanOrEqual(edge);
      }
      expect(root.scrollWidth).toBeLessThanOrEqual(root.clientWidth);
    }
  });
}
