//go:build !unix

package main

import "os"

// notifyReload does nothing: without SIGHUP, a changed settings file is noticed by -watch.
func notifyReload(chan<- os.Signal) {}
