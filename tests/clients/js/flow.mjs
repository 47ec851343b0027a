// Two users of matrix-js-sdk talk in a room while their server is restarted, and then killed, under them.
//
// Each message must reach the other exactly once and in order, the one in flight when the server dies
// included, and a fresh login must find all of them when it pages back to the start of the room.
import assert from "node:assert/strict";
import * as sdk from "matrix-js-sdk";
import { Server, until, url } from "./server.mjs";

const MESSAGES_A_PART = 10;
const PASSWORD = "correct horse battery staple";

// While the server is down the SDK would tell at length what the flow brought about on purpose.
for (const level of ["trace", "debug", "info", "warn", "error"]) console[level] = () => {};

/** A signed-in client, what its sync brought, and the messages it sent. */
class Person {
    received = [];
    sent = [];
    #timelineIds = new Set();

    static async register(name) {
        const client = sdk.createClient({ baseUrl: url });
        const { user_id } = await client.registerRequest({
            username: `${name}_${Date.now()}`,
            password: PASSWORD,
            auth: { type: "m.login.dummy" },
            inhibit_login: true,
        });
        return Person.login(user_id);
    }

    static async login(userId) {
        const person = new Person();
        const { access_token, device_id } = await sdk.createClient({ baseUrl: url }).loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: userId },
            password: PASSWORD,
        });
        person.userId = userId;
        person.client = sdk.createClient({
            baseUrl: url,
            userId,
            accessToken: access_token,
            deviceId: device_id,
            fetchFn: (resource, options) => person.#fetch(resource, options),
        });
        return person;
    }

    /** The SDK drops an event that it has seen before, so repetitions are looked for in the bare answers. */
    async #fetch(resource, options) {
        const answer = await fetch(resource, options);
        if (answer.ok && new URL(resource).pathname.endsWith("/sync")) {
            const { rooms } = await answer.clone().json();
            for (const room of Object.values(rooms?.join ?? {})) {
                for (const { event_id } of room.timeline?.events ?? []) {
                    assert(!this.#timelineIds.has(event_id), `${this.userId} got ${event_id} twice in /sync`);
                    this.#timelineIds.add(event_id);
                }
            }
        }
        return answer;
    }

    async sync(initialSyncLimit) {
        this.client.on(sdk.RoomEvent.Timeline, (event, _room, toStartOfTimeline) => {
            if (toStartOfTimeline || event.getType() !== "m.room.message") return;
            if (event.getSender() !== this.userId) this.received.push(event.getContent().body);
        });
        await this.client.startClient({
            initialSyncLimit,
            pendingEventOrdering: sdk.PendingEventOrdering.Detached,
        });
        await until(`${this.userId} has synced`, () => this.isSyncing());
    }

    isSyncing() {
        return this.client.getSyncState() === sdk.SyncState.Syncing;
    }

    /** Sends, and sends again under the same transaction id for as long as the answer fails to come. */
    async say(roomId, body, seconds = 60) {
        const content = { msgtype: sdk.MsgType.Text, body };
        const deadline = Date.now() + seconds * 1000;
        const txnId = this.client.makeTxnId();
        let answer = this.client.sendEvent(roomId, "m.room.message", content, txnId);
        for (;;) {
            try {
                const { event_id } = await answer;
                this.sent.push(body);
                return event_id;
            } catch (error) {
                if (Date.now() > deadline) throw error;
                const room = this.client.getRoom(roomId);
                const unsent = room.getPendingEvents().find((event) => event.getTxnId() === txnId);
                answer = until("the server is back", () => fetch(`${url}/_matrix/client/versions`).catch(() => false))
                    .then(() => this.client.resendEvent(unsent, room));
            }
        }
    }
}

/** Some messages each way, in turn; returns when both have all that the other ever said. */
async function talk(part, alice, bob, roomId) {
    const spoken = [];
    for (let n = 1; n <= MESSAGES_A_PART; n++) {
        const speaker = n % 2 ? alice : bob;
        const body = `${part}, message ${n}`;
        await speaker.say(roomId, body);
        spoken.push(body);
    }
    await heard(alice, bob);
    return spoken;
}

async function heard(alice, bob) {
    for (const [listener, speaker] of [[alice, bob], [bob, alice]]) {
        await until(`${listener.userId} has heard all`, () => listener.received.length >= speaker.sent.length);
        assert.deepEqual(listener.received, speaker.sent);
    }
}

async function backAfterRestart(...people) {
    for (const person of people) {
        await until(`${person.userId} syncs again`, () => {
            person.client.retryImmediately();
            return person.isSyncing();
        });
    }
}

/** All messages of the room as a new device finds them, oldest first. */
async function pageBack(userId, roomId) {
    const visitor = await Person.login(userId);
    await visitor.sync(1);
    const room = visitor.client.getRoom(roomId);
    const timeline = room.getLiveTimeline();
    while (timeline.getPaginationToken(sdk.EventTimeline.BACKWARDS) !== null) {
        await visitor.client.scrollback(room, 7);
    }
    visitor.client.stopClient();
    const events = timeline.getEvents();
    assert.equal(events[0].getType(), "m.room.create", "paging back ends at the start of the room");
    return events.filter((event) => event.getType() === "m.room.message").map((event) => event.getContent().body);
}

async function flow(server) {
    const alice = await Person.register("alice");
    const bob = await Person.register("bob");
    await alice.sync(20);
    await bob.sync(20);

    const { room_id: roomId } = await alice.client.createRoom({ preset: "private_chat", invite: [bob.userId] });
    await until("bob sees the invite", () => bob.client.getRoom(roomId)?.getMyMembership() === "invite");
    await bob.client.joinRoom(roomId);
    for (const person of [alice, bob]) {
        await until("both see two members", () => person.client.getRoom(roomId)?.getJoinedMemberCount() === 2);
    }

    const spoken = await talk("first", alice, bob, roomId);

    await server.stop("SIGTERM");
    await server.start();
    await backAfterRestart(alice, bob);
    spoken.push(...await talk("after a restart", alice, bob, roomId));

    const crash = server.stop("SIGKILL").then(() => server.start());
    await Promise.all([alice.say(roomId, "sent as the server dies"), crash]);
    spoken.push("sent as the server dies");
    await backAfterRestart(alice, bob);
    spoken.push(...await talk("after a crash", alice, bob, roomId));

    assert.deepEqual(await pageBack(bob.userId, roomId), spoken);
    alice.client.stopClient();
    bob.client.stopClient();
    return spoken.length;
}

const server = new Server();
try {
    await server.start();
    const count = await flow(server);
    console.log(`matrix-js-sdk: ${count} messages, each once and in order, over a restart and a crash`);
    await server.stop();
    process.exit(0);
} catch (error) {
    console.log(error);
    await server.stop("SIGKILL");
    process.exit(1);
}
