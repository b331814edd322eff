import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The sidecar serves what is built here from its own package; against Supabase the same pages are built into dist/.
const SIDECAR = process.env.DRIFTLOCK_SIDECAR ?? "http://127.0.0.1:8080";
// A sidecar without keys answers web pages of this machine alone, so the development server asks as one.
const proxied = { target: SIDECAR, changeOrigin: true };

export default defineConfig({
  plugins: [react(), tailwindcss()],
  build: {
    outDir: "../../driftlock_otlp/api/dashboard",
    emptyOutDir: true,
    // Data URLs would need a wider content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    host: "127.0.0.1",
    proxy: { "/v1": proxied, "/debug": proxied, "/metrics": proxied, "/readyz": proxied },
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
