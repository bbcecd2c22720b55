// Tests run in Debian's Chromium (`apt-get install chromium`, or CHROMIUM=path): no browser is
// downloaded. jsdom has no canvas and no layout, and both are what is tested here.
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";

export default defineConfig({
  // Vite's own cache would otherwise be written beside sources.
  cacheDir: "node_modules/.vite",
  optimizeDeps: { include: ["axe-core"] },
  test: {
    include: ["js/test/**/*.test.ts"],
    // Long: what waits, waits for a fact, and a busy machine takes its time.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    browser: {
      enabled: true,
      headless: true,
      screenshotFailures: false,
      viewport: { width: 1200, height: 900 },
      provider: playwright({
        launchOptions: {
          executablePath: chromium(),
          args: [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
          ],
        },
      }),
      instances: [{ browser: "chromium" }],
    },
  },
});

function chromium() {
  const named = process.env.CHROMIUM;
  if (named) return named;
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
      if (existsSync(join(folder, name))) return join(folder, name);
    }
  }
  throw new Error(
    "The front end's tests need Chromium: apt-get install chromium, or CHROMIUM=/path/to/it.",
  );
}
