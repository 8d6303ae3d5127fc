// Package storetest has a [Store] in memory, for tests of programs that share tokens
// among replicas.
//
// It is scriptable: a [Fault] makes it fail the way servers and networks fail. It
// reads the time with [time.Now] and waits on timers and channels, so that an hour of
// a token's life passes in an instant under [testing/synctest].
//
//	store := new(storetest.Store)
//	conf := &clientcredentials.Config{
//		// ...
//		Store: clientcredentials.ShareInPlaintext(store),
//	}
//	store.SetFault(&storetest.Fault{Hang: true}) // the store's host has frozen
package storetest
