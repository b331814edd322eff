import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { SourceError } from "../data/source";

/** Counts changes that were heard of; what is shown is asked for again when it rises. */
let version = 0;
const listeners = new Set<() => void>();

export function invalidate() {
  version += 1;
  for (const listener of listeners) listener();
}

export function useVersion(): number {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => version,
  );
}

export interface Query<T> {
  data: T | undefined;
  error: SourceError | undefined;
  isLoading: boolean;
  reload: () => void;
}

/**
 * Asks for something when `key` changes, when anomalies change, and every `refreshMs`; keeps showing what it had
 * while it asks again, and after a failure.
 */
export function useQuery<T>(key: string, ask: () => Promise<T>, refreshMs = 0): Query<T> {
  const changes = useVersion();
  const [state, setState] = useState<{ key: string; data?: T; error?: SourceError }>({ key: "" });
  const [round, setRound] = useState(0);
  const latest = useRef(ask);
  latest.current = ask;
  const reload = useCallback(() => setRound((count) => count + 1), []);

  useEffect(() => {
    let isWanted = true;
    latest.current().then(
      (data) => isWanted && setState({ key, data }),
      (error: unknown) => isWanted && setState((old) => ({ ...(old.key === key ? old : { key }), error: asError(error) })),
    );
    return () => {
      isWanted = false;
    };
  }, [key, changes, round]);

  useEffect(() => {
    if (!refreshMs) return;
    const timer = setInterval(() => document.visibilityState === "visible" && reload(), refreshMs);
    return () => clearInterval(timer);
  }, [refreshMs, reload]);

  const isCurrent = state.key === key;
  return {
    data: isCurrent ? state.data : undefined,
    error: isCurrent ? state.error : undefined,
    isLoading: !isCurrent || (state.data === undefined && state.error === undefined),
    reload,
  };
}

export function asError(error: unknown): SourceError {
  if (error instanceof SourceError) return error;
  return new SourceError("failed", error instanceof Error ? error.message : String(error));
}
