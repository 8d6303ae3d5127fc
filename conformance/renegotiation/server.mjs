// A token endpoint that asks for the client certificate by renegotiation, as some old
// servers and gateways do, for the conformance tests.
//
//   node server.mjs '{"key":"…","cert":"…"}'
//
// The argument has its certificate and the key, in PEM. When it is ready, it prints its
// address. It answers with a token if the client presents a certificate. The process ends
// when its standard input is closed.
import { createServer } from 'node:https';

const { key, cert } = JSON.parse(process.argv[2]);

// TLS 1.3 has no renegotiation.
const server = createServer({ key, cert, maxVersion: 'TLSv1.2' }, (req, res) => {
  req.resume();
  req.socket.renegotiate({ requestCert: true, rejectUnauthorized: false }, (err) => {
    const known = !err && req.socket.getPeerX509Certificate();
    res.writeHead(known ? 200 : 401, { 'Content-Type': 'application/json' });
    res.end(JSON.stringify(known ? { access_token: 'token', token_type: 'Bearer' } : { error: 'invalid_client' }));
  });
});
server.on('tlsClientError', () => {});
server.listen(0, '127.0.0.1', () => {
  console.log(`https://127.0.0.1:${server.address().port}/token`);
});

process.stdin.on('end', () => process.exit(0)).resume();
