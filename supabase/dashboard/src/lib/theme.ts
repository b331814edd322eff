/** Light or dark: as the viewer chose here, else as their system does. Nothing else is kept in the browser. */

export type Theme = "system" | "light" | "dark";

const KEY = "driftlock-theme";
const system = window.matchMedia("(prefers-color-scheme: dark)");

export function chosenTheme(): Theme {
  const kept = window.localStorage.getItem(KEY);
  return kept === "light" || kept === "dark" ? kept : "system";
}

export function applyTheme(theme = chosenTheme()) {
  const shown = theme === "system" ? (system.matches ? "dark" : "light") : theme;
  if (document.documentElement.dataset.theme === shown) return;
  document.documentElement.dataset.theme = shown;
  window.dispatchEvent(new Event("themechange"));
}

export function chooseTheme(theme: Theme) {
  if (theme === "system") window.localStorage.removeItem(KEY);
  else window.localStorage.setItem(KEY, theme);
  applyTheme(theme);
}

system.addEventListener("change", () => applyTheme());
