import { RestSource } from "./rest";
import type { Source } from "./source";

/** Returns the source of the home that these pages are built for; the other one is not in the bundle. */
export async function chooseSource(): Promise<Source> {
  if (import.meta.env.MODE === "supabase") {
    const { SupabaseSource } = await import("./supabase");
    return SupabaseSource.connect(import.meta.env.VITE_SUPABASE_URL, import.meta.env.VITE_SUPABASE_ANON_KEY);
  }
  return new RestSource();
}
