import { handle } from "../usage-report/handler.ts";
import { equal, standIn } from "./stand_in.ts";

const REPORTS = [
    { identifier: "o:1:0", stripe_customer_id: "cus_1", hour: "2026-11-01T12:00:00+00:00", items: 100 },
    { identifier: "o:1:100", stripe_customer_id: "cus_2", hour: "2026-11-01T12:00:00+00:00", items: 11 },
];

function request(key: string): Request {
    return new Request("http://f/", { method: "POST", headers: { apikey: key } });
}

Deno.test("each report becomes a meter event with its identifier, and is then marked", async () => {
    await using server = standIn((path) =>
        path.endsWith("take_stripe_reports") ? Response.json(REPORTS) : Response.json({})
    );
    const response = await handle(request("sb_secret_test"), server.env);
    equal([response.status, await response.json()], [200, { sent: 2, failed: 0 }]);
    const events = server.seen.filter((seen) => seen.path === "/v1/billing/meter_events");
    equal(events.map((seen) => Object.fromEntries(new URLSearchParams(seen.body)))[0], {
        event_name: "driftlock_items",
        identifier: "o:1:0",
        timestamp: "1793534400",
        "payload[stripe_customer_id]": "cus_1",
        "payload[value]": "100",
    });
    equal(events[0].headers.get("authorization"), "Bearer sk_test");
    equal(JSON.parse(server.seen.at(-1)!.body), { identifiers: ["o:1:0", "o:1:100"] });
});

Deno.test("an event that Stripe has already is marked; one that it refuses is not, and does not hold up others", async () => {
    await using server = standIn((path, body) => {
        if (path.endsWith("take_stripe_reports")) return Response.json(REPORTS);
        if (path.endsWith("meter_events")) {
            return body.includes("cus_1")
                ? Response.json({ error: { code: "resource_missing" } }, { status: 400 })
                : Response.json({ error: { code: "duplicate_meter_event" } }, { status: 400 });
        }
        return Response.json({});
    });
    const response = await handle(request("sb_secret_test"), server.env);
    equal([response.status, await response.json()], [502, { sent: 1, failed: 1 }]);
    equal(JSON.parse(server.seen.at(-1)!.body), { identifiers: ["o:1:100"] });
});

Deno.test("without the secret key nothing is told", async () => {
    await using server = standIn(() => Response.json([]));
    for (const key of ["", "sb_publishable_test", "sb_secret_tess"]) {
        equal((await handle(request(key), server.env)).status, 401);
    }
    equal((await handle(request(""), { ...server.env, secretKey: "" })).status, 401);
    equal(server.seen.length, 0);
});
