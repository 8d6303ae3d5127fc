// Package storetest tests implementations of clientcredentials.Store, and has one in
// memory, for tests of programs that share tokens among replicas.
//
// # Tests of an adapter
//
// [Run] tests that a store does what the documentation of clientcredentials.Store says,
// with a subtest for each rule. A test against a real server looks so:
//
//	func TestStore(t *testing.T) {
//		address := startServer(t)
//		storetest.Run(t, func(t *testing.T) clientcredentials.Store {
//			client := dial(address)
//			t.Cleanup(func() { client.Close() })
//			return &mystore.Store{Client: client}
//		})
//	}
//
// What Run can't see, because it knows nothing of the server, is for the adapter's own
// tests: a server that is down, frozen, restarted, full or read-only, and that what is
// over takes no space.
//
// # A store in memory
//
// A [Store] is for tests of programs. It is scriptable: a [Fault] makes it fail the way
// servers and networks fail. Give each replica its own client of it, by
// [Store.Connect]:
//
//	var store storetest.Store
//	network := store.Connect()
//	conf := &clientcredentials.Config{
//		// ...
//		Store: clientcredentials.DangerouslyShareInPlaintext(network),
//	}
//	network.SetFault(&storetest.Fault{Hang: true}) // what this replica sends is lost
//
// It reads the time with [time.Now] and waits on timers and channels, nothing else, so
// that an hour of a token's life passes in an instant under [testing/synctest].
//
// The package is apart from clientcredentialstest because that imports nothing of
// clientcredentials, whose own tests use it.
package storetest
