// Package natsstore shares access tokens between the replicas of a service through a
// key-value bucket of NATS JetStream, with the client github.com/nats-io/nats.go.
//
//	connection, err := nats.Connect("tls://nats.example.com",
//		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
//	if err != nil {
//		return err
//	}
//	js, err := jetstream.New(connection)
//	if err != nil {
//		return err
//	}
//	keyring, err := clientcredentials.NewKeyring(key)
//	if err != nil {
//		return err
//	}
//	conf.Store = natsstore.New(js, "tokens", keyring)
//
// Most programs need nothing else in their code, and a bucket. [New] encrypts what it stores: someone who can read the bucket, its backups or its
// traffic learns neither tokens nor clients. If NATS is down, slow or full, callers still
// get tokens: each replica requests its own until NATS works again.
//
// # Connections
//
// Any connection will do, even one that the service also uses for other things. It remains
// yours: close it when the service ends. Set the options above:
//
//   - RetryOnFailedConnect lets the service start while NATS is down.
//   - MaxReconnects(-1) keeps the connection from ever giving up.
//   - ReconnectBufSize(-1) makes calls fail at once while the connection is lost. By
//     default the client buffers them, and sends them when no caller waits for them
//     anymore.
//
// # Bucket
//
// Create the bucket once, with
//
//	nats kv add tokens --ttl=25h --storage=memory --replicas=3 --max-value-size=262144
//
// or in a program, with CreateOrUpdateKeyValue:
//
//	jetstream.KeyValueConfig{Bucket: "tokens", TTL: 25 * time.Hour, Storage: jetstream.MemoryStorage, Replicas: 3, MaxValueSize: 256 << 10}
//
// It needs NATS 2.10 or later. The tests use NATS 2.11 and 2.15.
//
// The TTL removes the tokens of services that no longer exist. Nothing else does: without
// a TTL the bucket grows with every credential that was ever used. Tokens are shared for up
// to 24 hours, or for the TTL if that is shorter. A history of more than one value for each
// key is of no use.
//
// Nothing in the bucket is worth keeping, so memory is as good as files. A bucket that was
// emptied or created anew costs one token request for each credential. So does each restart
// of the server if the bucket has one replica instead of three.
//
// Each credential has one value, at a key of 64 hexadecimal digits. The value is JSON of up
// to 11 KiB. It has up to 150 KiB for a while when an authorization server has refused a
// request with a long text. The data of a token of more than 8 KiB is a separate value, so
// that replicas that wait for the next token don't read it again and again. The servers'
// limits, max_payload and the bucket's max-value-size, must allow that. A max-value-size of
// 256 KiB is enough. It also keeps others who may write to the bucket from making every
// replica read values as large as max_payload. Values that are too large aren't decoded.
//
// # Time
//
// All times are the servers'. Each replica asks for the time when the last answer is older
// than 10 seconds, and until then adds what its monotonic clock has measured. Its wall
// clock doesn't matter. The result is behind the server's clock by at most the time that
// the answer took. After a change of the bucket's leader the clock of another server
// applies. So the servers' clocks should agree to about a second, as they do with NTP.
//
// # Round trips
//
//	Acquire      1, and 1 more to get the lease
//	Renew        2
//	Publish      2
//	Abort        2
//	Invalidate   1, and 1 more if it removes something
//
// Each operation takes 1 more when it asks for the time. For a token of more than 8 KiB,
// Acquire takes 1 more to read it, Publish 1 more to write it, and Publish and Invalidate 1
// more to remove the token before it. When several replicas write at the same time, one of
// them succeeds, and the others read again after a pause of a few milliseconds.
//
// The bucket's leader answers all of them: what a follower has may be out of date.
//
// # Permissions
//
// For a bucket named tokens, the user needs these permissions:
//
//	publish = {
//		allow = ["$JS.API.STREAM.INFO.KV_tokens", "$JS.API.STREAM.MSG.GET.KV_tokens", "$KV.tokens.>"]
//	}
//	subscribe = {
//		allow = ["_INBOX_tokens.>"]
//	}
//
// The last one goes with the connection option [nats.CustomInboxPrefix]("_INBOX_tokens").
// Without that option the subject is "_INBOX.>", which lets the user read the answers to
// other users of its account.
//
// If a permission is missing, only the connection's error handler is told: the server drops
// what the user sends, and calls end with their context. Another user who may write to the
// bucket can remove tokens and bring outdated ones back, but without the keys of the
// [clientcredentials.Keyring] that user can neither read nor forge tokens.
package natsstore
