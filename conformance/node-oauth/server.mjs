// An OAuth 2.0 authorization server (@node-oauth/oauth2-server) and a protected resource,
// in one process, for the conformance tests.
//
//   node server.mjs '{}'
//
// It listens on a free loopback port. When it is ready, it prints its URLs as one line of
// JSON:
//
//   token    the token endpoint
//   api      answers 200 with the client's id for a live token, else 401
//   admin    POST admin/clients   adds or replaces the clients in a JSON list, as in RFC
//                                 7591; ttl is the lifetime of their tokens in seconds
//            POST admin/revoke    revokes the token in the body
//
// The process ends when its standard input is closed. So it can't outlive the test that
// started it, however that test ends.
//
// The package calls a model of its user to find clients and tokens. The model here follows
// its documentation: it knows nothing of the method by which a client authenticates.
import { createServer } from 'node:http';

import OAuth2Server from '@node-oauth/oauth2-server';

const clients = new Map();
const tokens = new Map();

const oauth = new OAuth2Server({
  model: {
    async getClient(id, secret) {
      const client = clients.get(id);
      return client?.client_secret === secret
        && { id, grants: client.grant_types ?? ['client_credentials'], accessTokenLifetime: client.ttl };
    },
    async getUserFromClient(client) {
      return { name: client.id };
    },
    async validateScope(user, client, scope = []) {
      const allowed = clients.get(client.id).scope.split(' ');
      return scope.every((s) => allowed.includes(s)) && scope;
    },
    async saveToken(token, client, user) {
      const saved = { ...token, client, user };
      tokens.set(token.accessToken, saved);
      return saved;
    },
    async getAccessToken(value) {
      return tokens.get(value);
    },
  },
});

// answer writes the answer that the package has prepared, or the error that it has thrown.
// The package leaves the body of an error at the API to its user.
async function answer(req, res, body, handle) {
  const request = new OAuth2Server.Request({
    headers: req.headers, method: req.method, query: {}, body: Object.fromEntries(new URLSearchParams(body)),
  });
  const response = new OAuth2Server.Response();
  try {
    await handle(request, response);
  } catch (err) {
    if (!(err instanceof OAuth2Server.OAuthError)) throw err;
    response.status = err.code;
    response.body = { error: err.name, error_description: err.message };
  }
  res.writeHead(response.status, { ...response.headers, 'Content-Type': 'application/json' });
  res.end(JSON.stringify(response.body));
}

const paths = {
  '/token': (req, res, body) => answer(req, res, body, (request, response) => oauth.token(request, response)),
  '/api': (req, res) => answer(req, res, '', async (request, response) => {
    const { client, scope } = await oauth.authenticate(request, response);
    response.body = { client_id: client.id, scope: scope.join(' ') };
  }),
  '/clients': (req, res, body) => {
    for (const client of JSON.parse(body)) clients.set(client.client_id, client);
    res.end();
  },
  '/revoke': (req, res, body) => {
    tokens.delete(body);
    res.end();
  },
};

const server = createServer(async (req, res) => {
  try {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    const serve = paths[req.url];
    if (serve) await serve(req, res, Buffer.concat(chunks).toString());
    else res.writeHead(404).end();
  } catch (err) {
    console.error(err);
    res.writeHead(500).end();
  }
});

server.listen(0, '127.0.0.1', () => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  process.stdout.write(`${JSON.stringify({ token: `${origin}/token`, api: `${origin}/api`, admin: origin })}\n`);
});

process.stdin.on('end', () => process.exit(0)).resume();
