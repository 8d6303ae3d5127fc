// Package redisstore shares access tokens between the replicas of a service through
// Redis or Valkey, by the client github.com/redis/go-redis/v9.
//
//	client := redis.NewClient(&redis.Options{
//		Addr:                  "redis.example.com:6379",
//		ContextTimeoutEnabled: true,
//	})
//	keyring, err := clientcredentials.NewKeyring(key)
//	if err != nil {
//		return err
//	}
//	conf.Store = redisstore.New(client, keyring)
//
// [New] encrypts what it puts there: who reads the Redis, its backups or its traffic
// learns neither tokens nor clients. A Redis that is down, slow or full costs no
// token: each replica requests its own meanwhile.
//
// # Clients
//
// Any redis.UniversalClient will do: of a single server, of Redis Cluster
// (redis.NewClusterClient), by Sentinel (redis.NewFailoverClient), by TLS. The client
// remains its owner's, who closes it when the service ends. Set ContextTimeoutEnabled:
// without it the client waits for a Redis that doesn't answer, through all of its
// retries, though nobody waits for the client anymore.
//
// # Servers
//
// It takes Redis 6.2 or later, or Valkey, with scripts. It is tested with Redis 7.0.
//
// There is one hash for each credential, at the key "clientcredentials:" and 64
// hexadecimal digits. So a script has one key, as Redis Cluster wants it. All times
// are Redis' own, and each key expires by itself. Nothing in it is worth keeping: it
// may be evicted or flushed, and needs neither persistence nor backups. A failover that
// loses the last write costs a token request.
//
// # Permissions
//
// The user needs this, where clientcredentials is the name of the user:
//
//	ACL SETUSER clientcredentials on >PASSWORD resetchannels ~clientcredentials:* -@all +evalsha +eval +time +hmget +hset +pexpire
//
// and with Redis Cluster, for its topology and for keys that are on the move, also
//
//	ACL SETUSER clientcredentials +cluster|slots +asking
//
// EVAL sends a script that the server doesn't know, or not anymore; from then on
// EVALSHA is enough. A user with other rights to these keys can take tokens away and
// bring outdated ones back, but without the keys of the [clientcredentials.Keyring]
// neither read nor forge them.
package redisstore
