import { createContext, useContext } from "react";
import type { Source } from "../data/source";

export const SourceContext = createContext<Source | null>(null);

export function useSource(): Source {
  const source = useContext(SourceContext);
  if (!source) throw new Error("no source is given");
  return source;
}
