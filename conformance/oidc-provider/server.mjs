// An OAuth 2.0 authorization server (oidc-provider) and a protected resource,
// in one process, for the conformance tests.
//
//   node server.mjs '{"scopes":["read"],"clockTolerance":0}'
//
// The two are separate servers, each on a free loopback port and with its own DPoP
// nonces (RFC 9449, Section 9). When both are ready, the process prints their URLs as one
// line of JSON:
//
//   issuer   the provider: /token, /reg (RFC 7591), /.well-known/openid-configuration, …
//   token    its token endpoint
//   api      answers 200 with the client's id and the length of the request's body for
//            a live token that is sent with its key or certificate, else 401
//   admin    POST admin/clients   adds or replaces the clients in a JSON list, as in RFC
//                                 7591; ttl is the lifetime of their tokens in seconds,
//                                 and asserts has the claims and the header parameters that
//                                 their assertions must have. If its client_id is null, they
//                                 must not send a client_id beside an assertion
//            POST admin/revoke    revokes the token in the body
//            POST admin/trust     trusts {issuer, jwk}: an issuer of assertions (RFC 7523),
//                                 and of JWTs to exchange (RFC 8693)
//
// The process ends when its standard input is closed. So it can't outlive the test that
// started it, however that test ends.
//
// Further members of the argument:
//
//   requireNonce   whether both servers demand a nonce in each DPoP proof
//   clockOffset    the number of seconds by which the clock of both is wrong
//   tls            {key, cert, ca}, in PEM: serve everything but admin by https and
//                  HTTP/2. Then token and api ask for a client certificate. The issuer's
//                  own token endpoint doesn't; its metadata names the other one in
//                  mtls_endpoint_aliases (RFC 8705, Section 5).
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer as createHttpServer } from 'node:http';
import { createSecureServer } from 'node:http2';
import { isDeepStrictEqual } from 'node:util';

import {
  EmbeddedJWK, SignJWT, calculateJwkThumbprint, decodeJwt, importJWK, jwtVerify,
} from 'jose';
import { Provider, errors } from 'oidc-provider';

const config = JSON.parse(process.argv[2]);

if (config.clockOffset) {
  const now = () => performance.timeOrigin + performance.now() + config.clockOffset * 1000;
  globalThis.Date = class extends Date {
    constructor(...args) {
      super(...(args.length > 0 ? args : [now()]));
    }

    static now() {
      return Math.floor(now());
    }
  };
}

const algorithms = [
  'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA',
];

// The provider's own adapter keeps only a thousand records.
const stored = new Map();
class Adapter {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, record) {
    stored.set(`${this.model}:${id}`, record);
  }

  async find(id) {
    return stored.get(`${this.model}:${id}`);
  }

  async destroy(id) {
    stored.delete(`${this.model}:${id}`);
  }
}

// listen starts a server on a free port and returns it with its origin.
async function listen(tls) {
  const server = tls ? createSecureServer({ ...tls, allowHTTP1: true }) : createHttpServer();
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return { server, origin: `${tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}` };
}

const { tls } = config;
const mutual = tls && { ...tls, requestCert: true, rejectUnauthorized: false };
const main = await listen(tls);
const alias = tls ? await listen(mutual) : main;
const resource = await listen(mutual);
const admin = await listen();

// ---- client certificates (RFC 8705)

const sha256 = (data) => createHash('sha256').update(data).digest('base64url');

const certificate = (socket) => socket.getPeerX509Certificate?.();

// names returns the certificate's values for a tls_client_auth_* member of a client's
// metadata. The subject is in the order of RFC 4514: the last part first. It isn't escaped,
// so tests must not use subjects that need escapes.
function names(cert, property) {
  if (property === 'tls_client_auth_subject_dn') {
    return [cert.subject.split('\n').reverse().join(',')];
  }
  const kind = {
    tls_client_auth_san_dns: 'DNS:',
    tls_client_auth_san_email: 'email:',
    tls_client_auth_san_ip: 'IP Address:',
    tls_client_auth_san_uri: 'URI:',
  }[property];
  return (cert.subjectAltName ?? '').split(', ')
    .filter((name) => name.startsWith(kind)).map((name) => name.slice(kind.length));
}

// ---- the authorization server

// ttl and asserts are additions of ours; the rest of a client is metadata that the provider
// knows.
const lives = new Map();
const demands = new Map();
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });

const provider = new Provider(main.origin, {
  adapter: Adapter,
  assertJwtClientAuthClaimsAndHeader: (ctx, claims, header, client) => {
    const sent = { ...header, ...claims, client_id: ctx.oidc.body.client_id ?? null };
    for (const [name, value] of Object.entries(demands.get(client.clientId) ?? {})) {
      if (!isDeepStrictEqual(sent[name], value)) {
        throw new errors.InvalidClientAuth(`the client must send another ${name}`);
      }
    }
  },
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt',
    ...(tls ? ['tls_client_auth', 'self_signed_tls_client_auth'] : []),
  ],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  clockTolerance: config.clockTolerance,
  cookies: { keys: [randomBytes(32).toString('hex')] },
  discovery: tls ? { mtls_endpoint_aliases: { token_endpoint: `${alias.origin}/token` } } : {},
  enabledJWA: {
    clientAuthSigningAlgValues: ['HS256', 'HS384', 'HS512', ...algorithms],
    dPoPSigningAlgValues: algorithms,
  },
  features: {
    clientCredentials: { enabled: true },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => !!config.requireNonce },
    devInteractions: { enabled: false },
    registration: { enabled: true },
    mTLS: {
      enabled: !!tls,
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateBoundAccessTokens: true,
      certificateSubjectMatches: (ctx, property, expected) => names(certificate(ctx.socket), property).includes(expected),
      getCertificate: (ctx) => certificate(ctx.socket),
      selfSignedTlsClientAuth: true,
      tlsClientAuth: true,
    },
  },
  // The tests publish keys on the loopback interface, where the provider fetches nothing.
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
  scopes: config.scopes,
  ttl: { ClientCredentials: (ctx, token, client) => lives.get(client.clientId) ?? 3600 },
});

// ---- other grants: the provider authenticates the client, and leaves the rest to us

const trusted = new Map(); // the public keys of issuers
const assertions = new Set(); // that were used
const subjects = new Map(); // of tokens

// verify returns the claims of a JWT by a trusted issuer.
async function verify(jwt, options) {
  const { iss } = decodeJwt(jwt);
  const { payload } = await jwtVerify(jwt, trusted.get(iss), { algorithms, ...options });
  return payload;
}

// issue answers with a token of the client for a subject.
async function issue(ctx, subject, more) {
  const { client, params } = ctx.oidc;
  const token = new provider.ClientCredentials({ client, scope: params.scope });
  const value = await token.save();
  subjects.set(value, subject);
  ctx.body = {
    access_token: value, expires_in: token.expiration, scope: token.scope, token_type: token.tokenType, ...more,
  };
}

// RFC 7523, Section 2.1.
provider.registerGrantType('urn:ietf:params:oauth:grant-type:jwt-bearer', async (ctx) => {
  const { params: { assertion } } = ctx.oidc;
  let claims;
  try {
    claims = await verify(assertion, { audience: [main.origin, `${main.origin}/token`], requiredClaims: ['sub', 'exp', 'jti'] });
  } catch (err) {
    throw new errors.InvalidGrant(err.message);
  }
  if (assertions.has(claims.jti)) {
    throw new errors.InvalidGrant('the assertion was used before');
  }
  assertions.add(claims.jti);
  await issue(ctx, claims.sub);
}, ['assertion', 'scope']);

// RFC 8693.
const tokenType = 'urn:ietf:params:oauth:token-type:';
provider.registerGrantType('urn:ietf:params:oauth:grant-type:token-exchange', async (ctx) => {
  const { params } = ctx.oidc;
  const refuse = (why) => { throw new errors.InvalidRequest(why); };
  async function subjectOf(token, type) {
    if (type === `${tokenType}access_token`) {
      return (await provider.ClientCredentials.find(token) ?? refuse('the token is unknown')).clientId;
    }
    if (type !== `${tokenType}jwt`) refuse('this type of tokens is unknown');
    return verify(token, {}).then(({ sub }) => sub, (err) => refuse(err.message));
  }
  let subject = await subjectOf(params.subject_token, params.subject_token_type);
  if (params.actor_token) {
    subject += ` by ${await subjectOf(params.actor_token, params.actor_token_type)}`;
  } else if (params.actor_token_type) {
    refuse('actor_token is missing');
  }
  if (params.requested_token_type !== `${tokenType}jwt`) {
    await issue(ctx, subject, { issued_token_type: `${tokenType}access_token` });
    return;
  }
  ctx.body = {
    access_token: await new SignJWT({}).setProtectedHeader({ alg: 'ES256' }).setIssuer(main.origin).setSubject(subject)
      .setAudience(params.audience).setIssuedAt().setExpirationTime('1m').setJti(randomBytes(16).toString('hex')).sign(privateKey),
    expires_in: 60,
    issued_token_type: `${tokenType}jwt`,
    token_type: 'N_A',
  };
}, ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'requested_token_type', 'scope', 'audience']);

// Node.js itself writes Date by the true clock.
const handle = provider.callback();
function answer(req, res) {
  res.setHeader('Date', new Date().toUTCString());
  return handle(req, res);
}

main.server.on('request', answer);
if (alias !== main) {
  alias.server.on('request', answer);
}

// ---- the protected resource

// A Refusal is an answer of the resource with 401 and a challenge.
class Refusal extends Error {
  constructor(scheme, error) {
    super(error);
    this.challenge = [scheme, error && `error="${error}"`].filter(Boolean).join(' ');
  }
}

// Nonces are valid for one to two seconds. So a client that ignores the new ones in good
// answers is refused again and again.
let nonces = [randomBytes(16).toString('hex')];
setInterval(() => { nonces = [randomBytes(16).toString('hex'), nonces[0]]; }, 1000).unref();

const proofs = new Set();

// prove checks a DPoP proof for a token (RFC 9449, Section 4.3).
async function prove(req, res, url, value, token) {
  const refuse = (ok) => {
    if (!ok) throw new Refusal('DPoP', 'invalid_dpop_proof');
  };
  const { payload, protectedHeader } = await jwtVerify(req.headers.dpop ?? '', EmbeddedJWK, {
    algorithms, requiredClaims: ['iat'], typ: 'dpop+jwt',
  }).catch(() => refuse(false));
  refuse(payload.htm === req.method);
  refuse(payload.htu === url.origin + url.pathname);
  refuse(payload.ath === sha256(value));
  refuse(await calculateJwkThumbprint(protectedHeader.jwk) === token.jkt);
  refuse(typeof payload.jti === 'string' && !proofs.has(payload.jti));
  const current = nonces.includes(payload.nonce);
  if (config.requireNonce) {
    if (payload.nonce !== nonces[0]) {
      res.setHeader('DPoP-Nonce', nonces[0]);
    }
    if (!current) {
      throw new Refusal('DPoP', 'use_dpop_nonce');
    }
  }
  // A current nonce shows that the proof is new, even if the client's clock is wrong. The
  // refusal of an old proof contains one, but doesn't say what is wrong, as some servers do.
  if (!current && Math.abs(Date.now() / 1000 - payload.iat) > 60) {
    res.setHeader('DPoP-Nonce', nonces[0]);
    refuse(false);
  }
  proofs.add(payload.jti);
}

async function authenticate(req, res, url) {
  // RFC 6750, Sections 2.1 and 3; RFC 9449, Section 7.1.
  const [scheme, value, ...rest] = (req.headers.authorization ?? '').split(' ');
  const kind = { bearer: 'Bearer', dpop: 'DPoP' }[scheme.toLowerCase()];
  if (!kind || !value || rest.length > 0) {
    throw new Refusal('Bearer');
  }
  const token = await provider.ClientCredentials.find(value);
  // A key-bound token must not be sent as a bearer token, nor the other way round.
  if (token?.tokenType !== kind) {
    throw new Refusal(kind, 'invalid_token');
  }
  if (kind === 'DPoP') {
    await prove(req, res, url, value, token);
  }
  const bound = token['x5t#S256'];
  if (bound && bound !== sha256(certificate(req.socket)?.raw ?? '')) {
    throw new Refusal(kind, 'invalid_token');
  }
  return { client_id: token.clientId, scope: token.scope, sub: subjects.get(value) };
}

async function api(req, res) {
  const url = new URL(req.url, resource.origin);
  let length = 0;
  for await (const chunk of req) length += chunk.length;
  res.setHeader('Cache-Control', 'no-store');
  res.setHeader('Content-Type', 'application/json');
  if (url.pathname !== '/api') {
    res.statusCode = 404;
    return {};
  }
  try {
    return { ...await authenticate(req, res, url), length };
  } catch (err) {
    if (!(err instanceof Refusal)) throw err;
    res.statusCode = 401;
    res.setHeader('WWW-Authenticate', err.challenge);
    return { error: err.message || 'invalid_token' };
  }
}

// ---- administration by the tests

async function administer(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  switch (req.url) {
    case '/clients':
      for (const { ttl, asserts, ...client } of JSON.parse(body)) {
        lives.set(client.client_id, ttl);
        demands.set(client.client_id, asserts);
        await provider.Client.adapter.upsert(client.client_id, {
          grant_types: ['client_credentials'],
          redirect_uris: [],
          response_types: [],
          scope: config.scopes.join(' '),
          ...client,
        });
      }
      break;
    case '/revoke':
      await (await provider.ClientCredentials.find(body))?.destroy();
      break;
    case '/trust': {
      const { issuer, jwk } = JSON.parse(body);
      trusted.set(issuer, await importJWK(jwk));
      break;
    }
    default:
      throw new Error(`unknown command: ${req.url}`);
  }
  return {};
}

for (const [{ server }, handle] of [[resource, api], [admin, administer]]) {
  server.on('request', (req, res) => {
    handle(req, res).then((answer) => res.end(JSON.stringify(answer)), (err) => {
      console.error(err);
      res.statusCode = 500;
      res.end();
    });
  });
}

process.stdout.write(`${JSON.stringify({
  issuer: main.origin,
  token: `${alias.origin}/token`,
  api: `${resource.origin}/api`,
  admin: admin.origin,
})}\n`);

process.stdin.on('end', () => process.exit(0)).resume();
