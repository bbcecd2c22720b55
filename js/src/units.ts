// A slider's value in the unit a person chose. On the wire a value is always raw.
import { short, signed } from "./format";
import type { Row } from "./messages";

export type Unit = "raw" | "sd" | "peak";

type Scale = Pick<Row, "op" | "sd" | "mean" | "peak">;

/**
 * How many raw units one unit is, and where its zero lies; null where it has no meaning.
 * "set" counts standard deviations from the reference mean, "add" counts them from nothing.
 */
function axis(row: Scale, unit: Unit): { size: number; zero: number } | null {
  if (unit === "raw") return { size: 1, zero: 0 };
  if (row.op !== "set" && row.op !== "add") return null;
  if (unit === "peak") return row.peak ? { size: row.peak, zero: 0 } : null;
  if (!row.sd) return null;
  return { size: row.sd, zero: row.op === "set" ? (row.mean ?? 0) : 0 };
}

export function hasUnit(row: Scale, unit: Unit): boolean {
  return axis(row, unit) !== null;
}

export function toUnit(row: Scale, unit: Unit, raw: number): number {
  const on = axis(row, unit);
  return on === null ? raw : (raw - on.zero) / on.size;
}

export function fromUnit(row: Scale, unit: Unit, value: number): number {
  const on = axis(row, unit);
  return on === null ? value : value * on.size + on.zero;
}

/** The value in every unit it has, for a slider's spoken value and its tooltip. */
export function spoken(row: Scale, raw: number): string {
  if (row.op === "scale") return `times ${short(raw)}`;
  const parts = [short(raw)];
  if (hasUnit(row, "sd")) parts.push(`${signed(toUnit(row, "sd", raw))} sd`);
  if (hasUnit(row, "peak")) parts.push(`${short(toUnit(row, "peak", raw))} times the maximum`);
  return parts.join(", ");
}

/** A slider's ends and step: round numbers, so that zero is on its grid. */
export function sliderScale(
  range: { low: number; high: number } | null,
  value: number | null,
): { low: number; high: number; step: number } {
  let low = range?.low ?? -1;
  let high = range?.high ?? 1;
  if (value !== null) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (!(high > low)) [low, high] = [low - 1, high + 1];
  const rough = (high - low) / 400;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((each) => each * power >= rough) ?? 10) * power;
  const tidy = (number: number) => Number(number.toPrecision(12));
  return {
    low: tidy(Math.floor(low / step + 1e-9) * step),
    high: tidy(Math.ceil(high / step - 1e-9) * step),
    step: tidy(step),
  };
}
