// Elements without a framework. Text is always text: nothing here parses markup.

type Attribute = string | number | boolean | null | undefined;
type Child = Node | string | null;

/** An element with attributes (false, null and undefined leave one out) and children. */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Record<string, Attribute> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  set(element, attributes);
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

/** Sets or takes away attributes, and touches nothing that is as it should be. */
export function set(element: Element, attributes: Record<string, Attribute>): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) {
      if (element.hasAttribute(name)) element.removeAttribute(name);
    } else {
      const text = value === true ? "" : String(value);
      if (element.getAttribute(name) !== text) element.setAttribute(name, text);
    }
  }
}

/** An element of an SVG. */
export function s<Tag extends keyof SVGElementTagNameMap>(
  tag: Tag,
  attributes: Record<string, Attribute> = {},
  ...children: (Node | string)[]
): SVGElementTagNameMap[Tag] {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  set(element, attributes);
  element.append(...children);
  return element;
}

/** Replaces an element's text only when it differs, so that selections and live regions rest. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** A button with a word on it. */
export function button(
  label: string,
  attributes: Record<string, Attribute>,
  act: (event: MouseEvent) => void,
  signal: AbortSignal,
): HTMLButtonElement {
  const element = h("button", { type: "button", class: "pc-button", ...attributes }, label);
  element.addEventListener("click", act, { signal });
  return element;
}

/** A select; the labels are what a person reads. */
export function select(
  choices: readonly (readonly [value: string, label: string])[],
  attributes: Record<string, Attribute>,
  act: (value: string) => void,
  signal: AbortSignal,
): HTMLSelectElement {
  const element = h("select", { class: "pc-select", ...attributes });
  for (const [value, label] of choices) element.append(h("option", { value }, label));
  element.addEventListener("change", () => act(element.value), { signal });
  return element;
}

/**
 * Makes `parent`'s children those of `items`, in order: what stays keeps its element, and an
 * element already in its place is not touched (a slider that is being dragged survives).
 */
export function keyed<Item, Part extends { element: Element; dispose?(): void }>(
  parent: Element,
  parts: Map<string | number, Part>,
  items: readonly Item[],
  keyOf: (item: Item, index: number) => string | number,
  create: (item: Item) => Part,
): Part[] {
  const wanted = new Set(items.map(keyOf));
  for (const [key, part] of parts) {
    if (wanted.has(key)) continue;
    part.element.remove();
    part.dispose?.();
    parts.delete(key);
  }
  const result: Part[] = [];
  let at: Element | null = parent.firstElementChild;
  items.forEach((item, index) => {
    const key = keyOf(item, index);
    let part = parts.get(key);
    if (part === undefined) {
      part = create(item);
      parts.set(key, part);
    }
    if (part.element === at) at = at.nextElementSibling;
    else parent.insertBefore(part.element, at);
    result.push(part);
  });
  return result;
}

/** A signal that ends with its parent's, and can be ended before. */
export function childSignal(parent: AbortSignal): { signal: AbortSignal; abort: () => void } {
  const own = new AbortController();
  return { signal: AbortSignal.any([parent, own.signal]), abort: () => own.abort() };
}

/**
 * A token's text as chips show it: a space is a faint middle dot, a newline a return sign. The
 * real characters stay in the text, so that copying a token copies the token.
 */
export function tokenText(text: string): (Node | string)[] {
  const parts: (Node | string)[] = [];
  for (const piece of text.split(/([ \n\r\t])/)) {
    if (piece === "") continue;
    const mark = { " ": "pc-space", "\n": "pc-newline", "\r": "pc-return", "\t": "pc-tab" }[piece];
    parts.push(mark === undefined ? piece : h("span", { class: mark }, piece));
  }
  return parts.length > 0 ? parts : [h("span", { class: "pc-empty" })];
}

/** The focused element, also inside a shadow root. */
export function focused(within: Element): Element | null {
  const root = within.getRootNode();
  return root instanceof Document || root instanceof ShadowRoot ? root.activeElement : null;
}

/** Copies text; false where the host forbids it. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
