// A view on the test page, with its fake kernel behind it.
import "../src/activation-maximizer.css";
import "../src/attention-inspector.css";
import "../src/circuit-ablator.css";
import "../src/neuron-atlas.css";
import "../src/neuron-clamp.css";
import { onTestFinished, vi } from "vitest";
import maximizer from "../src/activation-maximizer";
import inspector from "../src/attention-inspector";
import ablator from "../src/circuit-ablator";
import atlas from "../src/neuron-atlas";
import clamp from "../src/neuron-clamp";
import { FakeAblator, type FakeAblatorOptions } from "./fake-ablator";
import { FakeAtlas, type FakeAtlasOptions } from "./fake-atlas";
import { FakeInspector, type FakeInspectorOptions } from "./fake-inspector";
import { FakeKernel, FakeModel, type FakeOptions } from "./fake-kernel";
import { FakeMaximizer, type FakeMaximizerOptions } from "./fake-maximizer";

export interface Mounted {
  model: FakeModel;
  kernel: FakeKernel;
  el: HTMLElement;
  root: HTMLElement;
  unmount(): void;
}

interface HowShown {
  width?: number;
  dark?: boolean;
  /** An exported page: the last picture, and nobody to talk to. */
  saved?: boolean;
  /** Python takes messages and says nothing. */
  silent?: boolean;
}
export interface MountOptions extends FakeOptions, HowShown {}
export interface InspectorOptions extends FakeInspectorOptions, HowShown {}
export interface AblatorOptions extends FakeAblatorOptions, HowShown {}
export interface MaximizerOptions extends FakeMaximizerOptions, HowShown {}
export interface AtlasOptions extends FakeAtlasOptions, HowShown {}

export async function mount(options: MountOptions = {}): Promise<Mounted> {
  const model = new FakeModel(options.saved ? {} : { live: true });
  const kernel = new FakeKernel(model, options);
  const mounted = { model, kernel, ...start(clamp, model, kernel, options) };
  if (!options.silent) await until(() => mounted.root.querySelector(".pc-next tbody tr") !== null);
  return mounted;
}

export async function mountInspector(
  options: InspectorOptions = {},
): Promise<Mounted & { kernel: FakeInspector }> {
  const model = new FakeModel(options.saved ? {} : { live: true });
  const kernel = new FakeInspector(model, options);
  const mounted = { model, kernel, ...start(inspector, model, kernel, options) };
  if (!options.silent) await until(() => !one(mounted.root, ".pc-body").hidden);
  return mounted;
}

export async function mountAblator(
  options: AblatorOptions = {},
): Promise<Mounted & { kernel: FakeAblator }> {
  const model = new FakeModel(options.saved ? {} : { live: true });
  const kernel = new FakeAblator(model, options);
  const mounted = { model, kernel, ...start(ablator, model, kernel, options) };
  if (!options.silent) await until(() => !one(mounted.root, ".pc-body").hidden);
  return mounted;
}

export async function mountMaximizer(
  options: MaximizerOptions = {},
): Promise<Omit<Mounted, "kernel"> & { kernel: FakeMaximizer }> {
  const model = new FakeModel(options.saved ? {} : { live: true });
  const kernel = new FakeMaximizer(model, options);
  const mounted = { model, kernel, ...start(maximizer, model, kernel, options) };
  if (!options.silent) await until(() => !one(mounted.root, ".pc-body").hidden);
  return mounted;
}

export async function mountAtlas(
  options: AtlasOptions = {},
): Promise<Omit<Mounted, "kernel"> & { kernel: FakeAtlas }> {
  const model = new FakeModel(options.saved ? {} : { live: true });
  const kernel = new FakeAtlas(model, options);
  const mounted = { model, kernel, ...start(atlas, model, kernel, options) };
  if (!options.silent) await until(() => !one(mounted.root, ".pc-body").hidden);
  return mounted;
}

function start(
  view: typeof clamp,
  model: FakeModel,
  kernel: FakeKernel | FakeMaximizer | FakeAtlas,
  options: HowShown,
) {
  theme(options.dark ?? false);
  if (options.saved) model.traits.snapshot = structuredClone(kernel.snapshot());
  if (options.saved || options.silent) model.onSend = () => undefined;
  return show(model, options.width, view);
}

/** Another view of the same model, as when a cell's output is shown twice. */
export function show(model: FakeModel, width = 1100, view: typeof clamp = clamp) {
  const el = document.createElement("div");
  el.style.width = `${width}px`;
  document.body.append(el);
  const controller = new AbortController();
  view.render({ model: model as never, el, signal: controller.signal });
  const unmount = () => {
    controller.abort();
    el.remove();
  };
  onTestFinished(unmount);
  return { el, root: el.querySelector(".pc") as HTMLElement, unmount };
}

export function theme(dark: boolean): void {
  document.body.dataset.jpThemeLight = dark ? "false" : "true";
  document.body.style.background = dark ? "#111" : "#fff";
  for (const [name, light, night] of [
    ["--jp-layout-color0", "#fff", "#111"],
    ["--jp-layout-color1", "#fff", "#212121"],
    ["--jp-layout-color2", "#eee", "#424242"],
    ["--jp-ui-font-color0", "#000", "#fff"],
    ["--jp-border-color2", "#e0e0e0", "#424242"],
    ["--jp-brand-color1", "#1976d2", "#2196f3"],
  ] as const) {
    document.body.style.setProperty(name, dark ? night : light);
  }
}

/** Waits until it holds (a frame, a reply, a timer), however busy the machine is. */
export async function until(holds: () => unknown): Promise<void> {
  await vi.waitFor(() => {
    if (!holds()) throw new Error(`never held: ${holds}`);
  }, 60_000);
}

/** Waits until colours and places that change are where they go. */
export async function still(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((done) => requestAnimationFrame(done));
  await until(() => !document.getAnimations().some((each) => each instanceof CSSTransition));
}

export function all<T extends HTMLElement = HTMLElement>(root: Element, selector: string): T[] {
  return [...root.querySelectorAll<T>(selector)];
}

export function one<T extends HTMLElement = HTMLElement>(root: Element, selector: string): T {
  const found = root.querySelector<T>(selector);
  if (found === null) throw new Error(`no ${selector}`);
  return found;
}

/** The button, field or list that assistive technology would find by this name. */
export function named<T extends HTMLElement = HTMLButtonElement>(root: Element, name: string): T {
  const found = all<T>(root, "button, input, select, textarea").find(
    (each) => (each.getAttribute("aria-label") ?? each.textContent) === name,
  );
  if (found === undefined) throw new Error(`nothing is called ${name}`);
  return found;
}

export function press(target: Element, key: string, init: KeyboardEventInit = {}): KeyboardEvent {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...init });
  target.dispatchEvent(event);
  return event;
}

/** Moves a slider as a pointer does: down, many moves, up. */
export function hold(slider: HTMLInputElement): (value: number) => void {
  slider.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true }));
  return (value) => {
    slider.value = String(value);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  };
}

export function letGo(): void {
  document.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
}
