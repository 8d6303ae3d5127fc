// Package redisstore shares access tokens between the replicas of a service through
// Redis or Valkey, with the client github.com/redis/go-redis/v9.
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
// Most programs need nothing else. [New] encrypts what it stores: someone who can read the Redis, its backups or its
// traffic learns neither tokens nor clients. If Redis is down, slow or full, callers still
// get tokens: each replica requests its own until Redis works again.
//
// # Clients
//
// Any [redis.UniversalClient] will do: for a single server, for Redis Cluster
// ([redis.NewClusterClient]), or with Sentinel ([redis.NewFailoverClient]), with or without
// TLS. The client remains yours: close it when the service ends. Set
// ContextTimeoutEnabled: without it, the client goes on waiting for a Redis that doesn't
// answer, through all of its retries, even though no caller waits for it anymore.
//
// # Servers
//
// The server must be Redis 6.2 or later, or Valkey, with scripts enabled. The tests use
// Redis 7.0.
//
// Each credential has one hash, whose key is "clientcredentials:" followed by 64
// hexadecimal digits. A script uses only that one key, as Redis Cluster requires. All
// times are measured by Redis' own clock, and each key expires by itself. Nothing in it is
// worth keeping: it may be evicted or flushed, and needs neither persistence nor backups.
// A failover that loses the last write costs one token request.
//
// # Permissions
//
// The user, here named clientcredentials, needs these permissions:
//
//	ACL SETUSER clientcredentials on >PASSWORD resetchannels ~clientcredentials:* -@all +evalsha +eval +time +hmget +hset +pexpire
//
// With Redis Cluster it also needs these, for the cluster's topology and for keys that are
// being moved:
//
//	ACL SETUSER clientcredentials +cluster|slots +asking
//
// EVAL sends a script that the server doesn't know yet, or has forgotten. After that
// EVALSHA is enough. Another user who may write to these keys can remove tokens and bring
// outdated ones back, but without the keys of the [clientcredentials.Keyring] that user
// can neither read nor forge tokens. Nor can that user fill the memory of the replicas: the
// script returns nothing that is larger than 128 KiB.
package redisstore
