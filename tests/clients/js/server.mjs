// The homeserver as a process that the flow starts, stops and kills.
//
// HOMESERVER_COMMAND runs it in the foreground, HOMESERVER_URL is where it answers, HOMESERVER_LOG takes its output.
import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

export const url = process.env.HOMESERVER_URL;

/** Polls `condition` until it holds; after `seconds` the flow has failed. */
export async function until(what, condition, seconds = 60) {
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
        const found = await condition();
        if (found) return found;
        if (Date.now() > deadline) throw new Error(`waited ${seconds} s in vain: ${what}`);
        await pause(20);
    }
}

export class Server {
    #log = openSync(process.env.HOMESERVER_LOG, "a");
    #process;
    #exited;

    async start() {
        const output = ["ignore", this.#log, this.#log];
        this.#process = spawn("sh", ["-c", `exec ${process.env.HOMESERVER_COMMAND}`], { stdio: output });
        this.#exited = new Promise((resolve) => this.#process.once("exit", resolve));
        await until("the server answers", async () => {
            if (this.#process.exitCode !== null) throw new Error("the server went away while starting");
            const answer = await fetch(`${url}/_matrix/client/versions`).catch(() => undefined);
            return answer?.ok;
        });
    }

    /** Asks the server to finish, or ends it on the spot with SIGKILL. */
    async stop(signal = "SIGTERM") {
        this.#process.kill(signal);
        await this.#exited;
    }
}
