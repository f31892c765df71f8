// What follows the recipe of docs/guides/consume.md in the program that tests/e2e/consumers.py makes: for each line "call" on
// its stdin, the recipe's `client` asks for its app and for the languages; the answer is one line of JSON. The process lives
// on between calls, as a server does.
import { createInterface } from "node:readline";

async function call() {
    try {
        const app = await client.apps.getApp();
        const languages = await client.languages.getLanguages();
        return { app: app.name, created: app.created.toISOString(), languages: languages.map((it) => it.iso2Code) };
    } catch (error) {
        // The SDK asks once more after a 401, and wraps the second answer.
        return { status: error.statusCode ?? error.cause?.statusCode ?? null, message: error.message };
    }
}

for await (const line of createInterface({ input: process.stdin })) {
    if (line === "call") {
        process.stdout.write(`${JSON.stringify(await call())}\n`);
    }
}
