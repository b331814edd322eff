/** The project's own API. */

import type { Environment } from "./environment.ts";

/** The project refuses, or cannot be reached; whoever called us tries again. */
export class ProjectError extends Error {
    constructor(readonly status: number, message: string) {
        super(message);
    }
}

/** Keys of the new kind are no JSON web tokens, and stand in `apikey` alone. */
export function headers(key: string, token?: string): Headers {
    const found = new Headers({ apikey: key, "content-type": "application/json" });
    const bearer = token ?? (key.startsWith("sb_") ? undefined : key);
    if (bearer !== undefined) found.set("authorization", `Bearer ${bearer}`);
    return found;
}

/** Send a request to the project and return the JSON that it answers with; undefined if there is none. */
export async function ask(address: string, init: RequestInit): Promise<unknown> {
    let response: Response;
    try {
        response = await fetch(address, { ...init, signal: AbortSignal.timeout(20_000) });
    } catch (error) {
        throw new ProjectError(502, `cannot be reached: ${error instanceof Error ? error.message : error}`);
    }
    const text = await response.text();
    if (!response.ok) throw new ProjectError(response.status, text.slice(0, 500));
    return text === "" ? undefined : JSON.parse(text);
}

/** Call a function of the database with the rights of the service. */
export function call(env: Environment, name: string, argument: Record<string, unknown>): Promise<unknown> {
    return ask(`${env.url}/rest/v1/rpc/${name}`, {
        method: "POST",
        headers: headers(env.secretKey),
        body: JSON.stringify(argument),
    });
}

/** Whether two texts are the same, in a time that does not tell how far they agree. */
export async function isSame(one: string, other: string): Promise<boolean> {
    const encoder = new TextEncoder();
    const [a, b] = await Promise.all(
        [one, other].map(async (text) => new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(text)))),
    );
    return a.reduce((difference, byte, index) => difference | (byte ^ b[index]), 0) === 0;
}

export function answer(status: number, body: unknown): Response {
    return Response.json(body, { status });
}
