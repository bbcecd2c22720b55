// Patterns as they travel: tiles of one byte a cell, decoded, kept within a bound of memory, and
// read as numbers. `views/messages/attention_inspector.py` says what the bytes mean.
import type { AttentionState, HeadBody, Stamps, TilesBody } from "./messages";
import type { Unpacked } from "./transport";

/** Rows and columns of a tile. */
export const TILE = 128;

export type Look = AttentionState["look"];
export type Mode = AttentionState["mode"];
export type Coding = TilesBody["coding"];

/** From the first to before the second. */
export type Span = readonly [from: number, to: number];
/** Rows and columns of a tile, counted in tiles. */
export type Place = readonly [row: number, column: number];
export interface Cell {
  destination: number;
  source: number;
}
export interface Area {
  destinations: Span;
  sources: Span;
}

/** Which pattern. Of a difference the mode counts too; the other looks are kept as weights. */
export interface PatternName {
  layer: number;
  head: number;
  look: Look;
  mode: Mode;
  /** The side's stamp, of a difference both: see `stampOf`. */
  stamp: string;
}

/** One tile, unpacked: what it is at row r, column c of itself is `codes[r * columns + c]`. */
export interface Tile {
  rows: number;
  columns: number;
  coding: Coding;
  peak: number;
  codes: Uint8Array;
  /** Whether a cell of it is not a number. */
  holes: boolean;
}

/** What turns weights into the mode looked at; null where the tiles hold it already. */
export interface Factors {
  /** For each source; null for weights. */
  column: Float32Array | null;
  /** For each destination; null for all 1. */
  row: Float32Array | null;
}

/** What numbers the 256 codes stand for; of "signed", in multiples of the tile's peak. */
export function codeTable(coding: Coding): Float32Array {
  return TABLES[coding];
}

const NOT_A_NUMBER = 255;
const ZERO = { share: 0, signed: 128 } as const;

const SHARE = Float32Array.from({ length: 256 }, (_, code) => {
  if (code === ZERO.share) return 0;
  if (code === NOT_A_NUMBER) return Number.NaN;
  return 1e-6 ** (1 - (code - 1) / 253);
});

const SIGNED = Float32Array.from({ length: 256 }, (_, code) => {
  if (code === ZERO.signed) return 0;
  const steps = Math.abs(code - ZERO.signed);
  if (code === NOT_A_NUMBER || steps > 126) return Number.NaN; // 0 and 1 stand for nothing
  return Math.sign(code - ZERO.signed) * 1e-4 ** (1 - steps / 126);
});

const TABLES: Record<Coding, Float32Array> = { share: SHARE, signed: SIGNED };

/** Whether a pattern has values below zero, and is drawn in red and blue. */
export function isSigned(look: Look, mode: Mode): boolean {
  return isDifference(look) || mode === "contribution";
}

/** Whether its tiles are of a difference, and sent in the mode looked at. */
export function isDifference(look: Look): boolean {
  return look === "difference" || look === "second-difference";
}

/** The stamp that tiles of this look have now; null without a second prompt. */
export function stampOf(look: Look, stamps: Stamps): string | null {
  const { now, before, second } = stamps;
  switch (look) {
    case "now":
      return now;
    case "before":
      return before;
    case "difference":
      return `${now}-${before}`;
    case "second":
      return second;
    case "second-difference":
      return second === null ? null : `${now}-${second}`;
  }
}

/** The factors that a head's body gives for a look and mode. */
export function factorsOf(body: Unpacked<HeadBody> | null, look: Look, mode: Mode): Factors | null {
  if (isDifference(look) || mode === "weight") return { column: null, row: null };
  if (body === null) return null;
  if (mode === "value") return { column: body.value, row: null };
  return { column: body.contribution, row: body.scale };
}

/**
 * Decoded tiles of all heads looked at lately.
 *
 * Keeps to `bytes`: what was not read for longest goes first.
 */
export interface TileCache {
  /** How many bytes it holds. */
  readonly bytes: number;
  /**
   * Takes a reply in. Throws a RangeError when the bytes are not those of its tiles, and then
   * keeps nothing of it.
   */
  put(body: Unpacked<TilesBody>, length: number, causal: boolean): void;
  tile(name: PatternName, place: Place): Tile | undefined;
  /** Forgets patterns whose stamp is none of these. */
  keep(stamps: readonly string[]): void;
}
export function tileCache(bytes: number = CACHE_BYTES): TileCache {
  // A Map keeps the order in which keys were put in: what is read is put in again, and what is
  // first was not read for longest.
  const tiles = new Map<string, Tile>();
  let held = 0;

  const forget = (key: string) => {
    held -= tiles.get(key)?.codes.byteLength ?? 0;
    tiles.delete(key);
  };

  return {
    get bytes() {
      return held;
    },
    put(body, length, causal) {
      for (const [place, tile] of tilesOf(body, length, causal)) {
        const key = keyOf(body, place);
        forget(key);
        tiles.set(key, tile);
        held += tile.codes.byteLength;
      }
      for (const key of tiles.keys()) {
        if (held <= bytes) break;
        forget(key);
      }
    },
    tile(name, place) {
      const key = keyOf(name, place);
      const tile = tiles.get(key);
      if (tile === undefined) return undefined;
      tiles.delete(key);
      tiles.set(key, tile);
      return tile;
    },
    keep(stamps) {
      for (const key of tiles.keys()) {
        if (!stamps.includes(key.slice(0, key.indexOf(" ")))) forget(key);
      }
    },
  };
}

const CACHE_BYTES = 32 * 1024 * 1024;

// A stamp is a word of the kernel's; should it ever hold a space, it must not look like two parts.
function keyOf(name: PatternName, [row, column]: Place): string {
  const { stamp, look, mode, layer, head } = name;
  const kept = isDifference(look) ? mode : "weight";
  return `${stamp.replaceAll(" ", "_")} ${look} ${kept} ${layer}.${head} ${row}.${column}`;
}

function tilesOf(
  body: Unpacked<TilesBody>,
  length: number,
  causal: boolean,
): (readonly [Place, Tile])[] {
  const { places, peaks, coding, cells } = body;
  const last = Math.ceil(length / TILE);
  let at = 0;
  const result = places.map((place, i) => {
    const [row = -1, column = -1] = place;
    if (!(row >= 0 && row < last && column >= 0 && column < (causal ? row + 1 : last))) {
      throw new RangeError(`Of ${length} tokens there is no tile ${row}, ${column}.`);
    }
    const rows = Math.min(TILE, length - row * TILE);
    const columns = Math.min(TILE, length - column * TILE);
    const packed = causal && row === column;
    const size = packed ? (rows * (rows + 1)) / 2 : rows * columns;
    const sent = cells.subarray(at, at + size);
    at += size;
    const codes = packed ? unpackTriangle(sent, rows, ZERO[coding]) : sent.slice();
    const holes = codes.includes(NOT_A_NUMBER);
    const tile: Tile = { rows, columns, coding, peak: peaks[i] ?? 1, codes, holes };
    return [[row, column], tile] as const;
  });
  if (at !== cells.length) {
    throw new RangeError(`${places.length} tiles are ${at} bytes here; ${cells.length} came.`);
  }
  return result;
}

/** A lower triangle's rows, one after the other, as a whole square with `empty` above. */
export function unpackTriangle(packed: Uint8Array, size: number, empty: number): Uint8Array {
  const square = new Uint8Array(size * size).fill(empty);
  for (let row = 0, at = 0; row < size; row++) {
    square.set(packed.subarray(at, at + row + 1), row * size);
    at += row + 1;
  }
  return square;
}

/** A pattern read through the cache: what is not there yet is null. */
export interface PatternCells {
  readonly name: PatternName;
  readonly length: number;
  readonly causal: boolean;
  readonly factors: Factors;
  tile(place: Place): Tile | undefined;
  /** NaN where it is not a number, 0 above the diagonal of a causal model, null while missing. */
  valueAt(destination: number, source: number): number | null;
  /** What this destination reads of every source; null while a tile of it is missing. */
  row(destination: number): Float32Array | null;
  /** What every destination reads of this source; null while a tile of it is missing. */
  column(source: number): Float32Array | null;
  /** The tiles of this area that are not there, row by row. All, without an area. */
  missing(area?: Area): Place[];
}

/** `name.mode` says what is read; weights are multiplied by `factors` on the way out. */
export function patternCells(
  cache: TileCache,
  name: PatternName,
  length: number,
  causal: boolean,
  factors: Factors,
): PatternCells {
  const tile = (place: Place) => cache.tile(name, place);
  const factor = (destination: number, source: number) =>
    (factors.column?.[source] ?? 1) * (factors.row?.[destination] ?? 1);
  const read = (from: Tile, row: number, column: number) => {
    const value = TABLES[from.coding][from.codes[row * from.columns + column] as number];
    return (value as number) * from.peak;
  };
  const inside = (at: number) => at >= 0 && at < length;
  const beyond = (from: number) => (causal ? from + 1 : length);

  return {
    name,
    length,
    causal,
    factors,
    tile,
    valueAt(destination, source) {
      if (!inside(destination) || !inside(source)) return null;
      if (source >= beyond(destination)) return 0;
      const from = tile([Math.floor(destination / TILE), Math.floor(source / TILE)]);
      if (from === undefined) return null;
      return read(from, destination % TILE, source % TILE) * factor(destination, source);
    },
    row(destination) {
      if (!inside(destination)) return null;
      const values = new Float32Array(length);
      for (let start = 0; start < beyond(destination); start += TILE) {
        const from = tile([Math.floor(destination / TILE), start / TILE]);
        if (from === undefined) return null;
        const end = Math.min(start + from.columns, beyond(destination));
        for (let source = start; source < end; source++) {
          values[source] =
            read(from, destination % TILE, source - start) * factor(destination, source);
        }
      }
      return values;
    },
    column(source) {
      if (!inside(source)) return null;
      const values = new Float32Array(length);
      const first = causal ? source : 0;
      for (let row = Math.floor(first / TILE); row * TILE < length; row++) {
        const from = tile([row, Math.floor(source / TILE)]);
        if (from === undefined) return null;
        const start = row * TILE;
        for (let at = Math.max(first, start); at < start + from.rows; at++) {
          values[at] = read(from, at - start, source % TILE) * factor(at, source);
        }
      }
      return values;
    },
    missing(area = { destinations: [0, length], sources: [0, length] }) {
      return placesIn(area, length, causal).filter((place) => tile(place) === undefined);
    },
  };
}

/** The tiles that an area touches, row by row; those above the diagonal do not exist. */
export function placesIn(area: Area, length: number, causal: boolean): Place[] {
  const places: Place[] = [];
  const [top, left] = [area.destinations[0], area.sources[0]].map((at) =>
    Math.floor(Math.max(0, at) / TILE),
  ) as [number, number];
  const bottom = Math.min(length, area.destinations[1]);
  const right = Math.min(length, area.sources[1]);
  for (let row = top; row * TILE < bottom; row++) {
    for (let column = left; column * TILE < right && (!causal || column <= row); column++) {
      places.push([row, column]);
    }
  }
  return places;
}
