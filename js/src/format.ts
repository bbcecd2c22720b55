// Numbers for people: three significant digits; whoever wants more hovers and sees `exact`.

const MINUS = "−";

/** 1.2345 -> "1.23", -0.00012 -> "−1.20e−4", 12345 -> "12,345". */
export function short(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "–" : value > 0 ? "∞" : `${MINUS}∞`;
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text =
    size >= 1e6 || size < 1e-3
      ? size.toExponential(2)
      : size >= 100
        ? Math.round(size).toLocaleString("en-US")
        : size.toPrecision(3);
  return (value < 0 ? MINUS : "") + text.replace("e+", "e").replace("-", MINUS);
}

/** Numbers to be compared, all to the decimals that give the largest two significant digits. */
export function alike(values: readonly number[]): string[] {
  const largest = Math.max(0, ...values.map(Math.abs).filter(Number.isFinite));
  const decimals = largest > 0 ? Math.max(0, 1 - Math.floor(Math.log10(largest))) : 1;
  if (decimals > 4) return values.map(short);
  return values.map((value) => {
    const text = value.toFixed(decimals);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", MINUS);
  });
}

/** As `short`, with a plus sign in front of what is not negative. */
export function signed(value: number): string {
  return value > 0 ? `+${short(value)}` : short(value);
}

/** A probability: ".703", ".0213", "1.00", "<.0001". */
export function share(value: number): string {
  if (value >= 0.9995) return "1.00";
  if (value < 1e-4) return value === 0 ? "0" : "<.0001";
  return value.toPrecision(value < 0.001 ? 2 : 3).slice(1);
}

/** A share of tokens: "34.1 %", "0.800 %", "<0.01 %". */
export function percent(value: number): string {
  const hundredth = 100 * value;
  if (hundredth > 0 && hundredth < 0.01) return "<0.01 %";
  return `${hundredth === 0 ? "0" : hundredth.toPrecision(3)} %`;
}

/** The whole number as the machine has it. */
export function exact(value: number): string {
  return String(value).replace("-", MINUS);
}

/** A number that came as float32, to the digits that it has. */
export function single(value: number): string {
  if (!Number.isFinite(value) || Math.fround(value) !== value) return exact(value);
  for (let digits = 6; digits < 9; digits++) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return exact(Number(text));
  }
  return exact(Number(value.toPrecision(9)));
}

/** What a person typed as a number: accepts the real minus sign and a decimal comma. */
export function parse(text: string): number | null {
  const plain = text.trim().replace(/[−–]/g, "-").replace(/^\+/, "");
  const point = plain.replace(/^(-?\d+),(\d+)$/, "$1.$2");
  if (!/^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(point)) return null;
  const value = Number(point);
  return Number.isFinite(value) ? value : null;
}

/** What stands in a number box: short enough to read, and parses back. */
export function typed(value: number): string {
  return short(value).replaceAll(MINUS, "-").replaceAll(",", "");
}

/** A setting in its box: as a person would type it, "0.05" and "1". */
export function setting(value: number): string {
  return String(Number(value.toPrecision(6)));
}

/** The smallest of 1, 2, 5 x 10^n that is not below `value`. */
export function ceilNice(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 5, 10].find((each) => each * power >= value * (1 - 1e-9)) ?? 10;
  return Number((step * power).toPrecision(1));
}

/** A token's text inside a sentence: spaces and newlines visible. */
export function quoted(text: string): string {
  return `"${text.replaceAll("\n", "↵").replaceAll("\t", "⇥")}"`;
}

/** "1 token", "3 tokens". */
export function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
