import { useState } from "react";
import type { Page } from "../data/types";
import { useQuery } from "./query";

const MOST_EMPTY_PAGES = 5;

/** A list that grows page by page, and is asked for again as far as it is shown when something changes. */
export function usePages<T>(key: string, ask: (cursor?: string) => Promise<Page<T>>, pageSize: number) {
  const [grown, setGrown] = useState({ key, pages: 1 });
  const pages = grown.key === key ? grown.pages : 1;
  const query = useQuery(`${key} ${pages}`, async () => {
    const rows: T[] = [];
    let cursor: string | undefined;
    // A page may be short, or empty, and yet not the last: looking for what is rare takes several.
    for (let asked = 0; asked < pages + MOST_EMPTY_PAGES && rows.length < pages * pageSize; asked += 1) {
      const found = await ask(cursor);
      rows.push(...found.rows);
      cursor = found.next ?? undefined;
      if (!cursor) break;
    }
    return { rows, isMore: cursor !== undefined };
  });
  // While a longer list is on its way, the shorter one stays.
  const [last, setLast] = useState<{ key: string; data: { rows: T[]; isMore: boolean } }>();
  if (query.data && last?.data !== query.data) setLast({ key, data: query.data });
  const data = query.data ?? (last?.key === key ? last.data : undefined);
  return { ...query, data, more: () => setGrown({ key, pages: pages + 1 }) };
}
