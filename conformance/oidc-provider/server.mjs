// An OAuth 2.0 authorization server (oidc-provider) and a protected resource,
// in one process, for the conformance tests.
//
//   node server.mjs '{"scopes":["read"],"clockTolerance":0,"clients":[
//     {"client_id":"…","client_secret":"…","token_endpoint_auth_method":"client_secret_basic","ttl":60}]}'
//
// It listens on a free loopback port, says {"issuer":…,"port":…} on one line of
// standard output when it is ready, and ends when its standard input does, so
// that it can't outlive the test that started it, however that test ends.
//
//   POST /token   the provider's token endpoint
//   GET  /api     200 with the client's id for a live token, else 401 invalid_token
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';

import { Provider } from 'oidc-provider';

const config = JSON.parse(process.argv[2]);

// ttl is ours; everything else in a client is the provider's own metadata.
const lives = new Map(config.clients.map(({ client_id: id, ttl }) => [id, ttl]));
const clients = config.clients.map(({ ttl, ...client }) => ({
  grant_types: ['client_credentials'],
  id_token_signed_response_alg: 'ES256',
  redirect_uris: [],
  response_types: [],
  scope: config.scopes.join(' '),
  ...client,
}));

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const issuer = `http://127.0.0.1:${port}`;

  // No adapter is named, so the provider keeps its tokens in memory.
  const provider = new Provider(issuer, {
    clients,
    clockTolerance: config.clockTolerance,
    cookies: { keys: [randomBytes(32).toString('hex')] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
    },
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
    scopes: config.scopes,
    ttl: { ClientCredentials: (ctx, token, client) => lives.get(client.clientId) },
  });

  const authorize = provider.callback();

  async function api(req, res) {
    // RFC 6750, Sections 2.1 and 3.
    const [scheme, value, ...rest] = (req.headers.authorization ?? '').split(' ');
    const presented = scheme.toLowerCase() === 'bearer' && rest.length === 0;
    const token = presented ? await provider.ClientCredentials.find(value) : undefined;

    res.setHeader('Cache-Control', 'no-store');
    res.setHeader('Content-Type', 'application/json');
    if (!token) {
      res.statusCode = 401;
      res.setHeader('WWW-Authenticate', presented ? 'Bearer error="invalid_token"' : 'Bearer');
      res.end('{"error":"invalid_token"}');
      return;
    }
    res.end(JSON.stringify({ client_id: token.clientId, scope: token.scope }));
  }

  server.on('request', (req, res) => {
    if (new URL(req.url, issuer).pathname !== '/api') {
      authorize(req, res);
      return;
    }
    api(req, res).catch((err) => {
      console.error(err);
      res.statusCode = 500;
      res.end();
    });
  });

  process.stdout.write(`${JSON.stringify({ issuer, port })}\n`);
});

process.stdin.on('end', () => process.exit(0)).resume();
