import { hmac } from "../_shared/stripe.ts";
import { handle } from "../stripe-webhook/handler.ts";
import { equal, standIn } from "./stand_in.ts";

const NOW = 1_795_000_000;
const EVENT = JSON.stringify({
    id: "evt_1",
    object: "event",
    type: "invoice.paid",
    created: NOW,
    data: { object: {} },
});

async function signed(body: string, secret: string, time = NOW): Promise<Request> {
    const signature = `t=${time},v1=${"0".repeat(64)},v1=${await hmac(secret, `${time}.${body}`)},v0=x`;
    return new Request("http://f/", { method: "POST", body, headers: { "stripe-signature": signature } });
}

Deno.test("a signed event is applied with the rights of the service, and the key stands in apikey alone", async () => {
    await using server = standIn(() => Response.json("applied"));
    const response = await handle(await signed(EVENT, "whsec_new"), server.env, NOW);
    equal([response.status, await response.json()], [200, { outcome: "applied" }]);
    const [seen] = server.seen;
    equal([seen.path, seen.headers.get("apikey"), seen.headers.get("authorization")], [
        "/rest/v1/rpc/apply_stripe_event",
        "sb_secret_test",
        null,
    ]);
    equal(JSON.parse(seen.body), { event: JSON.parse(EVENT) });
});

Deno.test("while a secret is replaced the old one counts too", async () => {
    await using server = standIn(() => Response.json("known"));
    equal((await handle(await signed(EVENT, "whsec_old"), server.env, NOW)).status, 200);
});

Deno.test("what is not signed, signed by others, changed or old reaches nothing", async () => {
    await using server = standIn(() => Response.json("applied"));
    const changed = await signed(EVENT, "whsec_new");
    const wrong = [
        new Request("http://f/", { method: "POST", body: EVENT }),
        await signed(EVENT, "whsec_other"),
        new Request("http://f/", { method: "POST", body: EVENT + " ", headers: changed.headers }),
        await signed(EVENT, "whsec_new", NOW - 301),
        await signed(EVENT, "whsec_new", NOW + 301),
        new Request("http://f/", { method: "POST", body: EVENT, headers: { "stripe-signature": "t=,v1=" } }),
    ];
    for (const request of wrong) equal((await handle(request, server.env, NOW)).status, 400);
    equal((await handle(new Request("http://f/"), server.env, NOW)).status, 405);
    const { env } = server;
    equal((await handle(await signed(EVENT, "whsec_new"), { ...env, stripeWebhookSecrets: [] }, NOW)).status, 400);
    equal(server.seen.length, 0);
});

Deno.test("an effect that fails is an error, so that Stripe tries again", async () => {
    await using server = standIn(() => Response.json({ code: "P0002" }, { status: 400 }));
    equal((await handle(await signed(EVENT, "whsec_new"), server.env, NOW)).status, 500);
});
