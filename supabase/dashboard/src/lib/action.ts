import { useCallback, useState } from "react";
import type { SourceError } from "../data/source";
import { asError, invalidate } from "./query";

/** Something that people do: busy while it runs, then what it said or why it failed. */
export function useAction() {
  const [isBusy, setBusy] = useState(false);
  const [said, setSaid] = useState("");
  const [error, setError] = useState<SourceError>();
  const run = useCallback(async (act: () => Promise<string>) => {
    setBusy(true);
    setError(undefined);
    setSaid("");
    try {
      setSaid(await act());
      invalidate();
    } catch (failure) {
      setError(asError(failure));
    } finally {
      setBusy(false);
    }
  }, []);
  return { isBusy, said, error, run };
}
