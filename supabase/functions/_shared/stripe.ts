/** Stripe's signatures and meter events. */

import type { Environment } from "./environment.ts";
import { isSame } from "./project.ts";

const TOLERANCE_S = 300;

/**
 * Whether Stripe has signed a webhook lately: `Stripe-Signature` holds a time `t` and one or more `v1`, each HMAC-SHA256
 * over the time, a dot and the body as it came.
 */
export async function isSigned(body: string, signature: string, secrets: string[], nowS: number): Promise<boolean> {
    const parts = signature.split(",").map((part) => part.trim().split("=", 2) as [string, string]);
    const time = parts.find(([name]) => name === "t")?.[1] ?? "";
    if (!/^\d+$/.test(time) || Math.abs(nowS - Number(time)) > TOLERANCE_S) return false;
    for (const secret of secrets) {
        const expected = await hmac(secret, `${time}.${body}`);
        for (const [name, given] of parts) {
            if (name === "v1" && await isSame(given ?? "", expected)) return true;
        }
    }
    return false;
}

export async function hmac(secret: string, text: string): Promise<string> {
    const encoder = new TextEncoder();
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    const key = await crypto.subtle.importKey("raw", encoder.encode(secret), algorithm, false, ["sign"]);
    const bytes = new Uint8Array(await crypto.subtle.sign("HMAC", key, encoder.encode(text)));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export interface Report {
    identifier: string;
    stripe_customer_id: string;
    hour: string;
    items: number;
}

/**
 * Tell Stripe's meter of a report. Stripe counts an identifier once, and says 400 with `duplicate_meter_event` of one
 * that it knows, which is as good.
 */
export async function tell(env: Environment, report: Report): Promise<void> {
    const form = new URLSearchParams({
        event_name: env.meter,
        identifier: report.identifier,
        timestamp: String(Math.floor(Date.parse(report.hour) / 1000)),
        "payload[stripe_customer_id]": report.stripe_customer_id,
        "payload[value]": String(report.items),
    });
    const response = await fetch(`${env.stripeUrl}/v1/billing/meter_events`, {
        method: "POST",
        headers: { authorization: `Bearer ${env.stripeKey}`, "idempotency-key": report.identifier },
        body: form,
        signal: AbortSignal.timeout(20_000),
    });
    const text = await response.text();
    if (!response.ok && !text.includes("duplicate_meter_event")) {
        throw new Error(`Stripe answers ${response.status}: ${text.slice(0, 300)}`);
    }
}
