import { expect, test } from "vitest";
import type { PackedArray } from "../src/messages";
import { decodeBuffers, unpack } from "../src/transport";
import { packed } from "./fake-kernel";

const array = (dtype: PackedArray["dtype"], length: number, buffer = 0): PackedArray => ({
  buffer,
  dtype,
  shape: [length],
});

test("a buffer that starts in the middle of a larger one is read from its own beginning", () => {
  for (const offset of [0, 1, 3, 4, 7]) {
    const { moved } = unpack({ moved: array("float32", 3) }, [packed([1.5, -2, 0.25], offset)]);
    expect([...moved]).toEqual([1.5, -2, 0.25]);
  }
});

test("every dtype of the wire is read, in place, however deep it lies", () => {
  const view = (bytes: number[]) => new DataView(Uint8Array.from([9, ...bytes]).buffer, 1);
  const message = {
    deep: [{ half: array("float16", 3, 0) }],
    double: array("float64", 1, 1),
    bytes: array("uint8", 2, 2),
    whole: array("int32", 1, 3),
    flags: array("bool", 2, 4),
    word: "stays",
  };
  const double = new DataView(new ArrayBuffer(8));
  double.setFloat64(0, 0.1, true);
  const read = unpack(message, [
    view([0x00, 0x3c, 0x00, 0xc0, 0x00, 0x7e]),
    double,
    view([7, 255]),
    view([0xfe, 0xff, 0xff, 0xff]),
    view([1, 0]),
  ]);
  expect([...(read.deep[0]?.half ?? [])]).toEqual([1, -2, Number.NaN]);
  expect(read.double[0]).toBeCloseTo(0.1, 6);
  expect(read.bytes).toEqual(Uint8Array.from([7, 255])); // codes stay bytes
  expect([...read.whole]).toEqual([-2]);
  expect([...read.flags]).toEqual([1, 0]);
  expect(read.word).toBe("stays");
});

test("an empty array is empty, and a buffer of the wrong length is refused", () => {
  expect(unpack({ x: array("float32", 0) }, [new DataView(new ArrayBuffer(0))]).x).toHaveLength(0);
  expect(() => unpack({ x: array("float32", 2) }, [packed([1, 2, 3])])).toThrow(/8 bytes/);
  expect(() => unpack({ x: array("float32", 2) }, [])).toThrow(/none/);
});

test("a saved page's base64 buffers are the comm's", () => {
  const [view] = decodeBuffers([btoa("\x00\x00\x80\x3f")]);
  expect(unpack({ x: array("float32", 1) }, [view as DataView]).x[0]).toBe(1);
});
