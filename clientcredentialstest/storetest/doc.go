// Package storetest tests implementations of [tokenstore.Store]. It also has a [Store] in
// memory, for tests of programs that share tokens among replicas.
//
// # Testing an adapter
//
// [Run] tests that a store does what the documentation of [tokenstore.Store] says, with a
// subtest for each rule. A test against a real server looks like this:
//
//	func TestStore(t *testing.T) {
//		address := startServer(t)
//		storetest.Run(t, func(t *testing.T) tokenstore.Store {
//			client := dial(address)
//			t.Cleanup(func() { client.Close() })
//			return &mystore.Store{Client: client}
//		})
//	}
//
// [Run] knows nothing about the server, so the adapter's own tests have to cover the rest: a
// server that is down, frozen, restarted, full or read-only, and that expired records,
// leases and cooldowns take no space.
//
// # A store in memory
//
// A [Store] is for tests of programs that use a store. A [Fault] makes it fail the way
// servers and networks fail. Give each replica a client of its own, with [Store.Connect]:
//
//	var store storetest.Store
//	network := store.Connect()
//	conf := &clientcredentials.Config{
//		// ...
//		Store: clientcredentials.DangerouslyShareInPlaintext(network),
//	}
//	network.SetFault(&storetest.Fault{Hang: true}) // this replica's calls are lost
//
// A [Store] reads the time with [time.Now] and waits only on timers and channels. So under
// [testing/synctest] an hour of a token's life passes in an instant.
//
// This package is separate from clientcredentialstest because it imports package
// tokenstore, while clientcredentialstest imports nothing of this module.
package storetest
