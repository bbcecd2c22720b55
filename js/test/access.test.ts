import axe from "axe-core";
import { expect, test } from "vitest";
import { row } from "./fake-kernel";
import {
  all,
  mount,
  mountAblator,
  mountAtlas,
  mountMaximizer,
  named,
  one,
  still,
  until,
} from "./mount";

const ROWS = [
  row({ key: 1, massive: true }),
  row({ key: 2, address: "L5.N99", op: "scale", value: 0.5, positions: "", muted: true }),
  row({ key: 3, address: "L20.N1017", op: "ablate", value: null, how: "mean", range: null }),
];

/** What axe finds serious or worse is nothing. */
async function nothingSerious(el: HTMLElement): Promise<void> {
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
        `${each.id}: ${each.nodes.map((node) => `${node.html.slice(0, 160)} ${node.failureSummary}`).join("\n")}`,
    ),
  ).toEqual([]);
}

/** Everything that can be pressed is reached with Tab, and has a name and 24 pixels. */
function pressable(root: HTMLElement): void {
  for (const part of all<HTMLButtonElement>(root, "button, input, select, textarea")) {
    if (part.offsetParent === null || part.matches(".pc-hidden")) continue;
    if (!part.checkVisibility({ visibilityProperty: true })) continue;
    // Of what arrows walk through, one is a stop of the Tab order.
    const walked = part.closest('[role="tablist"], [data-roving]');
    const stops = walked?.querySelectorAll('[tabindex="0"]').length;
    if (stops !== undefined) expect(stops, part.outerHTML).toBe(1);
    else expect(part.tabIndex, part.outerHTML).toBeGreaterThanOrEqual(0);
    const label = part.getAttribute("aria-label") ?? part.textContent?.trim() ?? "";
    const outer = part.closest("label")?.textContent ?? "";
    expect((label + outer).length, part.outerHTML).toBeGreaterThan(0);
    const box = (part.closest("label") ?? part).getBoundingClientRect();
    const small = part.matches(".pc-mute, .pc-grip");
    expect(box.height, part.outerHTML).toBeGreaterThanOrEqual(small ? 14 : 24);
  }
}

for (const dark of [false, true]) {
  for (const saved of [false, true]) {
    const where = `${dark ? "dark" : "light"}${saved ? ", saved" : ""}`;
    test(`axe finds nothing serious (${where})`, async () => {
      const { root, el } = await mount({
        rows: ROWS,
        dark,
        saved,
        state: { selected: 1, notes: ["A note."] },
      });
      if (!saved) {
        named(root, "activation").click();
        await until(() => all(root, ".pc-pick").length > 0);
      }
      await still();
      await nothingSerious(el);
    });
  }
}

test("everything that can be pressed can be reached with Tab and has a name and 24 pixels", async () => {
  const { root } = await mount({ rows: ROWS });
  pressable(root);
});

test("a focused control shows it", async () => {
  const { root } = await mount({ rows: ROWS });
  for (const selector of [".pc-slider", ".pc-address", ".pc-chip", ".pc-select", ".pc-box"]) {
    const part = all(root, selector).find(
      (each) => each.tabIndex >= 0 && each.offsetParent !== null,
    );
    part?.focus({ focusVisible: true } as FocusOptions);
    expect(getComputedStyle(part as Element).outlineStyle, selector).toBe("solid");
  }
});

test("chips are one stop of the Tab order, and arrows walk them", async () => {
  const { root } = await mount();
  const chips = all(root, ".pc-chip");
  expect(chips.filter((chip) => chip.tabIndex === 0)).toHaveLength(1);
  chips[0]?.focus();
  for (const [key, index] of [
    ["ArrowRight", 1],
    ["ArrowRight", 2],
    ["End", 9],
    ["ArrowLeft", 8],
    ["Home", 0],
  ] as const) {
    document.activeElement?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    expect(document.activeElement).toBe(chips[index]);
  }
  chips[0]?.dispatchEvent(new KeyboardEvent("keydown", { key: " ", bubbles: true }));
  expect(chips[0]?.getAttribute("aria-selected")).toBe("true");
});

for (const dark of [false, true]) {
  for (const saved of [false, true]) {
    test(`CircuitAblator: axe finds nothing serious (${dark ? "dark" : "light"}${saved ? ", saved" : ""})`, async () => {
      const { root, el } = await mountAblator({
        dark,
        saved,
        found: true,
        curved: true,
        patched: true,
        kvHeads: 1,
        size: 40,
        rows: [
          row({ key: 3, address: "L1.H1", op: "ablate", value: null, how: "mean", range: null }),
        ],
        selection: { notes: [{ address: "L1.mlp", pinned: true, name: "mover", group: "late" }] },
      });
      await until(() => all(root, ".pc-node").length > 2);
      if (!saved) {
        named(root, "list").click();
        const [first] = all(root, ".pc-components .pc-address");
        first?.click();
        await until(() => one(root, ".pc-drill .pc-address-title").textContent !== "");
        named(root, `Look inside ${first?.textContent}`).click();
        await until(() => all(root, ".pc-drill .pc-chip").length > 0);
        named(all(root, ".pc-circuit-list")[0] as HTMLElement, "mover").click();
      }
      await still();
      await nothingSerious(el);
      if (!saved) pressable(root);
    });
  }
}

test("CircuitAblator: a focused control shows it", async () => {
  const { root } = await mountAblator({ found: true, size: 20 });
  await until(() => all(root, ".pc-node").length > 2);
  for (const selector of [".pc-heat-cells", ".pc-size-slider", ".pc-components .pc-address"]) {
    const part = all(root, selector)[0];
    part?.focus({ focusVisible: true } as FocusOptions);
    expect(getComputedStyle(part as Element).outlineStyle, selector).toBe("solid");
  }
  const node = all(root, '.pc-node[tabindex="0"]')[0];
  const wide = () => Number.parseFloat(getComputedStyle(one(node as Element, "rect")).strokeWidth);
  const before = wide();
  node?.focus({ focusVisible: true } as FocusOptions);
  expect(wide()).toBeGreaterThan(before);
});

for (const dark of [false, true]) {
  for (const family of ["image", "prompt"] as const) {
    for (const saved of dark ? [false] : [false, true]) {
      const where = `${family}, ${dark ? "dark" : "light"}${saved ? ", saved" : ""}`;
      test(`ActivationMaximizer: axe finds nothing serious (${where})`, async () => {
        const { root, el } = await mountMaximizer({
          dark,
          saved,
          family,
          side: 24,
          facets: family === "image" ? 3 : 0,
          dreamed: family === "prompt",
          measured: true,
          own: true,
          mattered: true,
          discriminated: family === "image",
        });
        one(root, ".pc-options-button").click();
        if (!saved) named(root, "+ term").click();
        for (const tab of all(root, '[role="tab"]').filter((each) => !each.hidden)) {
          tab.click();
          await still();
          await nothingSerious(el);
          if (!saved) pressable(root);
        }
      });
    }
  }
}

test("ActivationMaximizer: a focused control shows it", async () => {
  const { root } = await mountMaximizer({ family: "prompt", dreamed: true, measured: true });
  await until(() => all(root, ".pc-candidate").length > 3);
  for (const selector of [
    ".pc-go",
    ".pc-front-box",
    ".pc-candidate",
    ".pc-tab-name",
    ".pc-select",
  ]) {
    const part = all(root, selector).find((each) => each.tabIndex >= 0);
    part?.focus({ focusVisible: true } as FocusOptions);
    expect(getComputedStyle(part as Element).outlineStyle, selector).toBe("solid");
  }
});

for (const dark of [false, true]) {
  for (const saved of [false, true]) {
    test(`NeuronAtlas: axe finds nothing serious (${dark ? "dark" : "light"}${saved ? ", saved" : ""})`, async () => {
      const { root, el } = await mountAtlas({ dark, saved, card: "L12.N304", weighed: true });
      await until(() => all(root, ".pc-neuron-row[data-address]").length > 5);
      if (!saved) {
        all(root, ".pc-atlas-example")[0]?.click();
        await until(() => all(root, ".pc-atlas-text[data-whole]").length === 1);
      }
      await nothingSerious(el);
      if (!saved) pressable(root);
    });
  }
}

test("NeuronAtlas: a focused control shows it", async () => {
  const { root } = await mountAtlas({ card: "L12.N304" });
  await until(() => all(root, ".pc-atlas-example").length > 3);
  for (const selector of [
    ".pc-neuron-scroll",
    ".pc-column-head",
    ".pc-decoded-token",
    ".pc-near .pc-address",
    ".pc-atlas-example",
  ]) {
    const part = all(root, selector).find((each) => each.tabIndex >= 0);
    part?.focus({ focusVisible: true } as FocusOptions);
    expect(getComputedStyle(part as Element).outlineStyle, selector).toBe("solid");
  }
});
