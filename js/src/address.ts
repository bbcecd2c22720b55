// An address as something to take hold of: a button that can be dragged onto the stack and copied.
import { button, copy } from "./dom";

/** What is dragged besides its text. */
export const ADDRESS_TYPE = "application/x-patchclamp-address";

/** What an address is put into when it is dragged. */
export function carry(event: DragEvent, address: string): void {
  event.dataTransfer?.setData(ADDRESS_TYPE, address);
  event.dataTransfer?.setData("text/plain", address);
}

/** Lets addresses be dropped on an element. */
export function acceptAddresses(
  element: HTMLElement,
  take: (address: string) => void,
  signal: AbortSignal,
): void {
  element.addEventListener(
    "dragover",
    (event) => {
      if (event.dataTransfer?.types.includes(ADDRESS_TYPE)) event.preventDefault();
    },
    { signal },
  );
  element.addEventListener(
    "drop",
    (event) => {
      const address = event.dataTransfer?.getData(ADDRESS_TYPE);
      if (!address) return;
      event.preventDefault();
      take(address);
    },
    { signal },
  );
}

/** A button with an address on it: click chooses, drag carries, Ctrl+C copies. */
export function addressButton(
  address: string,
  act: (event: MouseEvent) => void,
  signal: AbortSignal,
): HTMLButtonElement {
  const element = button(address, { class: "pc-button pc-address", draggable: true }, act, signal);
  element.addEventListener("dragstart", (event) => carry(event, address), { signal });
  element.addEventListener(
    "keydown",
    (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "c") return;
      if (!document.getSelection()?.isCollapsed) return;
      event.preventDefault();
      void copy(address);
    },
    { signal },
  );
  return element;
}
