// Prompts of an ActivationMaximizer: the front as a plot, its table, and what a click does.
import { expect, test } from "vitest";
import { userEvent } from "vitest/browser";
import type { Up } from "../src/messages";
import type { FakeModel } from "./fake-kernel";
import { all, type MaximizerOptions, mountMaximizer, named, one, press, until } from "./mount";

const frames = async (count = 3) => {
  for (let i = 0; i < count; i++) await new Promise((done) => requestAnimationFrame(done));
};
const loads = (model: FakeModel) =>
  model.sent.filter((each) => each.kind === "load") as Extract<Up, { kind: "load" }>[];

async function ready(options: MaximizerOptions = {}) {
  const mounted = await mountMaximizer({ family: "prompt", dreamed: true, ...options });
  await frames(4);
  return mounted;
}
const box = (root: Element) => one(root, ".pc-front-box");

/** Where the mark of a kind with the largest activation is on the page. */
function highest(root: Element): { x: number; y: number } {
  const marks = [...root.querySelectorAll<SVGElement>(".pc-front-svg circle")];
  const boxes = marks.map((each) => each.getBoundingClientRect());
  const top = boxes.reduce((a, b) => (b.top < a.top ? b : a));
  return { x: top.left + top.width / 2, y: top.top + top.height / 2 };
}

test("candidates of the front are filled and joined, others hollow, the corpus a shape of its own", async () => {
  const { root, kernel } = await ready();
  const candidates = kernel.front?.candidates ?? [];
  const circles = [...root.querySelectorAll(".pc-front-svg circle")];
  const background = getComputedStyle(root).backgroundColor;
  const hollow = circles.filter((each) => each.getAttribute("fill") === background);
  const epo = candidates.filter((each) => each.kind === "epo");
  expect(circles).toHaveLength(epo.length);
  expect(hollow).toHaveLength(epo.filter((each) => !each.front).length);
  expect(one(root, ".pc-prompts-panel .pc-key").textContent).toBe(
    "EPO, on the frontnot on itcorpus",
  );
});

test("a click on a point puts its prompt into the session", async () => {
  const { root, model, kernel } = await ready();
  const { x, y } = highest(root);
  const at = { clientX: x + 2, clientY: y - 1, bubbles: true };
  box(root).dispatchEvent(new PointerEvent("pointermove", at));
  box(root).dispatchEvent(new MouseEvent("click", at));
  await until(() => loads(model).length === 1);
  const best = [...(kernel.front?.candidates ?? [])].sort((a, b) => b.activation - a.activation)[0];
  expect(loads(model)[0]?.candidate).toBe(best?.key);
  await until(() => all(root, ".pc-candidates tr[data-loaded]").length === 1);
  expect(one(root, ".pc-candidates tr[data-loaded]").dataset.key).toBe(String(best?.key));
});

test("a click beside all points loads nothing", async () => {
  const { root, model } = await ready();
  const area = box(root).getBoundingClientRect();
  box(root).dispatchEvent(
    new MouseEvent("click", { clientX: area.right - 4, clientY: area.bottom - 60, bubbles: true }),
  );
  await frames();
  expect(loads(model)).toHaveLength(0);
});

test("the plot is one stop of the Tab order; arrows walk the points and say them, Enter loads", async () => {
  const { root, model, kernel } = await ready();
  box(root).focus();
  await userEvent.keyboard("{Home}");
  const spoken = () => one(root, ".pc-front-plot [aria-live]").textContent ?? "";
  const first = spoken();
  expect(first).toMatch(/^corpus, activation [\d.]+, cross-entropy 2\.\d+: "/);
  await userEvent.keyboard("{ArrowRight}");
  expect(spoken()).not.toBe(first);
  await userEvent.keyboard("{End}{Enter}");
  await until(() => loads(model).length === 1);
  const far = [...(kernel.front?.candidates ?? [])].sort(
    (a, b) => (b.cross_entropy ?? 0) - (a.cross_entropy ?? 0),
  )[0];
  expect(loads(model)[0]?.candidate).toBe(far?.key);
});

test("a point that is looked at is shown above, and marked in the table", async () => {
  const { root } = await ready();
  const optimised = () => one(root, ".pc-optimised .pc-token-line").textContent;
  const before = optimised();
  box(root).focus();
  press(box(root), "Home");
  await until(() => optimised() !== before);
  expect(all(root, ".pc-candidates tr[data-pointed]")).toHaveLength(1);
  box(root).blur();
  await until(() => optimised() === before);
});

test("the front grows while a search runs, and its table with it", async () => {
  const { root, model, kernel } = await ready({ dreamed: false, pace: 15 });
  named(one(root, ".pc-optimised"), "search").click();
  await until(() => model.kinds().includes("dream"));
  await until(() => (kernel.front?.iteration ?? 0) > 10);
  await until(() => all(root, ".pc-candidates tbody tr").length > 5);
  expect(one(root, ".pc-go").textContent).toBe("pause");
  const value = () => Number(one(root, ".pc-optimised .pc-value").textContent);
  const before = value();
  await until(() => value() > before);
  expect(one(root, ".pc-step-count").textContent).toMatch(/^iteration \d+\/300$/);
});

test("what was changed of a search goes up with its start", async () => {
  const { root, model } = await ready();
  one(root, ".pc-options-button").click();
  const field = (name: string) =>
    all<HTMLInputElement>(root, "input").find((each) =>
      each.getAttribute("aria-label")?.startsWith(`${name}:`),
    ) as HTMLInputElement;
  for (const [name, value] of [
    ["population", "16"],
    ["seconds", "180"],
    ["seed", "3"],
  ] as const) {
    field(name).value = value;
    field(name).dispatchEvent(new Event("change", { bubbles: true }));
  }
  one(root, ".pc-go").click();
  await until(() => model.kinds().includes("dream"));
  const dream = model.sent.find((each) => each.kind === "dream");
  expect(dream).toMatchObject({ again: true, population: 16, seconds: 180, seed: 3 });
  expect(dream).not.toHaveProperty("length");
});

test("greedy search and single tokens join the same plot by their own shapes", async () => {
  const { root, model } = await ready();
  const shapes = () => root.querySelectorAll(".pc-front-svg rect").length;
  expect(shapes()).toBe(0);
  named(root, "greedy search").click();
  await until(() => shapes() === 6);
  named(root, "every single token").click();
  await until(() => model.sent.filter((each) => each.kind === "rivals").length === 2);
  await until(() => one(root, ".pc-prompts-panel .pc-key").textContent?.includes("single token"));
});

test("a candidate without cross-entropy is in the table and not in the plot", async () => {
  const { root, kernel } = await ready();
  const before = root.querySelectorAll(".pc-front-svg circle").length;
  const front = kernel.front;
  if (front === null) throw new Error("no front");
  kernel.front = {
    ...front,
    candidates: [...front.candidates, kernel.candidate(99, "epo", 20, null)],
  };
  kernel.sayFront();
  await until(() => one(root, ".pc-candidates tbody tr").dataset.key === "99");
  expect(root.querySelectorAll(".pc-front-svg circle")).toHaveLength(before);
  expect(one(root, ".pc-candidates tbody tr").textContent).toContain("–");
});

test("rows of the table are walked with arrows, and pressing one loads it", async () => {
  const { root, model } = await ready();
  const rows = all<HTMLButtonElement>(root, ".pc-candidate");
  expect(rows.filter((each) => each.tabIndex === 0)).toHaveLength(1);
  rows[0]?.focus();
  press(rows[0] as Element, "ArrowDown");
  expect(document.activeElement).toBe(rows[1]);
  rows[1]?.click();
  await until(() => loads(model).length === 1);
  expect(String(loads(model)[0]?.candidate)).toBe(rows[1]?.closest("tr")?.dataset.key);
});
