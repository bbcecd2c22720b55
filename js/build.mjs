// Builds the views: one entry a widget, everything inside, nothing fetched when it is shown.
// `--watch` rebuilds while sources change (with ANYWIDGET_HMR=1 an open notebook follows).
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, context } from "esbuild";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const outdir = join(root, "widgets", "patchclamp", "static");
const WIDGETS = ["neuron-clamp"];
const BUDGET = 60 * 1024; // the bundle is a trait of every instance: it travels with each of them

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
  legalComments: "none",
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
  if (size > BUDGET) faults.push(`${name} is ${size} bytes, more than its budget of ${BUDGET}.`);
  // An import or url() that survived bundling would be fetched when the view is shown.
  const text = readFileSync(path, "utf8");
  const fetched = text.match(/\bimport\s*\(?\s*["'`][^"'`]+["'`]|@import|url\(\s*["']?(?!data:|#)/);
  if (fetched) faults.push(`${name} would load something when shown: ${fetched[0]}`);
  return faults;
}
