// Arrays travel as binary buffers beside the JSON: {buffer, dtype, shape} becomes a typed array.
import type { PackedArray } from "./messages";

/** An array of a message, unpacked. */
export type Numbers = Float32Array | Uint8Array;

/** The fields whose bytes are codes, pixels or files, and not numbers. */
type AsBytes = "cells" | "thumbs" | "pixels" | "data" | "scatter";

/** A message's type once its arrays are unpacked: numbers, of some fields bytes. */
export type Unpacked<T> = T extends PackedArray
  ? Float32Array
  : T extends (infer Item)[]
    ? Unpacked<Item>[]
    : T extends object
      ? { [Key in keyof T]: Key extends AsBytes ? Bytes<T[Key]> : Unpacked<T[Key]> }
      : T;
type Bytes<T> = T extends PackedArray ? Uint8Array : T;

const BYTES = { float64: 8, float32: 4, int32: 4, float16: 2, uint8: 1, bool: 1 } as const;

/**
 * The same message with every packed array replaced by its numbers.
 *
 * Throws a RangeError when a buffer is missing or has another length than its shape says.
 */
export function unpack<T>(message: T, buffers: readonly DataView[]): Unpacked<T> {
  return walk(message, buffers) as Unpacked<T>;
}

/** The buffers of a saved page: base64, as a comm would have delivered them. */
export function decodeBuffers(texts: readonly string[]): DataView[] {
  return texts.map((text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new DataView(bytes.buffer);
  });
}

function walk(value: unknown, buffers: readonly DataView[]): unknown {
  if (Array.isArray(value)) return value.map((item) => walk(item, buffers));
  if (value === null || typeof value !== "object") return value;
  if (isPacked(value)) return numbers(value, buffers);
  const result: Record<string, unknown> = {};
  for (const [name, part] of Object.entries(value)) result[name] = walk(part, buffers);
  return result;
}

function isPacked(value: object): value is PackedArray {
  return "buffer" in value && "dtype" in value && "shape" in value;
}

function numbers(packed: PackedArray, buffers: readonly DataView[]): Numbers {
  const view = buffers[packed.buffer];
  const length = packed.shape.reduce((product, size) => product * size, 1);
  const width = BYTES[packed.dtype];
  if (view === undefined || view.byteLength !== length * width) {
    throw new RangeError(
      `Array ${packed.buffer} should have ${length * width} bytes for ${packed.dtype} ` +
        `[${packed.shape.join(", ")}]; it has ${view?.byteLength ?? "none"}.`,
    );
  }
  // Tiles are megabytes: bytes stay bytes, copied in one go, and let go of the message's buffer.
  if (packed.dtype === "uint8") {
    return new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice();
  }
  // The view may start anywhere in a larger buffer, at an offset no typed array accepts: read
  // through the DataView, which knows its own byteOffset.
  const result = new Float32Array(length);
  for (let i = 0; i < length; i++) result[i] = READ[packed.dtype](view, i * width);
  return result;
}

const READ: Record<
  Exclude<PackedArray["dtype"], "uint8">,
  (view: DataView, at: number) => number
> = {
  float64: (view, at) => view.getFloat64(at, true),
  float32: (view, at) => view.getFloat32(at, true),
  int32: (view, at) => view.getInt32(at, true),
  float16: (view, at) => half(view.getUint16(at, true)),
  bool: (view, at) => view.getUint8(at),
};

function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
