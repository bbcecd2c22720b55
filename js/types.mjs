// Writes js/src/messages.ts from the JSON schema of the Python messages; `--check` only compares.
//
// PYTHON names the interpreter (it needs pydantic); the package is taken from this tree.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { compile } from "json-schema-to-typescript";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = join(root, "js", "src", "messages.ts");
const python = process.env.PYTHON ?? "python3";

const asked = spawnSync(python, ["-m", "patchclamp.views.schema"], {
  cwd: root,
  encoding: "utf8",
  env: {
    ...process.env,
    PYTHONPATH: [join(root, "widgets"), process.env.PYTHONPATH].filter(Boolean).join(delimiter),
    PYTHONIOENCODING: "utf-8",
  },
});
if (asked.status !== 0) {
  const why = asked.error?.message ?? asked.stderr.trim().split("\n").at(-1);
  console.error(
    `The message schema could not be read with ${python} (${why}). ` +
      "Name an interpreter with patchclamp's dependencies: PYTHON=.venv/bin/python npm run types",
  );
  process.exit(1);
}

const compiled = await compile(plain(JSON.parse(asked.stdout)), "Messages", {
  bannerComment:
    "// Generated from widgets/patchclamp/views/messages/ by `npm run types`. Do not edit.",
  additionalProperties: false,
  format: true,
  style: { printWidth: 100 },
  unreachableDefinitions: true,
});
// The compiler notes below each description where it found the type; that says nothing here.
const written = compiled
  .replace(/\/\*\*\n \* This interface was referenced by [^*]*\* via the [^*]*\*\/\n/g, "")
  .replace(/\n \*\n \* This interface was referenced by [^*]*\* via the [^*]*\*\//g, "\n */");

if (process.argv.includes("--check")) {
  if (!existsSync(target) || readFileSync(target, "utf8") !== written) {
    console.error("js/src/messages.ts is stale: views/messages/ has changed. Run `npm run types`.");
    process.exit(1);
  }
  console.log("js/src/messages.ts is what views/messages/ says.");
} else {
  writeFileSync(target, written);
  console.log("Wrote js/src/messages.ts.");
}

/**
 * The schema without what would each become a type of its own: the titles of fields, and
 * references that carry a description.
 */
function plain(node, isMap = false) {
  if (Array.isArray(node)) return node.map((item) => plain(item));
  if (node === null || typeof node !== "object") return node;
  if (!isMap && typeof node.$ref === "string") return { $ref: node.$ref };
  const kept = {};
  for (const [name, value] of Object.entries(node)) {
    if (name === "title" && !isMap) continue;
    kept[name] = plain(value, !isMap && (name === "properties" || name === "$defs"));
  }
  return kept;
}
