// Builds the views: one entry a widget, everything inside, nothing fetched when it is shown.
// `--watch` rebuilds while sources change (with ANYWIDGET_HMR=1 an open notebook follows).
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, context } from "esbuild";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const outdir = join(root, "widgets", "patchclamp", "static");
// The bundle is a trait of every instance and travels with each of them: so many bytes at most.
// AttentionInspector has three drawings, a grid, a matrix and lines, and saves two as files.
// ActivationMaximizer has four drawings, pictures, and the prompt and stack of a session.
// CircuitAblator has dagre (48 KB), which lays its graph out, two heat maps and a curve.
const BUDGETS = JSON.parse(readFileSync(join(root, "js", "budgets.json"), "utf8"));
const WIDGETS = Object.keys(BUDGETS);

const watching = process.argv.includes("--watch");
const options = {
  absWorkingDir: root,
  // The style sheet is an entry of its own: anywidget wants script and style apart.
  entryPoints: WIDGETS.flatMap((name) => [`js/src/${name}.ts`, `js/src/${name}.css`]),
  outdir,
  bundle: true,
  minify: !watching,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  // Only dagre's licence, which goes where dagre goes.
  legalComments: "inline",
  logLevel: "info",
};

if (watching) {
  await (await context(options)).watch();
} else {
  await build(options);
  const faults = readdirSync(outdir).flatMap((name) => faultsOf(join(outdir, name), name));
  if (faults.length > 0) {
    console.error(faults.join("\n"));
    process.exit(1);
  }
}

function faultsOf(path, name) {
  const faults = [];
  const size = statSync(path).size;
  const budget = BUDGETS[name.replace(/\.\w+$/, "")];
  if (size > budget) faults.push(`${name} is ${size} bytes, more than its budget of ${budget}.`);
  // An import or url() that survived bundling would be fetched when the view is shown. "import" as
  // a string is the name of a message.
  const text = readFileSync(path, "utf8");
  const fetched = text.match(
    /(?<!["'`])\bimport\s*\(?\s*["'`][^"'`]+["'`]|@import|url\(\s*["']?(?!data:|#)/,
  );
  if (fetched) faults.push(`${name} would load something when shown: ${fetched[0]}`);
  return faults;
}
