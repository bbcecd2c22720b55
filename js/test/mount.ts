// A view on the test page, with the fake kernel behind it.
import "../src/neuron-clamp.css";
import { onTestFinished, vi } from "vitest";
import view from "../src/neuron-clamp";
import { FakeKernel, FakeModel, type FakeOptions } from "./fake-kernel";

export interface Mounted {
  model: FakeModel;
  kernel: FakeKernel;
  el: HTMLElement;
  root: HTMLElement;
  unmount(): void;
}

export interface MountOptions extends FakeOptions {
  width?: number;
  dark?: boolean;
  /** An exported page: the last picture, and nobody to talk to. */
  saved?: boolean;
  /** Python takes messages and says nothing. */
  silent?: boolean;
}

export async function mount(options: MountOptions = {}): Promise<Mounted> {
  theme(options.dark ?? false);
  const model = new FakeModel(options.saved ? {} : { live: true });
  const kernel = new FakeKernel(model, options);
  if (options.saved) model.traits.snapshot = structuredClone(kernel.snapshot());
  if (options.saved || options.silent) model.onSend = () => undefined;
  const mounted = { model, kernel, ...show(model, options.width) };
  if (!options.silent) await until(() => shown(mounted.root));
  return mounted;
}

/** Another view of the same model, as when a cell's output is shown twice. */
export function show(model: FakeModel, width = 1100) {
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

/** Waits until it holds (a frame, a reply, a timer). */
export async function until(holds: () => unknown): Promise<void> {
  await vi.waitFor(() => {
    if (!holds()) throw new Error(`never held: ${holds}`);
  }, 3000);
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

function shown(root: Element): boolean {
  return root.querySelector(".pc-next tbody tr") !== null;
}
