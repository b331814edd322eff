/** What a function is told by its surroundings, read in one place. */

export interface Environment {
    /** The project's URL. */
    url: string;
    /** A secret key of the project: passes row-level security. */
    secretKey: string;
    /** A publishable key of the project: with a user's token, row-level security applies. */
    publishableKey: string;
    /** Stripe's secret key. */
    stripeKey: string;
    /** What Stripe signs webhooks with; several, with commas between them, while one is replaced. */
    stripeWebhookSecrets: string[];
    /** Stripe's address; another one in tests alone. */
    stripeUrl: string;
    /** Name of Stripe's meter. */
    meter: string;
}

/** Return the first of the keys that Supabase gives to functions by name, or the legacy one. */
function key(keys: string, legacy: string): string {
    const named = Deno.env.get(keys);
    const found = named === undefined ? {} : JSON.parse(named) as Record<string, string>;
    return found.default ?? Object.values(found)[0] ?? Deno.env.get(legacy) ?? "";
}

export function environment(): Environment {
    return {
        url: Deno.env.get("SUPABASE_URL") ?? "",
        secretKey: key("SUPABASE_SECRET_KEYS", "SUPABASE_SERVICE_ROLE_KEY"),
        publishableKey: key("SUPABASE_PUBLISHABLE_KEYS", "SUPABASE_ANON_KEY"),
        stripeKey: Deno.env.get("STRIPE_SECRET_KEY") ?? "",
        stripeWebhookSecrets: (Deno.env.get("STRIPE_WEBHOOK_SECRET") ?? "").split(",").filter(Boolean),
        stripeUrl: Deno.env.get("STRIPE_URL") ?? "https://api.stripe.com",
        meter: Deno.env.get("STRIPE_METER") ?? "driftlock_items",
    };
}
