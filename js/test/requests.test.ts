import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createRequests, type Kernel, Refused } from "../src/requests";
import { FakeModel } from "./fake-kernel";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function loop(connected = () => true) {
  const model = new FakeModel();
  const ended = new AbortController();
  const kernels: Kernel[] = [];
  const refusals: string[] = [];
  const released: number[] = [];
  const messages: unknown[] = [];
  const requests = createRequests({
    wire: model as never,
    signal: ended.signal,
    connected,
    onKernel: (kernel) => kernels.push(kernel),
    onMessage: (message) => messages.push(message),
    onRefusedEdit: (_key, refused) => refusals.push(refused.message),
    onReleased: (key) => released.push(key),
  });
  const edits = () => model.sent.filter((each) => each.kind === "edit");
  const reply = (index: number, revision: number) =>
    model.say({ kind: "reply", id: model.sent[index]?.id, ok: true, revision, body: null });
  return { model, ended, requests, kernels, refusals, released, messages, edits, reply };
}

test("of many moves one is in flight, and the newest is the next", () => {
  const { requests, edits, reply } = loop();
  for (let value = 1; value <= 40; value++) requests.edit({ key: 1, value, final: value === 40 });
  expect(edits().map((each) => each.value)).toEqual([1]);
  reply(0, 7);
  expect(edits()).toHaveLength(1); // taken, but its result is not there yet
  requests.sawResult(6);
  expect(edits()).toHaveLength(1);
  requests.sawResult(7);
  expect(edits().map((each) => [each.value, each.final])).toEqual([
    [1, false],
    [40, true],
  ]);
});

test("a result that overtakes its reply counts", () => {
  const { requests, edits, reply } = loop();
  requests.edit({ key: 1, value: 1 });
  requests.edit({ key: 1, value: 2 });
  requests.sawResult(3);
  expect(edits()).toHaveLength(1);
  reply(0, 3);
  expect(edits()).toHaveLength(2);
});

test("a waiting edit keeps what earlier ones changed besides the value", () => {
  const { requests, edits, reply } = loop();
  requests.edit({ key: 1, value: 1 });
  requests.edit({ key: 1, muted: true });
  requests.edit({ key: 1, value: 3, final: true });
  reply(0, 1);
  requests.sawResult(1);
  expect(edits()[1]).toMatchObject({ key: 1, value: 3, muted: true, final: true });
});

test("a refused edit says why and lets the next one go", () => {
  const { model, requests, edits, refusals } = loop();
  requests.edit({ key: 1, value: 1 });
  requests.edit({ key: 1, value: 2 });
  model.say({
    kind: "reply",
    id: model.sent[0]?.id,
    ok: false,
    revision: 0,
    error: "No.",
    field: null,
  });
  expect(refusals).toEqual(["No."]);
  expect(edits()).toHaveLength(2);
});

test("an edit whose run failed, or whose result never comes, does not hold up the next", () => {
  const { requests, edits, reply } = loop();
  requests.edit({ key: 1, value: 1 });
  requests.edit({ key: 1, value: 2 });
  reply(0, 5);
  requests.sawFailure(5);
  expect(edits()).toHaveLength(2);
  requests.edit({ key: 1, value: 3 });
  reply(1, 6);
  vi.advanceTimersByTime(10_001);
  expect(edits()).toHaveLength(3);
});

test("what was dragged before a gesture is sent before it, but nothing comes before stop", () => {
  const { model, requests } = loop();
  requests.edit({ key: 1, value: 1 });
  requests.edit({ key: 1, value: 2 });
  requests.ask({ kind: "stop" }).catch(() => undefined);
  requests.ask({ kind: "undo" }).catch(() => undefined);
  expect(model.kinds()).toEqual(["edit", "stop", "edit", "undo"]);
  expect(new Set(model.sent.map((each) => each.id)).size).toBe(4);
});

test("a row is held until the state that knows of its last edit is there", () => {
  const { requests, reply, released } = loop();
  requests.edit({ key: 4, value: 1 });
  expect(requests.holds(4)).toBe(true);
  requests.sawState(8); // pushed before the reply
  expect(requests.holds(4)).toBe(true);
  reply(0, 9);
  expect(requests.holds(4)).toBe(true);
  requests.sawState(9);
  expect(requests.holds(4)).toBe(false);
  expect(released).toEqual([4]);
});

test("replies of another view's requests are not taken", async () => {
  const { model, requests } = loop();
  let answered = false;
  requests.ask({ kind: "undo" }).then(() => {
    answered = true;
  });
  model.say({ kind: "reply", id: 1, ok: true, revision: 1, body: null });
  await vi.advanceTimersByTimeAsync(0);
  expect(answered).toBe(false);
  model.say({ kind: "reply", id: model.sent[0]?.id, ok: true, revision: 1, body: null });
  await vi.advanceTimersByTimeAsync(0);
  expect(answered).toBe(true);
});

test("silence is called busy after two seconds, and ends with the next message", () => {
  const { model, requests, kernels } = loop();
  requests.ask({ kind: "undo" }).catch(() => undefined);
  vi.advanceTimersByTime(1900);
  expect(kernels).toEqual([]);
  vi.advanceTimersByTime(200);
  expect(kernels).toEqual(["busy"]);
  model.say({ kind: "progress", job: "reference", key: null, done: 1, total: 2 });
  expect(kernels).toEqual(["busy", "live"]);
});

test("work that replies when it is done does not make the kernel busy", () => {
  const { requests, kernels } = loop();
  requests.ask({ kind: "rank", by: "direct" }).catch(() => undefined);
  vi.advanceTimersByTime(60_000);
  expect(kernels).toEqual([]);
});

test("a lost kernel refuses what waits and what comes, in a sentence", async () => {
  let alive = true;
  const { model, requests, kernels } = loop(() => alive);
  const waiting = requests.ask({ kind: "undo" });
  alive = false;
  model.trigger("comm_live_update");
  await expect(waiting).rejects.toThrow(/No kernel/);
  expect(kernels).toEqual(["gone"]);
  await expect(requests.ask({ kind: "redo" })).rejects.toBeInstanceOf(Refused);
  expect(model.kinds()).toEqual(["undo"]);
  alive = true;
  model.trigger("comm_live_update");
  await vi.advanceTimersByTimeAsync(0);
  expect(kernels).toEqual(["gone", "asking"]);
});

test("the host's own word about the comm counts more than the page's looks", async () => {
  const { model, kernels } = loop(() => true);
  for (const listener of model.listeners.get("comm_live_update") ?? []) {
    (listener as (this: unknown) => void).call({ model: { comm_live: false } });
  }
  expect(kernels).toEqual(["gone"]);
});

test("a comm that throws is a lost kernel", async () => {
  const { model, requests, kernels } = loop();
  model.onSend = () => {
    throw new Error("Cannot send on a disposed comm");
  };
  await expect(requests.ask({ kind: "undo" })).rejects.toThrow(/No kernel/);
  expect(kernels).toEqual(["gone"]);
});

test("after its signal ends the loop listens to nothing and no timer is left", () => {
  const { model, ended, requests, kernels } = loop();
  requests.edit({ key: 1, value: 1 });
  requests.ask({ kind: "undo" }).catch(() => undefined);
  expect(model.count()).toBeGreaterThan(0);
  ended.abort();
  expect(model.count()).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
  vi.advanceTimersByTime(60_000);
  expect(kernels).toEqual([]);
});
