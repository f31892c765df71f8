// An application that uses the official Squidex SDK, driven over stdin: for each line "call" it asks for its app and for
// the languages, and answers with one line of JSON. It lives on between calls, as a server does.
//
//   SDK         folder with a node_modules that has @squidex/squidex
//   URL, APP    the Squidex, the app
//   TOKEN_FILE  the mounted token; or, for the SDK's own way, CLIENT_ID and CLIENT_SECRET
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const { SDK, URL, APP, TOKEN_FILE, CLIENT_ID, CLIENT_SECRET } = process.env;
const { SquidexClient } = createRequire(join(SDK, 'package.json'))('@squidex/squidex');

// The header X-AuthRequest keeps the SDK from fetching a token; the getter reads the file again for each request.
const mounted = {
    clientId: 'unused',
    clientSecret: 'unused',
    customHeaders: {
        'X-AuthRequest': '1',
        get Authorization() {
            return `Bearer ${readFileSync(TOKEN_FILE, 'utf8').trim()}`;
        },
    },
};
const own = { clientId: CLIENT_ID, clientSecret: CLIENT_SECRET };
const client = new SquidexClient({ url: URL, appName: APP, ...(TOKEN_FILE ? mounted : own) });

async function call() {
    try {
        const app = await client.apps.getApp();
        const languages = await client.languages.getLanguages();
        return { app: app.name, created: app.created.toISOString(), languages: languages.map(it => it.iso2Code) };
    } catch (error) {
        // The SDK asks once more after a 401, and wraps the second answer.
        return { status: error.statusCode ?? error.cause?.statusCode ?? null, message: error.message };
    }
}

for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'call') {
        process.stdout.write(`${JSON.stringify(await call())}\n`);
    }
}
