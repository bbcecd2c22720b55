import { expect, test } from "vitest";
import { LIGHT } from "../src/colour";
import { matterPanel } from "../src/matter-panel";
import { emptyMaximizer } from "../src/maximizer-picture";
import type { Matters } from "../src/messages";
import { one } from "./mount";

function said(changes: Partial<Matters>): string {
  const panel = matterPanel(new AbortController().signal, () => undefined);
  const picture = emptyMaximizer();
  const matter: Matters = {
    objective: "conv[fur]",
    unit: "conv[fur]",
    subject: "the picture at step 256",
    how: "mean",
    activation: 2,
    corpus_maximum: null,
    kl: 0.5,
    measured: "KL(as it is || ablated) of the prediction, nats",
    controls: [0, 1, 2].map((at) => ({ address: `conv[random ${at}]`, kl: 0.1 * at })),
    note: "",
    ...changes,
  };
  Object.assign(picture, { state: { objective: "conv[fur]", modes: [] }, matter });
  panel.update(picture, LIGHT);
  return one(panel.element, ".pc-matter-sentence").textContent ?? "";
}

test("a direction stands beside random directions, a unit beside random units", () => {
  expect(said({})).toBe(
    "Ablated to its mean, conv[fur] changes the output by 0.500, more than each of the 3 random directions of its layer (their median is 0.100).",
  );
  expect(said({ kl: 0.15 })).toContain("and 1 of the 3 random directions of its layer change it");
  const controls = [3, 5].map((at) => ({ address: `conv:c${at}`, kl: 0.1 }));
  expect(said({ controls })).toContain("more than each of the 2 random units of its layer");
  const mixed = [{ address: "conv:c3, conv[random 0]", kl: 0.1 }];
  expect(said({ controls: mixed })).toContain("more than each of the 1 random units");
});
