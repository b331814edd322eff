// One hash over everything that the built pages are made from. The build writes it beside them, and a test compares:
// built assets that do not correspond to their sources fail it, without Node.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";

const ROOT = import.meta.dirname;
const FILES = ["index.html", "package-lock.json", "package.json", "tsconfig.json", "vite.config.ts"];
const FOLDERS = ["public", "src"];
const TARGET = join(ROOT, "../../driftlock_otlp/api/dashboard/sources.sha256");

/** Returns the paths below a folder. */
function below(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? below(join(folder, entry.name)) : [join(folder, entry.name)],
  );
}

const paths = [...FILES.map((file) => join(ROOT, file)), ...FOLDERS.flatMap((folder) => below(join(ROOT, folder)))];
const names = paths.map((path) => relative(ROOT, path).replaceAll("\\", "/")).sort();
const whole = createHash("sha256");
for (const name of names) {
  whole.update(`${createHash("sha256").update(readFileSync(join(ROOT, name))).digest("hex")}  ${name}\n`);
}
const digest = whole.digest("hex");
if (process.argv.includes("--write")) writeFileSync(TARGET, `${digest}\n`);
else console.log(digest);
