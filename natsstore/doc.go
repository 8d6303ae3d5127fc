// Package natsstore shares access tokens between the replicas of a service through a
// key-value bucket of NATS JetStream, by the client github.com/nats-io/nats.go.
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
// [New] encrypts what it puts there: who reads the bucket, its backups or its traffic
// learns neither tokens nor clients. A NATS that is down, slow or full costs no token:
// each replica requests its own meanwhile.
//
// # Connections
//
// Any connection will do, and it may be used for other things too. It remains its
// owner's, who closes it when the service ends. Of the options above, the first lets
// the service start while NATS is down, the second lets the connection never give up,
// and the third has calls fail at once while it is lost: by default they are kept, and
// sent when nobody waits for them anymore.
//
// # Bucket
//
// The bucket is made once, by
//
//	nats kv add tokens --ttl=25h --storage=memory --replicas=3
//
// or by a program, with CreateOrUpdateKeyValue:
//
//	jetstream.KeyValueConfig{Bucket: "tokens", TTL: 25 * time.Hour, Storage: jetstream.MemoryStorage, Replicas: 3}
//
// It takes NATS 2.10 or later. It is tested with 2.15.
//
// TTL is what removes the tokens of services that are no more. Nothing else does: a
// bucket without one grows with every credential there ever was. Tokens are shared for
// up to 24 hours; a shorter TTL ends them earlier. More history than one value
// for each key is of no use. Nothing in the bucket is worth keeping: memory is as good
// as files, a bucket that was emptied or made anew costs one token request, and
// one replica instead of three costs one each time its server restarts.
//
// For each credential there is one value, at a key of 64 hexadecimal digits: JSON of
// up to 11 KiB, and of up to 150 KiB for a while when an authorization server has
// refused with a long text. The data of a token of more than 8 KiB is a value of
// its own, so that who waits for its successor doesn't read it again and again. The
// servers' limits (max_payload, and the bucket's max-value-size if it has one) must
// allow that.
//
// # Time
//
// All times are the servers'. Each replica asks for the time when the last answer is
// older than 10 seconds, and goes on from it with its monotonic clock; what its wall
// clock says doesn't matter. It is late by no more than that answer took. After a change of
// the bucket's leader it is another server's clock that counts, so those should agree
// to about a second, as NTP makes them.
//
// # Round trips
//
//	Acquire      1, and 1 more to get the lease
//	Renew        2
//	Publish      2
//	Abort        2
//	Invalidate   1, and 1 more if it removes something
//
// Each takes 1 more when the time is asked for. For a token of more than 8 KiB, Acquire
// takes 1 more to read it, Publish 1 more to write it, and Publish and Invalidate 1 more
// to remove the one before. When several replicas write at the same time one of them
// succeeds, and the others read again, after a pause of a few milliseconds.
//
// The bucket's leader answers them all: what a follower knows may be out of date.
//
// # Permissions
//
// The user needs this, for a bucket named tokens:
//
//	publish = {
//		allow = ["$JS.API.STREAM.INFO.KV_tokens", "$JS.API.STREAM.MSG.GET.KV_tokens", "$KV.tokens.>"]
//	}
//	subscribe = {
//		allow = ["_INBOX_tokens.>"]
//	}
//
// where the last is what the connection's option nats.CustomInboxPrefix says; without
// that it is "_INBOX.>", which lets the user read the answers to others of its account. A
// user without them is told so by the connection's error handler only: what it sends is
// dropped, and calls end with their context. One who may write to the bucket can take
// tokens away and bring outdated ones back, but without the keys of the
// [clientcredentials.Keyring] neither read nor forge them.
package natsstore
