import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import "./app.css";
import { chooseSource } from "./data/choose";
import { applyTheme } from "./lib/theme";

applyTheme();
const root = document.getElementById("root");
if (root) {
  const source = await chooseSource();
  createRoot(root).render(
    <StrictMode>
      <App source={source} />
    </StrictMode>,
  );
}
